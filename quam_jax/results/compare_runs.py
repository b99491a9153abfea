"""`compare` from run folder to run folder: reads one case of each, brings them to one grid, and writes what changed.

The grid is that of the baseline. Names of the files are in docs/compare.md, the rule in comparison.py.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from ..data.files import image_suffix, write_atomic
from ..data.geometry import AFFINE_TOLERANCE, Geometry
from ..data.maps import read_map, write_map
from ..data.records import read_json, write_json, write_table
from ..data.volumes import read_image
from ..report.comparison_page import comparison_page
from ..runs import folder as run_folder
from ..version import __version__
from .comparison import LEAST, LEVEL, Compared, Date, compare, inside_grid, resample, resample_labels, volume_change

RESULT = "comparison.json"
RULE = (
    "a connected change of label exceeds uncertainty where Phi(-(d - least) / sqrt(V)) is small by Holm's rule; d is the "
    "mean change of probability, V the sum over both dates of the squared mean of sqrt(min(epistemic/2, 1/4))"
)


@dataclass(frozen=True)
class CompareRequest:
    """Two dates of one patient: run folders, or the CASE.json of a run; `affine` is a 4x4 text file in millimetres."""

    baseline: Path
    followup: Path
    out: Path
    case: str | None = None
    affine: Path | None = None
    level: float = LEVEL
    least: float = LEAST
    overwrite: bool = False
    command: str = ""


class Side(NamedTuple):
    """One date as its run left it: the case's JSON, its run's JSON, arrays, the image if kept, and the grid."""

    name: str
    record: dict[str, Any]
    run: dict[str, Any]
    date: Date
    image: Float[np.ndarray, "*space"] | None
    geometry: Geometry


class CompareResult(NamedTuple):
    """What came of it: the comparison, the record in comparison.json, and the page."""

    compared: Compared
    record: dict[str, Any]
    page: Path


def compare_runs(request: CompareRequest, *, progress: Callable[[str, int, int], None] = lambda *_: None) -> CompareResult:
    """Compare one case of two runs and write maps, tables and a page; `progress(part, done, total)` is called after each part.

    ValueError, before anything is written, for folders that are no runs, pictures, other labels, other grids without an
    affine, and a folder `out` that holds something else.
    """
    progress("", 0, 4)
    baseline, followup = (_read_side(path, request.case) for path in (request.baseline, request.followup))
    progress("both dates read", 1, 4)
    names, notes = _label_names(baseline, followup), _notes(baseline, followup)
    index_map = _index_map(baseline, followup, request.affine)
    seen = None
    if index_map is not None:
        size, shape = followup.geometry.size, baseline.geometry.size
        seen = inside_grid(index_map, shape, size)
        if not seen.any():
            raise ValueError(f"{request.affine}: expected an affine that lays one date over the other, got no common voxel")
        if not seen.all():
            notes.append(f"{100 * (1 - seen.mean()):.1f} % of the baseline's grid lies outside the follow-up and takes no part")
        followup = _onto(followup, index_map, shape)
    compared = compare(baseline.date, followup.date, seen=seen, level=request.level, least=request.least)
    progress("compared", 2, 4)
    voxel = math.prod(baseline.geometry.spacing) / 1000
    out = _claim(request.out, overwrite=request.overwrite)
    outputs = _write_maps(out, baseline.name, compared, baseline.geometry)
    progress("maps written", 3, 4)
    changes = [_change_row(change, names, voxel, baseline.geometry) for change in compared.changes]
    structures = _structures(baseline.record, followup.record)
    write_table(out / "changes.csv", changes or [{"change": ""}])
    write_table(out / "volumes.csv", [{"structure": n, **row} for n, row in structures.items()] or [{"structure": ""}])
    record = {
        "format": run_folder.FORMAT,
        "version": __version__,
        "command": request.command,
        "rule": RULE,
        "level": request.level,
        "least": request.least,
        "units": {"volumes": "ml", "probabilities": "1", "places": "mm"},
        "affine": None if request.affine is None else str(request.affine),
        "labels": list(names),
        "notes": notes,
        **{
            which: {
                "case": side.name,
                "path": str(path),
                "digest": side.record.get("digest"),
                "model": _model_digest(side),
            }
            for which, side, path in (("baseline", baseline, request.baseline), ("followup", followup, request.followup))
        },
        "structures": structures,
        "changes": changes,
        "outputs": {**outputs, "changes": "changes.csv", "volumes": "volumes.csv"},
    }
    page = comparison_page(
        record,
        compared,
        images=(baseline.image, followup.image),
        labels=(baseline.date.labels, followup.date.labels),
        spacing=baseline.geometry.spacing,
        orientation=baseline.geometry.orientation,
    )
    write_atomic(out / "comparison.html", page.encode())
    write_json(out / RESULT, record)
    progress("page written", 4, 4)
    return CompareResult(compared, record, out / "comparison.html")


def _read_side(path: Path, case: str | None) -> Side:
    """One date from a run folder (its only case, or the one named) or from the JSON of a case."""
    folder = path.parent if path.is_file() else path
    run = read_json(folder / "run.json")
    if "digest" not in run:
        raise ValueError(f"{path}: expected the folder of a run, or the JSON of one of its cases, got none")
    if path.is_file():
        name = path.stem
    else:
        found = [n for n in run.get("cases", ()) if (folder / f"{n}.json").is_file()]
        if case is None and len(found) != 1:
            raise ValueError(f"{path}: expected one finished case, got {len(found)}; name one with --case, or give its JSON")
        if case is not None and case not in found:
            raise ValueError(f"{path}: expected a finished case {case}, got {', '.join(found[:5]) or 'none'}")
        name = case or found[0]
    record = read_json(folder / f"{name}.json")
    outputs = record.get("outputs", {})
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
        with np.load(drawn, allow_pickle=False) as arrays:
            image = arrays["image"] if "image" in arrays and arrays["image"].shape == labels.shape else None
    return Side(name, record, run, Date(probs, labels, epistemic), image, stored.geometry)


def _label_names(baseline: Side, followup: Side) -> tuple[str, ...]:
    """A name for every label; ValueError for dates with other labels."""
    names = []
    for side in (baseline, followup):
        stored = tuple(side.record.get("labels") or ("background", *side.record.get("volumes", ())))
        count = side.date.probs.shape[-1]
        names.append(stored if len(stored) == count else ("background", *(f"label {k}" for k in range(1, count))))
    if names[0] != names[1]:
        raise ValueError(f"{followup.name}: expected the baseline's labels {', '.join(names[0])}, got {', '.join(names[1])}")
    return names[0]


def _notes(baseline: Side, followup: Side) -> list[str]:
    notes = []
    if _model_digest(baseline) != _model_digest(followup):
        notes.append("the two runs used different models, so that differences of the models count as change")
    settings = [{k: v for k, v in side.record.get("config", {}).items() if k != "execution"} for side in (baseline, followup)]
    if settings[0] != settings[1]:
        notes.append("the two runs used different settings, so that their epistemic maps differ in meaning")
    notes += [
        f"the epistemic map of {which} ({side.name}) is zero everywhere, so that nothing is explained by it"
        for which, side in (("the baseline", baseline), ("the follow-up", followup))
        if not side.date.epistemic.any()
    ]
    return notes


def _model_digest(side: Side) -> str | None:
    """Of the numbers of the model of a run."""
    model = side.run.get("model", {})
    return model.get("digest", model.get("sha256"))


def _index_map(baseline: Side, followup: Side, affine: Path | None) -> Float[np.ndarray, "4 4"] | None:
    """From voxel indices of the baseline to those of the follow-up; None where they are the same."""
    one, other = baseline.geometry, followup.geometry
    same = one.size == other.size and np.abs(one.affine - other.affine).max() <= AFFINE_TOLERANCE
    if affine is None:
        if not same:
            raise ValueError(
                f"{followup.name}: expected the baseline's grid ({_times(one.size)} voxels, the same affine), "
                f"got {_times(other.size)} on another; give the way from one to the other with --affine"
            )
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


def _onto(side: Side, index_map: Float[np.ndarray, "4 4"], shape: Sequence[int]) -> Side:
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


def _claim(out: Path, *, overwrite: bool) -> Path:
    """A folder for one comparison: new, empty, or that of an earlier one with `overwrite`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder to write to, got a file")
    if out.exists() and any(out.iterdir()):
        if not (out / RESULT).is_file():
            raise ValueError(f"{out}: expected a new or empty folder, got one with other files in it")
        if not overwrite:
            raise ValueError(f"{out}: holds a comparison; expected a new folder, or --overwrite to replace it")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _write_maps(out: Path, name: str, compared: Compared, geometry: Geometry) -> dict[str, str]:
    maps: dict[str, tuple[str, Num[np.ndarray, "..."], Any]] = {
        "numbers": ("desc-change_seg", np.minimum(compared.numbers, np.iinfo(np.int16).max), "label"),
        "verdict": ("desc-verdict_seg", compared.verdict, "label"),
        "probability": ("desc-change_probseg", compared.probability, "probability"),
    }
    return {
        key: write_map(out / f"{name}_{ending}", values, geometry, kind=kind)[0].name
        for key, (ending, values, kind) in maps.items()
    }


