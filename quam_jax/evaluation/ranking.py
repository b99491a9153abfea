"""Failure detection: does the uncertainty put wrong pixels before right ones?

A map is sorted once into `ErrorCounts` (how many right and wrong pixels at each distinct value) and every
figure is read from that table, exactly and with ties treated as ties. Tables of several cases can be
merged, which gives the figures *pooled* over all pixels of all cases; they are other numbers than the mean
of *per-image* figures. Errors are the positives. A figure that needs both right and wrong pixels is NaN
where one kind is missing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped
from scipy import special


class ErrorCounts(NamedTuple):
    """Distinct uncertainty values in ascending order, with the number of right and wrong pixels at each."""

    values: Float[np.ndarray, " v"]
    right: Int[np.ndarray, " v"]
    wrong: Int[np.ndarray, " v"]


class FilteredDice(NamedTuple):
    """Dice of the pixels kept at each threshold; shares of true positives and negatives thrown away."""

    thresholds: Float[np.ndarray, " t"]
    dice: Float[np.ndarray, " t"]
    filtered_positives: Float[np.ndarray, " t"]
    filtered_negatives: Float[np.ndarray, " t"]


def count_errors(uncertainty: Real[np.ndarray, "*space"], wrong: Bool[np.ndarray, "*space"]) -> ErrorCounts:
    """Sort a map into its distinct values with right and wrong pixels at each.

    Raises ValueError for different shapes or a NaN, which has no rank.
    """
    if np.shape(uncertainty) != np.shape(wrong):
        raise ValueError(f"ranking: expected maps of one shape, got {np.shape(uncertainty)} and {np.shape(wrong)}")
    values = np.asarray(uncertainty, dtype=np.float64).ravel()
    bad = np.asarray(wrong, dtype=bool).ravel()
    if np.isnan(values).any():
        raise ValueError(f"ranking: expected numbers, got {np.count_nonzero(np.isnan(values))} NaN in the map")
    order = np.argsort(values)
    return _grouped(values[order], np.ones(values.size, dtype=np.int64), bad[order].astype(np.int64))


def auroc(counts: ErrorCounts) -> float:
    """Probability that a wrong pixel is more uncertain than a right one, ties counting half."""
    right, wrong = counts.right.sum(), counts.wrong.sum()
    if not right or not wrong:
        return float("nan")
    below = np.cumsum(counts.right) - counts.right
    return float((counts.wrong / wrong * ((below + counts.right / 2) / right)).sum())


def average_precision(counts: ErrorCounts) -> float:
    """Σ_i (recall_i - recall_{i-1}) precision_i, distinct values from the largest; NaN without an error."""
    wrong = counts.wrong.sum()
    if not wrong:
        return float("nan")
    hits = np.cumsum(counts.wrong[::-1])
    flagged = np.cumsum((counts.right + counts.wrong)[::-1])
    return float((counts.wrong[::-1] / wrong * (hits / flagged)).sum())


def aurc(counts: ErrorCounts) -> float:
    """Area under the risk-coverage curve: mean over i of the error rate of the i most certain pixels.

    Geifman et al. 2019 (arXiv 1805.08206). Inside a tie the expectation over all orders is taken, in closed
    form.
    """
    size = counts.right + counts.wrong
    total = size.sum()
    if not total:
        return float("nan")
    start, errors = np.cumsum(size) - size, np.cumsum(counts.wrong) - counts.wrong
    rate = counts.wrong / size
    # Σ over the group of (errors + rate·(i - start))/i, with Σ 1/i a difference of harmonic numbers.
    harmonic = 1 / (start + 1)
    tied = size > 1
    first, last = start[tied], (start + size)[tied]
    harmonic[tied] = special.digamma(last + 1) - special.digamma(first + 1)
    return float(((errors - rate * start) * harmonic + rate * size).sum() / total)


def e_aurc(counts: ErrorCounts) -> float:
    """AURC above the best possible: AURC - [e + (1-e) ln(1-e)], e the error rate (Geifman et al. 2019)."""
    total = (counts.right + counts.wrong).sum()
    if not total:
        return float("nan")
    rate = counts.wrong.sum() / total
    return float(aurc(counts) - (rate + special.xlogy(1 - rate, 1 - rate)))


def augrc(counts: ErrorCounts) -> float:
    """Area under the generalised risk-coverage curve, risk = P(wrong and accepted) (arXiv 2407.01032).

    The curve is joined by straight lines from (0, 0), so that AUGRC = (1-AUROC) e (1-e) + e²/2 holds exactly.
    """
    size = counts.right + counts.wrong
    total = size.sum()
    if not total:
        return float("nan")
    errors = np.cumsum(counts.wrong)
    return float((size / total * ((errors - counts.wrong / 2) / total)).sum())


def pavpu(counts: ErrorCounts, thresholds: Real[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """PAvPU at each threshold: the share of pixels that are right and certain or wrong and uncertain.

    Mukhoti and Gal 2018 (arXiv 1811.12709); certain means u <= threshold. For their patches, count the
    errors of `pool_patches`.
    """
    total = (counts.right + counts.wrong).sum()
    upto = np.searchsorted(counts.values, np.asarray(thresholds, dtype=np.float64), side="right")
    right = np.concatenate([[0], np.cumsum(counts.right)])[upto]
    wrong = np.concatenate([[0], np.cumsum(counts.wrong)])[upto]
    if not total:
        return np.full(upto.shape, np.nan)
    return (right + counts.wrong.sum() - wrong) / total


def pavpu_sweep(counts: ErrorCounts, *, steps: int = 21) -> float:
    """Mean PAvPU over `steps` equally spaced thresholds from the smallest to the largest uncertainty."""
    if not counts.values.size:
        return float("nan")
    return float(pavpu(counts, np.linspace(counts.values[0], counts.values[-1], steps)).mean())


def pool_patches(
    uncertainty: Real[np.ndarray, "*space"], wrong: Bool[np.ndarray, "*space"], *, size: int
) -> tuple[Float[np.ndarray, "*patches"], Bool[np.ndarray, "*patches"]]:
    """Mean uncertainty of each patch, and whether at most half of its pixels are right (arXiv 1811.12709).

    Patches of `size` pixels along every axis do not overlap; those at the far edges may be smaller.
    """
    if size < 1:
        raise ValueError(f"patches: expected a size of at least 1, got {size}")
    sums = [np.asarray(part, dtype=np.float64) for part in (uncertainty, wrong, np.ones(np.shape(wrong)))]
    for axis in range(np.ndim(wrong)):
        starts = np.arange(0, np.shape(wrong)[axis], size)
        sums = [np.add.reduceat(part, starts, axis=axis) for part in sums]
    return sums[0] / sums[2], sums[1] / sums[2] >= 0.5


def filtered_dice(
    uncertainty: Real[np.ndarray, "*space"],
    mask: Shaped[np.ndarray, "*space"],
    reference: Shaped[np.ndarray, "*space"],
    *,
    thresholds: Sequence[float] | None = None,
    empty: float = 1.0,
) -> FilteredDice:
    """QU-BraTS curve: throw away pixels with u > τ and take the Dice of the rest, for τ from 0 to 1.

    Mehta et al. 2022 (QU-BraTS). `uncertainty` is scaled to [0, 1] by the caller; the default thresholds
    are 0, .01, ..., 1. The filtered shares are (TP_1 - TP_τ)/TP_1 and (TN_1 - TN_τ)/TN_1, NaN if there are
    none to filter; a threshold that leaves no foreground scores `empty`. Raises ValueError for uncertainty
    outside [0, 1].
    """
    u = np.asarray(uncertainty, dtype=np.float64).ravel()
    if u.size and not (u.min() >= 0 and u.max() <= 1):
        raise ValueError(f"filtered dice: expected uncertainty in 0..1, got {u.min()}..{u.max()}")
    taus = np.linspace(0, 1, 101) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    predicted, true = np.asarray(mask).ravel() != 0, np.asarray(reference).ravel() != 0
    if not u.size == predicted.size == true.size:
        raise ValueError(f"filtered dice: expected one size, got {u.size}, {predicted.size} and {true.size}")
    # Pixels are put between thresholds by bisection, then counted from below: one pass for all thresholds.
    order = np.argsort(taus, kind="stable")
    slot = np.searchsorted(taus[order], u, side="left")

    def kept(pixels: np.ndarray) -> np.ndarray:
        counts = np.cumsum(np.bincount(slot[pixels], minlength=taus.size + 1)[:-1])
        back = np.empty(taus.size)
        back[order] = counts
        return back

    positives, negatives = kept(predicted & true), kept(~predicted & ~true)
    total = kept(predicted) + kept(true)
    dice = np.where(total > 0, 2 * positives / np.maximum(total, 1), empty)
    all_positives, all_negatives = np.count_nonzero(predicted & true), np.count_nonzero(~predicted & ~true)
    return FilteredDice(
        taus,
        dice,
        1 - positives / all_positives if all_positives else np.full(taus.size, np.nan),
        1 - negatives / all_negatives if all_negatives else np.full(taus.size, np.nan),
    )


def qu_brats_score(curve: FilteredDice) -> float:
    """[AUC(Dice) + 1 - AUC(filtered TP) + 1 - AUC(filtered TN)] / 3 over the thresholds (QU-BraTS 2022)."""
    span = curve.thresholds[-1] - curve.thresholds[0]
    areas = [np.trapezoid(part, curve.thresholds) / span for part in curve[1:]]
    return float((areas[0] + (1 - areas[1]) + (1 - areas[2])) / 3)


def _grouped(values: np.ndarray, size: np.ndarray, wrong: np.ndarray) -> ErrorCounts:
    if not values.size:
        return ErrorCounts(values, size, wrong)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    wrong = np.add.reduceat(wrong, starts)
    return ErrorCounts(values[starts], np.add.reduceat(size, starts) - wrong, wrong)
