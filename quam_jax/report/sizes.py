"""How large the structures of a case are, in the prediction, under its adversarial models and for each rater."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.regions import Region
from .folder import Case, number
from .layers import Layers

MOST_STRUCTURES = 6  # columns of the table of sizes


class Size(NamedTuple):
    """A structure's size in the prediction, and the smallest and largest under it and its kept adversarial models."""

    name: str
    value: float
    low: float
    high: float
    unit: str

    @property
    def spread(self) -> float:
        """The range in proportion to the size; infinite where only a model sees the structure."""
        return (self.high - self.low) / self.value if self.value else math.inf if self.high else 0.0

    @property
    def text(self) -> str:
        """The size with its unit."""
        return f"{size_text(self.value, self.unit)} {self.unit}"

    @property
    def range_text(self) -> str:
        """The two ends, or nothing where they are one."""
        low, high = size_text(self.low, self.unit), size_text(self.high, self.unit)
        return f"{low} to {high}" if low != high else ""


class _Counts(NamedTuple):
    """Pixels of every structure by who drew it: the prediction, the kept models, the raters; and the size of a pixel."""

    present: list[int]
    names: list[str]
    models: list[tuple[str, np.ndarray]]
    raters: list[tuple[str, np.ndarray]]
    cell: float
    unit: str

    def size(self, counts: np.ndarray, label: int) -> float:
        return float(counts[label]) * self.cell if label < len(counts) else 0.0


def size_text(value: float, unit: str) -> str:
    """A size with the digits it deserves."""
    return f"{value:,.0f}" if unit in ("pixels", "voxels") else f"{value:,.4g}"


def measured_sizes(case: Case, layers: Layers) -> tuple[Size, ...]:
    """The size of every structure with its range; none without a segmentation."""
    found = _count(case, layers)
    if found is None:
        return ()
    sizes = []
    for label, name in zip(found.present, found.names, strict=True):
        values = [found.size(counts, label) for _, counts in found.models]
        sizes.append(Size(name, values[0], min(values), max(values), found.unit))
    return tuple(sizes)


def size_table(case: Case, layers: Layers) -> dict[str, Any] | None:
    """Area or volume of every structure in the prediction, in each kept adversarial model and for each rater.

    Volumes with a spacing are in millilitres. Without sizes in CASE.json every label of the masks but 0 is a structure.
    """
    found = _count(case, layers)
    if found is None:
        return None
    interval = [volume_interval(case, k, structures=len(found.present)) for k in found.present]
    return {
        "structures": found.names,
        "rows": [
            (name, [size_text(found.size(counts, k), found.unit) for k in found.present])
            for name, counts in found.models + found.raters
        ],
        "spread": [f"{size_text(s.low, s.unit)} to {size_text(s.high, s.unit)}" for s in measured_sizes(case, layers)],
        "interval": interval if any(interval) else None,
        "unit": found.unit,
    }


def region_size(region: Region, layers: Layers) -> str:
    """How large a region is, in the unit of the case."""
    if layers.unit == "pixels":
        return f"{region.pixels:,} {'pixels' if len(layers.space) == 2 else 'voxels'}"
    size = region.pixels * math.prod(length / layers.factor for length in layers.spacing)
    return f"{size:,.3g} mm²" if len(layers.space) == 2 else f"{size / 1000:,.3g} ml"


def place_in_words(region: Region, layers: Layers) -> str:
    """How large a region is and where it peaks."""
    if len(layers.space) == 2:
        return f"{region_size(region, layers)} at row {region.peak[0]}, column {region.peak[1]}"
    return f"{region_size(region, layers)} at voxel {', '.join(map(str, region.peak))}"


