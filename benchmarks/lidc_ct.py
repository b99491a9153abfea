"""Real CT of lung nodules as folders: 64 x 64 pixels around each, off centre, masks of four radiologists, split by patient.

`python -m benchmarks.lidc_ct --data lidc_ct.npz --out FOLDER` writes FOLDER/{train,train_raters,fit,validation,test}, each with
images/ and masks/. The file holds `images` [n 128 128], `masks_packed` [n 4 128 16] (bits of four masks), `ids`, `patient_id` and
`raters_drawn`; the nodules that all four radiologists outlined are taken. Patients are dealt out by the hash of their id, and the
window is moved off the nodule by up to 16 pixels an axis, drawn from the hash of the case. `train` and `fit` hold the majority.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np

from .real_cases import write_case
from .rendered import FIT, PARTS, part_of, share_of

SIDE, OFF = 64, 16


def window(name: str, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of a picture that is taken, by the name of its case."""
    drawn = hashlib.sha256(name.encode()).digest()
    moved = (int.from_bytes(drawn[4 * a : 4 * a + 4], "big") % (2 * OFF + 1) - OFF for a in range(len(shape)))
    return tuple(slice((n - SIDE) // 2 + m, (n - SIDE) // 2 + m + SIDE) for n, m in zip(shape, moved, strict=True))


def write_cases(data: Path, out: Path) -> dict[str, int]:
    """All parts; returns the number of cases in each."""
    with np.load(data) as held:
        chosen = np.flatnonzero(held["raters_drawn"] == 4)
        images, names = held["images"][chosen], [str(one).replace("/", "-") for one in held["ids"][chosen]]
        patients = [str(one) for one in held["patient_id"][chosen]]
        masks = np.unpackbits(held["masks_packed"][chosen], axis=-1).astype(bool)
    counts: dict[str, int] = {}
    for image, raters, name, patient in zip(images, masks, names, patients, strict=True):
        box, part = window(name, image.shape), part_of(patient)
        picture, cut = image[box], raters[(slice(None), *box)]
        known = part == "train" and share_of(patient, seed=0) < sum(PARTS.values()) + 0.15 and counts.get("fit", 0) < FIT
        for target in ("train", "train_raters", *(("fit",) if known else ())) if part == "train" else (part,):
            counts[target] = counts.get(target, 0) + 1
            majority = target in ("train", "fit")
            drawn = {"": cut.mean(0) > 0.5} if majority else {f"_r{r + 1}": mask for r, mask in enumerate(cut)}
            write_case(out / target, name, picture, drawn)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="lidc_ct.npz")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for part, count in sorted(write_cases(options.data, options.out).items()):
        sys.stdout.write(f"{options.out / part}: {count}\n")


if __name__ == "__main__":
    main()
