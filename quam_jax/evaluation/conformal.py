"""Statements that hold for the next case, from cases that could have been drawn in any order: no model of anything is assumed.

All that is assumed is that the next case is exchangeable with the `n` known ones. Then a bound read off them holds for it, for
any number of cases and any network: on average over both (marginally), not for every set of known cases.

- `control_risk`: conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814, eq. 4): a threshold at which the expected
  loss of the next case is at most `alpha`, for a loss between 0 and 1 that only falls as the threshold does.
- `conformal_quantile`: split-conformal prediction (Vovk et al. 2005; Lei et al. 2018): what the score of the next case does not
  exceed with a probability of at least `1 - alpha`.

Losses here are shares of pixels: a case has weights of some pixels, which sum to 1 or less, and a map; its loss at a threshold
is the weight of the pixels whose value lies below it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

ROUNDING = 1e-9  # of counts and of shares that are compared with whole numbers


class Losses(NamedTuple):
    """The loss of a case as a function of the threshold: the weight of the `values` below it."""

    values: Float[np.ndarray, " j"]
    weights: Float[np.ndarray, " j"]

    def at(self, threshold: float) -> float:
        """The loss at a threshold."""
        return float(self.weights[self.values < threshold].sum())


def require_alpha(alpha: float) -> None:
    """ValueError for a level outside (0, 1)."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a number between 0 and 1, got {alpha}")


def least_cases(alpha: float) -> int:
    """How many cases a statement at this level takes: the smallest n with 1 / (n + 1) <= alpha.

    Examples:
        >>> [least_cases(alpha) for alpha in (0.05, 0.1, 0.15, 0.2)]
        [19, 9, 6, 4]
    """
    require_alpha(alpha)
    return math.ceil(1 / alpha - ROUNDING) - 1


def require_cases(count: int, alpha: float, *, what: str) -> None:
    """ValueError, saying how many it takes, where a statement about `what` has too few cases."""
    if count < least_cases(alpha):
        raise ValueError(f"{what}: alpha {alpha:g} takes {least_cases(alpha)} cases or more, got {count}")


def control_risk(cases: Sequence[Losses], alpha: float) -> float:
    """The largest threshold at which the expected loss of the next case is at most `alpha`: (Σ L_i + 1) / (n + 1) <= alpha.

    What is at or above the threshold is looked at. Exact over all thresholds, since losses change at values of the cases alone.
    ValueError for too few cases, or where no case has a loss at any threshold.
    """
    require_cases(len(cases), alpha, what="risk control")
    return _largest_within(cases, alpha * (len(cases) + 1) - 1)


def mean_risk_threshold(cases: Sequence[Losses], alpha: float) -> float:
    """The largest threshold at which the mean loss of the cases themselves is at most `alpha`: what maps are compared by."""
    require_alpha(alpha)
    return _largest_within(cases, alpha * len(cases))


def _largest_within(cases: Sequence[Losses], budget: float) -> float:
    values, places = np.unique(np.concatenate([case.values for case in cases]).astype(np.float64), return_inverse=True)
    if not values.size:
        raise ValueError("risk control: expected cases with a loss, got none")
    weights = np.bincount(places, np.concatenate([case.weights for case in cases]), minlength=values.size)
    below = np.cumsum(weights) - weights  # the sum of all losses with the threshold at each value
    return float(values[np.flatnonzero(below <= budget + ROUNDING)[-1]])


def conformal_quantile(scores: Real[np.ndarray, " n"], alpha: float) -> float:
    """The ⌈(n + 1)(1 - alpha)⌉-th smallest score, which that of the next case exceeds with a probability of at most `alpha`.

    ValueError for too few cases, or a score that is NaN.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    require_cases(ordered.size, alpha, what="conformal quantile")
    if np.isnan(ordered).any():
        raise ValueError("conformal quantile: expected numbers, got NaN")
    return float(ordered[math.ceil((ordered.size + 1) * (1 - alpha) - ROUNDING) - 1])


def binomial_band(share: float, count: int, *, sds: float = 2.576) -> tuple[float, float]:
    """Between which shares the part of `count` independent trials lies that have this chance; 99 in 100 by default (normal)."""
    half = sds * math.sqrt(share * (1 - share) / count)
    return share - half, share + half
