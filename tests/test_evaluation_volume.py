"""Volumes as random quantities: scores by numerical integration, intervals by hand."""

import numpy as np
import pytest
from scipy import integrate, stats

from quam_jax.evaluation import volume


@pytest.mark.parametrize("observation", [-1.0, 3.0, 4.2, 9.0])
def test_gaussian_score_is_the_integral(observation):
    distribution = stats.norm(3.0, 1.5)
    below = integrate.quad(lambda z: distribution.cdf(z) ** 2, -20, observation)[0]
    above = integrate.quad(lambda z: distribution.sf(z) ** 2, observation, 30)[0]
    assert volume.crps_gaussian(observation, mean=3.0, sd=1.5) == pytest.approx(below + above, abs=1e-7)


def test_gaussian_score_of_a_point():
    assert volume.crps_gaussian(5.0, mean=3.0, sd=0.0) == 2.0
    assert volume.crps_gaussian(3.0, mean=3.0, sd=2.0) == pytest.approx(2 * (np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi)))


def test_empirical_score_by_hand():
    # F is 1/2 on [1, 3): with y = 2 the integral is (1/2)² + (1/2)²
    assert volume.crps_empirical(2.0, np.array([1.0, 3.0])) == pytest.approx(0.5)
    # y = 5 lies beyond: (1/2)² over 2 and 1 over 2
    assert volume.crps_empirical(5.0, np.array([3.0, 1.0])) == pytest.approx(2.5)
    # F is 3/4 on [1, 3): (3/4)² up to 2 and (1/4)² after it
    weighted = volume.crps_empirical(2.0, np.array([1.0, 3.0]), weights=np.array([3.0, 1.0]))
    assert weighted == pytest.approx(9 / 16 + 1 / 16)
    assert volume.crps_empirical(2.0, np.array([7.0])) == 5.0


def test_empirical_score_equals_both_expectations():
    rng = np.random.default_rng(0)
    values, weights = rng.integers(0, 30, 12).astype(float), rng.random(12)
    share = weights / weights.sum()
    expected = share @ abs(values - 11) - share @ abs(values[:, None] - values) @ share / 2
    assert volume.crps_empirical(11.0, values, weights=weights) == pytest.approx(expected)


def test_empirical_score_tends_to_the_gaussian():
    sample = stats.norm(10, 2).ppf((np.arange(4000) + 0.5) / 4000)
    assert volume.crps_empirical(12.0, sample) == pytest.approx(volume.crps_gaussian(12.0, mean=10.0, sd=2.0), abs=1e-3)


def test_interval_by_hand():
    values = np.array([5.0, 1.0, 3.0, 4.0, 2.0])
    assert volume.volume_interval(values, level=0.6) == (1.0, 4.0)  # weight .2 is reached at 1, .8 at 4
    assert volume.volume_interval(values, level=0.95) == (1.0, 5.0)
    heavy = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    assert volume.volume_interval(values, weights=heavy) == (3.0, 3.0)


def test_weights_are_repetitions_and_order_is_free():
    values, weights = np.array([4.0, 8.0, 1.0]), np.array([1, 3, 2])
    repeated = np.repeat(values, weights)[::-1]
    for level in (0.3, 0.5, 0.9):
        assert volume.volume_interval(values, weights=weights, level=level) == volume.volume_interval(repeated, level=level)
    assert volume.crps_empirical(3.0, values, weights=weights) == pytest.approx(volume.crps_empirical(3.0, repeated))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="level"):
        volume.volume_interval(np.ones(2), level=1.0)
    with pytest.raises(ValueError, match="non-empty"):
        volume.crps_empirical(1.0, np.zeros(0))
    with pytest.raises(ValueError, match="weights: expected 2"):
        volume.crps_empirical(1.0, np.ones(2), weights=np.zeros(2))
    with pytest.raises(ValueError, match="sd"):
        volume.crps_gaussian(1.0, mean=0.0, sd=-1.0)
