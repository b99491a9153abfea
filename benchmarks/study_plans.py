"""Which networks are trained, which studies are run on them, and what each asks of `quam-jax`, as data and command lines."""

from typing import NamedTuple

SEEDS = (0, 1, 2)
SMALL = '{"features_per_stage":[8,16,32],"rank":2,"n_conv_per_stage":1,"n_conv_per_stage_decoder":1}'


class Training(NamedTuple):
    """How the networks of one name are trained, one a seed."""

    cases: str
    steps: int
    dice_weight: float
    loss: str = "segmentation"


TRAININGS = {
    "crisp-over": Training("data/crisp/train", 800, 1),
    "crisp-cal": Training("data/crisp/train_raters", 500, 0),
    "soft-cal": Training("data/soft/train_raters", 500, 0),
    "bubil": Training("real/bubil/train", 600, 1),
    "bubil-cal": Training("real/bubil/train_raters", 500, 0),
    "lidc_ct": Training("real/lidc_ct/train", 800, 1),
    "lidc_ct-cal": Training("real/lidc_ct/train_raters", 800, 0),
    "crisp25": Training("data/crisp/train25", 800, 1),
    "crisp50": Training("data/crisp/train50", 800, 1),
    "crisp-evidential": Training("data/crisp/train", 800, 1, "evidential"),
    "crisp-prob": Training("data/crisp/train_raters", 800, 0, "prob_unet"),
    "soft-evidential": Training("data/soft/train_raters", 800, 0, "evidential"),
    "soft-prob": Training("data/soft/train_raters", 800, 0, "prob_unet"),
}
SIMPLE = ("softmax", "temperature", "tta", "ensemble", "mc_dropout", "laplace")
SEARCHES = ("quam", "quam_tuned", "quam_published", "quam_regions", "quam_pixels")
CONTROLS = ("boundary", "blur", "blurred_mask", "random_directions", "quam_no_search", "quam_published_no_search")
VIEWED = ("quam", "quam_thorough", "quam_fast", "quam_blur", "quam_plain")
VIEW_CONTROLS = (
    "blur",
    "tta_ensemble",
    "tta_blur",
    "random_views_pooled",
    "quam_no_search",
    "quam_thorough_no_search",
)
LAST = ("tta_quam_ranks", "tta_random_ranks", "raters_halves")
SHIFTS = ("noise:2", "blur:2", "contrast:2", "brightness:2")
SHIFTED = (
    "softmax",
    "tta",
    "ensemble",
    "mc_dropout",
    "laplace",
    "evidential",
    "prob_unet",
    "quam",
    "quam_tuned",
    "boundary",
    "blur",
    "random_directions",
    "tta_quam_ranks",
    "tta_random_ranks",
    *VIEWED[1:],
    *VIEW_CONTROLS[1:],
)
FEW = (*SIMPLE, "quam", "quam_tuned", "boundary", "blur", "random_directions", "quam_no_search", "raters_halves")
SHRINKING = ("softmax", "tta", "ensemble", "laplace", "quam", "quam_published", "random_directions")
RENDERED = "Rendered LIDC (synthetic pictures, masks of four radiologists)"
KINDS = (
    "The evidential network and the Probabilistic U-Net are networks of their own, trained on the same cases with losses of "
    "their own; wrong pixels are those of the network that all other rows share."
)


class Study(NamedTuple):
    """One table: its title, networks, the folder of its test cases, that of its other parts, and what a reader must know."""

    title: str
    networks: str
    test: str
    parts: str
    note: str
    training: str = "train"
    limit: int = 0
    patients: bool = True
    shifts: tuple[str, ...] = SHIFTS
    kinds: tuple[tuple[str, str], ...] = ()  # method and networks of another kind
    rows: tuple[str, ...] = ()  # instead of all methods


