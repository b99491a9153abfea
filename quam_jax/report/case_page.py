"""One case as its template shows it: pictures with captions, search plots, tables and what is missing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..evaluation.regions import Region, enlarged, find_regions
from . import case_numbers, case_pictures, figures, plots, sizes
from .case_numbers import asked
from .first_look import BADGES, REGION_SHARE, Look, five_figures
from .flips import cheapest_flips
from .folder import Case, Run
from .guarantee import guarantee_facts
from .layers import TITLES, Layers, Scales, largest_of, read_layers
from .viewer import affine_of, pack_volume

MOST_REGIONS = 8  # of the list
MOST_PLOTS = 48  # searches drawn where they do not belong to slices

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


def build_case(run: Run, look: Look, scales: Scales) -> dict[str, Any]:
    """Everything the template of a case shows; parts that are missing are named in `missing`."""
    case = run.cases[look.number]
    layers = read_layers(case)
    audit = case.record.get("audit")
    context: dict[str, Any] = {
        "name": case.name,
        "failed": case.failed,
        "five": five_figures(case, look),
        "badges": [(key, BADGES[key]) for key in look.badges if key not in ("failed", "not computed", "incomplete")],
        "missing": [*case.missing, *layers.problems],
        "reduced": layers.reduced,
        "files": case_numbers.case_files(run, case),
        "facts": [*guarantee_facts(case), *case_numbers.case_facts(case)],
        "audit": [{**e, "wanted": asked(e.get("wanted"))} for e in audit if isinstance(e, Mapping)]
        if isinstance(audit, list)
        else [],
        "notes": case_numbers.case_notes(case),
        "metrics": case_numbers.metric_table(case, layers),
        "figures": [],
        "planes": [],
        "numbers": [],
        "share": look.share,
        "sizes": None,
        "regions": [],
        "region_count": 0,
        "flips": [],
        "adversarial": [],
        "slices": None,
        "start": [],
        "marks": [],
        "volume": None,
    }
    if layers.space:
        context |= _pictures(run, case, layers, scales)
    context["plots"] = _plots(layers, context["audit"], context["slices"])
    return context


def decomposition_of(run: Run) -> Mapping[str, str]:
    """What each map is, by the decomposition the run was made with; empty where that is not recorded."""
    config = run.info.get("config")
    samples = config.get("samples") if isinstance(config, Mapping) else None
    name = samples.get("decomposition") if isinstance(samples, Mapping) else None
    return DECOMPOSITIONS.get(str(name), {})


def _pictures(run: Run, case: Case, layers: Layers, scales: Scales) -> dict[str, Any]:
    arrays, space = layers.arrays, layers.space
    planes = case_pictures.choose_planes(case, layers, scales)
    colour = "image" in arrays and arrays["image"].ndim > len(space)
    limits = figures.display_range(arrays["image"], colour=colour) if "image" in arrays else (0.0, 1.0)
    threshold = REGION_SHARE * scales.epistemic.high
    regions: list[Region] = []
    region_count = 0
    if "epistemic" in arrays and threshold > 0:
        regions, region_count, _ = find_regions(arrays, threshold=threshold, limit=MOST_REGIONS)
    marks = [case_pictures.place_mark(r.peak, planes[0], space) for r in regions]
    regions = [enlarged(region, layers.factor) for region in regions]
    volume = pack_volume(run, case, layers, scales, regions=MOST_REGIONS, threshold=threshold)
    affine = affine_of(run.folder, case, layers)[0] if volume is not None else None
    return {
        "space": layers.full,
        "planes": [case_pictures.draw_plane(plane, layers, scales, limits=limits) for plane in planes],
        "slices": planes[0].slices if planes[0].axis is not None else None,
        "slice_count": space[-1],
        "start": [case_pictures.first_tile(plane, layers.mass) for plane in planes],
        "limits": limits if "image" in arrays and not colour else None,
        "has_image": "image" in arrays,
        "adversarial": [(asked(n), plots.member_class(n, i)) for i, n in enumerate(layers.adversarial)],
        "maps": layers.maps,
        "figures": _main_first(_outline_figures(layers) + _map_figures(run, case, layers, scales)),
        "bars": {name: _bar(name, scales) for name in layers.maps},
        "numbers": case_numbers.map_rows(case, layers),
        "sizes": sizes.size_table(case, layers),
        "volume": volume,
        "regions": [_listed(region, layers, affine) for region in regions],
        "flips": cheapest_flips(case, layers, scales, planes[0], limits=limits),
        "region_count": region_count,
        "region_threshold": threshold,
        "marks": marks,
    }


def _listed(region: Region, layers: Layers, affine: np.ndarray | None) -> dict[str, Any]:
    """A row of the table of regions, and where its peak is in millimetres."""
    kind = "" if region.share is None else "epistemic" if region.share > 0.5 else "aleatoric"
    at = None if affine is None else (affine @ [*region.peak, 1])[:3].round(2).tolist()
    return {
        "label": region.label,
        "peak": region.peak,
        "size": sizes.region_size(region, layers),
        "largest": region.largest,
        "kind": kind,
        "share": region.share,
        "inside": region.inside,
        "flip_cost": region.flip_cost,
        "mm": at,
    }


def _outline_figures(layers: Layers) -> list[dict[str, Any]]:
    """The pictures without a map: the prediction, the raters, and which way the boundary gave."""
    reference = ["reference"] if "segmentation" in layers.arrays else []
    told = "White: outline of the given network's prediction."
    found: list[dict[str, Any]] = [
        {
            "key": "image",
            "title": "Image and prediction",
            "contours": reference,
            "text": told if reference else "No segmentation is stored.",
        }
    ]
    if layers.raters:
        count, names = len(layers.raters), ", ".join(layers.raters)
        people = f"{count} raters" if count > 1 else "one rater"
        found.append(
            {
                "key": "raters",
                "title": "Raters",
                "contours": [*reference, "raters"],
                "text": f"Thin pink: outlines by {people} ({names}). White: the prediction.",
            }
        )
    if layers.adversarial:
        styles = [plots.member_class(name, i) for i, name in enumerate(layers.adversarial)]
        lines = [f"{asked(n)} ({_LINES.get(s, _OTHER)})" for n, s in zip(layers.adversarial, styles, strict=True)]
        told = "Which way the boundary gave: outlines of the kept adversarial models, "
        if layers.flipped_one_by_one:
            told = "Where a label flipped under the model that was searched for it alone: "
        found.append(
            {
                "key": "adversarial",
                "title": "Flipped labels" if layers.flipped_one_by_one else "Adversarial outlines",
                "contours": [*reference, *(f"adversarial{i}" for i in range(len(lines)))],
                "text": f"{told}{', '.join(lines)}. White: the prediction. Shaded: pixels where a model's label differs from it.",
            }
        )
    return [{"layer": None, **figure} for figure in found]


def _main_first(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The costs in front, where there are any: they are what such a run was made for."""
    return sorted(pictures, key=lambda picture: picture["key"] != "flipcost")


