"""The maps of one case as a piece of HTML for a notebook: pictures with their scales, the audit in a line, no script.

Everything is inside the piece (pictures as data URIs, outlines as SVG), so a saved notebook shows it without the package.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from . import figures
from .plots import member_class

SIDE = 320  # largest side of a picture as stored
WIDTH = 220  # CSS pixels of a picture as shown
STROKES = {"dilated": ("#f0a030", "6 3"), "eroded": ("#56b4e9", "2 2.4")}  # as in the report
OTHER = ("#3ddba8", "8 3 2 3")
TITLES = {"total": "Total", "aleatoric": "Aleatoric", "epistemic": "Epistemic", "softmax": "Softmax entropy"}


def maps_html(
    maps: Mapping[str, Float[np.ndarray, "*space"]],
    segmentation: Integer[np.ndarray, "*space"],
    *,
    classes: int,
    adversarial: Integer[np.ndarray, " n *space"] | None = None,
    names: Sequence[str] = (),
    facts: str = "",
) -> str:
    """Pictures of the maps in nats with the outlines of the prediction and of the adversarial models, as HTML.

    Of a volume the slice across the last axis with the largest epistemic mass is shown. Entropies have the scale 0 to ln C,
    the epistemic map 0 to its largest value, rounded up; near 0 the colours fade into the ground.
    """
    place = None
    if segmentation.ndim == 3:
        place = int(np.nansum(maps["epistemic"], axis=(0, 1)).argmax())
    models = [] if adversarial is None else [_plane(m, place) for m in adversarial]
    labels = _plane(segmentation, place)
    block = -(-max(labels.shape) // SIDE)
    lines = [(_path(labels, block), "#ffffff", "")]
    outlined = lines + [(_path(m, block), *_stroke(n, i)) for i, (m, n) in enumerate(zip(models, names, strict=False))]
    panels = [_panel("Outlines", None, labels.shape, block, outlined, note=_key(names[: len(models)]))]
    for name, values in maps.items():
        shown = np.asarray(_plane(values, place), np.float64)
        scale = map_scale(name, values, classes=classes)
        top = f"{scale.high:.3g}" if name == "epistemic" else f"ln {classes} = {scale.high:.3f}"
        panels.append(
            _panel(
                TITLES.get(name, name),
                (shown, scale),
                labels.shape,
                block,
                lines,
                note=f"{_bar(scale)}0 to {top} nats; {_figures(maps[name])}",
            )
        )
    where = "" if place is None else f" Slice {place} of {segmentation.shape[-1]}, the one with the largest epistemic mass."
    return (
        '<div style="font: 13px/1.4 system-ui, sans-serif">'
        f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(panels)}</div>'
        f"<p>White: outline of the prediction.{where} {html.escape(facts)}</p></div>"
    )


def map_scale(name: str, values: Float[np.ndarray, "*space"], *, classes: int) -> figures.Scale:
    """The scale of a map by itself: of the epistemic one 0 to its largest value, rounded up, of entropies 0 to ln C."""
    high = math.log(classes)
    if name != "epistemic":
        return figures.Scale(high, "viridis")
    return figures.Scale(figures.round_up(float(np.nanmax(values, initial=0.0))) or high, "magma")


def _figures(values: np.ndarray) -> str:
    known = values[np.isfinite(values)].astype(np.float64)
    return f"mean {known.mean():.4f}, largest {known.max():.4f}" if known.size else "no numbers"


def _plane(values: np.ndarray, place: int | None) -> np.ndarray:
    return values if place is None else values[..., place]


def _panel(
    title: str,
    picture: tuple[np.ndarray, figures.Scale] | None,
    size: tuple[int, ...],
    block: int,
    lines: Sequence[tuple[str, str, str]],
    *,
    note: str,
) -> str:
    tall, wide = -(-size[0] // block), -(-size[1] // block)
    image = ""
    if picture is not None:
        values, scale = picture
        small = figures.shrink(values[None].astype(np.float32), block)[0]
        source = figures.encode_levels(figures.map_levels(small, scale), scale.colours)
        image = (
            f'<img src="{source}" alt="{html.escape(title)} map" '
            'style="position:absolute;inset:0;width:100%;height:100%;margin:0;image-rendering:pixelated">'
        )
    drawn = "".join(
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dash}" '
        'vector-effect="non-scaling-stroke"/>'
        for path, colour, dash in lines
        if path
    )
    return (
        f'<figure style="margin:0;width:{WIDTH}px"><b>{html.escape(title)}</b>'
        f'<div style="position:relative;background:#101014;aspect-ratio:{wide}/{tall}">{image}'
        f'<svg viewBox="0 0 {wide} {tall}" preserveAspectRatio="none" aria-hidden="true" '
        f'style="position:absolute;inset:0;width:100%;height:100%">{drawn}</svg></div>'
        f'<figcaption style="font-size:12px">{note}</figcaption></figure>'
    )


def _path(labels: np.ndarray, block: int) -> str:
    return figures.outline(figures.shrink_labels(labels[None].astype(np.int32), block)[0])


def _stroke(name: str, index: int) -> tuple[str, str]:
    return STROKES.get(member_class(name, index), OTHER)


def _key(names: Sequence[str]) -> str:
    items = []
    for index, name in enumerate(names):
        colour, dash = _stroke(name, index)
        items.append(
            f'<svg width="24" height="8" aria-hidden="true" style="background:#101014"><path d="M1 4H23" '
            f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/></svg> {html.escape(name)}'
        )
    return "Adversarial models: " + ", ".join(items) if items else "No adversarial model."


def _bar(scale: figures.Scale) -> str:
    stops: Any = ", ".join(f"{colour} {100 * place:.1f}%" for place, colour in figures.gradient(scale.colours))
    return (
        f'<div aria-hidden="true" style="height:8px;margin:3px 0;background:linear-gradient(to right, {stops}), #101014"></div>'
    )
