"""A set of segmentations against a set of raters: does the model draw what people draw, as often as they do?

Samples and raters are maps of classes. Overlaps are averaged over structures, the foreground classes 1..K-1 or what is made up of
several; one that
both maps lack counts as `empty`, 1 by default, since drawing nothing where a rater draws nothing is a match
here.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, Real
from scipy.optimize import linear_sum_assignment

from .agreement import THRESHOLDS
from .overlap import in_structure


def pairwise_overlap(
    first: Integer[np.ndarray, " n *space"],
    second: Integer[np.ndarray, " a *space"],
    *,
    classes: int,
    empty: float = 1.0,
    structures: Bool[np.ndarray, "s c"] | None = None,
) -> tuple[Float[np.ndarray, "n a"], Float[np.ndarray, "n a"]]:
    """IoU and Dice of every map of the first set with every map of the second, averaged over structures.

    `structures` says which classes make up each; None where every class but 0 is one.
    """
    both, sizes, others = _counts(first, second, classes, structures)
    total = sizes[:, None] + others[None]
    iou = np.where(total > both, both / np.maximum(total - both, 1), empty)
    dice = np.where(total > 0, 2 * both / np.maximum(total, 1), empty)
    return iou.mean(axis=-1), dice.mean(axis=-1)


def distribution_figures(
    samples: Integer[np.ndarray, " n *space"],
    raters: Integer[np.ndarray, " a *space"],
    *,
    classes: int = 2,
    weights: Real[np.ndarray, " n"] | None = None,
    empty: float = 1.0,
    structures: Bool[np.ndarray, "s c"] | None = None,
) -> dict[str, float]:
    """How well samples, weighted by `weights`, stand for raters, who count alike; from one count of all pairs.

    - `ged_v`, `ged_u`: the generalised energy distance 2E d(S,Y) - E d(S,S') - E d(Y,Y') with d = 1 - IoU (Kohl et al. 2018).
      The V-statistic draws S and S' with replacement, so pairs of a map with itself count (always >= 0 up to rounding); the
      U-statistic leaves them out, is unbiased, may be negative, and is NaN with a single sample (or all weight on one) or a
      single rater.
    - `d_max_raters`: mean over raters of the best Dice any sample reaches (is every rater covered?); `d_max_samples`: weighted
      mean of the best Dice with any rater (is every sample plausible?).
    - `hm_iou`: Hungarian-matched IoU (Kohl et al. 2019, arXiv 1905.13077): sets repeated to their least common multiple, then
      matched one to one. Every sample counts alike; weights have no place in a matching.

    ValueError for maps of other shapes, weights that are no shares, and fewer than two classes.
    """
    if np.shape(samples)[1:] != np.shape(raters)[1:]:
        raise ValueError(f"samples: expected maps of the raters' shape {np.shape(raters)[1:]}, got {np.shape(samples)[1:]}")
    share, count = _shares(weights, len(samples)), len(samples)
    both = np.concatenate([samples, raters])
    iou, dice = pairwise_overlap(both, both, classes=classes, empty=empty, structures=structures)
    dice = dice[:count, count:]
    return {
        "ged_v": _energy(iou, share, "V"),
        "ged_u": _energy(iou, share, "U"),
        "d_max_raters": float(dice.max(axis=0).mean()),
        "d_max_samples": float(share @ dice.max(axis=1)),
        "hm_iou": _matched(iou[:count, count:]),
    }


def qubiq_score(
    probability: Real[np.ndarray, "*space"],
    rater_share: Real[np.ndarray, "*space"],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    strict: bool = False,
    empty: float = 1.0,
) -> float:
    """Mean over thresholds t of Dice(1[q>=t], 1[p̄>=t]), with > for >= if `strict` (QUBIQ, arXiv 2405.18435).

    Both maps are shares of one class in [0, 1]; a threshold neither reaches scores `empty`.
    """
    q, p = np.asarray(probability, dtype=np.float64), np.asarray(rater_share, dtype=np.float64)
    if q.shape != p.shape:
        raise ValueError(f"qubiq: expected two maps of one shape, got {q.shape} and {p.shape}")
    scores = []
    for threshold in thresholds:
        in_q, in_p = (q > threshold, p > threshold) if strict else (q >= threshold, p >= threshold)
        total = np.count_nonzero(in_q) + np.count_nonzero(in_p)
        scores.append(2 * np.count_nonzero(in_q & in_p) / total if total else empty)
    return float(np.mean(scores))


def _energy(iou: np.ndarray, share: np.ndarray, statistic: str) -> float:
    """The energy distance from the IoU of all pairs of samples and raters, samples first."""
    distance, count = 1 - iou, len(share)
    alike = np.full(len(iou) - count, 1 / (len(iou) - count))
    return float(
        2 * share @ distance[:count, count:] @ alike
        - _spread(distance[:count, :count], share, statistic)
        - _spread(distance[count:, count:], alike, statistic)
    )


def _matched(table: np.ndarray) -> float:
    length = math.lcm(*table.shape)
    tiled = np.tile(table, (length // table.shape[0], length // table.shape[1]))
    rows, columns = linear_sum_assignment(1 - tiled)
    return float(tiled[rows, columns].mean())


def _shares(weights: np.ndarray | None, count: int) -> Float[np.ndarray, " n"]:
    if weights is None:
        return np.full(count, 1 / count)
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (count,) or not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise ValueError(f"weights: expected {count} numbers >= 0 with a positive sum, got shape {shares.shape}")
    return shares / shares.sum()


def _spread(distances: np.ndarray, shares: np.ndarray, statistic: str) -> float:
    if statistic == "V":
        return float(shares @ distances @ shares)
    pairs = np.outer(shares, shares)
    np.fill_diagonal(pairs, 0.0)
    return float((pairs * distances).sum() / pairs.sum()) if pairs.sum() > 0 else float("nan")


def _counts(
    first: np.ndarray, second: np.ndarray, classes: int, structures: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersections [n a s] and sizes [n s], [a s] of the structures."""
    first, second = np.asarray(first), np.asarray(second)
    if first.shape[1:] != second.shape[1:] or not len(first) or not len(second):
        raise ValueError(f"label maps: expected two sets of one shape, got {first.shape} and {second.shape}")
    if classes < 2:
        raise ValueError(f"classes: expected at least 2, got {classes}")
    both, sizes, others = [], [], []
    for member in np.eye(classes, dtype=bool)[1:] if structures is None else structures:
        one, two = _packed(in_structure(first, member)), _packed(in_structure(second, member))
        both.append([np.bitwise_count(row & two).sum(axis=1, dtype=np.int64) for row in one])
        sizes.append(np.bitwise_count(one).sum(axis=1, dtype=np.int64))
        others.append(np.bitwise_count(two).sum(axis=1, dtype=np.int64))
    return np.stack(both, axis=-1), np.stack(sizes, axis=-1), np.stack(others, axis=-1)


def _packed(masks: np.ndarray) -> np.ndarray:
    """Masks as rows of 64-bit words, so that pairs are counted 64 pixels at a time."""
    bits = np.packbits(masks.reshape(len(masks), -1), axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)
