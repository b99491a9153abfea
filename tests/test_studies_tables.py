"""The figures of a study by hand: tables, ranking of cases, paired tests, the choice of settings, raters against raters."""

import numpy as np
import pytest

from benchmarks.evidence_verdicts import verdict
from quam_jax.cli.methods import parse_seeds
from quam_jax.cli.tune import parse_values
from quam_jax.evaluation.ranking import augrc, count_errors
from quam_jax.studies import tables
from quam_jax.studies.ceiling import halves, pcc_halves, rater_figures
from quam_jax.studies.splits import take_evenly
from quam_jax.studies.study import Cell, risk_curve
from quam_jax.studies.tuning import best, combine

# Tables


def _cell(network: str, method: str, case: str, value: float) -> Cell:
    return Cell(
        network,
        method,
        "none",
        case,
        {"total/pcc": value, "dice_consensus": 1 - value, "total/sum_over_foreground": value * 2},
        {},
    )


def test_a_table_averages_networks_first_and_cases_then() -> None:
    cells = [
        _cell("n0", "softmax", "a", 0.1),
        _cell("n1", "softmax", "a", 0.3),
        _cell("n0", "softmax", "b", 0.4),
        _cell("n1", "softmax", "b", 0.6),
        _cell("n0", "quam", "a", 0.5),
        _cell("n0", "quam", "b", 0.7),
    ]
    summary = tables.summarise_methods(cells, figures=("total/pcc",))
    softmax = summary["methods"]["softmax"]["figures"]["total/pcc"]
    assert softmax["mean"] == pytest.approx(0.35)  # cases 0.2 and 0.5
    assert softmax["sd_networks"] == pytest.approx(np.std([0.25, 0.45], ddof=1))
    against = summary["methods"]["quam"]["against_baseline"]["total/pcc"]
    assert against["difference"] == pytest.approx(0.25) and against["n"] == 2  # 0.5 - 0.2 and 0.7 - 0.5
    with pytest.raises(ValueError, match="baseline: expected one of softmax, quam, got 'tta'"):
        tables.summarise_methods(cells, baseline="tta", figures=("total/pcc",))


def test_case_ranking_by_hand() -> None:
    rows = {
        name: {"total/sum_over_foreground": u, "dice_consensus": d}
        for name, u, d in (("a", 1.0, 0.9), ("b", 2.0, 0.8), ("c", 3.0, 0.7), ("d", 4.0, 0.75))
    }
    assert tables.case_ranking(rows)["total"] == pytest.approx(0.8)  # ranks 1 2 3 4 against 1 2 4 3
    assert np.isnan(tables.case_ranking(rows)["epistemic"])


def test_the_interval_of_the_case_ranking_holds_it_and_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    rows = {
        f"c{n}": {"total/sum_over_foreground": float(u), "dice_consensus": float(1 - u + e)}
        for n, (u, e) in enumerate(zip(rng.random(20), rng.normal(0, 0.2, 20), strict=True))
    }
    found, turned = tables.case_ranking(rows), tables.case_ranking(dict(reversed(list(rows.items()))))
    assert found["total_low"] < found["total"] < found["total_high"] and found["total_low"] > 0
    assert found == pytest.approx(turned, nan_ok=True)


def test_shifts_are_pooled_for_methods_that_ran_under_all_of_them() -> None:
    cells = [
        Cell("n", method, condition, "a", {"total/pcc": value}, {})
        for method, condition, value in (
            ("tta", "none", 0.9),
            ("tta", "noise:1", 0.2),
            ("tta", "blur:1", 0.4),
            ("slow", "none", 0.9),
            ("slow", "blur:1", 0.5),
        )
    ]
    pooled = tables.pool_shifts(cells)
    assert {cell.method for cell in pooled} == {"tta"} and {cell.condition for cell in pooled} == {"shifted"}
    assert tables.case_means(pooled, condition="shifted")["tta"]["a"]["total/pcc"] == pytest.approx(0.3)


