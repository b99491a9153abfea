"""Failure detection: five pixels by hand, scikit-learn, and expectations over all orders of tied pixels."""

import itertools

import numpy as np
import pytest

from quam_jax.evaluation import ranking

U = np.array([0.1, 0.2, 0.3, 0.3, 0.5])
WRONG = np.array([False, False, True, False, True])


def random_case(seed, levels, size=300):
    rng = np.random.default_rng(seed)
    u = rng.integers(0, levels, size) / levels
    return u, rng.random(size) < 0.1 + 0.5 * u


def curve_by_hand(wrong):
    """Mean error rate of the first 1, 2, ... pixels, and the trapezoid area of wrong-and-accepted."""
    errors = np.cumsum(wrong)
    joined = np.concatenate([[0], errors])
    return (
        np.mean(errors / np.arange(1, len(wrong) + 1)),
        np.mean((joined[1:] + joined[:-1]) / 2) / len(wrong),
    )


def test_figures_by_hand():
    counts = ranking.count_errors(U, WRONG)
    np.testing.assert_array_equal(counts.values, [0.1, 0.2, 0.3, 0.5])
    np.testing.assert_array_equal(counts.right, [1, 1, 1, 0])
    np.testing.assert_array_equal(counts.wrong, [0, 0, 1, 1])
    # wrong .3 beats .1 and .2 and ties one: 2.5 of 3; wrong .5 beats all: 3 of 3
    assert ranking.auroc(counts) == pytest.approx(5.5 / 6)
    # flag .5: precision 1, recall 1/2; flag .3: 2 of 3 are wrong, recall 1
    assert ranking.average_precision(counts) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # errors accepted after 1..5 pixels: 0 0 then 1/2 (expected in the tie) 1 2 -> rates 0 0 1/6 1/4 2/5
    assert ranking.aurc(counts) == pytest.approx((1 / 6 + 1 / 4 + 2 / 5) / 5)
    e = 0.4
    assert ranking.e_aurc(counts) == pytest.approx(ranking.aurc(counts) - (e + (1 - e) * np.log(1 - e)))
    # the joined curve 0 0 0 1/2 1 2 (in fifths): trapezoids 0 0 1/4 3/4 3/2 over 25
    assert ranking.augrc(counts) == pytest.approx(2.5 / 25)
    # t=.3: 3 right and certain, 1 wrong and uncertain; t=0: uncertain, 2 wrong; t=.5: all certain, 3 right
    np.testing.assert_allclose(ranking.pavpu(counts, np.array([0.3, 0.0, 0.5])), [0.8, 0.4, 0.6])


def test_pavpu_sweep_is_the_mean_over_the_range():
    counts = ranking.count_errors(U, WRONG)
    # thresholds .1, .3, .5: 1 right certain + 2 wrong uncertain; 3 + 1; 3 + 0
    assert ranking.pavpu_sweep(counts, steps=3) == pytest.approx((0.6 + 0.8 + 0.6) / 3)


@pytest.mark.parametrize("levels", [3, 17, 10**6])
def test_auroc_and_average_precision_equal_scikit_learn(levels):
    metrics = pytest.importorskip("sklearn.metrics")
    u, wrong = random_case(0, levels)
    counts = ranking.count_errors(u, wrong)
    assert ranking.auroc(counts) == pytest.approx(metrics.roc_auc_score(wrong, u), abs=1e-13)
    assert ranking.average_precision(counts) == pytest.approx(metrics.average_precision_score(wrong, u), abs=1e-13)


def test_ties_are_the_mean_over_all_orders():
    u = np.array([0, 1, 1, 1, 2, 2])
    wrong = np.array([False, True, False, True, False, True])
    curves = []
    for middle in itertools.permutations((1, 2, 3)):
        for last in itertools.permutations((4, 5)):
            curves.append(curve_by_hand(wrong[[0, *middle, *last]]))
    counts = ranking.count_errors(u, wrong)
    assert (ranking.aurc(counts), ranking.augrc(counts)) == pytest.approx(tuple(np.mean(curves, axis=0)), abs=1e-14)


@pytest.mark.parametrize("levels", [4, 10**9])
def test_curves_and_identities(levels):
    u, wrong = random_case(1, levels)
    counts = ranking.count_errors(u, wrong)
    e, auroc = wrong.mean(), ranking.auroc(counts)
    assert ranking.augrc(counts) == pytest.approx((1 - auroc) * e * (1 - e) + e**2 / 2, abs=1e-14)
    if levels > 1e6:
        area = curve_by_hand(wrong[np.argsort(u)])
        assert (ranking.aurc(counts), ranking.augrc(counts)) == pytest.approx(area, abs=1e-13)
    order = np.random.default_rng(2).permutation(u.size)
    shuffled = ranking.count_errors(u[order], wrong[order])
    for a, b in zip(counts, shuffled, strict=True):
        np.testing.assert_array_equal(a, b)
    assert ranking.auroc(ranking.count_errors(-u, wrong)) == pytest.approx(1 - auroc)


