"""How well a prediction is expected to overlap with what raters would draw, from the prediction and its samples alone.

The mean Dice of every two of them is the simplest score, and in a public comparison of ways to detect failed segmentations the
best one (Zenk et al. 2024, arXiv 2406.03323). It orders cases; what Dice it stands for is learnt from labelled cases.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from .overlap import BLOCK, in_structure


def pairwise_dice(
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
