"""Real multi-rater pictures as the folders of a study: BU-BIL cells and LIDC crops, shrunk or cropped.

`python -m benchmarks.real_cases --bubil FOLDER --crops FOLDER --out OUT` reads FOLDER/images and FOLDER/masks of each and writes

- OUT/bubil/{train,train_raters,fit,validation,test}: pictures shrunk 12 by 12 (67 x 85 pixels), eight masks a case. Cases are
  dealt out by the hash of their name: 10 train, 4 validate, 10 test. `train` and `fit` hold the raters' majority.
- OUT/crops/test: the central 64 x 64 pixels of each crop of a chest CT, four masks a case. The crops are neighbouring slices of
  few nodules, too few to train, validate and test by nodule: all are test cases for networks trained elsewhere.

`--ct FILE` reads the arrays `images` [n h w], `masks_packed` [n 4 h w/8] and `patient_id` [n] of axial CT slices with a nodule
and the masks of four radiologists, and writes OUT/ct/{train,fit,validation,test}: cases that at least three of them drew, dealt
out by the hash of the patient, half of the patients to train. `train` and `fit` hold the raters' majority.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from PIL import Image

BLOCK, SIDE = 12, 64
TRAIN, VALIDATION = 10, 4
CT_RATERS, CT_FIT, CT_CASES = 3, 10, {"validation": 60, "test": 150}


def block_mean(array: Num[np.ndarray, "h w"], block: int) -> Float[np.ndarray, "v u"]:
    """The mean of each square block; rows and columns behind the last whole block are cut off."""
    height, width = (n // block for n in array.shape)
    return array[: height * block, : width * block].reshape(height, block, width, block).mean((1, 3), dtype=np.float64)


def deal(names: list[str]) -> dict[str, str]:
    """The part of every case, from the order of the hashes of their names."""
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {
        name: "train" if place < TRAIN else "validation" if place < TRAIN + VALIDATION else "test"
        for place, name in enumerate(order)
    }


def write_bubil(data: Path, out: Path) -> None:
    """The folders of BU-BIL; a mask is 1 where at least half of its block is."""
    from quam_jax.data.datasets import find_cases

    cases = find_cases(data / "images", data / "masks")
    parts = deal([case.name for case in cases])
    for case in cases:
        picture = np.rint(block_mean(_read(case.image), BLOCK)).astype(np.uint8)
        raters = {name: block_mean(_read(path) > 0, BLOCK) >= 0.5 for name, path in sorted(case.raters.items())}
        majority = np.mean(list(raters.values()), axis=0) > 0.5
        part = parts[case.name]
        for target in ("train", "train_raters", "fit") if part == "train" else (part,):
            drawn = {"": majority} if target in ("train", "fit") else {f"_{name}": mask for name, mask in raters.items()}
            write_case(out / target, case.name, picture, drawn)


def write_crops(data: Path, out: Path) -> None:
    """The folder of the CT crops."""
    from quam_jax.data.datasets import find_cases

    for case in find_cases(data / "images", data / "masks"):
        picture = _read(case.image)
        place = tuple(slice((n - SIDE) // 2, (n - SIDE) // 2 + SIDE) for n in picture.shape)
        write_case(
            out / "test", case.name, picture[place], {f"_{n}": _read(p)[place] > 0 for n, p in sorted(case.raters.items())}
        )


def write_ct(data: Path, out: Path) -> None:
    """The folders of the CT slices."""
    with np.load(data, allow_pickle=False) as stored:
        images, patients = stored["images"], stored["patient_id"].tolist()
        raters = np.unpackbits(stored["masks_packed"], axis=-1).astype(bool)
    counts = {"fit": 0, "train": 0, **CT_CASES}
    for index, (picture, masks, patient) in enumerate(zip(images, raters, patients, strict=True)):
        if (masks.any((1, 2))).sum() < CT_RATERS:
            continue
        share = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) / 2**32
        part = "train" if share < 0.5 else "validation" if share < 0.65 else "test"
        if part != "train":
            counts[part] -= 1
            if counts[part] < 0:
                continue
        majority = masks.sum(0) >= CT_RATERS
        name = f"{index:04d}"
        if part == "train":
            write_case(out / "train", name, picture, {"": majority})
            if counts["fit"] < CT_FIT:
                counts["fit"] += 1
                write_case(out / "fit", name, picture, {"": majority})
        else:
            write_case(out / part, name, picture, {f"_{rater}": mask for rater, mask in enumerate(masks)})


def _read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def write_case(folder: Path, name: str, picture: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    """A picture, and its masks by what follows the name of the case in theirs."""
    for part, suffix, array in [("images", "", picture), *(("masks", suffix, mask) for suffix, mask in masks.items())]:
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / part / f"{name}{suffix}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bubil", type=Path)
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--ct", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for write, source, name in (
        (write_bubil, options.bubil, "bubil"),
        (write_crops, options.crops, "crops"),
        (write_ct, options.ct, "ct"),
    ):
        if source is not None:
            write(source, options.out / name)
    for folder in sorted(options.out.glob("*/*")):
        sys.stdout.write(f"{folder}: {len(list((folder / 'images').iterdir()))}\n")


if __name__ == "__main__":
    main()
