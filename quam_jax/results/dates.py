"""The two dates of a comparison: one case of each run as its files have it, and the way to the baseline's grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..data.alignment import align, placement
from ..data.files import image_suffix, one_line
from ..data.geometry import Geometry
from ..data.maps import read_map
from ..data.records import mapping, read_json
from ..data.volumes import read_image
from .comparison import Date, resample, resample_labels


class Side(NamedTuple):
    """One date as its run left it: the case's JSON, its run's JSON, arrays, the image if kept, and the grid."""

    name: str
    record: dict[str, Any]
    run: dict[str, Any]
    date: Date
    image: Float[np.ndarray, "*space"] | None
    geometry: Geometry


def read_side(path: Path, case: str | None) -> Side:
    """One date from a run folder (its only case, or the one named) or from the JSON of a case."""
    folder = path.parent if path.is_file() else path
    run = read_json(folder / "run.json")
    if "digest" not in run:
        raise ValueError(f"{path}: expected the folder of a run, or the JSON of one of its cases, got none")
    if path.is_file():
        name = path.stem
    else:
        listed = run.get("cases")
        found = [n for n in (listed if isinstance(listed, list) else ()) if (folder / f"{n}.json").is_file()]
        if case is None and len(found) != 1:
            raise ValueError(f"{path}: expected one finished case, got {len(found)}; name one with --case, or give its JSON")
        if case is not None and case not in found:
            raise ValueError(f"{path}: expected a finished case {case}, got {', '.join(found[:5]) or 'none'}")
        name = case or found[0]
    record = read_json(folder / f"{name}.json")
    outputs = mapping(record, "outputs")
    missing = [kind for kind in ("segmentation", "reference", "epistemic") if not (folder / str(outputs.get(kind))).is_file()]
    if missing:
        raise ValueError(f"{folder / name}.json: expected the maps of a finished case, got none for {', '.join(missing)}")
    if image_suffix(Path(outputs["segmentation"])) != ".nii.gz":
        raise ValueError(f"{folder / name}.json: expected NIfTI maps, got pictures, which have no millimetres to compare in")
    stored = read_image(folder / outputs["segmentation"])
    probs, epistemic = (read_map(folder / outputs[kind].removesuffix(".nii.gz")) for kind in ("reference", "epistemic"))
    labels = stored.array[..., 0].astype(np.int32)
    if probs.shape[:-1] != labels.shape or epistemic.shape != labels.shape:
        raise ValueError(
            f"{folder / name}.json: expected maps on one grid, got {labels.shape}, {probs.shape[:-1]} and {epistemic.shape}"
        )
    image = None
    drawn = folder / "report_data" / f"{name}.npz"
    if drawn.is_file():
        try:
            with np.load(drawn, allow_pickle=False) as arrays:
                image = arrays["image"] if "image" in arrays and arrays["image"].shape == labels.shape else None
        except Exception as error:  # whatever a damaged archive trips over is the file's fault
            raise ValueError(f"{drawn}: not readable: {one_line(error)}; the same run again mends it") from error
    return Side(name, record, run, Date(probs, labels, epistemic), image, stored.geometry)


def label_names(baseline: Side, followup: Side) -> tuple[str, ...]:
    """A name for every label; ValueError for dates with other labels."""
    names = []
    for side in (baseline, followup):
        labels = side.record.get("labels")
        stored = tuple(map(str, labels)) if isinstance(labels, list) else ("background", *mapping(side.record, "volumes"))
        count = side.date.probs.shape[-1]
        names.append(stored if len(stored) == count else ("background", *(f"label {k}" for k in range(1, count))))
    if names[0] != names[1]:
        raise ValueError(f"{followup.name}: expected the baseline's labels {', '.join(names[0])}, got {', '.join(names[1])}")
    return names[0]


def turned(followup: Side, baseline: Side) -> tuple[Side, str]:
    """A date on the baseline's grid where turning or cutting it is enough, and what was done; ValueError where it is not."""
    own, grid = followup.geometry, baseline.geometry
    placed = placement(own, grid)
    way = "give the way from one to the other with --affine (the identity where both lie in one world already)"
    if isinstance(placed, str):
        raise ValueError(f"{followup.name}: expected the baseline's grid, got another: {placed}; {way}")

    def turn(array: np.ndarray) -> np.ndarray:
        return align(array, own, grid, where=followup.name)[0]

    try:
        labels, done = align(followup.date.labels, own, grid, where=followup.name)
    except ValueError as error:
        raise ValueError(f"{error}; {way}") from None
    date = Date(turn(followup.date.probs), labels, turn(followup.date.epistemic))
    image = None if followup.image is None else turn(followup.image)
    return followup._replace(date=date, image=image, geometry=grid), done


def index_map_of(baseline: Side, followup: Side, affine: Path | None) -> Float[np.ndarray, "4 4"] | None:
    """From voxel indices of the baseline to those of the follow-up; None where they are the same."""
    one, other = baseline.geometry, followup.geometry
    if affine is None:
        return None
    if one.rank != 3 or other.rank != 3:
        raise ValueError(f"{affine}: expected volumes to move, got images of {one.rank} and {other.rank} axes")
    return np.linalg.inv(other.affine) @ read_affine(affine) @ one.affine


def read_affine(path: Path) -> Float[np.ndarray, "4 4"]:
    """A 4x4 text file that takes millimetres of the baseline to those of the follow-up; ValueError for anything else."""
    try:
        matrix = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a text of 4 rows of 4 numbers, got {' '.join(str(error).split())[:150]}") from None
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise ValueError(
            f"{path}: expected 4 rows of 4 numbers, the last 0 0 0 1, got {' x '.join(map(str, matrix.shape))}"
            + ("" if matrix.shape != (4, 4) else f" with the last row {' '.join(f'{v:g}' for v in matrix[3])}")
        )
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError(f"{path}: expected an affine that can be inverted, got determinant {np.linalg.det(matrix):.3g}")
    return matrix


def onto(side: Side, index_map: Float[np.ndarray, "4 4"], shape: Sequence[int]) -> Side:
    """A date read on another grid; beyond it stands the background, of which nothing is known."""
    channels = [
        resample(side.date.probs[..., k], index_map, shape, outside=float(k == 0)) for k in range(side.date.probs.shape[-1])
    ]
    date = Date(
        np.stack(channels, -1),
        resample_labels(side.date.labels, index_map, shape),
        resample(side.date.epistemic, index_map, shape, outside=0.0),
    )
    image = None if side.image is None else resample(side.image, index_map, shape, outside=float(side.image.min()))
    return side._replace(date=date, image=image)