def _change_row(change: Any, names: Sequence[str], voxel: float, geometry: Geometry) -> dict[str, Any]:
    place = geometry.affine[:3, : len(change.peak)] @ change.peak + geometry.affine[:3, 3]
    return {
        "change": change.number,
        "before": names[change.before],
        "after": names[change.after],
        "voxels": change.voxels,
        "volume_ml": change.voxels * voxel,
        "shift": change.shift,
        "spread": change.spread,
        "probability": change.probability,
        "exceeds": "yes" if change.exceeds else "no",
        "peak": " ".join(map(str, change.peak)),
        "peak_mm": " ".join(f"{v:.1f}" for v in place),
    }


def _structures(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Volumes of both dates with the interval of their adversarial models, and the change with its own."""
    rows = {}
    for name, row in before.get("volumes", {}).items():
        dates = [(r["volume_ml"], *r["adversarial_interval"]) for r in (row, after["volumes"][name])]
        change, low, high = volume_change(*dates)
        rows[name] = {
            "baseline_ml": dates[0][0],
            "baseline_low_ml": dates[0][1],
            "baseline_high_ml": dates[0][2],
            "followup_ml": dates[1][0],
            "followup_low_ml": dates[1][1],
            "followup_high_ml": dates[1][2],
            "change_ml": change,
            "change_low_ml": low,
            "change_high_ml": high,
            "change_percent": 100 * change / dates[0][0] if dates[0][0] else math.nan,
            "exceeds": "yes" if low > 0 or high < 0 else "no",
        }
    return rows


def _times(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