def _map_figures(run: Run, case: Case, layers: Layers, scales: Scales) -> list[dict[str, Any]]:
    """A picture a map; every outline can be laid over it."""
    optional = ["reference"] if "segmentation" in layers.arrays else []
    optional += ["raters"] if layers.raters else []
    optional += [f"adversarial{i}" for i in range(len(layers.adversarial))]
    count = len(layers.raters)
    texts = {
        "flipcost": "How much worse an adversarial model explains the known data where the label first flips: bright is "
        "cheap, and so fragile. Clear: nobody asked there, or nothing flipped.",
        "softmax": "Entropy of the given network's own prediction, for comparison: no search.",
        "rater_entropy": f"Entropy of the mean of {count} raters: where people disagree.",
        **decomposition_of(run),
    }
    return [
        {
            "key": name,
            "title": TITLES[name],
            "layer": name,
            "contours": optional,
            "text": texts.get(name, ""),
            "extreme": _cheapest(layers.arrays[name])
            if name == "flipcost"
            else _extreme(layers.arrays[name], scales.of(name), largest_of(case, name)),
        }
        for name in layers.maps
    ]


def _bar(layer: str, scales: Scales) -> dict[str, str]:
    """The colour bar below a map: CSS, the figures at its middle and top, and what the top is."""
    scale = scales.of(layer)
    stops = ", ".join(f"{colour} {100 * place:.1f}%" for place, colour in figures.gradient(scale.colours, falling=scale.falling))
    if layer in ("epistemic", "flipcost"):
        what = "value" if layer == "epistemic" else "finite cost"
        top, why = f"{scale.high:.3g}", f"the largest {what} of this run, rounded up"
    else:
        top = f"ln {scales.classes} = {scale.high:.3f}"
        why = f"the largest entropy of {scales.classes} classes"
    css = f"linear-gradient(to right, {stops})"
    return {"css": css, "middle": f"{scale.high / 2:.3g}", "top": top, "why": why}


