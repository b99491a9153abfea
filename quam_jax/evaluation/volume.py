"""Volume of a structure as a random quantity: its interval under the samples, its score against raters.

The continuous ranked probability score, CRPS(F, y) = ∫ (F(z) - 1[z >= y])² dz, has the unit of the volume
and is the absolute error where F is a point. Sources: Gneiting and Raftery 2007; CURVAS (arXiv 2505.08685)
for its use here.
"""

import math

import numpy as np
from jaxtyping import Float, Real
from scipy import special


def volume_interval(
    volumes: Real[np.ndarray, " n"], *, weights: Real[np.ndarray, " n"] | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Central interval of weighted samples: the smallest volumes whose cumulated weight reaches (1∓level)/2.

    Raises ValueError for a level outside (0, 1) or weights that are no distribution.
    """
    if not 0 < level < 1:
        raise ValueError(f"volume interval: expected a level between 0 and 1, got {level}")
    values, shares = _distribution(volumes, weights)
    reached = np.cumsum(shares)
    # The tolerance keeps a weight sum of .9749999 from skipping the sample that was meant to complete .975.
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = (values[min(int(np.searchsorted(reached, tail - 1e-12)), values.size - 1)] for tail in tails)
    return float(low), float(high)


def crps_gaussian(observation: float, *, mean: float, sd: float) -> float:
    """CRPS of a normal distribution: σ[z(2Φ(z)-1) + 2φ(z) - 1/√π] with z = (y-μ)/σ; |y-μ| for σ = 0.

    With mean and sd of the raters' volumes and Σ_i p_i as observation this is the CURVAS volume score.
    """
    if sd < 0:
        raise ValueError(f"crps: expected sd >= 0, got {sd}")
    if sd == 0:
        return abs(observation - mean)
    z = (observation - mean) / sd
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return float(sd * (z * (2 * special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi)))


def crps_empirical(
    observation: float, volumes: Real[np.ndarray, " n"], *, weights: Real[np.ndarray, " n"] | None = None
) -> float:
    """CRPS of weighted samples: E|X-y| - E|X-X'|/2, both expectations with replacement, in O(n log n)."""
    values, shares = _distribution(volumes, weights)
    # For sorted values, E|X-X'|/2 = Σ over gaps of (value step)·F·(1-F).
    below = np.cumsum(shares)[:-1]
    spread = float(np.dot(np.diff(values), below * (1 - below)))
    return float(np.dot(shares, np.abs(values - observation)) - spread)


def _distribution(volumes: np.ndarray, weights: np.ndarray | None) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    values = np.asarray(volumes, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"volumes: expected a non-empty list, got shape {values.shape}")
    shares = np.ones(values.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != values.shape or not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise ValueError(f"weights: expected {values.size} numbers >= 0 with a positive sum, got shape {shares.shape}")
    order = np.argsort(values, kind="stable")
    return values[order], shares[order] / shares.sum()
