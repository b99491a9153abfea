"""Rendered LIDC as folders: synthetic pictures from the masks of four radiologists, split by patient.

`python -m benchmarks.rendered --masks lidc_masks.npz --out FOLDER` writes FOLDER/{soft,crisp}/{train,fit,validation,test}, each
with images/ and masks/. Patients are dealt out by the hash of their id and the seed, so no patient is in two parts, and another
seed deals anew and draws other pictures. `train` and `fit` hold one mask a case (the majority), `fit` is a part of the training
cases; `train_raters` holds the training cases with all raters; `train25` and `train50` hold a quarter and half of `train`;
`validation` and `test` hold all four raters.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
PARTS = {"validation": 0.12, "test": 0.24}  # shares of the patients; the rest trains
FIT = 32  # training cases that are also written as fit data


def share_of(patient: str, *, seed: int) -> float:
    """A number in [0, 1) from the hash of the id and the seed."""
    return int(hashlib.sha256((f"{seed} " * (seed > 0) + patient).encode()).hexdigest()[:8], 16) / 16**8


def part_of(patient: str, *, seed: int = 0) -> str:
    """The part that a patient belongs to."""
    share = share_of(patient, seed=seed)
    for name, width in PARTS.items():
        if share < width:
            return name
        share -= width
    return "train"


def parts_of(patient: str, *, seed: int, fit: bool) -> tuple[str, ...]:
    """Every folder that a patient's cases go to; smaller training sets are parts of the larger ones."""
    part = part_of(patient, seed=seed)
    if part != "train":
        return (part,)
    held_out = sum(PARTS.values())
    rest = (share_of(patient, seed=seed) - held_out) / (1 - held_out)
    smaller = tuple(name for name, width in (("train25", 0.25), ("train50", 0.5)) if rest < width)
    return (part, "train_raters", *smaller, *(("fit",) if fit else ()))


def write_rendering(masks: np.ndarray, patients: list[str], out: Path, *, rendering: str, seed: int = 0) -> dict[str, int]:
    """All parts of one rendering; returns the number of cases in each."""
    from quam_jax.data.rendered import render

    counts: dict[str, int] = {}
    for index, (raters, patient) in enumerate(zip(masks, patients, strict=True)):
        name = f"{patient}-n{index:03d}"
        picture = render(raters, rendering=rendering, seed=index + 10_000 * seed)  # type: ignore[arg-type]
        majority = raters.mean(0) > 0.5  # as the consensus that errors are counted against
        # the smaller training sets hold the fit cases too, so that every network has seen its fit data
        rank = share_of(patient, seed=seed) if part_of(patient, seed=seed) == "train" else 1.0
        fit = rank < sum(PARTS.values()) + 0.25 * (1 - sum(PARTS.values())) and counts.get("fit", 0) < FIT
        for target in parts_of(patient, seed=seed, fit=fit):
            counts[target] = counts.get(target, 0) + 1
            _save(out / target / "images" / f"{name}.png", picture)
            every = target in ("train_raters", "validation", "test")
            drawn = {f"_r{r + 1}": m for r, m in enumerate(raters)} if every else {"": majority}
            for suffix, mask in drawn.items():
                _save(out / target / "masks" / f"{name}{suffix}.png", np.asarray(mask, bool))
    return counts


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def main() -> None:
    from quam_jax.data.rendered import RENDERINGS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=Path, required=True, help="lidc_masks.npz with masks [n 4 128 128] and patient_id")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="another deal of the patients, and other pictures")
    options = parser.parse_args()
    with np.load(options.masks) as stored:
        masks, patients = stored["masks"], [str(p) for p in stored["patient_id"]]
    start = (masks.shape[-1] - SIDE) // 2
    masks = masks[..., start : start + SIDE, start : start + SIDE]
    seen = masks.reshape(*masks.shape[:2], -1).any(-1).all(-1)  # every rater drew something inside the crop
    masks, patients = masks[seen], [p for p, ok in zip(patients, seen, strict=True) if ok]
    for rendering in RENDERINGS:
        counts = write_rendering(masks, patients, options.out / rendering, rendering=rendering, seed=options.seed)
        sys.stdout.write(f"{rendering}: {counts}\n")


if __name__ == "__main__":
    main()
