"""Distances between the borders of two masks: Hausdorff, its 95th percentile in two variants, surface Dice.

The distances are found once (`surface_distances`) and every figure is read from them. The border of a mask
is made of its pixels with a face neighbour outside it; the edge of the image counts as outside. Nearest
border pixels come from a k-d tree over border pixels alone, so the cost follows the length of the border
and not the size of the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage
from scipy.spatial import cKDTree

from .geometry import bounding_box, voxel_size, within


class SurfaceDistances(NamedTuple):
    """From each border pixel of one mask to the other border, and back; infinite to an empty mask."""

    forward: Float[np.ndarray, " f"]
    backward: Float[np.ndarray, " g"]


def border(mask: Shaped[np.ndarray, "*space"]) -> Bool[np.ndarray, "*space"]:
    """The pixels of a mask that have a face neighbour outside it (mask minus its erosion by a cross)."""
    mask = np.asarray(mask) != 0
    return mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1))


def surface_distances(
    mask: Shaped[np.ndarray, "*space"],
    other: Shaped[np.ndarray, "*space"],
    *,
    spacing: Sequence[float] | None = None,
    counted: Bool[np.ndarray, "*space"] | None = None,
) -> SurfaceDistances:
    """Nearest-border distances in both directions, in the unit of `spacing` (pixels without one).

    Distances are measured from the border pixels that are `counted` (None: all), to any.
    Raises ValueError for masks of different shapes.
    """
    if np.shape(mask) != np.shape(other):
        raise ValueError(f"masks: expected two of one shape, got {np.shape(mask)} and {np.shape(other)}")
    size = voxel_size(spacing, np.ndim(mask))
    first, second = _border_points(mask), _border_points(other)
    from_first, from_second = (points if counted is None else points[counted[tuple(points.T)]] for points in (first, second))
    return SurfaceDistances(_nearest(from_first * size, second * size), _nearest(from_second * size, first * size))


def hausdorff(distances: SurfaceDistances, *, both_empty: float = float("nan"), one_empty: float = float("nan")) -> float:
    """Hausdorff distance of the borders: the larger of the two directed maxima (Huttenlocher 1993)."""
    return _larger(distances, 100.0, both_empty, one_empty)


def hausdorff95(distances: SurfaceDistances, *, both_empty: float = float("nan"), one_empty: float = float("nan")) -> float:
    """HD95 as the larger of the two directed 95th percentiles (Metrics Reloaded 2024)."""
    return _larger(distances, 95.0, both_empty, one_empty)


def hausdorff95_pooled(
    distances: SurfaceDistances, *, both_empty: float = float("nan"), one_empty: float = float("nan")
) -> float:
    """HD95 as the 95th percentile of both directions pooled (the variant of MedPy)."""
    forward, backward = distances
    if not forward.size or not backward.size:
        return one_empty if forward.size or backward.size else both_empty
    return float(np.percentile(np.concatenate([forward, backward]), 95.0))


def surface_dice(distances: SurfaceDistances, *, tolerance: float, both_empty: float = float("nan")) -> float:
    """NSD: share of the border pixels of both masks that lie within `tolerance` of the other border.

    Nikolov et al. 2018 (arXiv 1809.04430), with border pixels counted instead of surface elements measured.
    Two empty masks get `both_empty`; a single empty mask gives 0. Raises ValueError for a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"surface dice: expected tolerance >= 0, got {tolerance}")
    pooled = np.concatenate(distances)
    return float(np.count_nonzero(within(pooled, tolerance)) / pooled.size) if pooled.size else both_empty


def _border_points(mask: np.ndarray) -> Int[np.ndarray, "f d"]:
    box = bounding_box(mask)
    # Cropping changes no border pixel: beyond the box there is no mask, as there is none beyond the image.
    return np.argwhere(border(np.asarray(mask)[box])) + np.array([part.start for part in box], dtype=np.int64)


def _nearest(points: np.ndarray, targets: np.ndarray) -> Float[np.ndarray, " f"]:
    if not len(targets):
        return np.full(len(points), np.inf)
    if not len(points):
        return np.zeros(0)
    return cKDTree(targets).query(points)[0]


def _larger(distances: SurfaceDistances, percent: float, both_empty: float, one_empty: float) -> float:
    forward, backward = distances
    if not forward.size or not backward.size:
        return one_empty if forward.size or backward.size else both_empty
    return float(max(np.percentile(forward, percent), np.percentile(backward, percent)))
