"""Maps of a run, or map files of any tool, against the masks of several raters: from files to a table of cases.

The figures are those of `evaluation.evaluate`; beside the maps stands `boundary`, the control that knows the contour alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.datasets import list_images, match_masks
from ..data.files import natural_key
from ..data.maps import read_map
from ..data.records import read_json, write_json, write_table
from ..data.volumes import read_image, read_labels
from ..evaluation.evaluate import evaluate
from ..evaluation.reference_maps import BOUNDARY_SIGMA, boundary_map, consensus, contour_distance
from ..evaluation.statistics import summarise

KINDS = ("total", "aleatoric", "epistemic")


@dataclass(frozen=True)
class EvaluateRequest:
    """A run folder, or `maps` as NAME=FOLDER of files CASE.nii.gz or CASE.npz, and the masks of the raters.

    `segmentation` (a folder of label maps) and `classes` go with `maps`; `masks` may be left out for a run, which says where
    its own are. `band` and `tolerance` are in millimetres where images have a spacing, else in pixels.
    """

    run: Path | None = None
    maps: tuple[str, ...] = ()
    segmentation: Path | None = None
    masks: Path | None = None
    classes: int = 2
    band: float = 3.0
    tolerance: float = 1.0
    out: Path | None = None


class EvaluateResult(NamedTuple):
    """A row a case, the reason of every case that failed, and the summary of every column."""

    rows: list[dict[str, Any]]
    failed: dict[str, str]
    summary: dict[str, dict[str, float]]


class Item(NamedTuple):
    """One case: where its maps, its segmentation and its probabilities lie (stems of map files), and its raters."""

    name: str
    maps: dict[str, Path]
    segmentation: Path | None
    probabilities: Path | None
    raters: dict[str, Path]


def evaluate_files(request: EvaluateRequest, *, progress: Callable[[str, int, int], None] = lambda *_: None) -> EvaluateResult:
    """Evaluate every case; with `out` its rows go to evaluation.csv and their summary to evaluation.json.

    `progress(name, done, total)` is called first with nothing done and after each case. A case that cannot be evaluated is
    recorded with its reason; ValueError where none can, and for folders without maps or masks.
    """
    if (request.run is None) == (not request.maps):
        raise ValueError("evaluate: expected either a run folder or --map NAME=FOLDER")
    if request.run is not None:
        items = list(_run_items(request.run, request.masks))
    else:
        items = list(_file_items(request.maps, request.segmentation, request.masks))
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    progress("", 0, len(items))
    for done, item in enumerate(items, 1):
        try:
            rows.append({"case": item.name, **_row(item, request)})
        except (ValueError, OSError) as error:
            failed[item.name] = " ".join(str(error).split())
        progress(item.name, done, len(items))
    if not rows:
        raise ValueError(next(iter(failed.values())))
    summary = summarise(rows)
    if request.out is not None:
        request.out.mkdir(parents=True, exist_ok=True)
        write_table(request.out / "evaluation.csv", rows)
        write_json(request.out / "evaluation.json", {"cases": len(rows), "failed": failed, "columns": summary})
    return EvaluateResult(rows, failed, summary)


def _row(item: Item, request: EvaluateRequest) -> dict[str, Any]:
    if not item.raters:
        raise ValueError(f"case {item.name}: expected the masks of its raters, got none")
    probabilities = None if item.probabilities is None else np.asarray(read_map(item.probabilities))
    classes = request.classes if probabilities is None else probabilities.shape[-1]
    geometry = read_image(next(iter(item.raters.values()))).geometry
    raters = np.stack([read_labels(path, classes=classes, like=geometry) for path in item.raters.values()])
    maps = {name: np.asarray(read_map(stem)) for name, stem in item.maps.items()}
    labels = None
    if item.segmentation is not None:
        labels = np.asarray(read_map(item.segmentation)).astype(np.int32)
    spacing = tuple(float(s) for s in geometry.spacing[: raters.ndim - 1])
    # without a segmentation the control knows the raters' own contour, which flatters it
    contour = labels if labels is not None else consensus(raters, classes=classes, ties="smallest")
    maps["boundary"] = boundary_map(contour_distance(contour, spacing=spacing), sigma=BOUNDARY_SIGMA)
    return evaluate(
        maps,
        raters,
        probabilities=probabilities,
        segmentation=labels,
        spacing=spacing,
        band=request.band,
        tolerance=request.tolerance,
        classes=classes,
    )


def _run_items(run: Path, masks: Path | None) -> Iterator[Item]:
    found = sorted(run.glob("*.json"), key=lambda p: natural_key(p.name)) if run.is_dir() else []
    read = {path.stem: read_json(path) for path in found if path.name not in ("run.json", "summary.json")}
    sidecars = {name: about for name, about in read.items() if "outputs" in about}
    if not sidecars:
        raise ValueError(f"{run}: expected the folder of a run with finished cases, got none")
    drawn = (
        match_masks(list_images(masks, what="masks"), sidecars)
        if masks is not None
        else {name: {rater: Path(path) for rater, path in about.get("raters", {}).items()} for name, about in sidecars.items()}
    )
    for name, about in sidecars.items():
        stems = {
            kind: run / _stem(about["outputs"][kind])
            for kind in (*KINDS, "segmentation", "reference")
            if kind in about["outputs"]
        }
        yield Item(
            name,
            {kind: stems[kind] for kind in KINDS if kind in stems},
            stems.get("segmentation"),
            stems.get("reference"),
            drawn[name],
        )


def _file_items(maps: tuple[str, ...], segmentation: Path | None, masks: Path | None) -> Iterator[Item]:
    folders: dict[str, Path] = {}
    for text in maps:
        name, equals, folder = text.partition("=")
        if not equals or not name or not Path(folder).is_dir():
            raise ValueError(f"--map: expected NAME=FOLDER, got {text!r}")
        folders[name] = Path(folder)
    if masks is None:
        raise ValueError("--masks: expected the raters' masks beside --map, got none")
    first = next(iter(folders.values()))
    files = [p.name for p in first.iterdir() if not p.name.startswith(".")]
    names = sorted({_stem(name) for name in files if name.endswith((".nii.gz", ".npz"))})
    if not names:
        raise ValueError(f"{first}: expected maps CASE.nii.gz or CASE.npz, got none")
    drawn = match_masks(list_images(masks, what="masks"), names)
    for name in names:
        yield Item(
            name,
            {kind: folder / name for kind, folder in folders.items()},
            None if segmentation is None else segmentation / name,
            None,
            drawn[name],
        )


def _stem(name: str) -> str:
    return name.removesuffix(".nii.gz").removesuffix(".npz")
