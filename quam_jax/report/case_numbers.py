"""The figures of one case in words and rows: maps in numbers, sizes, metrics, and where its files are."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np

from . import tables
from .folder import Case, Run, number, output_files
from .layers import TITLES, Layers

MOST_CLASSES = 6  # columns of the table of sizes


def map_rows(case: Case, layers: Layers) -> list[tuple[str, list[str]]]:
    """Per map: mean over the image, mean inside the prediction, largest value, in nats."""
    arrays = layers.arrays
    inside = arrays["segmentation"] > 0 if "segmentation" in arrays else np.zeros(layers.space, bool)
    rows = []
    for name in layers.maps:
        stored = _whole(case, layers, "maps").get(name)
        if isinstance(stored, list) and len(stored) == 3:
            rows.append((TITLES[name], [tables.show(number(v), 4) for v in stored]))
            continue
        values = np.asarray(arrays[name], np.float64)
        known = values[np.isfinite(values)]
        within = values[inside & np.isfinite(values)]
        largest = float(known.max()) if known.size else math.nan
        figures = (_mean(known), _mean(within), largest)
        rows.append((TITLES[name], [tables.show(v, 4) for v in figures]))
    return rows


def epistemic_share(layers: Layers) -> float | None:
    """Summed epistemic over summed total uncertainty; None without both or where the total is 0."""
    if "total" not in layers.arrays or "epistemic" not in layers.arrays:
        return None
    sums = {n: float(np.nansum(layers.arrays[n].astype(np.float64))) for n in ("total", "epistemic")}
    return sums["epistemic"] / sums["total"] if sums["total"] > 0 else None


def size_table(case: Case, layers: Layers) -> dict[str, Any] | None:
    """Area or volume of every structure in the prediction, in each kept adversarial model and for each rater.

    Volumes with a spacing are in millilitres. Without sizes in CASE.json every label of the masks but 0 is a structure.
    """
    arrays = layers.arrays
    if "segmentation" not in arrays:
        return None
    models = [("prediction", arrays["segmentation"])]
    models += [(f"adversarial: {name}", arrays["adversarial"][i]) for i, name in enumerate(layers.adversarial)]
    raters = [(f"rater: {name}", arrays["raters"][i]) for i, name in enumerate(layers.raters)]
    stored, names = _stored_pixels(case, len(layers.adversarial), layers.raters), _structure_names(case)
    counts = {
        name: np.bincount(np.maximum(mask, 0).ravel()) * layers.factor**2 if stored is None else np.array([0, *stored[i]])
        for i, (name, mask) in enumerate(models + raters)
    }
    present = sorted({k for seen in counts.values() for k in np.flatnonzero(seen).tolist() if k > 0})
    present = present[:MOST_CLASSES]
    thickness = _thickness(case)
    millilitres = layers.unit == "mm" and (len(layers.space) == 3 or thickness is not None)
    cell = math.prod(length / layers.factor for length in layers.spacing)
    cell *= (thickness or 1) / 1000 if millilitres else 1

    def size(name: str, label: int) -> float:
        return float(counts[name][label]) * cell if label < len(counts[name]) else 0.0

    def text(value: float) -> str:
        return f"{value:,.0f}" if layers.unit == "pixels" else f"{value:,.4g}"

    spread = [sorted(size(name, k) for name, _ in models) for k in present]
    interval = [volume_interval(case, k, classes=len(present)) for k in present]
    words = {"pixels": ("pixels", "voxels"), "mm": ("mm²", "ml")}[layers.unit]
    unit = "ml" if millilitres else words[len(layers.space) - 2]
    return {
        "classes": [names[k - 1] if k <= len(names) else f"class {k}" for k in present],
        "rows": [(name, [text(size(name, k)) for k in present]) for name, _ in models + raters],
        "spread": [f"{text(sizes[0])} to {text(sizes[-1])}" for sizes in spread],
        "interval": interval if any(interval) else None,
        "unit": unit,
    }


def _whole(case: Case, layers: Layers, what: str) -> Mapping[str, Any]:
    """Figures over all pixels of an image that is shown reduced; empty for others."""
    stored = case.record.get("reduced") if layers.factor > 1 else None
    found = stored.get(what) if isinstance(stored, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _stored_pixels(case: Case, models: int, raters: Sequence[str]) -> list[list[int]] | None:
    """Pixels of every structure as CASE.json has them: prediction, kept models, raters; None where it does not have all."""
    record = case.record.get("structures")
    pixels = record.get("pixels") if isinstance(record, Mapping) else None
    try:
        rows = [pixels["prediction"], *pixels["adversarial"], *pixels["raters"].values()]  # type: ignore[index]
    except (KeyError, TypeError, AttributeError):
        return None
    whole = all(isinstance(row, list) and all(isinstance(count, int) for count in row) for row in rows)
    return rows if whole and len(rows) == 1 + models + len(raters) else None


def _structure_names(case: Case) -> list[str]:
    record = case.record.get("structures")
    names = record.get("names") if isinstance(record, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list) else [name for name, _ in _structures(case)]


def _thickness(case: Case) -> float | None:
    """Of a volume of one slice, in millimetres."""
    image = case.record.get("image")
    value = number(image.get("thickness")) if isinstance(image, Mapping) else math.nan
    return value if value > 0 else None


def volume_interval(case: Case, label: int, *, classes: int) -> str:
    """`low to high` of a class under the samples, as CASE.json has it; empty where it has not."""
    structures = _structures(case)
    if label <= len(structures):
        stored = structures[label - 1][1].get("sample_interval")
        ends = [number(v) for v in stored] if isinstance(stored, list) else []
        if len(ends) == 2 and all(math.isfinite(v) for v in ends):
            return f"{ends[0]:,.4g} to {ends[1]:,.4g}"
    flat = _metrics(case)
    for name in (f"volume_class{label}", *(["volume"] if classes == 1 else [])):
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


def metric_table(case: Case) -> dict[str, Any]:
    """Every metric of the case by map, and those of the prediction, from CASE.json or else from its row."""
    flat = _metrics(case)
    maps = tables.map_order(flat)
    rows = []
    for metric in tables.metric_order(flat):
        values = [number(flat.get(f"{m}/{metric}")) for m in maps]
        if any(math.isfinite(v) for v in values):
            rows.append((tables.metric_label(metric), [tables.show(v, 4) for v in values]))
    own = [k for k in tables.prediction_metrics(flat) if math.isfinite(number(flat[k]))]
    note = flat.get("note") or case.row.get("note")
    return {
        "maps": maps,
        "rows": rows,
        "own": [(tables.metric_label(k), _short(number(flat[k]))) for k in own],
        "note": plain(note) if note else None,
    }


def case_files(run: Run, case: Case) -> list[tuple[str, str, str | None]]:
    """(what, name, relative link) of the files of a case; no link where the file is not there."""
    return [(what, name, href(name) if exists else None) for what, name, exists in output_files(run, case)]


def case_facts(case: Case) -> list[tuple[str, str]]:
    """What CASE.json tells about the image and how the case was computed."""
    image = case.record.get("image")
    facts: list[tuple[str, str]] = []
    if isinstance(image, Mapping):
        keys = [k for k in ("path", "shape", "spacing", "orientation", "sha256") if image.get(k)]
        facts += [(f"image {key}", plain(image[key])) for key in keys]
    if case.record.get("patches") is not None:
        facts.append(("patches", f"{plain(case.record['patches'])}, {plain(case.record.get('patches_searched', 0))} searched"))
    for key in ("seed", "config_hash"):
        if case.record.get(key) is not None:
            facts.append((key.replace("_", " "), plain(case.record[key])))
    seconds = case.record.get("seconds", case.row.get("seconds"))
    if seconds not in (None, ""):
        facts.append(("time", tables.show_seconds(seconds)))
    return facts


def case_notes(case: Case) -> list[str]:
    """Remarks of CASE.json, without the name of the case in front."""
    told = case.record.get("guarantee")
    lists = [case.record.get("notes"), case.record.get("mask_notes"), told.get("notes") if isinstance(told, Mapping) else None]
    notes = [plain(note) for stored in lists if isinstance(stored, list) for note in stored]
    return [note.removeprefix(f"{case.name}: ") for note in notes]


def moved(entry: Mapping[str, Any]) -> bool:
    """Whether the kept model of a row of the audit came nearer to what was wanted."""
    return number(entry.get("objective_last")) < number(entry.get("objective_first"))


def plain(value: object) -> str:
    """A value of a JSON file as a reader would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        numbers = bool(value) and all(isinstance(v, int | float) for v in value)
        return (" × " if numbers else ", ").join(plain(v) for v in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def href(name: str) -> str:
    """A relative link; the leading ./ keeps a name with a colon from being read as a scheme."""
    return "./" + quote(str(PurePosixPath(name)))


def _short(value: float) -> str:
    return tables.show_count(value) if value.is_integer() else tables.show(value, 4)


def _metrics(case: Case) -> dict[str, object]:
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


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