def _extreme(values: np.ndarray, scale: figures.Scale, largest: float | None) -> str:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return "No finite value."
    text = f"Largest value {finite.max() if largest is None else largest:.3g}."
    above = float((finite > scale.high * (1 + 1e-6)).mean())
    if above:
        text += f" {100 * above:.2g} % of the pixels lie above the scale and have its last colour."
    if finite.size < values.size:
        text += f" {values.size - finite.size} pixels are not a number (grey)."
    return text


def _cheapest(costs: np.ndarray) -> str:
    finite = costs[np.isfinite(costs)]
    if not finite.size:
        return "No label flipped."
    asked_there, flipped = int((~np.isnan(costs)).sum()), int(finite.size)
    return f"{flipped:,} of {asked_there:,} pixels flipped, the cheapest at {finite.min():.3g} nats."


def _plots(layers: Layers, audit: list[dict[str, Any]], slices: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """Objective and fit loss of every member: one plot, or one a slice (or search) for volumes."""
    arrays, found = layers.arrays, []
    wanted = [str(entry["wanted"]) for entry in audit if entry.get("wanted")]
    for name, title in (("objective", "Objective"), ("fit_loss", "Fit loss")):
        if name not in arrays:
            continue
        values = np.asarray(arrays[name], np.float64)
        if values.shape[-1] < 2:
            continue  # a point is no course
        stack = values if values.ndim == 3 else values[None]
        bound = _stack_like(arrays.get("bound"), stack.shape) if name == "fit_loss" else None
        feasible = _stack_like(arrays.get("feasible"), stack.shape)
        count = stack.shape[1]
        # The audit knows every member that was searched for; kept models may be fewer.
        members = wanted[:count] if len(wanted) >= count else list(layers.adversarial[:count])
        linked = slices is not None and values.ndim == 3 and len(stack) == layers.space[-1]
        chosen = list(slices or ()) if linked else list(range(min(len(stack), MOST_PLOTS)))
        drawn = [
            plots.course(
                stack[i],
                None if bound is None else bound[i],
                None if feasible is None else feasible[i].astype(bool),
                members=members,
            )
            for i in chosen
        ]
        found.append(
            {
                "key": name,
                "title": title,
                "bounded": bound is not None,
                "linked": linked,
                "indices": chosen,
                "searches": len(stack),
                "members": [(m, plots.member_class(m, i)) for i, m in enumerate(members)],
                "thinned": stack.shape[2] > plots.MOST_STEPS,
                "courses": drawn,
            }
        )
    return found


def _stack_like(values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if values is None:
        return None
    stack = values if values.ndim == 3 else values[None]
    return stack if stack.shape == shape else None


_LINES = {"dilated": "orange, dashed", "eroded": "blue, dotted"}
_OTHER = "green, dash-dotted"