def test_best_and_worst_orders_bound_the_figures():
    wrong = np.arange(1000) >= 800
    best, worst = (ranking.count_errors(sign * np.arange(1000.0), wrong) for sign in (1, -1))
    assert ranking.auroc(best) == 1 and ranking.auroc(worst) == 0
    assert ranking.average_precision(best) == pytest.approx(1)
    assert ranking.augrc(best) == pytest.approx(0.2**2 / 2)
    assert ranking.e_aurc(best) == pytest.approx(0, abs=1e-3)  # its constant is the limit of many pixels
    constant = ranking.count_errors(np.zeros(1000), wrong)
    assert ranking.auroc(constant) == 0.5
    assert ranking.aurc(constant) == pytest.approx(0.2)
    assert ranking.aurc(best) < 0.2 < ranking.aurc(worst)


def test_only_right_or_only_wrong_pixels():
    right, wrong = (ranking.count_errors(np.arange(4.0), np.full(4, kind)) for kind in (False, True))
    assert np.isnan(ranking.auroc(right)) and np.isnan(ranking.auroc(wrong))
    assert np.isnan(ranking.average_precision(right))
    assert ranking.aurc(right) == ranking.e_aurc(right) == ranking.augrc(right) == 0
    assert ranking.aurc(wrong) == pytest.approx(1) and ranking.e_aurc(wrong) == pytest.approx(0)
    nothing = ranking.count_errors(np.zeros(0), np.zeros(0, bool))
    for figure in (ranking.auroc, ranking.average_precision, ranking.aurc, ranking.e_aurc, ranking.augrc):
        assert np.isnan(figure(nothing))
    assert np.isnan(ranking.pavpu_sweep(nothing))


def test_patches():
    u = np.arange(12.0).reshape(3, 4)
    wrong = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], bool)
    mean, bad = ranking.pool_patches(u, wrong, size=2)
    np.testing.assert_array_equal(mean, [[2.5, 4.5], [8.5, 10.5]])  # (0+1+4+5)/4 ...; the last row is alone
    np.testing.assert_array_equal(bad, [[True, False], [False, True]])  # 2 of 4; 0 of 4; 0 of 2; 1 of 2
    same = ranking.pool_patches(u, wrong, size=1)
    np.testing.assert_array_equal(same[0], u)
    np.testing.assert_array_equal(same[1], wrong)
    assert ranking.pool_patches(np.ones((4, 4, 4)), np.ones((4, 4, 4), bool), size=3)[0].shape == (2, 2, 2)


@pytest.mark.parametrize("thresholds", [(0.0, 0.25, 0.5, 1.0), (1.0, 0.3, 0.7)])
def test_filtered_dice_equals_filtering(thresholds):
    rng = np.random.default_rng(6)
    u = rng.integers(0, 5, (6, 7)) / 4
    mask, reference = rng.integers(0, 2, (2, 6, 7))
    curve = ranking.filtered_dice(u, mask, reference, thresholds=thresholds)
    for index, tau in enumerate(thresholds):
        kept = u <= tau
        a, b = mask[kept], reference[kept]
        assert curve.dice[index] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert curve.filtered_positives[index] == pytest.approx(1 - (a & b).sum() / (mask & reference).sum())
        negatives = ((1 - mask) & (1 - reference)).sum()
        assert curve.filtered_negatives[index] == pytest.approx(1 - ((1 - a) & (1 - b)).sum() / negatives)


def test_qu_brats_score_by_hand():
    u = np.array([0.0, 0.0, 1.0, 1.0])
    mask, reference = np.array([1, 0, 1, 0]), np.array([1, 0, 0, 0])
    curve = ranking.filtered_dice(u, mask, reference, thresholds=(0.0, 0.5, 1.0))
    np.testing.assert_allclose(curve.dice, [1, 1, 2 / 3])  # the wrong pixel is thrown away below 1
    np.testing.assert_array_equal(curve.filtered_positives, [0, 0, 0])
    np.testing.assert_array_equal(curve.filtered_negatives, [0.5, 0.5, 0])
    # areas by trapezoids: 1/2 + 5/12; 0; 1/4 + 1/8
    assert ranking.qu_brats_score(curve) == pytest.approx((11 / 12 + 1 + 5 / 8) / 3)


def test_filtered_dice_without_foreground():
    curve = ranking.filtered_dice(np.array([0.0, 1.0]), np.array([0, 1]), np.array([0, 1]), thresholds=(0.0, 1.0))
    np.testing.assert_array_equal(curve.dice, [1, 1])
    curve = ranking.filtered_dice(np.array([0.0, 1.0]), np.array([0, 1]), np.array([0, 0]), thresholds=(0.0, 1.0), empty=0.0)
    np.testing.assert_array_equal(curve.dice, [0, 0])
    assert np.isnan(curve.filtered_positives).all() and np.isnan(ranking.qu_brats_score(curve))


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one shape"):
        ranking.count_errors(np.ones(3), np.ones(4, bool))
    with pytest.raises(ValueError, match="1 NaN"):
        ranking.count_errors(np.array([1.0, np.nan]), np.ones(2, bool))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        ranking.filtered_dice(np.array([1.5]), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="one size"):
        ranking.filtered_dice(np.array([0.5]), np.ones(2), np.ones(1))
    with pytest.raises(ValueError, match="patches"):
        ranking.pool_patches(np.ones((2, 2)), np.ones((2, 2), bool), size=0)
