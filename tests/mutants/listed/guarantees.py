"""Mutants of guarantees: what a case says, which cases choose and which calibrate, and what is said of the next one."""

from ..mutant import room

LOSSES = "guarantees.py::test_the_losses_of_a_case_are_those_of_its_masks"
UNRATED = "guarantees.py::test_what_a_rater_left_out_or_nobody_shows_does_not_count"
FILE = "guarantees.py::test_a_guarantee_goes_into_a_file_and_back_and_says_the_same"
FEW = "guarantees.py::test_too_few_cases_say_how_many_it_takes"
PATIENT = "guarantees.py::test_of_a_patient_one_case_counts_and_the_order_of_cases_does_not"
HAND = "guarantees.py::test_ranges_and_scores_by_hand"
CURVE = "guarantees.py::test_the_curve_is_that_of_isotonic_regression"
STAGE = "scoring.py::test_masks_come_change_and_go_without_a_search"
LATER = "scoring.py::test_from_masks_to_a_guarantee_and_to_a_run_with_it"

GUARANTEES = (
    *room(
        "guarantees",
        ("evidence.py", "1 / (sizes[rater] * asked.size)", "1 / sizes[rater]", LOSSES),
        ("evidence.py", "np.where(own, 1 - share, share)", "share", LOSSES),
        ("evidence.py", "drawn & ~own, sizes, ~own)", "drawn & ~own, sizes, own)", LOSSES),
        ("evidence.py", "wrong = rated & (raters", "wrong = (raters", UNRATED),
        ("evidence.py", "asked = np.flatnonzero(sizes)", "asked = np.arange(len(sizes))", UNRATED),
        ("evidence.py", "if rated.all():", "if True:", UNRATED),
        ("calibrate.py", "list(drawn[:count]), list(drawn[count:])", "list(drawn[:count]), list(drawn)", FEW),
        ("calibrate.py", "count = len(drawn) // PARTS if enough else 0", "count = len(drawn) // PARTS", FEW),
        ("calibrate.py", "drawn.setdefault(case.patient or", "drawn.setdefault(", PATIENT),
        ("calibrate.py", "math.log((low + 1) / (truth + 1))", "math.log((truth + 1) / (low + 1))", HAND),
        ("calibrate.py", "isotonic_regression(means, weights=mass)", "isotonic_regression(means)", CURVE),
        ("guarantee.py", "own & ~_at_or_above(findings, inner", "own & _at_or_above(findings, inner", FILE),
        ("guarantee.py", 'figures["look"] = lower < least_dice', 'figures["look"] = lower > least_dice', FILE),
        ("guarantee.py", "max((low + 1) * math.exp(-widening) - 1", "max((low + 1) * math.exp(widening) - 1", HAND),
    ),
    *room(
        "runs",
        ("scoring.py", 'record.get("scored") == drawn.digest and', "", STAGE),
        (
            "scoring.py",
            'not run_folder.damage(out, mapping(record, "score_files"))',
            "True",
            "scoring.py::test_masks_that_cannot_be_read_harm_no_map",
        ),
        ("guaranteeing.py", 'told.get("digest") == calibration.digest and', "bool(told) and", LATER),
        (
            "guaranteeing.py",
            "if name not in NEUTRAL",
            'if name != "search"',
            "scoring.py::test_known_cases_and_other_runs_are_refused",
        ),
    ),
)
