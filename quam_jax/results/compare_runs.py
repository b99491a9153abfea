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
from jaxtyping import Num

from ..data.files import write_atomic
from ..data.geometry import Geometry
from ..data.maps import write_map
from ..data.records import mapping, write_json, write_table
from ..report.comparison_page import comparison_page
from ..runs import folder as run_folder
from ..runs.guaranteeing import decisive_settings
from ..version import __version__
from .comparison import LEAST, LEVEL, Compared, compare, inside_grid, volume_change
from .dates import Side, index_map_of, label_names, onto, read_side, turned

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
    baseline, followup = (read_side(path, request.case) for path in (request.baseline, request.followup))
    progress("both dates read", 1, 4)
    names, notes = label_names(baseline, followup), _notes(baseline, followup)
    if request.affine is None:
        followup, done = turned(followup, baseline)
        notes += [f"{followup.name} was brought to the grid of the baseline: {done}"] if done else []
    index_map = index_map_of(baseline, followup, request.affine)
    seen = None
    if index_map is not None:
        size, shape = followup.geometry.size, baseline.geometry.size
        seen = inside_grid(index_map, shape, size)
        if not seen.any():
            raise ValueError(f"{request.affine}: expected an affine that lays one date over the other, got no common voxel")
        if not seen.all():
            notes.append(f"{100 * (1 - seen.mean()):.1f} % of the baseline's grid lies outside the follow-up and takes no part")
        followup = onto(followup, index_map, shape)
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


def _notes(baseline: Side, followup: Side) -> list[str]:
    notes = []
    if _model_digest(baseline) != _model_digest(followup):
        notes.append("the two runs used different models, so that differences of the models count as change")
    settings = [decisive_settings(mapping(side.record, "config")) for side in (baseline, followup)]
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
    model = mapping(side.run, "model")
    return model.get("digest", model.get("sha256"))


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
    for name in mapping(before, "volumes"):
        try:
            stored = [mapping(mapping(record, "volumes"), name) for record in (before, after)]
            dates = [(float(r["volume_ml"]), *map(float, r["adversarial_interval"])) for r in stored]
            ((_, _, _), (_, _, _)) = dates
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"volumes of {name}: expected volume_ml and adversarial_interval in the JSON of both cases"
            ) from None
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
