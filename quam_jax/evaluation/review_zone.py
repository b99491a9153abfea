"""How much of an image must one look at, so that no more than a share alpha of its errors is missed?

The threshold of a case comes from the other cases, by conformal risk control (conformal.py), so that the figure is what a person
would really have to look at: a map whose scale differs from case to case needs a large zone, however well it ranks the pixels of
each.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real

from .conformal import Losses, control_risk, least_cases

ALPHA = 0.1
WRONG, ALL = 64, 257  # quantiles that a case is remembered by, of its wrong pixels and of all


class Remembered(NamedTuple):
    """A map of a case: quantiles of its values where the prediction is wrong, and of all its values."""

    wrong: Float[np.ndarray, " w"]
    levels: Float[np.ndarray, " q"]


def remember(values: Real[np.ndarray, "*space"], wrong: Bool[np.ndarray, "*space"]) -> Remembered | None:
    """What is kept of a map; None where nothing is wrong, since nothing can be missed then."""
    if not wrong.any():
        return None
    levels = 1 - np.linspace(1, 0, ALL) ** 2  # dense where the map is large
    values = np.asarray(values, np.float64)
    some = np.linspace(0, 1, WRONG)
    return Remembered(np.quantile(values[wrong], some, method="nearest"), np.quantile(values, levels, method="nearest"))


def review_shares(cases: Sequence[Remembered], *, alpha: float = ALPHA) -> list[float]:
    """The share of each image at or above the threshold that the others give; NaN where they are too few for alpha.

    The expected share of its errors outside is at most alpha.
    """
    if len(cases) - 1 < least_cases(alpha):
        return [float("nan")] * len(cases)
    losses = [Losses(case.wrong, np.full(case.wrong.size, 1 / case.wrong.size)) for case in cases]
    below = 1 - np.linspace(1, 0, ALL) ** 2
    shares = []
    for place, case in enumerate(cases):
        threshold = control_risk([loss for other, loss in enumerate(losses) if other != place], alpha)
        values, first = np.unique(case.levels, return_index=True)
        shares.append(1 - float(np.interp(threshold, values, below[first], left=0.0, right=1.0)))
    return shares
