"""Rendered LIDC as folders: synthetic pictures from the masks of four radiologists, split by patient.

`python -m benchmarks.rendered --masks lidc_masks.npz --out FOLDER` writes FOLDER/{soft,crisp}/{train,fit,validation,test}, each
with images/ and masks/. Patients are dealt out by the hash of their id, so no patient is in two parts. `train` and `fit` hold
one mask a case (the majority), `fit` is a part of the training cases, `validation` and `test` hold all four raters.
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


def part_of(patient: str) -> str:
    """The part that a patient belongs to, from the hash of the id."""
    share = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) / 16**8
    for name, width in PARTS.items():
        if share < width:
            return name
        share -= width
    return "train"


def write_rendering(masks: np.ndarray, patients: list[str], out: Path, *, rendering: str) -> dict[str, int]:
    """The four parts of one rendering; returns the number of cases in each."""
    from quam_jax.data.rendered import render

    counts: dict[str, int] = {}
    for index, (raters, patient) in enumerate(zip(masks, patients, strict=True)):
        part, name = part_of(patient), f"{patient}-n{index:03d}"
        picture = render(raters, rendering=rendering, seed=index)  # type: ignore[arg-type]
        majority = raters.mean(0) > 0.5  # as the consensus that errors are counted against
        for target in (part, "fit") if part == "train" and counts.get("fit", 0) < FIT else (part,):
            counts[target] = counts.get(target, 0) + 1
            _save(out / target / "images" / f"{name}.png", picture)
            drawn = {"": majority} if target in ("train", "fit") else {f"_r{r + 1}": m for r, m in enumerate(raters)}
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
    options = parser.parse_args()
    with np.load(options.masks) as stored:
        masks, patients = stored["masks"], [str(p) for p in stored["patient_id"]]
    start = (masks.shape[-1] - SIDE) // 2
    masks = masks[..., start:start + SIDE, start:start + SIDE]
    seen = masks.reshape(*masks.shape[:2], -1).any(-1).all(-1)  # every rater drew something inside the crop
    masks, patients = masks[seen], [p for p, ok in zip(patients, seen, strict=True) if ok]
    for rendering in RENDERINGS:
        counts = write_rendering(masks, patients, options.out / rendering, rendering=rendering)
        sys.stdout.write(f"{rendering}: {counts}\n")


if __name__ == "__main__":
    main()