def _count(case: Case, layers: Layers) -> _Counts | None:
    arrays = layers.arrays
    if "segmentation" not in arrays:
        return None
    masks = [("prediction", arrays["segmentation"])]
    models = () if layers.flipped_one_by_one else layers.adversarial  # else no model has that size
    masks += [(f"adversarial: {name}", arrays["adversarial"][i]) for i, name in enumerate(models)]
    drawn = [(f"rater: {name}", arrays["raters"][i]) for i, name in enumerate(layers.raters)]
    stored, names = _stored_pixels(case, layers, models=len(models)), structure_names(case)
    counts = [
        np.bincount(np.maximum(mask, 0).ravel()) * layers.factor**2 if stored is None else np.array([0, *stored[i]])
        for i, (_, mask) in enumerate(masks + drawn)
    ]
    present = sorted({k for seen in counts for k in np.flatnonzero(seen).tolist() if k > 0})[:MOST_STRUCTURES]
    thickness = _thickness(case)
    millilitres = layers.unit == "mm" and (len(layers.space) == 3 or thickness is not None)
    cell = math.prod(length / layers.factor for length in layers.spacing)
    cell *= (thickness or 1) / 1000 if millilitres else 1
    words = {"pixels": ("pixels", "voxels"), "mm": ("mm²", "ml")}[layers.unit]
    labelled = [(name, seen) for (name, _), seen in zip(masks + drawn, counts, strict=True)]
    return _Counts(
        present,
        [names[k - 1] if k <= len(names) else f"class {k}" for k in present],
        labelled[: len(masks)],
        labelled[len(masks) :],
        cell,
        "ml" if millilitres else words[len(layers.space) - 2],
    )


def _stored_pixels(case: Case, layers: Layers, *, models: int) -> list[list[int]] | None:
    """Pixels of every structure as CASE.json has them: prediction, the first kept models, raters; None where it has not all."""
    record = case.record.get("structures")
    pixels = record.get("pixels") if isinstance(record, Mapping) else None
    try:
        rows = [pixels["prediction"], *pixels["adversarial"][:models], *pixels["raters"].values()]  # type: ignore[index]
    except (KeyError, TypeError, AttributeError):
        return None
    whole = all(isinstance(row, list) and all(isinstance(count, int) for count in row) for row in rows)
    return rows if whole and len(rows) == 1 + models + len(layers.raters) else None


def structure_names(case: Case) -> list[str]:
    """Names of the structures from label 1 on, as far as CASE.json has them."""
    record = case.record.get("structures")
    names = record.get("names") if isinstance(record, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list) else [name for name, _ in _structures(case)]


def _thickness(case: Case) -> float | None:
    """Of a volume of one slice, in millimetres."""
    image = case.record.get("image")
    value = number(image.get("thickness")) if isinstance(image, Mapping) else math.nan
    return value if value > 0 else None


def volume_interval(case: Case, label: int, *, structures: int) -> str:
    """`low to high` of a class under the samples, as CASE.json has it; empty where it has not."""
    recorded = _structures(case)
    if label <= len(recorded):
        stored = recorded[label - 1][1].get("sample_interval")
        ends = [number(v) for v in stored] if isinstance(stored, list) else []
        if len(ends) == 2 and all(math.isfinite(v) for v in ends):
            return f"{ends[0]:,.4g} to {ends[1]:,.4g}"
    flat = metrics_of(case)
    for name in (f"volume_class{label}", *(["volume"] if structures == 1 else [])):
        low, high = number(flat.get(f"{name}_low")), number(flat.get(f"{name}_high"))
        if math.isfinite(low + high):
            return f"{low:,.4g} to {high:,.4g}"
    return ""


def _structures(case: Case) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and figures of every structure of a volume, from label 1 on; empty where CASE.json has none."""
    stored = case.record.get("volumes")
    if not isinstance(stored, Mapping) or not all(isinstance(row, Mapping) for row in stored.values()):
        return []
    return [(str(name), row) for name, row in stored.items()]


def metrics_of(case: Case) -> dict[str, object]:
    """Every figure of a case by its column, from CASE.json or else from its row."""
    stored = case.record.get("metrics")
    return _flatten(stored) if isinstance(stored, Mapping) else dict(case.row)


def _flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
