"""Copies of a run's images under the file names that other tools expect.

- `nnunet`: one folder a kind, in it `CASE.nii.gz`, as nnU-Net's predictions are laid out and its evaluation reads them.
- `monai`: one folder a case, in it `CASE_KIND.nii.gz`, as MONAI's SaveImage writes with a postfix.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..data.colour_tables import ITK_SNAP, SLICER
from ..data.files import image_suffix
from ..report.folder import output_files, read_run

KINDS = {
    "segmentation": "seg",
    "reference": "prob",
    "total": "total",
    "aleatoric": "aleatoric",
    "epistemic": "epistemic",
    "flipcost": "flipcost",
    "regions": "regionprob",
}
STYLES: dict[str, Callable[[str, str], Path]] = {
    "nnunet": lambda case, kind: Path("predictions" if kind == "seg" else kind) / case,
    "monai": lambda case, kind: Path(case) / f"{case}_{kind}",
}


class Collected(NamedTuple):
    """The files written, and a sentence for every case that has none."""

    files: list[Path]
    left_out: dict[str, str]


def collect(run_folder: Path, out: Path, *, style: str, link: bool = False) -> Collected:
    """Copy the images of a run under the names of a style; `link` makes hard links where the file system can.

    A picture's numbers keep their .npz and its .png. ValueError for an unknown style, a folder that is no run, an output folder
    with other files in it, or where no case has a file.
    """
    if style not in STYLES:
        raise ValueError(f"style: expected {' or '.join(STYLES)}, got {style!r}")
    run, out = read_run(Path(run_folder)), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: expected a new or empty folder, got one with files in it")
    pairs: list[tuple[Path, Path]] = []
    left_out: dict[str, str] = {}
    for case in run.cases:
        found = [
            (KINDS[what.split("_picture")[0]], name)
            for what, name, exists in output_files(run, case)
            if exists and what.split("_picture")[0] in KINDS
        ]
        if not found:
            left_out[case.name] = case.failed or " ".join(case.missing) or "none of its files is there"
        for kind, name in found:
            stem = STYLES[style](case.name, kind)
            pairs.append((run.folder / name, out / stem.with_name(stem.name + _ending(name))))
    if not pairs:
        raise ValueError(f"{run_folder}: no case has files to collect: {next(iter(left_out.values()), 'the run has no cases')}")
    pairs += [(run.folder / name, out / name) for name in (SLICER, ITK_SNAP) if (run.folder / name).is_file()]
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, target, link=link)
    return Collected([target for _, target in pairs], left_out)


def _ending(name: str) -> str:
    """The suffix, with the class that a picture of class probabilities shows."""
    suffix = image_suffix(Path(name)) or Path(name).suffix
    stem = name[: len(name) - len(suffix)]
    place = stem.rfind("_class-")
    return (stem[place:] if place >= 0 and stem[place + 7 :].isdigit() else "") + suffix


def _copy(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)
