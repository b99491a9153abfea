"""How far the samples of a case agree with one another as segmentations: the Dice that is expected of two of them.

Where nobody has drawn a reference, one sample is to another what the prediction is to an unknown truth: the mean pairwise Dice
orders cases by how good a segmentation can be expected to be (Roy et al., NeuroImage 2019, doi 10.1016/j.neuroimage.2019.03.042).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer


def mean_pairwise_dice(labels: Sequence[Integer[np.ndarray, "*space"]], weights: Float[np.ndarray, " n"] | None = None) -> float:
    """Weighted mean over pairs i < j of samples of their Dice, a pair weighing w_i w_j; NaN for fewer than two.

    `labels` are the label maps [*space] of n samples, `weights` their weights (equal without). The Dice of two label maps is the
    mean over the foreground classes that either has, and 1 where neither has any. ValueError for another number of weights than
    samples, or negative ones.

    Examples:
        >>> mean_pairwise_dice([np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0, 1, 1])])
        0.7777777777777777
    """
    count = len(labels)
    given = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (count,) or (given < 0).any():
        raise ValueError(f"weights: expected {count} numbers >= 0, got {given.tolist()}")
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count) if given[i] * given[j] > 0]
    shares = np.array([given[i] * given[j] for i, j in pairs])
    if not pairs:
        return float("nan")
    return float(np.average([dice_of_labels(labels[i], labels[j]) for i, j in pairs], weights=shares))


def dice_of_labels(labels: Integer[np.ndarray, "*space"], other: Integer[np.ndarray, "*space"]) -> float:
    """Dice of two label maps, mean over the foreground classes that either has; 1 where neither has any."""
    most = int(max(labels.max(initial=0), other.max(initial=0))) + 1
    mine, theirs = (np.bincount(values[values > 0].ravel(), minlength=most) for values in (labels, other))
    both = np.bincount(labels[(labels > 0) & (labels == other)].ravel(), minlength=most)
    there = mine + theirs > 0
    return float((2 * both[there] / (mine + theirs)[there]).mean()) if there.any() else 1.0
