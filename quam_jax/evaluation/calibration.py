"""Calibration: do pixels predicted with confidence .8 come out right in 8 of 10 cases?

`reliability` and `equal_count_reliability` put pixels into bins; ECE, MCE and ACE are read from the bins.
"Correct" is 0 or 1 against one rater, or the share of raters who chose the predicted class (the rater mean
as a soft label). Arrays may have any number of pixel axes, so the pixels of a band (`probabilities[band]`)
go in as they are. Without pixels every figure is NaN.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Real, Shaped


class Reliability(NamedTuple):
    """Bins of pixels: how many, their mean confidence and mean correctness (NaN in an empty bin).

    `accuracy` has a leading row for each set of outcomes (a rater each, or one row).
    """

    pixels: Float[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, "rows bins"]


def top_label(
    probabilities: Real[np.ndarray, "*space c"],
) -> tuple[Float[np.ndarray, "*space"], Integer[np.ndarray, "*space"]]:
    """The largest class probability and its class (ties: the smallest)."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    return probabilities.max(axis=-1), probabilities.argmax(axis=-1)


def reliability(
    confidence: Real[np.ndarray, "*space"], correct: Shaped[np.ndarray, " rows *space"], *, bins: int = 15
) -> Reliability:
    """Equal-width bins of [0, 1], each closed on the right (Guo et al. 2017); 0 falls into the first.

    Raises ValueError for a confidence outside [0, 1].
    """
    confidence, correct = _flat(confidence, correct, bins)
    inner = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    index = np.searchsorted(inner, confidence, side="left")
    count = np.bincount(index, minlength=bins).astype(np.float64)
    filled = np.where(count > 0, count, np.nan)
    sums = [np.bincount(index, weights=row, minlength=bins) for row in correct]
    return Reliability(count, np.bincount(index, weights=confidence, minlength=bins) / filled, np.stack(sums) / filled)


def equal_count_reliability(
    confidence: Real[np.ndarray, "*space"], correct: Shaped[np.ndarray, " rows *space"], *, bins: int = 15
) -> Reliability:
    """Bins of equal counts in order of confidence, for the adaptive calibration error (Nixon et al. 2019).

    Sizes differ by at most one. Pixels of equal confidence share their mean correctness, so that neither
    their order nor the cut through a tie changes a number (a saturated softmax has many ties at 1).
    """
    confidence, correct = _flat(confidence, correct, bins)
    bins = min(bins, confidence.size)
    if bins == 0:
        return Reliability(np.zeros(1), np.full(1, np.nan), np.full((len(correct), 1), np.nan))
    values, inverse, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    ordered = np.repeat(values, sizes)
    shared = [np.repeat(np.bincount(inverse, weights=row, minlength=values.size) / sizes, sizes) for row in correct]
    count = np.full(bins, confidence.size // bins, dtype=np.float64)
    count[: confidence.size % bins] += 1
    starts = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    return Reliability(
        count,
        np.add.reduceat(ordered, starts) / count,
        np.add.reduceat(np.stack(shared), starts, axis=1) / count,
    )


def ece(table: Reliability) -> Float[np.ndarray, " rows"]:
    """Expected calibration error Σ_b n_b/N |acc_b - conf_b| (Naeini et al. 2015), for each row."""
    total = table.pixels.sum()
    if not total:
        return np.full(len(table.accuracy), np.nan)
    return np.nansum(table.pixels / total * _gaps(table), axis=1)


def mce(table: Reliability) -> Float[np.ndarray, " rows"]:
    """Maximum calibration error max_b |acc_b - conf_b| over non-empty bins, for each row of outcomes."""
    filled = table.pixels > 0
    return _gaps(table)[:, filled].max(axis=1) if filled.any() else np.full(len(table.accuracy), np.nan)


def ace(table: Reliability) -> Float[np.ndarray, " rows"]:
    """Average calibration error: mean of |acc_b - conf_b| over non-empty bins (Neumann et al. 2018)."""
    filled = table.pixels > 0
    return _gaps(table)[:, filled].mean(axis=1) if filled.any() else np.full(len(table.accuracy), np.nan)


def classwise_ece(
    probabilities: Real[np.ndarray, "*space c"], raters: Integer[np.ndarray, " a *space"], *, bins: int = 15
) -> Float[np.ndarray, " a"]:
    """Mean over classes of the ECE of p_k against 1[y = k], for each rater (Nixon et al. 2019)."""
    classes = range(np.shape(probabilities)[-1])
    return np.mean([ece(reliability(probabilities[..., k], raters == k, bins=bins)) for k in classes], axis=0)


def classwise_ece_soft(
    probabilities: Real[np.ndarray, "*space c"], mean: Real[np.ndarray, "*space c"], *, bins: int = 15
) -> float:
    """Mean over classes of the ECE of p_k against the share of raters for class k."""
    classes = range(np.shape(probabilities)[-1])
    tables = [reliability(probabilities[..., k], mean[None, ..., k], bins=bins) for k in classes]
    return float(np.mean([ece(table)[0] for table in tables]))


def brier(probabilities: Real[np.ndarray, "*space c"], raters: Integer[np.ndarray, " a *space"]) -> Float[np.ndarray, " a"]:
    """Brier score: pixel mean of Σ_k (q_k - 1[y=k])², for each rater (twice the usual binary figure)."""
    q = np.asarray(probabilities, dtype=np.float64)
    square = np.square(q).sum(axis=-1)
    return np.array([_mean(square - 2 * _of_label(q, labels) + 1) for labels in raters])


def brier_soft(probabilities: Real[np.ndarray, "*space c"], mean: Real[np.ndarray, "*space c"]) -> float:
    """Brier score against the rater mean: pixel mean of Σ_k (q_k - p̄_k)²; 0 for q = p̄."""
    return _mean(np.square(np.asarray(probabilities, dtype=np.float64) - mean).sum(axis=-1))


def nll(
    probabilities: Real[np.ndarray, "*space c"],
    raters: Integer[np.ndarray, " a *space"],
    *,
    floor: float = 1e-12,
) -> Float[np.ndarray, " a"]:
    """Negative log-likelihood: pixel mean of -ln q_y in nats, for each rater.

    Probabilities are raised to `floor`, so that one pixel of probability 0 does not make the mean infinite.
    """
    q = np.asarray(probabilities, dtype=np.float64)
    return np.array([_mean(-np.log(np.maximum(_of_label(q, labels), floor))) for labels in raters])


def nll_soft(probabilities: Real[np.ndarray, "*space c"], mean: Real[np.ndarray, "*space c"], *, floor: float = 1e-12) -> float:
    """Cross-entropy against the rater mean, -Σ_k p̄_k ln q_k in nats; equal to the rater average of `nll`."""
    logs = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), floor))
    return _mean(-(logs * mean).sum(axis=-1))


