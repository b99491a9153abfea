"""One case as its template shows it: pictures with captions, search plots, tables and what is missing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..evaluation.regions import Region, enlarged, find_regions
from . import case_numbers, case_pictures, figures, plots
from .folder import Case, Run
from .guarantee import guarantee_facts
from .layers import TITLES, Layers, Scales, largest_of, read_layers

MOST_REGIONS = 8  # of the list
REGION_SHARE = 0.25  # of the epistemic scale: the threshold of the region list
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


def build_case(run: Run, case: Case, scales: Scales) -> dict[str, Any]:
    """Everything the template of a case shows; parts that are missing are named in `missing`."""
    layers = read_layers(case)
    audit = case.record.get("audit")
    context: dict[str, Any] = {
        "name": case.name,
        "failed": case.failed,
        "missing": [*case.missing, *layers.problems],
        "reduced": layers.reduced,
        "files": case_numbers.case_files(run, case),
        "facts": [*guarantee_facts(case), *case_numbers.case_facts(case)],
        "audit": [dict(e) for e in audit if isinstance(e, Mapping)] if isinstance(audit, list) else [],
        "notes": case_numbers.case_notes(case),
        "metrics": case_numbers.metric_table(case),
        "figures": [],
        "planes": [],
        "numbers": [],
        "share": None,
        "sizes": None,
        "regions": [],
        "region_count": 0,
        "adversarial": [],
        "slices": None,
        "thumb": None,
        "start": [],
        "marks": [],
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
    return {
        "space": layers.full,
        "planes": [case_pictures.draw_plane(plane, layers, scales, limits=limits) for plane in planes],
        "slices": planes[0].slices if planes[0].axis is not None else None,
        "slice_count": space[-1],
        "start": [case_pictures.first_tile(plane, layers.mass) for plane in planes],
        "limits": limits if "image" in arrays and not colour else None,
        "has_image": "image" in arrays,
        "adversarial": [(n, plots.member_class(n, i)) for i, n in enumerate(layers.adversarial)],
        "maps": layers.maps,
        "figures": _outline_figures(layers) + _map_figures(run, case, layers, scales),
        "bars": {name: _bar(name, scales) for name in layers.maps},
        "numbers": case_numbers.map_rows(case, layers),
        "share": case_numbers.epistemic_share(layers),
        "sizes": case_numbers.size_table(case, layers),
        "regions": regions,
        "region_count": region_count,
        "region_threshold": threshold,
        "marks": marks,
        "thumb": case_pictures.draw_thumbnail(planes[0], layers, scales, limits=limits),
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
        lines = [f"{n} ({_LINES.get(s, _OTHER)})" for n, s in zip(layers.adversarial, styles, strict=True)]
        found.append(
            {
                "key": "adversarial",
                "title": "Adversarial outlines",
                "contours": [*reference, *(f"adversarial{i}" for i in range(len(lines)))],
                "text": "Which way the boundary gave: outlines of the kept adversarial models, "
                + ", ".join(lines)
                + ". White: the prediction. Shaded: pixels where a model's label differs from it.",
            }
        )
    return [{"layer": None, **figure} for figure in found]


def _map_figures(run: Run, case: Case, layers: Layers, scales: Scales) -> list[dict[str, Any]]:
    """A picture a map; every outline can be laid over it."""
    optional = ["reference"] if "segmentation" in layers.arrays else []
    optional += ["raters"] if layers.raters else []
    optional += [f"adversarial{i}" for i in range(len(layers.adversarial))]
    count = len(layers.raters)
    texts = {
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
            "extreme": _extreme(layers.arrays[name], scales.of(name), largest_of(case, name)),
        }
        for name in layers.maps
    ]


def _bar(layer: str, scales: Scales) -> dict[str, str]:
    """The colour bar below a map: CSS, the figures at its middle and top, and what the top is."""
    scale = scales.of(layer)
    stops = ", ".join(f"{colour} {100 * place:.1f}%" for place, colour in figures.gradient(scale.colours))
    if layer == "epistemic":
        top, why = f"{scale.high:.3g}", "the largest value of this run, rounded up"
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


def _plots(layers: Layers, audit: list[dict[str, Any]], slices: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """Objective and fit loss of every member: one plot, or one a slice (or search) for volumes."""
    arrays, found = layers.arrays, []
    asked = [str(entry["wanted"]) for entry in audit if entry.get("wanted")]
    for name, title in (("objective", "Objective"), ("fit_loss", "Fit loss")):
        if name not in arrays:
            continue
        values = np.asarray(arrays[name], np.float64)
        stack = values if values.ndim == 3 else values[None]
        bound = _stack_like(arrays.get("bound"), stack.shape) if name == "fit_loss" else None
        feasible = _stack_like(arrays.get("feasible"), stack.shape)
        count = stack.shape[1]
        # The audit knows every member that was searched for; kept models may be fewer.
        members = asked[:count] if len(asked) >= count else list(layers.adversarial[:count])
        linked = slices is not None and values.ndim == 3 and len(stack) == layers.space[-1]
        chosen = list(slices or ()) if linked else list(range(min(len(stack), MOST_PLOTS)))
        drawn = [
            plots.trajectory_plot(
                stack[i],
                None if bound is None else bound[i],
                None if feasible is None else feasible[i].astype(bool),
                members=members,
                name=title,
                unit="nats a pixel",
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
                "svgs": drawn,
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
