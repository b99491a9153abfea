"""Samples against raters: two-pixel sets by hand, pairs one at a time, permutations for the matching."""

import itertools

import numpy as np
import pytest

from quam_jax.evaluation import distribution, overlap

# Two pixels: {left}, {right}, {both}, {}.
LEFT, RIGHT, BOTH, NOTHING = ([1, 0], [0, 1], [1, 1], [0, 0])


def maps(*rows):
    return np.array(rows)[:, None, :]  # [n, 1, 2]


def figure(name, samples, raters, *, classes=2, **settings):
    return distribution.distribution_figures(samples, raters, classes=classes, **settings)[name]


def test_pairwise_by_hand():
    table, _ = distribution.pairwise_overlap(maps(LEFT, BOTH, NOTHING), maps(LEFT, RIGHT, NOTHING), classes=2)
    np.testing.assert_array_equal(table, [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])
    _, table = distribution.pairwise_overlap(maps(BOTH), maps(LEFT, NOTHING), classes=2)
    np.testing.assert_allclose(table, [[2 / 3, 0]])
    nothing = distribution.pairwise_overlap(maps(NOTHING), maps(NOTHING), classes=2, empty=0.25)
    assert [table[0, 0] for table in nothing] == [0.25, 0.25]


@pytest.mark.parametrize("shape", [(6, 7), (8, 8), (3, 4, 5), (5, 13, 2)])
def test_pairwise_equals_one_pair_at_a_time(shape):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (3, *shape)), rng.integers(0, 3, (2, *shape))
    second[0] = 0
    got_iou, got_dice = distribution.pairwise_overlap(first, second, classes=5)
    for i, j in itertools.product(range(3), range(2)):
        pairs = [(first[i] == label, second[j] == label) for label in range(1, 5)]
        assert got_iou[i, j] == pytest.approx(
            np.mean([(a & b).sum() / (a | b).sum() if (a | b).any() else 1.0 for a, b in pairs])
        )
        assert got_dice[i, j] == pytest.approx(np.mean([overlap.dice(*pair, empty=1.0) for pair in pairs]))


def test_ged_by_hand():
    samples, raters = maps(LEFT, RIGHT), maps(LEFT, BOTH)
    # d(S,Y): left-left 0, left-both 1/2, right-left 1, right-both 1/2 -> mean 1/2; d(S,S') 0 1 1 0 -> 1/2;
    # d(Y,Y') 0 1/2 1/2 0 -> 1/4
    assert figure("ged_v", samples, raters, classes=2) == pytest.approx(2 * 0.5 - 0.5 - 0.25)
    # without pairs of a map with itself: d(S,S') = 1, d(Y,Y') = 1/2
    assert figure("ged_u", samples, raters) == pytest.approx(1 - 1 - 0.5)
    # weights 3/4, 1/4: d(S,Y) = .75 (0 + .5)/2 + .25 (1 + .5)/2 = .375; d(S,S') = 2 * 3/16 = .375
    weighted = figure("ged_v", samples, raters, classes=2, weights=np.array([0.75, 0.25]))
    assert weighted == pytest.approx(2 * 0.375 - 0.375 - 0.25)


def test_weights_are_repetitions():
    rng = np.random.default_rng(1)
    samples, raters = rng.integers(0, 2, (3, 5, 5)), rng.integers(0, 2, (4, 5, 5))
    repeated = samples[[0, 0, 1, 2, 2, 2]]
    weights = np.array([2, 1, 3])  # normalised inside
    for name in ("ged_v", "d_max_samples"):
        assert figure(name, samples, raters, weights=weights) == pytest.approx(figure(name, repeated, raters))
    off = figure("ged_v", samples, raters, classes=2, weights=np.array([1, 0, 1]))
    assert off == pytest.approx(figure("ged_v", samples[[0, 2]], raters, classes=2))


