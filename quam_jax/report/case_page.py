"""One case as the page needs it: pictures, outlines, plots and tables, made from the arrays of its report data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float, Num

from . import figures, plots, tables
from .folder import SPATIAL, STACKS, Case, Run, load_arrays, number, output_files
from .regions import find_regions

THUMB = 96  # pixels of the longer side of the picture in the list of cases
PAGE_SIDE = 512  # largest side of a picture on the page
PAGE_PIXELS = 28e6  # pixels of one layer over the whole page; keeps 200 cases quick to open
VOLUME_DETAIL = ((96, 256), (64, 256), (48, 256), (32, 256), (32, 192), (24, 160), (16, 128), (12, 96), (8, 64))  # slices a plane, side
REGION_SHARE = 0.25  # of the epistemic scale: the threshold of the region list

DECOMPOSITIONS = {
    "mutual_information": {
        "total": "Entropy of the mean prediction of the samples.",
        "aleatoric": "Mean entropy of the single samples: what each of them finds undecided.",
        "epistemic": "Mutual information: how far the samples differ from each other.",
    },
    "cross_entropy": {
        "total": "Mean cross-entropy of the samples under the given network; it can exceed ln C.",
        "aleatoric": "Entropy of the given network's own prediction.",
        "epistemic": "Mean Kullback-Leibler divergence of the samples from the given network.",
    },
}
TITLES = {
    "total": "Total uncertainty",
    "aleatoric": "Aleatoric uncertainty",
    "epistemic": "Epistemic uncertainty",
    "softmax": "Softmax entropy",
    "rater_entropy": "Rater entropy",
}


@dataclass(frozen=True)
class Scales:
    """What is fixed over the whole page: classes, the two colour scales, and how many cases have pictures."""

    classes: int
    classes_known: bool
    total: figures.Scale
    epistemic: figures.Scale
    largest_epistemic: float
    pictured: int

    def of(self, layer: str) -> figures.Scale:
        return self.epistemic if layer == "epistemic" else self.total


def build_case(run: Run, case: Case, scales: Scales) -> dict[str, Any]:
    """Everything the template of a case shows; parts that are missing are named in `missing`."""
    arrays, problems = load_arrays(case)
    arrays, reduced = _as_picture_or_volume(arrays)
    missing = [*case.missing, *problems, *_absent(arrays, case)]
    context: dict[str, Any] = {
        "name": case.name,
        "failed": case.failed,
        "missing": missing,
        "reduced": reduced,
        "files": [
            (what, name, _href(name) if exists else None) for what, name, exists in output_files(run, case)
        ],
        "audit": [dict(entry) for entry in case.record.get("audit") or [] if isinstance(entry, Mapping)],
        "metrics": _metric_rows(case),
        "facts": _facts(case),
        "figures": [],
        "planes": [],
        "plots": [],
        "numbers": [],
        "sizes": None,
        "regions": [],
        "region_count": 0,
        "adversarial": [],
        "slices": None,
    }
    if "segmentation" in arrays or any(name in arrays for name in TITLES):
        context |= _pictures(run, case, arrays, scales)
    context["plots"] = _plots(case, arrays, context["slices"])
    return context


def decomposition_of(run: Run) -> Mapping[str, str]:
    """What each map is, by the decomposition the run was made with."""
    config = run.info.get("config")
    samples = config.get("samples") if isinstance(config, Mapping) else None
    name = samples.get("decomposition") if isinstance(samples, Mapping) else None
    return DECOMPOSITIONS.get(str(name), {})


def rater_entropy(raters: Num[np.ndarray, "a *space"]) -> Float[np.ndarray, "*space"]:
    """Entropy in nats of the rater mean: -sum_k p_k ln p_k with p_k the share of raters who gave label k."""
    entropy = np.zeros(raters.shape[1:])
    for label in range(int(raters.max(initial=0)) + 1):
        share = (raters == label).mean(axis=0)
        entropy -= share * np.log(np.where(share > 0, share, 1.0))
    return entropy


def _pictures(run: Run, case: Case, arrays: dict[str, np.ndarray], scales: Scales) -> dict[str, Any]:
    space = next(arrays[n].shape for n in ("segmentation", *SPATIAL) if n in arrays)
    spacing, unit = _spacing(case, len(space))
    if "raters" in arrays:
        arrays = arrays | {"rater_entropy": rater_entropy(arrays["raters"])}
    planes = _planes(case, arrays, space, scales)
    colour = "image" in arrays and arrays["image"].ndim > len(space)
    limits = figures.display_range(arrays["image"], colour=colour) if "image" in arrays else (0.0, 1.0)
    layers = [name for name in TITLES if name in arrays]
    names = _names(arrays, "adversarial_names", "adversarial", "model")
    raters = _names(arrays, "rater_names", "raters", "rater")
    shown = [
        _plane_data(plane, arrays, layers, names, space, spacing, scales, limits) for plane in planes
    ]
    seed = np.nan_to_num(arrays.get("epistemic", arrays.get("total", np.zeros(space))))
    regions, count = find_regions(arrays, threshold=REGION_SHARE * scales.epistemic.high)
    first = shown[0]
    return {
        "space": space,
        "unit": unit,
        "planes": shown,
        "slices": planes[0].slices if planes[0].axis is not None else None,
        "slice_count": space[-1] if len(space) == 3 else 1,
        "start": [_start(plane, seed) for plane in planes],
        "limits": limits if "image" in arrays and not colour else None,
        "has_image": "image" in arrays,
        "colour": colour,
        "adversarial": [(name, plots.member_class(name, i)) for i, name in enumerate(names)],
        "raters": raters,
        "layers": layers,
        "figures": _figures(run, arrays, layers, names, raters, scales),
        "bars": {name: _bar(scales.of(name), name, scales) for name in layers},
        "numbers": _numbers(arrays, layers),
        "share": _share(arrays),
        "sizes": _sizes(arrays, names, raters, spacing, unit),
        "regions": regions,
        "region_count": count,
        "region_threshold": REGION_SHARE * scales.epistemic.high,
        "marks": [_mark(r.peak, plane, data) for r in regions for plane, data in [(planes[0], first)]],
        "thumb": _thumb(arrays, space, planes[0], seed, limits, scales),
    }


def _plane_data(
    plane: figures.Plane,
    arrays: Mapping[str, np.ndarray],
    layers: list[str],
    names: list[str],
    space: tuple[int, ...],
    spacing: tuple[float, ...],
    scales: Scales,
    limits: tuple[float, float],
) -> dict[str, Any]:
    images: dict[str, str] = {}
    if "image" in arrays:
        tiles = figures.shrink(plane.tiles(arrays["image"]).astype(np.float32), plane.block)
        images["image"] = figures.encode_image(figures.make_sheet(figures.to_bytes(tiles, limits)))
    for layer in layers:
        scale = scales.of(layer)
        tiles = figures.shrink(plane.tiles(arrays[layer]).astype(np.float32), plane.block)
        sheet = figures.make_sheet(figures.map_levels(tiles, scale.high))
        images[layer] = figures.encode_levels(sheet, scale.colours)
    contours: dict[str, list[str]] = {}

    def draw(labels: np.ndarray) -> list[str]:
        return [figures.outline(tile) for tile in figures.shrink_labels(plane.tiles(labels), plane.block)]

    if "segmentation" in arrays:
        contours["reference"] = draw(arrays["segmentation"])
    for index in range(len(names)):
        contours[f"adversarial{index}"] = draw(arrays["adversarial"][index])
    if "raters" in arrays:
        drawn = [draw(rater) for rater in arrays["raters"]]
        contours["raters"] = ["".join(paths) for paths in zip(*drawn, strict=True)]
    tall, wide = space[plane.down], space[plane.across]
    columns, rows = figures.sheet_layout(len(plane.slices))
    return {
        "axis": plane.axis,
        "slices": list(plane.slices),
        "columns": columns,
        "rows": rows,
        "height": -(-tall // plane.block),
        "width": -(-wide // plane.block),
        "block": plane.block,
        "down": plane.down,
        "across": plane.across,
        "flip_down": plane.flip_down,
        "flip_across": plane.flip_across,
        "full": [tall, wide],
        "aspect": round(wide * spacing[plane.across] / (tall * spacing[plane.down]), 5),
        "letters": plane.letters,
        "images": images,
        "contours": contours,
    }


def _planes(
    case: Case, arrays: Mapping[str, np.ndarray], space: tuple[int, ...], scales: Scales
) -> list[figures.Plane]:
    share = PAGE_PIXELS / max(scales.pictured, 1)
    if len(space) == 2:
        side = min(PAGE_SIDE, max(128, int(math.sqrt(share)) // 32 * 32))
        return [figures.Plane(None, (0,), 0, 1, block=-(-max(space) // side))]
    mass = np.nan_to_num(np.asarray(arrays.get("epistemic", arrays.get("total", np.zeros(space))), np.float64))
    image = case.record.get("image")
    orientation = image.get("orientation") if isinstance(image, Mapping) else None
    planes: list[figures.Plane] = []
    for slices, side in VOLUME_DETAIL:
        planes = figures.orthogonal_planes(
            mass, orientation=orientation if isinstance(orientation, str) else None, limit=side, slices=slices
        )
        pixels = sum(len(p.slices) * (space[p.down] / p.block) * (space[p.across] / p.block) for p in planes)
        if pixels <= share:
            break
    return planes


def _figures(
    run: Run,
    arrays: Mapping[str, np.ndarray],
    layers: list[str],
    names: list[str],
    raters: list[str],
    scales: Scales,
) -> list[dict[str, Any]]:
    what = decomposition_of(run)
    reference = ["reference"] if "segmentation" in arrays else []
    found: list[dict[str, Any]] = [
        {
            "key": "image",
            "title": "Image and prediction",
            "layer": None,
            "contours": reference,
            "text": "White: outline of the given network's prediction." if reference else "No segmentation is stored.",
        }
    ]
    if raters:
        found.append(
            {
                "key": "raters",
                "title": "Raters",
                "layer": None,
                "contours": [*reference, "raters"],
                "text": f"Thin pink: outlines by {len(raters)} raters ({', '.join(raters)}). White: the prediction.",
            }
        )
    if names:
        wanted = [f"{name} ({_line_style(plots.member_class(name, i))})" for i, name in enumerate(names)]
        found.append(
            {
                "key": "adversarial",
                "title": "Adversarial outlines",
                "layer": None,
                "contours": [*reference, *(f"adversarial{i}" for i in range(len(names)))],
                "text": "Which way the boundary gave: outlines of the kept adversarial models, " + ", ".join(wanted) + ". White: the prediction. "
                "Shaded: pixels where a model's label differs from it.",
            }
        )
    optional = [*reference, *(["raters"] if raters else []), *(f"adversarial{i}" for i in range(len(names)))]
    texts = {
        "softmax": "Entropy of the given network's own prediction, for comparison: no search.",
        "rater_entropy": f"Entropy of the mean of {len(raters)} raters: where people disagree.",
        **what,
    }
    for layer in layers:
        found.append(
            {
                "key": layer,
                "title": TITLES[layer],
                "layer": layer,
                "contours": optional,
                "text": texts.get(layer, ""),
                "extreme": _extreme(arrays[layer], scales.of(layer)),
            }
        )
    return found


def _bar(scale: figures.Scale, layer: str, scales: Scales) -> dict[str, Any]:
    stops = ", ".join(f"{colour} {100 * place:.1f}%" for place, colour in figures.gradient(scale.colours))
    if layer == "epistemic":
        top, why = f"{scale.high:.3g}", "the largest value of this run, rounded up"
    else:
        top, why = f"ln {scales.classes} = {scale.high:.3f}", f"the largest entropy of {scales.classes} classes"
    return {"css": f"linear-gradient(to right, {stops})", "middle": f"{scale.high / 2:.3g}", "top": top, "why": why}


def _extreme(values: np.ndarray, scale: figures.Scale) -> str:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return "No finite value."
    text = f"Largest value {finite.max():.3g}."
    above = float((finite > scale.high * (1 + 1e-6)).mean())
    if above:
        text += f" {100 * above:.2g} % of the pixels lie above the scale and have its last colour."
    if finite.size < values.size:
        text += f" {values.size - finite.size} pixels are not a number (grey)."
    return text


def _numbers(arrays: Mapping[str, np.ndarray], layers: list[str]) -> list[tuple[str, list[str]]]:
    """Per map: mean over the image, mean inside the prediction, largest value."""
    inside = arrays["segmentation"] > 0 if "segmentation" in arrays else None
    rows = []
    for layer in layers:
        values = np.asarray(arrays[layer], np.float64)
        within = values[inside] if inside is not None and inside.any() else np.array([np.nan])
        figures_of = (_nanmean(values), _nanmean(within), float(np.nanmax(values)) if np.isfinite(values).any() else math.nan)
        rows.append((TITLES[layer], [tables.show(v, 4) for v in figures_of]))
    return rows


def _share(arrays: Mapping[str, np.ndarray]) -> float | None:
    if "total" not in arrays or "epistemic" not in arrays:
        return None
    total = float(np.nansum(arrays["total"].astype(np.float64)))
    return float(np.nansum(arrays["epistemic"].astype(np.float64))) / total if total > 0 else None


def _sizes(
    arrays: Mapping[str, np.ndarray], names: list[str], raters: list[str], spacing: tuple[float, ...], unit: str
) -> dict[str, Any] | None:
    """Pixels of every class in the prediction, in each kept adversarial model and in each rater's mask."""
    if "segmentation" not in arrays:
        return None
    masks = [("prediction", arrays["segmentation"])]
    masks += [(f"adversarial: {name}", arrays["adversarial"][i]) for i, name in enumerate(names)]
    masks += [(f"rater: {name}", arrays["raters"][i]) for i, name in enumerate(raters)]
    present = sorted({int(v) for _, m in masks for v in np.unique(m) if v > 0})[:6]
    cell = math.prod(spacing)
    rows = [(name, [f"{int((mask == k).sum()) * cell:,.4g}" if unit != "pixels" else f"{int((mask == k).sum()):,}"
                    for k in present]) for name, mask in masks]
    spread = []
    for k in present:
        counts = [int((mask == k).sum()) * cell for name, mask in masks if not name.startswith("rater")]
        spread.append(f"{min(counts):,.4g} to {max(counts):,.4g}")
    power = {2: "mm²", 3: "mm³"}.get(len(spacing), "mm")
    word = "pixels" if len(spacing) == 2 else "voxels"
    return {"classes": present, "rows": rows, "spread": spread, "unit": power if unit != "pixels" else word}


