"""Overlap and size of two masks: Dice, IoU and volume errors.

What a pair of empty masks gets is the argument `empty`, NaN by default: agreeing that nothing is there is
neither perfect nor wrong, and the choice moves tables (Metrics Reloaded, Maier-Hein et al. 2024).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from .geometry import voxel_size


def dice(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"], *, empty: float = float("nan")) -> float:
    """Dice 2|A∩B| / (|A|+|B|) of the non-zero pixels; `empty` if both masks are empty."""
    both, first, second = _sizes(mask, other)
    return 2 * both / (first + second) if first + second else empty


def iou(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"], *, empty: float = float("nan")) -> float:
    """Intersection over union |A∩B| / |A∪B| of the non-zero pixels; `empty` if both masks are empty."""
    both, first, second = _sizes(mask, other)
    return both / (first + second - both) if first + second else empty


def volume(mask: Shaped[np.ndarray, "*space"], *, spacing: Sequence[float] | None = None) -> float:
    """Volume of the non-zero pixels (an area in 2-D), in the unit of `spacing` to the power of the rank."""
    return float(np.count_nonzero(mask) * voxel_size(spacing, np.ndim(mask)).prod())


def volume_error(
    mask: Shaped[np.ndarray, "*space"],
    reference: Shaped[np.ndarray, "*space"],
    *,
    spacing: Sequence[float] | None = None,
) -> float:
    """Signed volume difference |A| - |B|, positive if `mask` is larger than `reference`."""
    return volume(mask, spacing=spacing) - volume(reference, spacing=spacing)


def relative_volume_error(
    mask: Shaped[np.ndarray, "*space"],
    reference: Shaped[np.ndarray, "*space"],
    *,
    empty: float = float("nan"),
) -> float:
    """Signed relative volume difference (|A| - |B|) / |B|; `empty` if the reference is empty."""
    size = np.count_nonzero(reference)
    return (np.count_nonzero(mask) - size) / size if size else empty


def confusion(
    labels: Integer[np.ndarray, "*space"], other: Integer[np.ndarray, "*space"], *, classes: int
) -> Int[np.ndarray, "c c"]:
    """Number of pixels with label i in the first and j in the second map, from one pass over both.

    Raises ValueError for different shapes or a label outside 0..classes-1.
    """
    if np.shape(labels) != np.shape(other):
        raise ValueError(f"labels: expected two maps of one shape, got {np.shape(labels)} and {np.shape(other)}")
    first, second = np.asarray(labels).ravel().astype(np.int64), np.asarray(other).ravel().astype(np.int64)
    for one in (first, second):
        if one.size and (one.min() < 0 or one.max() >= classes):
            raise ValueError(f"labels: expected 0..{classes - 1}, got {one.min()}..{one.max()}")
    return np.bincount(first * classes + second, minlength=classes * classes).reshape(classes, classes)


def class_dice(counts: Int[np.ndarray, "c c"], *, empty: float = float("nan")) -> Float[np.ndarray, " c"]:
    """Dice of every class from a confusion matrix; `empty` for a class in neither map."""
    both, total = np.diagonal(counts), counts.sum(axis=0) + counts.sum(axis=1)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), empty)


def class_iou(counts: Int[np.ndarray, "c c"], *, empty: float = float("nan")) -> Float[np.ndarray, " c"]:
    """IoU of every class from a confusion matrix; `empty` for a class in neither map."""
    both = np.diagonal(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - both
    return np.where(union > 0, both / np.maximum(union, 1), empty)


def _sizes(mask: np.ndarray, other: np.ndarray) -> tuple[int, int, int]:
    if np.shape(mask) != np.shape(other):
        raise ValueError(f"masks: expected two of one shape, got {np.shape(mask)} and {np.shape(other)}")
    first, second = np.asarray(mask) != 0, np.asarray(other) != 0
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))