# in the order of docs/evidence.md
STUDIES = {
    "crisp_over": Study(
        "Rendered LIDC, crisp: over-confident networks",
        "crisp-over",
        "data/crisp/test",
        "data/crisp",
        f"{RENDERED}, crisp: the picture shows the majority alone; networks "
        f"trained on majority masks with a soft Dice loss. {KINDS}",
        limit=16,
        kinds=(("evidential", "crisp-evidential"), ("prob_unet", "crisp-prob")),
    ),
    "crisp_cal": Study(
        "Rendered LIDC, crisp: networks of all raters",
        "crisp-cal",
        "data/crisp/test",
        "data/crisp",
        f"{RENDERED}, crisp; networks trained on the mean of all raters by cross-entropy.",
        limit=16,
        rows=FEW,
    ),
    "soft_cal": Study(
        "Rendered LIDC, soft: calibrated networks",
        "soft-cal",
        "data/soft/test",
        "data/soft",
        f"{RENDERED}, soft: the picture shows the raters' mean; networks trained on the raters' mean by cross-entropy. {KINDS}",
        limit=16,
        kinds=(("evidential", "soft-evidential"), ("prob_unet", "soft-prob")),
    ),
    "bubil": Study(
        "BU-BIL: real cells, eight masks",
        "bubil",
        "real/bubil/test",
        "real/bubil",
        "BU-BIL: real phase-contrast pictures, eight masks a case; networks trained on the majority of 10 cases.",
        patients=False,
    ),
    "bubil_cal": Study(
        "BU-BIL: networks of all raters",
        "bubil-cal",
        "real/bubil/test",
        "real/bubil",
        "BU-BIL; networks trained on the mean of all raters of the same 10 cases by cross-entropy.",
        patients=False,
        shifts=(),
        rows=FEW,
    ),
    "crops": Study(
        "LIDC crops: real CT, networks trained on rendered pictures",
        "soft-cal",
        "real/crops/test",
        "data/soft",
        "LIDC crops: real CT, four radiologists, neighbouring slices of few nodules "
        "(the intervals take them as independent, which they are not); networks and settings from rendered pictures.",
        patients=False,
        shifts=(),
    ),
    "crops_over": Study(
        "LIDC crops: over-confident networks",
        "crisp-over",
        "real/crops/test",
        "data/crisp",
        "LIDC crops; over-confident networks and settings from rendered pictures.",
        patients=False,
        shifts=(),
        rows=FEW,
    ),
}
CLAIMS = (
    "Claims, written down before the test cases were looked at: for wrong pixels (AUROC and AURC of the total map) the default "
    "beats softmax, TTA, MC dropout, Laplace and its twin without a search under shifts, and is not worse than any of them "
    "without; `thorough` beats TTA of the ensemble and random directions pooled with TTA. Sixteen cases were looked at first: "
    "the default tied with its twin, and the study was extended to forty-eight. The default with displaced predictions was added "
    "when the others had been looked at; claim: it beats blurred TTA in wrong pixels under shifts."
)
STUDIES |= {
    "lidc_ct": Study(
        "LIDC: real CT of nodules, over-confident networks",
        "lidc_ct",
        "real/lidc_ct/test",
        "real/lidc_ct",
        "LIDC-IDRI: real CT, four radiologists, one slice a nodule, parts split by patient; networks trained on the majority "
        f"with a soft Dice loss. {CLAIMS}",
        limit=48,
        shifts=("noise:2", "blur:2"),
        rows=(*SIMPLE, *VIEWED, *VIEW_CONTROLS),
    ),
    "lidc_ct_cal": Study(
        "LIDC: real CT of nodules, networks of all raters",
        "lidc_ct-cal",
        "real/lidc_ct/test",
        "real/lidc_ct",
        f"LIDC-IDRI as above; networks trained on the mean of all raters by cross-entropy. {CLAIMS}",
        training="train_raters",
        limit=16,
        shifts=("noise:2", "blur:2"),
        rows=(*SIMPLE, *VIEWED, *VIEW_CONTROLS),
    ),
}
SHARES = {25.0: ("crisp25", "train25"), 50.0: ("crisp50", "train50"), 100.0: ("crisp-over", "train")}


def arguments_of(name: str, study: Study) -> list[str]:
    """The command line of `quam-jax benchmark methods` for a study, relative to the folder of everything."""
    kinds = tuple(kind for kind, _ in study.kinds)
    rows = study.rows or (*SIMPLE, *kinds, *SEARCHES, *CONTROLS, *LAST)
    shifted = [row for row in SHIFTED if row in rows]
    return [
        "benchmark",
        "methods",
        "--dataset",
        f"folders:{study.test}",
        "--validation",
        f"folders:{study.parts}/validation",
        "--fit",
        f"folders:{study.parts}/fit",
        "--train",
        f"folders:{study.parts}/{study.training}",
        "--model",
        f"nets/{study.networks}-{{seed}}",
        "--seeds",
        ",".join(map(str, SEEDS)),
        "--inject-dropout",
        "0.3",
        "--limit-validation",
        "6",
        *(["--limit", str(study.limit)] if study.limit else []),
        *(["--patient", "^(LIDC-IDRI-[0-9]+)"] if study.patients else []),
        *(part for kind, networks in study.kinds for part in ("--trained", f"{kind}=nets/{networks}-{{seed}}")),
        *(part for shift in study.shifts for part in ("--shift", shift)),
        *(["--shift-methods", ",".join(shifted)] if study.shifts else []),
        "--methods",
        ",".join(rows),
        "--out",
        f"study/{name}",
    ]
