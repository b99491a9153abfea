"""Maps of a run, or map files of any tool, against the masks of several raters: from files to a table of cases.

The figures are those of `evaluation.evaluate`; beside the maps stands `boundary`, the control that knows the contour alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.alignment import align, times
from ..data.decoding import decode
from ..data.files import image_suffix
from ..data.geometry import Geometry
from ..data.maps import read_map_file
from ..data.mask_settings import NONE, MaskSettings
from ..data.mask_values import survey
from ..data.masks import MaskCoding, settle
from ..data.notes import gathered
from ..data.records import read_json, write_json, write_table
from ..data.volumes import read_mask
from ..evaluation.evaluate import evaluate
from ..evaluation.reference_maps import BOUNDARY_SIGMA, boundary_map, consensus, contour_distance
from ..evaluation.statistics import summarise
from ..runs.codings import Coding, coding_in
from .evaluation_items import Item, file_items, run_items
from .pages import write_evaluation


@dataclass(frozen=True)
class EvaluateRequest:
    """A run folder, or `maps` as NAME=FOLDER of files CASE.npz or CASE.ext of an image, and the masks of the raters.

    `segmentation` (a folder of label maps) and `classes` go with `maps`; `masks` may be left out for a run, which says where
    its own are. Maps and segmentations are brought to the grid of the masks where turning or cutting them is enough.
    `band` and `tolerance` are in millimetres where images have a spacing, else in pixels.
    """

    run: Path | None = None
    maps: tuple[str, ...] = ()
    segmentation: Path | None = None
    masks: Path | None = None
    classes: int = 2
    band: float = 3.0
    tolerance: float = 1.0
    out: Path | None = None
    mask_settings: MaskSettings = MaskSettings()


class EvaluateResult(NamedTuple):
    """A row a case, the reason of every case that failed, the summary of every column, and notes."""

    rows: list[dict[str, Any]]
    failed: dict[str, str]
    summary: dict[str, dict[str, float]]
    notes: list[str]


class Evaluated(NamedTuple):
    """What came of a case: its row, or why there is none; notes on it, and on what its masks were taken to mean."""

    row: dict[str, Any] | None
    why: str
    notes: list[str]
    meant: list[str]


class Evaluation:
    """The cases of a request, and how each is evaluated; ValueError for folders without maps or masks."""

    def __init__(self, request: EvaluateRequest) -> None:
        if (request.run is None) == (not request.maps):
            raise ValueError("evaluate: expected either a run folder or --map NAME=FOLDER")
        if request.run is not None:
            self.items, self.notes = run_items(request.run, request.masks)
        else:
            self.items, self.notes = file_items(request.maps, request.segmentation, request.masks)
        self.request = request
        self.codings = _Codings(self.items, request, _settings_of(request))
        self.table = None if request.run is None else coding_in(read_json(request.run / "run.json"))

    def evaluate(self, item: Item) -> Evaluated:
        """A case; what its masks mean is told by all of them."""
        notes: list[str] = []
        try:
            row = {"case": item.name, **_row(item, self.request, self.codings, notes, self.table)}
        except (ValueError, OSError) as error:
            return Evaluated(None, " ".join(str(error).split()), notes, self.codings.notes)
        return Evaluated(row, "", notes, self.codings.notes)


def evaluate_files(
    request: EvaluateRequest,
    *,
    known: Mapping[str, Evaluated] | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> EvaluateResult:
    """Evaluate every case; with `out` its rows go to evaluation.csv, their summary to evaluation.json, both to
    evaluation.html.

    `known` are cases that were evaluated elsewhere. `progress(name, done, total)` is called first with nothing done and after
    each case. A case that cannot be evaluated is recorded with its reason; ValueError where none can, and for folders without
    maps or masks.
    """
    evaluation = Evaluation(request)
    items = evaluation.items
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    notes, meant = list(evaluation.notes), list[str]()
    progress("", 0, len(items))
    for done, item in enumerate(items, 1):
        found = (known or {}).get(item.name) or evaluation.evaluate(item)
        if found.row is not None:
            rows.append(found.row)
        else:
            failed[item.name] = found.why
        notes += found.notes
        meant += [note for note in found.meant if note not in meant]
        progress(item.name, done, len(items))
    notes = [*meant, *gathered(notes, [item.name for item in items])]
    if not rows:
        raise ValueError(next(iter(failed.values())))
    summary = summarise(rows)
    if request.out is not None:
        request.out.mkdir(parents=True, exist_ok=True)
        write_table(request.out / "evaluation.csv", rows)
        write_json(request.out / "evaluation.json", {"cases": len(rows), "failed": failed, "notes": notes, "columns": summary})
        write_evaluation(request.out / "evaluation.html", rows, failed, summary, notes)
    return EvaluateResult(rows, failed, summary, notes)


def _row(item: Item, request: EvaluateRequest, codings: "_Codings", notes: list[str], table: Coding | None) -> dict[str, Any]:
    if not item.raters:
        raise ValueError(f"case {item.name}: expected the masks of its raters, got none")
    geometry = _grid_of(item)
    probabilities = None if item.probabilities is None else _on(item, item.probabilities, geometry, notes)
    classes = request.classes if probabilities is None else probabilities.shape[-1]
    raters = []
    for path in item.raters.values():
        drawn, told = read_mask(path, codings.raters(classes), classes=classes, like=geometry)
        raters.append(drawn)
        notes += [f"{item.name}: {note}" for note in told]
    maps = {name: _on(item, path, geometry, notes) for name, path in item.maps.items()}
    labels: np.ndarray | None = None
    if item.segmentation is not None:
        labels = _segmentation(item, item.segmentation, codings, geometry, notes)
    spacing = tuple(float(s) for s in geometry.spacing)
    masks, structures = np.stack(raters), None
    if table is not None and item.regions is not None:  # masks and prediction side by side as regions, as in the run
        channels = _on(item, item.regions, geometry, notes)
        masks, structures = table.classes_of(masks), table.structures
        labels, classes = table.counted(table.classify_channels(channels)), table.classes
        probabilities = table.counted_probs(table.class_probs(channels))
    # without a segmentation the control knows the raters' own contour, which flatters it
    contour = labels if labels is not None else consensus(masks, classes=classes, ties="smallest")
    maps["boundary"] = boundary_map(contour_distance(contour, spacing=spacing), sigma=BOUNDARY_SIGMA)
    return evaluate(
        maps,
        masks,
        probabilities=probabilities,
        segmentation=labels,
        structures=structures,
        spacing=spacing,
        band=request.band,
        tolerance=request.tolerance,
        classes=classes,
    )


def _grid_of(item: Item) -> Geometry:
    """The grid that all of a case is brought to: that of a run's own maps, else of the masks."""
    if item.labelled and item.segmentation is not None and image_suffix(item.segmentation):
        return decode(item.segmentation).geometry
    return decode(next(iter(item.raters.values())), mask=True).geometry


