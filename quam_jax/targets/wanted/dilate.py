"""The mask grown by the radius."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int
from scipy import ndimage

from ...evaluation.geometry import bounding_box, wider
from ..morphology import ROUNDING, Element, neighbours_set, squared_distance, structuring_element
from ..wish import Wish

PLACE = 1
LOCAL = True  # a pixel looks no further than the radius


def wanted(labels: Int[Array, "*space"], wish: Wish) -> Int[Array, "*space"]:
    """Every structure grown by `wish.radius` pixels."""
    return dilate(labels, radius=int(wish.radius), classes=wish.classes, element=wish.element)


def wanted_mm(labels: Int[np.ndarray, "*space"], wish: Wish, *, spacing: Sequence[float]) -> Int[np.ndarray, "*space"]:
    """Every structure grown by `wish.radius` mm."""
    return dilate_mm(labels, radius=wish.radius, spacing=spacing)


def dilate(
    labels: Int[ArrayLike, "*space"], *, radius: int, classes: int = 2, element: Element = "square"
) -> Int[Array, "*space"]:
    """Grow the foreground by `radius` steps; a new pixel takes the most frequent foreground label around it.

    With `disk` (a ball in a volume) all pixels within the Euclidean distance `radius` take the nearest foreground label, the
    smaller one where two are as near. For two classes this is binary dilation. Labels already in the foreground keep their
    value.
    """
    labels = jnp.asarray(labels)
    if element == "disk":
        squared = jnp.stack([squared_distance(labels == c, reach=radius) for c in range(1, classes)])
        nearest = jnp.where(jnp.min(squared, 0) <= radius * radius, jnp.argmin(squared, 0) + 1, 0)
        return jnp.where(labels > 0, labels, nearest.astype(labels.dtype))
    window = structuring_element(labels.ndim, element)
    for _ in range(radius):
        votes = jnp.stack([neighbours_set(labels == c, window, pad="constant") for c in range(1, classes)])
        grown = jnp.where(jnp.max(votes, 0) > 0, jnp.argmax(votes, 0) + 1, 0)
        labels = jnp.where(labels > 0, labels, grown.astype(labels.dtype))
    return labels


def dilate_mm(labels: Int[np.ndarray, "*space"], *, radius: float, spacing: Sequence[float]) -> Int[np.ndarray, "*space"]:
    """Grow the foreground to all voxels whose centre is within `radius` mm of it; each takes the nearest voxel's label."""
    if not labels.any():
        return labels.copy()
    box = wider(bounding_box(labels != 0), [int(radius / length) + 1 for length in spacing], labels.shape)
    near, grown = labels[box], np.zeros_like(labels)  # nothing grows beyond the box
    distance, nearest = ndimage.distance_transform_edt(near == 0, sampling=spacing, return_indices=True)
    grown[box] = np.where(distance <= radius + ROUNDING, near[tuple(nearest)], 0)
    return grown