def calibration(
    probabilities: Real[np.ndarray, "*space c"], raters: Integer[np.ndarray, " a *space"], *, bins: int = 15
) -> dict[str, float]:
    """Every figure by name: computed for each rater, on the pixels that are rated (not -1), then averaged."""
    raters = np.asarray(raters)
    if np.min(raters, initial=0) < 0:  # every rater by the pixels that this rater rated
        rated = [one >= 0 for one in raters]
        tables = [calibration(probabilities[k], one[None, k], bins=bins) for one, k in zip(raters, rated, strict=True) if k.any()]
        return {name: float(np.mean([table[name] for table in tables])) for name in tables[0]} if tables else {}
    confidence, label = top_label(probabilities)
    figures = _binned(confidence, raters == label, bins)
    figures["classwise_ece"] = classwise_ece(probabilities, raters, bins=bins)
    figures["brier"] = brier(probabilities, raters)
    figures["nll"] = nll(probabilities, raters)
    return {name: float(values.mean()) for name, values in figures.items()}


def calibration_soft(
    probabilities: Real[np.ndarray, "*space c"], mean: Real[np.ndarray, "*space c"], *, bins: int = 15
) -> dict[str, float]:
    """Every figure by name against the rater mean p̄: "correct" is p̄ of the predicted class."""
    confidence, label = top_label(probabilities)
    figures = {name: float(values[0]) for name, values in _binned(confidence, _of_label(mean, label)[None], bins).items()}
    figures["classwise_ece"] = classwise_ece_soft(probabilities, mean, bins=bins)
    figures["brier"] = brier_soft(probabilities, mean)
    figures["nll"] = nll_soft(probabilities, mean)
    return figures


def _binned(confidence: np.ndarray, correct: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    fixed = reliability(confidence, correct, bins=bins)
    adaptive = equal_count_reliability(confidence, correct, bins=bins)
    return {"ece": ece(fixed), "mce": mce(fixed), "ace": ace(fixed), "adaptive_ece": ece(adaptive)}


def _of_label(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The entry of the label in the last axis of a table, pixel by pixel."""
    return np.take_along_axis(table, labels[..., None], axis=-1)[..., 0]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _gaps(table: Reliability) -> Float[np.ndarray, "rows bins"]:
    return np.abs(table.accuracy - table.confidence)


def _flat(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    if np.shape(correct)[1:] != np.shape(confidence):
        raise ValueError(f"outcomes: expected shape [rows, {np.shape(confidence)}], got {np.shape(correct)}")
    flat = np.asarray(confidence, dtype=np.float64).ravel()
    # Probabilities that were normalised in float32 may pass 1 by a rounding step.
    if flat.size and not (flat.min() >= -1e-6 and flat.max() <= 1 + 1e-6):
        raise ValueError(f"confidence: expected values in 0..1, got {flat.min()}..{flat.max()}")
    return flat, np.asarray(correct).reshape(len(correct), flat.size)
