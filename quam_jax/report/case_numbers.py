"""The figures of one case in words and rows: maps in numbers, sizes, metrics, and where its files are."""

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np

from . import tables
from .folder import Case, Run, number, output_files
from .layers import TITLES, Layers
from .sizes import metrics_of


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


def _whole(case: Case, layers: Layers, what: str) -> Mapping[str, Any]:
    """Figures over all pixels of an image that is shown reduced; empty for others."""
    stored = case.record.get("reduced") if layers.factor > 1 else None
    found = stored.get(what) if isinstance(stored, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def metric_table(case: Case, layers: Layers) -> dict[str, Any]:
    """Every metric of the case by map, and those of the prediction, from CASE.json or else from its row."""
    flat = metrics_of(case)
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
        "own": [(tables.metric_label(k) + _unit(k, layers), _short(number(flat[k]))) for k in own],
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


def asked(wanted: object) -> str:
    """What an adversarial model was asked for, in words: a row of many pixels or regions is not about the first of them."""
    text = str(wanted) if wanted is not None else ""
    many = re.fullmatch(r"(pixel|region)s? (\d+)", text)
    return f"each {many[1]}, model {many[2]}" if many else text


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


def _unit(metric: str, layers: Layers) -> str:
    """In what a distance or a volume is; nothing for other figures."""
    if metric.startswith("hd"):
        return f", {layers.unit}"
    if not metric.startswith("volume_error"):
        return ""
    sizes = {"pixels": ("pixels", "voxels"), "mm": ("mm²", "mm³")}[layers.unit]
    return f", {sizes[len(layers.space) == 3]}"


def _short(value: float) -> str:
    return tables.show_count(value) if value.is_integer() else tables.show(value, 4)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
