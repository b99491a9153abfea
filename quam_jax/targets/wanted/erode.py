"""The mask shrunk by the radius."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int
from scipy import ndimage

from ...evaluation.geometry import bounding_box, wider
from ..morphology import ROUNDING, Element, Outside, neighbours_set, squared_distance, structuring_element
from ..wish import Wish

PLACE = 2
LOCAL = True  # a pixel looks no further than the radius


def wanted(labels: Int[Array, "*space"], wish: Wish) -> Int[Array, "*space"]:
    """Every structure shrunk by `wish.radius` pixels."""
    return erode(labels, radius=int(wish.radius), classes=wish.classes, element=wish.element, outside=wish.outside)


def wanted_mm(labels: Int[np.ndarray, "*space"], wish: Wish, *, spacing: Sequence[float]) -> Int[np.ndarray, "*space"]:
    """Every structure shrunk by `wish.radius` mm."""
    return erode_mm(labels, radius=wish.radius, spacing=spacing, outside=wish.outside)


def erode(
    labels: Int[ArrayLike, "*space"], *, radius: int, classes: int = 2, element: Element = "square", outside: Outside = "edge"
) -> Int[Array, "*space"]:
    """Shrink every foreground structure by `radius` steps: a pixel stays only if its whole window has its label.

    With `disk` (a ball in a volume) it stays only if every pixel within the Euclidean distance `radius` has its label.
    `outside` says what lies beyond the image: more of the same (`edge`), or background, which eats a mask that touches
    the border (published).
    """
    labels = jnp.asarray(labels)
    if element == "disk":
        kept = [
            (labels == c) & (squared_distance(labels != c, reach=radius, outside=outside == "background") > radius * radius)
            for c in range(1, classes)
        ]
        return jnp.where(functools.reduce(jnp.logical_or, kept), labels, 0)
    window = structuring_element(labels.ndim, element)
    full = float(window.sum())
    for _ in range(radius):
        stays = jnp.zeros(labels.shape, bool)
        for c in range(1, classes):
            count = neighbours_set(labels == c, window, pad="edge" if outside == "edge" else "constant")
            stays = stays | ((labels == c) & (count == full))
        labels = jnp.where(stays, labels, 0)
    return labels


def erode_mm(
    labels: Int[np.ndarray, "*space"], *, radius: float, spacing: Sequence[float], outside: str = "edge"
) -> Int[np.ndarray, "*space"]:
    """Shrink every structure to the voxels with no voxel of another label within `radius` mm.

    `outside` says what lies beyond the volume: more of the same (`edge`), or `background`.
    """
    kept = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        # one voxel of margin is enough: what lies further out has a nearer one of another label in it
        box = wider(bounding_box(labels == label), [1] * labels.ndim, labels.shape)
        inside = labels[box] == label
        if outside == "background":
            distance = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[(slice(1, -1),) * labels.ndim]
        elif inside.all():
            return labels.copy()
        else:
            distance = ndimage.distance_transform_edt(inside, sampling=spacing)
        kept[box][inside & (distance > radius + ROUNDING)] = label
    return kept
