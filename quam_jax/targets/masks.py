"""What an adversarial model is asked for: points of the image and the labels wanted there.

Masks are moved as a whole: `mask_targets` makes one target whose members want the reference mask dilated, eroded, or one
of the fixed patterns. Pure functions of label maps of any spatial rank; a binary mask gives the published pair exactly.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from ..core.types import Targets

Element = Literal["square", "cross", "disk"]
Outside = Literal["edge", "background"]


def structuring_element(rank: int, element: Literal["square", "cross"]) -> Int[np.ndarray, "*window"]:
    """The neighbourhood of one step: all 3^rank cells, or the centre with its 2*rank face neighbours."""
    distance = np.abs(np.indices((3,) * rank) - 1).sum(0)
    return (distance <= (rank if element == "square" else 1)).astype(np.int32)


def _counts(mask: Array, element: Int[np.ndarray, "*window"], *, pad: Literal["edge", "constant"]) -> Array:
    """How many cells of the window around every pixel are set."""
    padded = jnp.pad(mask.astype(jnp.float32), 1, mode=pad)
    total = jnp.zeros(mask.shape)
    for offset in np.argwhere(element):
        total = total + lax.dynamic_slice(padded, [int(o) for o in offset], mask.shape)
    return total


def squared_distance(mask: Bool[Array, "*space"], *, reach: int, outside: bool = False) -> Int[Array, "*space"]:
    """Squared Euclidean distance in pixels to the nearest set pixel, exact up to `reach` and larger than reach^2 beyond.

    `outside` counts everything beyond the image as set. One pass an axis: the minimum of d + o^2 over offsets o gives the
    exact transform because squared distances add up over axes (Felzenszwalb and Huttenlocher 2012).
    """
    far = reach * reach + 1
    squared = jnp.pad(jnp.where(mask, 0, far).astype(jnp.int32), reach, constant_values=0 if outside else far)
    for axis, size in enumerate(mask.shape):
        squared = functools.reduce(
            jnp.minimum,
            (
                lax.slice_in_dim(squared, reach + offset, reach + offset + size, axis=axis) + offset * offset
                for offset in range(-reach, reach + 1)
            ),
        )
    return squared


def dilate(labels: Int[Array, "*space"], *, radius: int, classes: int = 2, element: Element = "square") -> Int[Array, "*space"]:
    """Grow the foreground by `radius` steps; a new pixel takes the most frequent foreground label around it.

    With `disk` (a ball in a volume) all pixels within the Euclidean distance `radius` take the nearest foreground label, the
    smaller one where two are as near. For two classes this is binary dilation. Labels already in the foreground keep their
    value.
    """
    if element == "disk":
        squared = jnp.stack([squared_distance(labels == c, reach=radius) for c in range(1, classes)])
        nearest = jnp.where(jnp.min(squared, 0) <= radius * radius, jnp.argmin(squared, 0) + 1, 0)
        return jnp.where(labels > 0, labels, nearest.astype(labels.dtype))
    window = structuring_element(labels.ndim, element)
    for _ in range(radius):
        votes = jnp.stack([_counts(labels == c, window, pad="constant") for c in range(1, classes)])
        grown = jnp.where(jnp.max(votes, 0) > 0, jnp.argmax(votes, 0) + 1, 0)
        labels = jnp.where(labels > 0, labels, grown.astype(labels.dtype))
    return labels


def erode(
    labels: Int[Array, "*space"], *, radius: int, classes: int = 2, element: Element = "square", outside: Outside = "edge"
) -> Int[Array, "*space"]:
    """Shrink every foreground structure by `radius` steps: a pixel stays only if its whole window has its label.

    With `disk` (a ball in a volume) it stays only if every pixel within the Euclidean distance `radius` has its label.
    `outside` says what lies beyond the image: more of the same (`edge`), or background, which eats a mask that touches
    the border (published).
    """
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
            count = _counts(labels == c, window, pad="edge" if outside == "edge" else "constant")
            stays = stays | ((labels == c) & (count == full))
        labels = jnp.where(stays, labels, 0)
    return labels


def checkerboard(shape: Sequence[int]) -> Int[Array, "*space"]:
    """Alternating 0 and 1."""
    return jnp.asarray(np.indices(tuple(shape)).sum(0) % 2, jnp.int32)


def ranked_classes(probs: Float[np.ndarray, "*space c"]) -> Int[np.ndarray, "*space c"]:
    """The classes of every pixel from the most to the least probable; of equal ones the smaller first."""
    return np.argsort(-np.asarray(probs), axis=-1, kind="stable").astype(np.int32)


def wanted_mask(
    labels: Int[Array, "*space"],
    shape: str,
    *,
    radius: int,
    classes: int,
    element: Element = "square",
    outside: Outside = "edge",
    probs: Float[Array, "*space c"] | None = None,
    key: Key[Array, ""] | None = None,
) -> Int[Array, "*space"]:
    """One wanted mask by name: dilate, erode, all_one, all_zero, alternating, random or other_class.

    `other_class` wants the runner-up class everywhere and needs `probs`; `random` needs a key.
    """

    def random() -> Array:
        if key is None:
            raise ValueError("wanted mask random: expected a key, got none")
        return jax.random.randint(key, labels.shape, 0, classes)

    def runner_up() -> Array:
        if probs is None:
            raise ValueError("wanted mask other_class: expected probabilities, got none")
        return jnp.argsort(-probs, axis=-1, stable=True)[..., 1]

    makers: dict[str, Callable[[], Array]] = {
        "dilate": lambda: dilate(labels, radius=radius, classes=classes, element=element),
        "erode": lambda: erode(labels, radius=radius, classes=classes, element=element, outside=outside),
        "all_one": lambda: jnp.ones_like(labels),
        "all_zero": lambda: jnp.zeros_like(labels),
        "alternating": lambda: checkerboard(labels.shape),
        "random": random,
        "other_class": runner_up,
    }
    if shape not in makers:
        raise ValueError(f"wanted mask: expected one of {', '.join(makers)}, got {shape!r}")
    return makers[shape]().astype(jnp.int32)


def mask_targets(wanted: Sequence[Int[Array, "*space"]], *, members: int) -> Targets:
    """One target of all pixels whose members want the given masks in turn; equal weights that sum to 1.

    Members beyond the number of masks repeat them, as the published code alternates dilated and eroded.
    """
    size = math.prod(wanted[0].shape)
    labels = jnp.stack([wanted[k % len(wanted)].reshape(-1) for k in range(members)])
    return Targets(points=jnp.arange(size)[None], labels=labels[None], weights=jnp.full((1, size), 1.0 / size))