def test_ged_laws():
    rng = np.random.default_rng(2)
    raters = rng.integers(0, 3, (4, 6, 6))
    assert figure("ged_v", raters, raters, classes=3) == pytest.approx(0, abs=1e-15)
    for _ in range(10):
        samples = rng.integers(0, 3, (5, 6, 6))
        value = figure("ged_v", samples, raters, classes=3)
        assert value >= 0
        assert figure("ged_v", samples[::-1], raters[::-1], classes=3) == pytest.approx(value)
    assert np.isnan(figure("ged_u", samples[:1], raters, classes=3))
    assert np.isnan(figure("ged_u", samples, raters[:1], classes=3))


def test_d_max_by_hand():
    samples, raters = maps(LEFT, LEFT, BOTH), maps(LEFT, RIGHT)
    # raters: left is hit exactly, right at best by both with Dice 2/3
    assert figure("d_max_raters", samples, raters, classes=2) == pytest.approx((1 + 2 / 3) / 2)
    # samples: left, left exact, both 2/3
    assert figure("d_max_samples", samples, raters, classes=2) == pytest.approx((1 + 1 + 2 / 3) / 3)


def test_hm_iou_equals_the_best_of_all_matchings():
    rng = np.random.default_rng(3)
    samples, raters = rng.integers(0, 2, (2, 4, 4)), rng.integers(0, 2, (3, 4, 4))
    table, _ = distribution.pairwise_overlap(samples[[0, 1, 0, 1, 0, 1]], raters[[0, 1, 2, 0, 1, 2]], classes=2)
    best = max(table[range(6), list(order)].mean() for order in itertools.permutations(range(6)))
    assert figure("hm_iou", samples, raters, classes=2) == pytest.approx(best)
    assert figure("hm_iou", raters[[2, 0, 1]], raters, classes=2) == 1.0


def test_hm_iou_by_hand():
    # each sample is used once: left-left 1 and left-right 0
    assert figure("hm_iou", maps(LEFT, LEFT), maps(LEFT, RIGHT), classes=2) == 0.5
    # whatever their order, the pairs that fit best
    assert figure("hm_iou", maps(LEFT, RIGHT), maps(RIGHT, LEFT), classes=2) == 1
    # one sample is repeated for both raters: both-left 1/2, both-right 1/2
    assert figure("hm_iou", maps(BOTH), maps(LEFT, RIGHT), classes=2) == 0.5


def test_qubiq_by_hand():
    q, p = np.array([0.2, 0.6, 0.9]), np.array([0.0, 0.5, 1.0])
    # t=.1: {0,1,2} and {1,2} 4/5; t=.5: {1,2} and {1,2} 1; t=.95: {} and {2} 0
    assert distribution.qubiq_score(q, p, thresholds=(0.1, 0.5, 0.95)) == pytest.approx((0.8 + 1 + 0) / 3)
    # with > the second is {1,2} and {2}: 2/3
    assert distribution.qubiq_score(q, p, thresholds=(0.5,), strict=True) == pytest.approx(2 / 3)
    assert distribution.qubiq_score(q, p, thresholds=(1.0,), strict=True, empty=0.3) == pytest.approx(0.3)


def test_qubiq_of_the_rater_mean_is_one():
    raters = np.random.default_rng(4).integers(0, 2, (10, 8, 8))
    assert distribution.qubiq_score(raters.mean(axis=0), raters.sum(axis=0) / 10) == 1.0


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="weights: expected 2"):
        distribution.distribution_figures(maps(LEFT, RIGHT), maps(LEFT), classes=2, weights=np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="samples: expected maps of the raters' shape"):
        distribution.distribution_figures(maps(LEFT), np.zeros((1, 2, 2), int), classes=2)
    with pytest.raises(ValueError, match="one shape"):
        distribution.pairwise_overlap(maps(LEFT), np.zeros((1, 2, 2), int), classes=2)
    with pytest.raises(ValueError, match="classes"):
        distribution.distribution_figures(maps(LEFT), maps(LEFT), classes=1)
    with pytest.raises(ValueError, match="qubiq"):
        distribution.qubiq_score(np.ones(3), np.ones(2))
