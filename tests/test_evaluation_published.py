"""The published metrics: their empty-mask rules, ties and holes, by hand; chamfer by shortest paths."""

import numpy as np
import pytest

from quam_jax.published import figures as published
from tests.golden_sections import metrics as golden_metrics

NOTHING = np.zeros((3, 4), int)
POINT = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_smoothed_dice():
    assert published.smoothed_dice(NOTHING, NOTHING) == 1.0
    assert published.smoothed_dice(POINT, NOTHING) == pytest.approx(1e-6 / (1 + 1e-6), rel=1e-12)
    assert published.smoothed_dice(POINT, POINT, smooth=0.5) == 1.0
    both = np.array([[1, 1]]), np.array([[1, 0]])
    assert published.smoothed_dice(*both, smooth=1.0) == 0.75  # (2 + 1) / (3 + 1)
    np.testing.assert_allclose(
        published.class_smoothed_dice(np.array([[0, 1]]), np.array([[0, 0]]), classes=3),
        [2 / 3, 0, 1],
        atol=1e-6,
    )


def test_hausdorff_rules_for_empty_masks():
    assert published.border_hausdorff(NOTHING, NOTHING) == 0.0
    assert published.border_hausdorff(POINT, NOTHING) == 5.0  # the diagonal of 3 x 4
    assert published.border_hausdorff(NOTHING, POINT) == 5.0
    assert published.directed_hausdorff(POINT, NOTHING) == published.directed_hausdorff(NOTHING, POINT) == 0.0
    assert published.point_hausdorff(POINT, NOTHING) == published.point_hausdorff(NOTHING, NOTHING) == np.inf
    assert published.macro_border_hausdorff(POINT, NOTHING, classes=2) == pytest.approx((1 + 5) / 2)


def test_a_filled_hole_is_seen_by_points_and_not_by_borders():
    full = np.ones((7, 7), int)
    ring = full.copy()
    ring[1:6, 1:6] = 0
    assert published.point_hausdorff(full, ring) == 3.0  # the centre is three steps from the ring
    assert published.border_hausdorff(full, ring) == 0.0
    assert published.directed_hausdorff(ring, full) == 0.0


def test_hamming_and_cross_entropy():
    a, b = np.array([[1, 0, 0, 1]]), np.array([[1, 1, 0, 0]])
    assert published.hamming(a, b) == 0.5
    clamp = 1e-7
    expected = -(2 * np.log(1 - clamp) + 2 * np.log(clamp)) / 4
    assert published.binary_cross_entropy(a, b) == pytest.approx(expected)


def test_chamfer_map_is_the_shortest_path():
    rng = np.random.default_rng(0)
    mask = rng.random((11, 14)) < 0.04
    mask[3, 9] = True
    rows, columns = np.indices(mask.shape)
    paths = []
    for row, column in np.argwhere(mask):
        down, across = abs(rows - row), abs(columns - column)
        diagonal = np.minimum(down, across)
        paths.append(1.3693 * diagonal + 0.955 * (np.maximum(down, across) - diagonal))
    np.testing.assert_allclose(published.chamfer_map(mask), np.min(paths, axis=0), atol=1e-12)


def test_chamfer_distance_by_hand():
    other = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert published.chamfer_distance(POINT, other) == pytest.approx(3 * 0.955)
    corner = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    assert published.chamfer_distance(POINT, corner) == pytest.approx(2 * 1.3693 + 0.955)
    assert published.chamfer_distance(NOTHING, POINT) == 0.0
    assert published.chamfer_distance(POINT, NOTHING) == np.inf


def test_consensus_ties():
    raters = np.array([[[2, 0, 1]], [[1, 1, 1]], [[2, 0, 0]], [[1, 1, 0]]])
    np.testing.assert_array_equal(published.consensus_by_mode(raters), [[1, 0, 0]])
    np.testing.assert_array_equal(published.consensus_by_mean(raters % 2), [[1, 1, 1]])


def test_statistics_are_of_the_population():
    got = published.sample_statistics(np.array([1.0, 2.0, 6.0]))
    assert got == pytest.approx(published.SampleStatistics(3, 2, np.sqrt(14 / 3), 14 / 3, 1, 6), rel=1e-6)
    assert published.sample_statistics(np.array([1 / 3])).mean == float(np.float32(1 / 3))


def test_sample_quality_by_hand():
    # two samples of four pixels: {0} and {0, 1}; the mean prediction is {0} (pixel 1 is tied: class 0)
    one_hot = np.eye(2, dtype=np.float32)
    samples = one_hot[np.array([[[1, 0, 0, 0]], [[1, 1, 0, 0]]])]
    raters = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 0]]])
    got = published.sample_quality(samples, raters)
    np.testing.assert_array_equal(got.mean_prediction, [[1, 0, 0, 0]])
    # second sample: class 1 2*1/3, class 0 2*2/5
    assert (got.dice.min, got.dice.max) == pytest.approx(((2 / 3 + 4 / 5) / 2, 1.0), rel=1e-6)
    assert (got.hausdorff.min, got.hausdorff.max) == (0.0, 1.0)
    assert got.consensus_dice == pytest.approx(1.0)  # the tied pixel is background for the mode
    binary = published.sample_quality_binary(samples, raters)
    assert binary.consensus_dice == pytest.approx(2 / 3)  # and foreground for the mean: {0} against {0, 1}
    assert (binary.dice.min, binary.dice.max) == pytest.approx((2 / 3, 1.0))


def test_sample_uncertainty_by_hand():
    # one pixel; foreground .5 and 1
    samples = np.array([[[[0.5, 0.5]]], [[[0.0, 1.0]]]])
    got = published.sample_uncertainty(samples)
    assert got.entropy[0, 0] == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), abs=1e-8)
    assert got.variance[0, 0] == 0.25  # both classes: mean of .25 and 0
    assert got.normalised_variance_fraction == pytest.approx(0.5, rel=1e-5)  # times the number of classes


def test_golden_section_finds_nothing_in_an_empty_folder(tmp_path):
    assert golden_metrics.cases(tmp_path) == [] and golden_metrics.not_covered(tmp_path) == []


def test_golden_check_can_fail(tmp_path):
    folder = tmp_path / "E_metrics"
    folder.mkdir()
    (folder / "index.json").write_text('["E_metrics/pairwise.npz", "E_metrics/morph.npz"]')
    np.savez(folder / "pairwise.npz", A=POINT[None], B=POINT[None], hamming=[0.5], unheard_of=[1.0])
    assert golden_metrics.cases(tmp_path) == [
        "E_metrics/pairwise.npz:hamming",
        "E_metrics/pairwise.npz:unheard_of",
    ]
    assert golden_metrics.not_covered(tmp_path) == ["E_metrics/morph.npz"]
    with pytest.raises(AssertionError, match="hamming"):
        golden_metrics.check(tmp_path, "E_metrics/pairwise.npz:hamming")
    with pytest.raises(AssertionError, match="nothing computes unheard_of"):
        golden_metrics.check(tmp_path, "E_metrics/pairwise.npz:unheard_of")
