"""Calibration: four pixels by hand, scikit-learn as the other way, bins that ignore the order of pixels."""

import numpy as np
import pytest

from quam_jax.evaluation import calibration as calibrate

# Four pixels, foreground probability .9 .8 .6 .3: confidence .9 .8 .6 .7, labels 1 1 1 0.
FOREGROUND = np.array([[0.9, 0.8], [0.6, 0.3]])
PROBABILITIES = np.stack([1 - FOREGROUND, FOREGROUND], axis=-1)
LABELS = np.array([[[1, 0], [1, 1]]])  # right, wrong, right, wrong


def random_case(seed, classes=3, shape=(12, 13), raters=4):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.5), shape)
    return probabilities, rng.integers(0, classes, (raters, *shape))


def test_figures_by_hand():
    figures = calibrate.calibration(PROBABILITIES, LABELS, bins=2)
    # bin (.5, 1] holds all four: accuracy 1/2, confidence .75
    assert figures["ece"] == figures["mce"] == figures["ace"] == pytest.approx(0.25)
    # two pixels a bin: .6 .7 right wrong -> |.5 - .65|; .8 .9 wrong right -> |.5 - .85|
    assert figures["adaptive_ece"] == pytest.approx((0.15 + 0.35) / 2)
    # foreground: (0, .5] holds .3 (label 1): gap .7; (.5, 1] holds .9 .8 .6 two of three: |.7667 - .6667|
    # background mirrors it: .7 alone, label 0, and .1 .2 .4 with one of three
    assert figures["classwise_ece"] == pytest.approx(0.25 * 0.7 + 0.75 * 0.1)
    assert figures["brier"] == pytest.approx(2 * (0.01 + 0.64 + 0.16 + 0.49) / 4)
    assert figures["nll"] == pytest.approx(-np.log([0.9, 0.2, 0.6, 0.3]).mean())


def test_bins_are_closed_on_the_right():
    table = calibrate.reliability(np.array([0.0, 0.25, 0.5, 1.0]), np.ones((1, 4)), bins=4)
    np.testing.assert_array_equal(table.pixels, [2, 1, 0, 1])
    np.testing.assert_array_equal(table.confidence, [0.125, 0.5, np.nan, 1.0])


def test_mce_and_ace_take_non_empty_bins():
    # bins (0,.5]: confidence .4, right; (.5,1]: .9, wrong -> gaps .6 and .9, three pixels in the second
    table = calibrate.reliability(np.array([0.4, 0.9, 0.9, 0.9]), np.array([[1, 0, 0, 0]]), bins=2)
    assert calibrate.ece(table)[0] == pytest.approx(0.25 * 0.6 + 0.75 * 0.9)
    assert calibrate.mce(table)[0] == pytest.approx(0.9)
    assert calibrate.ace(table)[0] == pytest.approx(0.75)
    assert calibrate.ace(calibrate.reliability(np.array([0.4]), np.array([[1]]), bins=50))[0] == pytest.approx(0.6)


def test_equal_count_bins():
    confidence = np.arange(1, 8) / 10
    table = calibrate.equal_count_reliability(confidence, np.zeros((1, 7)), bins=3)
    np.testing.assert_array_equal(table.pixels, [3, 2, 2])
    np.testing.assert_allclose(table.confidence, [0.2, 0.45, 0.65])
    assert calibrate.equal_count_reliability(confidence[:2], np.zeros((1, 2)), bins=15).pixels.size == 2


def test_ties_make_equal_count_bins_independent_of_order():
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.6, 0.9, 1.0], 101)
    correct = rng.integers(0, 2, (2, 101))
    first = calibrate.ece(calibrate.equal_count_reliability(confidence, correct, bins=7))
    for _ in range(5):
        order = rng.permutation(101)
        other = calibrate.ece(calibrate.equal_count_reliability(confidence[order], correct[:, order], bins=7))
        np.testing.assert_allclose(other, first, atol=1e-14)


