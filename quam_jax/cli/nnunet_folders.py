"""Where nnU-Net keeps a trained model and its data: the folders that its environment variables name."""

import os
import re
from pathlib import Path
from typing import NamedTuple


class NnunetFolders(NamedTuple):
    """The folder of a trained model, and those of its images; None where nnUNet_raw does not say."""

    model: Path
    images: Path | None
    fit_images: Path | None
    fit_masks: Path | None


def find_nnunet_folders(dataset: str, configuration: str, *, trainer: str, plans: str) -> NnunetFolders:
    """The folders of a data set, `4` or `Dataset004_Hippocampus`; ValueError, with what there is, where they cannot be found."""
    results = _folder("nnUNet_results")
    name = _dataset(results, dataset)
    model = results / name / f"{trainer}__{plans}__{configuration}"
    if not model.is_dir():
        there = sorted(p.name for p in (results / name).iterdir() if p.is_dir() and p.name.count("__") == 2)
        raise ValueError(
            f"{model}: expected a trained model, got no such folder; {results / name} holds {', '.join(there) or 'none'} "
            "(-c CONFIGURATION, --trainer, --plans)"
        )
    if not os.environ.get("nnUNet_raw"):
        return NnunetFolders(model, None, None, None)
    raw = _folder("nnUNet_raw") / name
    places = (raw / "imagesTs", raw / "imagesTr", raw / "labelsTr")
    images, fit_images, fit_masks = (place if place.is_dir() else None for place in places)
    return NnunetFolders(model, images, fit_images, fit_masks)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise ValueError(
            f"-d: expected the environment variable {variable} of nnU-Net to name a folder, got none; or give --model"
        )
    if not Path(value).is_dir():
        raise ValueError(f"{variable}: expected a folder, got {value}, which is none")
    return Path(value)


def _dataset(results: Path, asked: str) -> str:
    names = sorted(path.name for path in results.glob("Dataset*") if path.is_dir())
    found = [name for name in names if name == asked or (asked.isdecimal() and re.match(rf"Dataset0*{int(asked)}_", name))]
    if len(found) != 1:
        raise ValueError(f"-d {asked}: expected one data set in {results}, found {', '.join(found or names) or 'none'}")
    return found[0]
