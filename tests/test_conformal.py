"""Conformal statements: by hand, by simulation over random splits, and how many cases they take."""

import math

import numpy as np
import pytest

from quam_jax.evaluation.conformal import (
    Losses,
    binomial_band,
    conformal_quantile,
    control_risk,
    least_cases,
    mean_risk_threshold,
)
from quam_jax.evaluation.expected_dice import probable_dice, structure_dice
from quam_jax.evaluation.review_zone import remember, review_shares

SPLITS = 1000
ALPHAS = (0.05, 0.1, 0.2)


def cases(count: int, seed: int) -> list[Losses]:
    """Cases whose wrong pixels have values of very different sizes, some of them alike; not all of a loss can always be lost."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        pixels = int(rng.integers(1, 40))
        values = np.round(rng.beta(2, rng.uniform(1, 6), pixels), 2)
        found.append(Losses(values, np.full(pixels, rng.choice([1.0, 0.6]) / pixels)))
    return found


def by_trying(known: list[Losses], alpha: float, *, extra: float) -> float:
    """The largest of all values at which the losses are few enough."""
    values = sorted({float(v) for case in known for v in case.values})
    return max(t for t in values if sum(case.at(t) for case in known) + extra <= alpha * (len(known) + extra) + 1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_risk_is_controlled_by_the_largest_threshold_that_is_allowed(alpha: float) -> None:
    known = cases(60, seed=1)
    assert control_risk(known, alpha) == by_trying(known, alpha, extra=1)
    assert mean_risk_threshold(known, alpha) == by_trying(known, alpha, extra=0)
    assert control_risk(known, alpha) <= mean_risk_threshold(known, alpha)
    assert control_risk(known[::-1], alpha) == control_risk(known, alpha)


def test_a_threshold_by_hand() -> None:
    """Nine cases at alpha .2 may lose (.2 x 10 - 1) = 1 in all: the wrong pixels of one of them."""
    known = [Losses(np.array([k / 10]), np.ones(1)) for k in range(1, 10)]
    assert control_risk(known, 0.2) == 0.2
    assert control_risk(known, 0.1) == 0.1
    assert mean_risk_threshold(known, 0.2) == 0.2
    assert Losses(np.array([0.1, 0.2, 0.2]), np.array([0.5, 0.25, 0.25])).at(0.2) == 0.5


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_next_case_is_covered_over_random_splits(alpha: float) -> None:
    """Of one data set, since coverage holds for any: over splits the next case is one of the others by chance."""
    known, scores = cases(90, seed=2), np.random.default_rng(3).lognormal(size=90)
    rng, lost, above = np.random.default_rng(4), [], 0
    count = 59
    for _ in range(SPLITS):
        order = rng.permutation(90)
        threshold = control_risk([known[i] for i in order[:count]], alpha)
        lost.append(known[order[count]].at(threshold))
        above += scores[order[count]] > conformal_quantile(scores[order[:count]], alpha)
    expected = 1 - math.ceil((count + 1) * (1 - alpha)) / (count + 1)
    low, high = binomial_band(expected, SPLITS)
    assert low <= above / SPLITS <= high
    assert np.mean(lost) <= binomial_band(alpha, SPLITS)[1]
    assert np.mean(lost) >= alpha - 2 / (count + 1) - (high - expected)  # nothing is given away


def test_how_many_cases_it_takes() -> None:
    for alpha in (*ALPHAS, 0.15, 0.3, 0.5):
        least = least_cases(alpha)
        known, scores = cases(least, seed=5), np.arange(least, dtype=float)
        control_risk(known, alpha)
        assert conformal_quantile(scores, alpha) == least - 1 or alpha == 0.3
        with pytest.raises(ValueError, match=f"takes {least} cases or more, got {least - 1}"):
            control_risk(known[1:], alpha)
        with pytest.raises(ValueError, match=f"takes {least} cases or more"):
            conformal_quantile(scores[1:], alpha)
    assert conformal_quantile(np.arange(14.0), 0.1) == 13  # the 14th of ⌈15 x .9⌉
    for alpha in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha: expected a number between 0 and 1"):
            least_cases(alpha)
    with pytest.raises(ValueError, match="expected numbers, got NaN"):
        conformal_quantile(np.array([1.0, np.nan, 2, 3]), 0.2)
    with pytest.raises(ValueError, match="expected cases with a loss"):
        control_risk([Losses(np.zeros(0), np.zeros(0))] * 4, 0.2)


def test_what_one_must_look_at_is_what_the_others_call_for() -> None:
    """Eleven cases whose errors are the fifth of the image with the largest values: others keep the zone at that size."""
    rng = np.random.default_rng(6)
    maps = [rng.permutation(1000).reshape(20, 50) / 1000 for _ in range(11)]
    kept = [remember(values, values >= 0.8) for values in maps]
    shares = review_shares([case for case in kept if case is not None])
    assert len(shares) == 11 and shares == pytest.approx([0.2] * 11, abs=0.03)
    scaled = [remember(values * scale, values >= 0.8) for values, scale in zip(maps, np.linspace(0.1, 1, 11), strict=True)]
    assert np.mean(review_shares([case for case in scaled if case is not None])) > 0.5  # no common scale
    assert np.isnan(review_shares(kept[:9])).all()  # type: ignore[arg-type]
    assert remember(maps[0], maps[0] > 2) is None


def test_dice_of_samples_by_hand() -> None:
    """Three maps of two structures; one that a single map shows has a Dice of 0 with the others."""
    first, second, third = (np.array(x) for x in ([1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 2]))
    structures = np.eye(4, dtype=bool)[1:]
    found = structure_dice([first, second, third], structures)
    assert found[0] == pytest.approx(np.mean([2 / 4, 2 / 3, 2 / 3]))
    assert found[1] == 0 and np.isnan(found[2])
    probs = np.zeros((4, 3))
    probs[:, 0] = [0.9, 0.6, 0.3, 0.2]
    expected = probable_dice(probs, first, structures)
    assert expected[0] == pytest.approx(2 * 1.5 / (2.0 + 2)) and np.isnan(expected[1:]).all()