def test_curve_equals_scikit_learn():
    module = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(1)
    confidence, correct = rng.random(500), rng.integers(0, 2, 500)
    table = calibrate.reliability(confidence, correct[None], bins=10)
    for bins, got in (
        ("uniform", table),
        ("quantile", calibrate.equal_count_reliability(confidence, correct[None], bins=10)),
    ):
        accuracy, mean = module.calibration_curve(correct, confidence, n_bins=10, strategy=bins)
        np.testing.assert_allclose(got.accuracy[0], accuracy, atol=1e-12)
        np.testing.assert_allclose(got.confidence, mean, atol=1e-12)


def test_brier_and_nll_equal_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, raters = random_case(2)
    for index, labels in enumerate(raters):
        flat = probabilities.reshape(-1, 3)
        assert calibrate.nll(probabilities, raters)[index] == pytest.approx(metrics.log_loss(labels.ravel(), flat))
    binary, raters = random_case(3, classes=2)
    for index, labels in enumerate(raters):
        expected = 2 * metrics.brier_score_loss(labels.ravel(), binary[..., 1].ravel())
        assert calibrate.brier(binary, raters)[index] == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_soft_figures_by_definition(classes):
    probabilities, raters = random_case(4, classes=classes)
    mean = np.stack([(raters == label).mean(axis=0) for label in range(classes)], axis=-1)
    soft = calibrate.calibration_soft(probabilities, mean, bins=5)
    assert soft["brier"] == pytest.approx(((probabilities - mean) ** 2).sum(-1).mean())
    assert soft["nll"] == pytest.approx(-(mean * np.log(probabilities)).sum(-1).mean())
    confidence, label = probabilities.max(-1).ravel(), probabilities.argmax(-1).ravel()
    share = mean.reshape(-1, classes)[np.arange(label.size), label]
    edges = np.linspace(0, 1, 6)
    gaps = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        gaps.append(abs(share[inside].sum() - confidence[inside].sum()) / label.size)
    assert soft["ece"] == pytest.approx(sum(gaps))


def test_relations_between_raters_and_soft_label():
    probabilities, raters = random_case(5)
    mean = np.stack([(raters == label).mean(axis=0) for label in range(3)], axis=-1)
    each, soft = calibrate.calibration(probabilities, raters), calibrate.calibration_soft(probabilities, mean)
    assert soft["nll"] == pytest.approx(each["nll"])  # linear in the label
    assert soft["brier"] == pytest.approx(each["brier"] - (1 - (mean**2).sum(-1)).mean())  # minus the rater variance
    assert soft["ece"] <= each["ece"] + 1e-12  # errors of raters cancel
    one = calibrate.calibration(probabilities, raters[:1])
    alone = np.stack([raters[0] == label for label in range(3)], axis=-1).astype(float)
    assert calibrate.calibration_soft(probabilities, alone) == pytest.approx(one)
    assert calibrate.calibration(probabilities, raters[::-1]) == pytest.approx(each)


def test_perfect_and_certain_predictions():
    _, raters = random_case(6)
    certain = np.stack([raters[0] == label for label in range(3)], axis=-1).astype(float)
    figures = calibrate.calibration(certain, raters[:1])
    assert all(value == 0 for value in figures.values())
    assert calibrate.nll(1 - certain, raters[:1])[0] == pytest.approx(-np.log(1e-12))


def test_pixels_of_a_band_and_no_pixels():
    probabilities, raters = random_case(7)
    band = np.zeros(raters.shape[1:], bool)
    band[2:5] = True
    cut = calibrate.calibration(probabilities[2:5], raters[:, 2:5])
    assert calibrate.calibration(probabilities[band], raters[:, band]) == pytest.approx(cut)
    nothing = calibrate.calibration(probabilities[~band & band], raters[:, ~band & band])
    assert all(np.isnan(value) for value in nothing.values())
    soft = calibrate.calibration_soft(probabilities[~band & band], probabilities[~band & band])
    assert all(np.isnan(value) for value in soft.values())


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"confidence: expected values in 0\.\.1"):
        calibrate.reliability(np.array([1.5]), np.ones((1, 1)))
    with pytest.raises(ValueError, match="bins"):
        calibrate.reliability(np.array([0.5]), np.ones((1, 1)), bins=0)
    with pytest.raises(ValueError, match="outcomes"):
        calibrate.reliability(np.array([0.5]), np.ones((1, 2)))