def _plots(case: Case, arrays: Mapping[str, np.ndarray], slices: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """Objective and fit loss of every member: one plot, or one a slice (or search) for volumes."""
    found = []
    wanted = _names(arrays, "adversarial_names", "adversarial", "model")
    from_audit = [str(e.get("wanted")) for e in case.record.get("audit") or [] if isinstance(e, Mapping) and e.get("wanted")]
    for name, title in (("objective", "Objective"), ("fit_loss", "Fit loss")):
        if name not in arrays:
            continue
        values = np.asarray(arrays[name], np.float64)
        stack = values if values.ndim == 3 else values[None]
        bound = _stack_like(arrays.get("bound"), stack.shape) if name == "fit_loss" else None
        feasible = _stack_like(arrays.get("feasible"), stack.shape)
        members = (from_audit or wanted)[: stack.shape[1]]
        members = members if len(members) == stack.shape[1] else wanted[: stack.shape[1]]
        linked = slices is not None and values.ndim == 3 and len(stack) > max(slices)
        chosen = list(slices or ()) if linked else list(range(min(len(stack), 48)))
        found.append(
            {
                "key": name,
                "title": title,
                "bounded": bound is not None,
                "linked": linked,
                "indices": chosen,
                "count": len(stack),
                "members": [(m, plots.member_class(m, i)) for i, m in enumerate(members)],
                "thinned": stack.shape[2] > plots.MOST_STEPS,
                "svgs": [
                    plots.trajectory_plot(
                        stack[i],
                        None if bound is None else bound[i],
                        None if feasible is None else feasible[i].astype(bool),
                        members=members,
                        name=title,
                        unit="nats a pixel",
                    )
                    for i in chosen
                ],
            }
        )
    return found


def _stack_like(values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if values is None:
        return None
    stack = values if values.ndim == 3 else values[None]
    return stack if stack.shape == shape else None


def _metric_rows(case: Case) -> dict[str, Any]:
    """Every metric of the case by map, from CASE.json or, without it, from its row."""
    stored = case.record.get("metrics")
    flat = _flatten(stored) if isinstance(stored, Mapping) else {k: v for k, v in case.row.items() if k not in tables.PLAIN}
    maps = tables.map_order(flat)
    rows = [
        (tables.metric_label(metric), [tables.show(flat.get(f"{m}/{metric}"), 4) for m in maps])
        for metric in tables.metric_order(flat)
        if any(math.isfinite(number(flat.get(f"{m}/{metric}"))) for m in maps)
    ]
    own = [(tables.metric_label(k), tables.show(v, 4)) for k, v in flat.items() if "/" not in k and not math.isnan(number(v))]
    return {"maps": maps, "rows": rows, "own": own}


def _facts(case: Case) -> list[tuple[str, str]]:
    image = case.record.get("image")
    facts: list[tuple[str, str]] = []
    if isinstance(image, Mapping):
        for key in ("path", "shape", "spacing", "orientation", "sha256"):
            if image.get(key) not in (None, ""):
                facts.append((f"image {key}", plain(image[key])))
    for key in ("seed", "config_hash"):
        if case.record.get(key) is not None:
            facts.append((key.replace("_", " "), plain(case.record[key])))
    seconds = case.record.get("seconds", case.row.get("seconds"))
    if seconds not in (None, ""):
        facts.append(("time", tables.show_seconds(seconds)))
    return facts


def plain(value: object) -> str:
    """A value of a JSON file as a reader would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return " x ".join(plain(v) for v in value) if all(isinstance(v, int | float) for v in value) else ", ".join(map(plain, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _absent(arrays: Mapping[str, np.ndarray], case: Case) -> list[str]:
    if case.arrays is None or not arrays:
        return []
    absent = [name for name in ("image", "segmentation", "total", "aleatoric", "epistemic") if name not in arrays]
    return [f"Not in the report data: {', '.join(absent)}."] if absent else []


def _as_picture_or_volume(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str | None]:
    """Arrays with two or three spatial axes: axes of length 1 at the end go, further axes keep their middle."""
    space = next((arrays[n].shape for n in ("segmentation", *SPATIAL) if n in arrays), ())
    rank = len(space)
    if rank <= 2 or (rank == 3 and space[2] != 1):
        return arrays, None
    keep = 2 if space[2] == 1 else 3
    picks = tuple(size // 2 for size in space[keep:])
    reduced = {}
    for name, values in arrays.items():
        if name in STACKS:
            reduced[name] = values[(slice(None),) * (keep + 1) + picks]
        elif name == "image" or name in SPATIAL or name == "segmentation":
            reduced[name] = values[(slice(None),) * keep + picks]
        else:
            reduced[name] = values[0] if values.ndim == 3 and len(values) == 1 else values
    if math.prod(space[keep:]) == 1:
        return reduced, None
    where = ", ".join(f"axis {keep + i} at index {p} of {s}" for i, (p, s) in enumerate(zip(picks, space[keep:], strict=True)))
    return reduced, f"The data have {rank} axes; shown is {where}."


def _names(arrays: Mapping[str, np.ndarray], names: str, stack: str, word: str) -> list[str]:
    if stack not in arrays:
        stored = arrays.get(names)
        return [str(v) for v in stored] if stored is not None and stored.ndim == 1 else []
    count = len(arrays[stack])
    stored = arrays.get(names)
    given = [str(v) for v in stored] if stored is not None and stored.ndim == 1 else []
    return [given[i] if i < len(given) else f"{word} {i}" for i in range(count)]


def _spacing(case: Case, rank: int) -> tuple[tuple[float, ...], str]:
    image = case.record.get("image")
    stored = image.get("spacing") if isinstance(image, Mapping) else None
    if isinstance(stored, list) and len(stored) >= rank:
        values = tuple(number(v) for v in stored[:rank])
        if all(math.isfinite(v) and v > 0 for v in values):
            return values, "pixels" if all(v == 1 for v in values) else "mm"
    return (1.0,) * rank, "pixels"


def _start(plane: figures.Plane, mass: np.ndarray) -> int:
    """The tile to show first: the one with the largest epistemic mass."""
    if plane.axis is None:
        return 0
    rest = tuple(a for a in range(3) if a != plane.axis)
    return int(np.argmax(mass.sum(axis=rest)[list(plane.slices)]))


def _mark(peak: tuple[int, ...], plane: figures.Plane, data: Mapping[str, Any]) -> dict[str, Any]:
    """Where on a plane a pixel lies: tile, and percent from the left and top."""
    row, column = peak[plane.down], peak[plane.across]
    tall, wide = data["full"]
    row = tall - 1 - row if plane.flip_down else row
    column = wide - 1 - column if plane.flip_across else column
    tile = 0 if plane.axis is None else int(np.argmin(np.abs(np.array(plane.slices) - peak[plane.axis])))
    return {"tile": tile, "left": round(100 * (column + 0.5) / wide, 2), "top": round(100 * (row + 0.5) / tall, 2)}


def _thumb(
    arrays: Mapping[str, np.ndarray],
    space: tuple[int, ...],
    plane: figures.Plane,
    mass: np.ndarray,
    limits: tuple[float, float],
    scales: Scales,
) -> str:
    tile = _start(plane, mass)
    block = -(-max(space[plane.down], space[plane.across]) // THUMB)
    one = figures.Plane(
        plane.axis, plane.slices[tile : tile + 1], plane.down, plane.across, plane.flip_down, plane.flip_across, block
    )
    shape = figures.shrink_labels(one.tiles(np.zeros(space, np.int8)), block)[0].shape
    image = np.full(shape, 90, np.uint8)
    if "image" in arrays:
        image = figures.to_bytes(figures.shrink(one.tiles(arrays["image"]).astype(np.float32), block)[0], limits)
    levels = np.zeros(shape, np.uint8)
    if "epistemic" in arrays:
        values = figures.shrink(one.tiles(arrays["epistemic"]).astype(np.float32), block)[0]
        levels = figures.map_levels(values, scales.epistemic.high)
    mask = np.zeros(shape, bool)
    if "segmentation" in arrays:
        mask = figures.shrink_labels(one.tiles(arrays["segmentation"]), block)[0] > 0
    return figures.thumbnail(image, levels, mask, scales.epistemic.colours)


def _line_style(style: str) -> str:
    return {"dilated": "orange, dashed", "eroded": "blue, dotted"}.get(style, "green, dash-dotted")


def _href(name: str) -> str:
    """A relative link; the leading ./ keeps a name with a colon from being read as a scheme."""
    return "./" + quote(str(PurePosixPath(name)))


def _flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _nanmean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan
