"""Overlap of two masks: Dice and IoU.

What a pair of empty masks gets is the argument `empty`, NaN by default: agreeing that nothing is there is
neither perfect nor wrong, and the choice moves tables (Metrics Reloaded, Maier-Hein et al. 2024).
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped

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

    Pixels of -1 in the second map do not count. Raises ValueError for different shapes or another label outside 0..classes-1.
    """
    if np.shape(labels) != np.shape(other):
        raise ValueError(f"labels: expected two maps of one shape, got {np.shape(labels)} and {np.shape(other)}")
    for one, least in ((np.asarray(labels), 0), (np.asarray(other), -1)):
        if one.size and (one.min() < least or one.max() >= classes):
            raise ValueError(f"labels: expected 0..{classes - 1}, got {one.min()}..{one.max()}")
    first, second = np.asarray(labels).reshape(-1), np.asarray(other).reshape(-1)
    counts = np.zeros(classes * classes, np.int64)
    for start in range(0, first.size, BLOCK):
        one, two = first[start : start + BLOCK].astype(np.int64), second[start : start + BLOCK]
        if (two < 0).any():
            one, two = one[two >= 0], two[two >= 0]
        counts += np.bincount(one * classes + two, minlength=classes * classes)
    return counts.reshape(classes, classes)


def in_structure(classes: Integer[np.ndarray, "*space"], member: Bool[np.ndarray, " c"]) -> Bool[np.ndarray, "*space"]:
    """Where a map shows one of the classes that make up a structure."""
    found = np.zeros(np.shape(classes), bool)
    for label in np.flatnonzero(member):  # a look-up would take eight bytes a pixel
        found |= classes == label
    return found


def structure_counts(
    counts: Int[np.ndarray, "c c"], structures: Bool[np.ndarray, "s c"]
) -> tuple[Int[np.ndarray, " s"], Int[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """Pixels of every structure in both maps, in the first and in the second, from a confusion matrix of classes."""
    member = structures.astype(np.int64)
    return ((member @ counts) * member).sum(1), member @ counts.sum(1), member @ counts.sum(0)


def ratio(part: Int[np.ndarray, " s"], whole: Int[np.ndarray, " s"], *, empty: float) -> Float[np.ndarray, " s"]:
    """Shares, `empty` where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), empty)


def class_dice(counts: Int[np.ndarray, "c c"], *, empty: float = float("nan")) -> Float[np.ndarray, " c"]:
    """Dice of every class from a confusion matrix; `empty` for a class in neither map."""
    return ratio(2 * np.diagonal(counts), counts.sum(axis=0) + counts.sum(axis=1), empty=empty)
