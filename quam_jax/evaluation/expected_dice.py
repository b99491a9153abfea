"""How good a segmentation can be expected to be where nobody has drawn one, from the prediction and its samples alone.

One sample is to another what the prediction is to an unknown truth, so the Dice of every two orders cases (Roy et al., NeuroImage
2019, doi 10.1016/j.neuroimage.2019.03.042); in a public comparison of ways to detect failed segmentations its mean was the best
simple score (Zenk et al. 2024, arXiv 2406.03323). What Dice it stands for is learnt from labelled cases (`guarantees`).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from .overlap import BLOCK, in_structure


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


def structure_dice(
    labels: Sequence[Integer[np.ndarray, "*space"]], structures: Bool[np.ndarray, "s c"]
) -> Float[np.ndarray, " s"]:
    """The mean Dice of every two label maps, for each structure; NaN for one that none of the maps shows.

    A pair in which one map alone shows the structure has a Dice of 0; pairs in which neither does are left out.
    """
    found = np.full(len(structures), np.nan)
    first, second = np.triu_indices(len(labels), 1)
    flat = [np.reshape(one, -1) for one in labels]
    for s, member in enumerate(structures):
        shared = np.zeros((len(labels), len(labels)), np.float64)
        for some in _blocks(flat[0].size):
            part = np.stack([in_structure(one[some], member) for one in flat]).astype(np.float32)
            shared += part @ part.T  # counts below 2**24 are exact
        sizes = np.diag(shared)
        total = (sizes[:, None] + sizes)[first, second]
        if (total > 0).any():
            found[s] = float(np.mean(2 * shared[first, second][total > 0] / total[total > 0]))
    return found


def probable_dice(
    probs: Float[np.ndarray, "*space s"], labels: Integer[np.ndarray, "*space"], structures: Bool[np.ndarray, "s c"]
) -> Float[np.ndarray, " s"]:
    """The Dice of a prediction with its own probabilities, 2 Σ_{prediction} p / (Σ p + |prediction|), for each structure."""
    flat, rows = np.reshape(labels, -1), np.reshape(probs, (-1, len(structures)))
    both, total = np.zeros(len(structures)), np.zeros(len(structures))
    for some in _blocks(flat.size):
        for s, member in enumerate(structures):
            inside = in_structure(flat[some], member)
            both[s] += 2 * float(rows[some, s].sum(where=inside, dtype=np.float64))
            total[s] += float(rows[some, s].sum(dtype=np.float64)) + int(np.count_nonzero(inside))
    return np.where(total > 0, both / np.where(total > 0, total, 1), np.nan)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))
