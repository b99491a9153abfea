"""The cheapest flips of a pixel or region run: where a label changes at the least cost, with a picture of each place."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from . import figures
from .folder import Case
from .layers import Layers, Scales
from .planes import Plane
from .sizes import structure_names

MOST = 8  # flips listed
VIEW = 48  # pixels of the side of a picture, in pixels of the arrays
APART = 32  # the longer side over this: how far two listed flips are apart at least


def cheapest_flips(
    case: Case, layers: Layers, scales: Scales, plane: Plane, *, limits: tuple[float, float]
) -> list[dict[str, Any]]:
    """Places of smallest finite cost, the cheapest first, each with cost, size, label, and a picture around it.

    A place is a connected area of one cost: a pixel, or a region that was asked as one. Places nearer than a part of the image
    to a cheaper one are left out, since neighbours of a pixel cost about as much.
    """
    if "flipcost" not in layers.arrays:
        return []
    costs: Float[np.ndarray, "*space"] = np.asarray(layers.arrays["flipcost"], np.float64)
    left = np.where(np.isfinite(costs), costs, np.inf)
    apart = max(2, max(layers.space) // APART)
    found: list[dict[str, Any]] = []
    while len(found) < MOST:
        place = tuple(int(i) for i in np.unravel_index(int(left.argmin()), left.shape))
        cost = float(left[place])
        if not np.isfinite(cost):
            break
        parts, _ = ndimage.label(costs == cost)
        area: Bool[np.ndarray, "*space"] = parts == parts[place]
        left[area] = np.inf
        left[tuple(slice(max(0, i - apart), i + apart + 1) for i in place)] = np.inf
        found.append(
            {
                "rank": len(found) + 1,
                "place": [i * layers.factor for i in place],
                "cost": cost,
                "pixels": int(area.sum()) * layers.factor ** len(layers.space),
                "label": _label(case, layers, place),
                "picture": _picture(layers, scales, plane, place, limits),
            }
        )
    return found


def _label(case: Case, layers: Layers, place: tuple[int, ...]) -> str:
    """What the prediction says there."""
    if "segmentation" not in layers.arrays:
        return ""
    label, names = int(layers.arrays["segmentation"][place]), structure_names(case)
    if label <= 0:
        return "background"
    return names[label - 1] if label <= len(names) else f"class {label}"


def _picture(layers: Layers, scales: Scales, plane: Plane, place: tuple[int, ...], limits: tuple[float, float]) -> str:
    """The image around a place with the costs and the contour over it, as the page draws the plane."""
    row, column = place[plane.down], place[plane.across]
    tall, wide = layers.space[plane.down], layers.space[plane.across]
    row = tall - 1 - row if plane.flip_down else row
    column = wide - 1 - column if plane.flip_across else column
    top, left = (max(0, min(n - VIEW, i - VIEW // 2)) for i, n in ((row, tall), (column, wide)))
    slices = () if plane.axis is None else (place[plane.axis],)
    one = Plane(
        plane.axis, slices or plane.slices, plane.down, plane.across, flip_down=plane.flip_down, flip_across=plane.flip_across
    )

    def part(values: np.ndarray) -> np.ndarray:
        return one.tiles(values)[0][top : top + VIEW, left : left + VIEW]

    arrays = layers.arrays
    shape = part(arrays["flipcost"]).shape
    image = figures.to_bytes(part(arrays["image"]), limits) if "image" in arrays else np.full(shape, 90, np.uint8)
    mask = part(arrays["segmentation"]) > 0 if "segmentation" in arrays else np.zeros(shape, bool)
    levels = figures.map_levels(np.asarray(part(arrays["flipcost"]), np.float64), scales.flipcost)
    return figures.thumbnail(image, levels, mask, colours=scales.flipcost.colours)
