"""Overlap of two masks: Dice and IoU.

What a pair of empty masks gets is the argument `empty`, NaN by default: agreeing that nothing is there is
neither perfect nor wrong, and the choice moves tables (Metrics Reloaded, Maier-Hein et al. 2024).
"""

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

BLOCK = 2**22  # pixels that are counted at a time


def dice(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"], *, empty: float = float("nan")) -> float:
    """Dice 2|A∩B| / (|A|+|B|) of the non-zero pixels; `empty` if both masks are empty."""
    if np.shape(mask) != np.shape(other):
        raise ValueError(f"masks: expected two of one shape, got {np.shape(mask)} and {np.shape(other)}")
    first, second = np.asarray(mask) != 0, np.asarray(other) != 0
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else empty


def confusion(
    labels: Integer[np.ndarray, "*space"], other: Integer[np.ndarray, "*space"], *, classes: int
) -> Int[np.ndarray, "c c"]:
    """Number of pixels with label i in the first and j in the second map, from one pass over both.

    Raises ValueError for different shapes or a label outside 0..classes-1.
    """
    if np.shape(labels) != np.shape(other):
        raise ValueError(f"labels: expected two maps of one shape, got {np.shape(labels)} and {np.shape(other)}")
    for one in (np.asarray(labels), np.asarray(other)):
        if one.size and (one.min() < 0 or one.max() >= classes):
            raise ValueError(f"labels: expected 0..{classes - 1}, got {one.min()}..{one.max()}")
    first, second = np.asarray(labels).reshape(-1), np.asarray(other).reshape(-1)
    counts = np.zeros(classes * classes, np.int64)
    for start in range(0, first.size, BLOCK):
        some = slice(start, start + BLOCK)
        counts += np.bincount(first[some].astype(np.int64) * classes + second[some], minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_dice(counts: Int[np.ndarray, "c c"], *, empty: float = float("nan")) -> Float[np.ndarray, " c"]:
    """Dice of every class from a confusion matrix; `empty` for a class in neither map."""
    both, total = np.diagonal(counts), counts.sum(axis=0) + counts.sum(axis=1)
    return np.where(total > 0, 2 * both / np.maximum(total, 1), empty)


def class_iou(counts: Int[np.ndarray, "c c"], *, empty: float = float("nan")) -> Float[np.ndarray, " c"]:
    """IoU of every class from a confusion matrix; `empty` for a class in neither map."""
    both = np.diagonal(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - both
    return np.where(union > 0, both / np.maximum(union, 1), empty)