def _on(item: Item, path: Path, grid: Geometry, notes: list[str]) -> np.ndarray:
    """The numbers of a map file on the grid of the masks."""
    values, own = read_map_file(path)
    if own is None:
        if values.shape[: grid.rank] != grid.size:
            raise ValueError(f"{path}: expected the size of the masks, {times(grid.size)}, got {times(values.shape)}")
        return np.asarray(values)
    values, done = align(values, own, grid, where=str(path))
    notes += [f"{item.name}: {path.parent.name}/{path.name} was brought to the grid of the masks: {done}"] if done else []
    return np.asarray(values)


def _segmentation(item: Item, path: Path, codings: "_Codings", grid: Geometry, notes: list[str]) -> np.ndarray:
    """The labels of a segmentation on the grid of the masks: a run's own as they are, others by the coding of their folder."""
    if item.labelled or path.suffix == ".npz":
        return _on(item, path, grid, notes).astype(np.int32)
    labels, told = read_mask(path, codings.segmentations(), classes=codings.request.classes, like=grid)
    notes += [f"{item.name}: {note}" for note in told]
    return labels


class _Codings:
    """What the values of masks mean, decided over all of them when the first is read, for each number of classes."""

    def __init__(self, items: Sequence[Item], request: EvaluateRequest, settings: MaskSettings) -> None:
        self.items, self.request, self.settings = items, request, settings
        self.known: dict[tuple[str, int], MaskCoding] = {}

    def raters(self, classes: int) -> MaskCoding:
        """Of the raters' masks."""
        where = str(self.request.masks or self.request.run)
        paths = [path for item in self.items for path in item.raters.values()]
        return self._settled(paths, "raters", classes, where, self.settings)

    def segmentations(self) -> MaskCoding:
        """Of segmentations of other tools, which leave nothing unrated."""
        paths = [item.segmentation for item in self.items if item.segmentation is not None]
        where = str(self.request.segmentation)
        return self._settled(paths, "segmentations", self.request.classes, where, MaskSettings(ignore_label=NONE))

    def _settled(self, paths: Sequence[Path], what: str, classes: int, where: str, settings: MaskSettings) -> MaskCoding:
        if (what, classes) not in self.known:
            images = [path for path in paths if image_suffix(path)]
            self.known[what, classes] = settle(survey(images), classes=classes, settings=settings, where=where)
        return self.known[what, classes]

    @property
    def notes(self) -> list[str]:
        """What was concluded."""
        return list(dict.fromkeys(note for coding in self.known.values() for note in coding.notes))


def _settings_of(request: EvaluateRequest) -> MaskSettings:
    """What is said of the masks: by the request, else by the run that they were given to; of other masks its ignored value."""
    own = request.mask_settings
    if request.run is None or own != MaskSettings():
        return own
    told = read_json(request.run / "run.json").get("masks")
    stored = told.get("settings") if isinstance(told, dict) else None
    try:
        settings = MaskSettings(**stored) if isinstance(stored, dict) else own
    except TypeError:
        raise ValueError(f"{request.run / 'run.json'}: expected the settings of masks, got {stored!r}") from None
    return settings if request.masks is None else MaskSettings(ignore_label=settings.ignore_label)