def test_the_search_is_compared_with_every_method_search_minus_other() -> None:
    cells = [
        _cell("n0", method, case, value + place / 100)
        for method, value in (("softmax", 0.25), ("tta", 0.6), ("quam", 0.5))
        for place, case in enumerate("abcdefgh")
    ]
    against = tables.summarise_methods(cells, figures=("total/pcc",))["methods"]["quam"]["search_against"]["total/pcc"]
    assert against["softmax"]["difference"] == pytest.approx(0.25) and against["tta"]["difference"] == pytest.approx(-0.1)
    assert against["tta"]["low"] <= -0.1 + 1e-9 and against["tta"]["high"] >= -0.1 - 1e-9
    # 8 cases of one sign: p = 2/256, times 2 for two methods
    assert against["tta"]["p_holm"] == pytest.approx(2 * 2 / 256)
    assert verdict(against["softmax"], 1) == "win" and verdict(against["tta"], 1) == "loss"
    assert verdict(against["tta"], -1) == "win"  # where lower is better
    assert verdict(against["tta"] | {"p_holm": 0.2}, 1) == "tie" and verdict(against["tta"] | {"high": 0.01}, 1) == "tie"


def test_markdown_and_latex_hold_every_method_and_a_dash_for_what_is_missing() -> None:
    cells = [_cell("n0", method, case, value) for method, value in (("softmax", 0.25), ("a_b", 0.5)) for case in "xyz"]
    summary = tables.summarise_methods(cells)
    text = tables.markdown(summary, {"a_b": "{}"})
    assert "| softmax | - | - | - |" in text and "0.250 [0.250, 0.250]" in text
    assert text.count("| a_b |") == 2
    assert r"a\_b & - & - & -" in tables.latex(summary)


def test_the_risk_curve_has_the_area_of_augrc() -> None:
    rng = np.random.default_rng(0)
    u, wrong = rng.random((40, 40)), rng.random((40, 40)) < 0.1
    curve = risk_curve(u, wrong)
    assert curve[0] == 0 and curve[-1] == pytest.approx(wrong.mean())
    assert np.trapezoid(curve, dx=1 / 40) == pytest.approx(augrc(count_errors(u, wrong)), abs=1e-3)


# The choice of settings


def test_the_best_setting_is_the_first_of_the_largest_score_or_the_smallest_risk() -> None:
    rows = [{"settings": n, "score": s} for n, s in enumerate((0.2, float("nan"), 0.5, 0.5))]
    assert best(rows)["settings"] == 2
    assert best(rows, score="total/aurc_image")["settings"] == 0
    values = {name: parse_values(name, text) for name, text in {"radius": "1, 2", "slack": "0.2"}.items()}
    assert combine(values) == ({"radius": 1, "slack": 0.2}, {"radius": 2, "slack": 0.2})
    with pytest.raises(ValueError, match="--learning-rate: expected a list of numbers"):
        parse_values("learning_rate", "fast")
    assert take_evenly(range(10), 3) == [0, 3, 6] and take_evenly([1, 2], None) == take_evenly([1, 2], 5) == [1, 2]
    with pytest.raises(ValueError, match="--seeds"):
        parse_seeds("a")


# Raters against raters


def test_raters_are_divided_in_all_ways_or_in_twelve() -> None:
    assert halves(3) == [((0,), (1, 2)), ((1,), (0, 2)), ((2,), (0, 1))]
    assert len(halves(4)) == 6 and len(halves(8)) == 12 and len(set(halves(8))) == 12
    assert all(sorted((*one, *rest)) == list(range(8)) for one, rest in halves(8))
    with pytest.raises(ValueError, match="raters: expected at least two"):
        halves(1)


def test_raters_that_agree_on_where_they_disagree_are_a_ceiling_of_one() -> None:
    raters = np.zeros((4, 4, 4), int)
    raters[:2, 1] = 1  # of every division into twos, some pairs differ in row 1, others agree everywhere
    figures = rater_figures(raters, np.zeros((4, 4), int), classes=2)
    assert figures["total/pcc_halves"] == pytest.approx(1.0)  # where both pairs differ, in the same pixels
    entropy = np.where(np.arange(16).reshape(4, 4) // 4 == 1, np.log(2), 0.0)
    assert pcc_halves(entropy, raters, classes=2) == pytest.approx(1.0)
    assert pcc_halves(-entropy, raters, classes=2) == pytest.approx(-1.0)
    assert np.isnan(pcc_halves(entropy, np.zeros((4, 4, 4), int), classes=2))  # nobody disagrees
