"""Maps made from raters: hand-computed disagreement, and distances found by brute force."""

import numpy as np
import pytest

from quam_jax.evaluation import reference_maps as maps
from quam_jax.evaluation.geometry import bounding_box, voxel_size

RATERS = np.array([[[0, 1], [1, 1]], [[0, 1], [0, 1]]])


def brute_force_distance(labels, spacing):
    points = np.argwhere(np.ones(labels.shape)) * np.asarray(spacing)
    flat = labels.ravel()
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    gaps[flat[:, None] == flat[None]] = np.inf
    return gaps.min(axis=1).reshape(labels.shape)


def test_mean_consensus_entropy_and_variance_by_hand():
    mean = maps.rater_mean(RATERS, classes=2)
    np.testing.assert_array_equal(mean[..., 1], [[0, 1], [0.5, 1]])
    np.testing.assert_array_equal(maps.consensus(RATERS, classes=2, ties="smallest"), [[0, 1], [0, 1]])
    np.testing.assert_allclose(maps.entropy_map(mean), [[0, 0], [np.log(2), 0]], atol=1e-15)
    np.testing.assert_array_equal(maps.variance_map(mean), [[0, 0], [0.25, 0]])


def test_three_classes_by_hand():
    raters = np.array([0, 1, 2, 2])[:, None, None]  # four raters, one pixel
    mean = maps.rater_mean(raters, classes=3)
    np.testing.assert_array_equal(mean[0, 0], [0.25, 0.25, 0.5])
    assert maps.consensus(raters, classes=3, ties="smallest")[0, 0] == 2
    assert maps.variance_map(mean)[0, 0] == 1 - (1 / 16 + 1 / 16 + 1 / 4)
    assert maps.entropy_map(mean)[0, 0] == pytest.approx(1.5 * np.log(2))


def test_consensus_by_hand():
    raters = np.array([[0, 1, 2, 2, 1], [0, 1, 1, 1, 2], [1, 1, 0, 2, 1], [1, 0, 0, 1, 2]])
    # votes: 0011, 1110, 2100, 2121, 1212 -> tie 0/1, 1, 0, tie 1/2, tie 1/2
    np.testing.assert_array_equal(maps.consensus(raters, classes=3, ties="smallest"), [0, 1, 0, 1, 1])
    binary = np.array([[0, 1, 1, 0], [0, 1, 0, 1]])
    np.testing.assert_array_equal(maps.consensus(binary, classes=2, ties="smallest"), [0, 1, 0, 0])
    np.testing.assert_array_equal(maps.consensus(binary, classes=2, ties="foreground"), [0, 1, 1, 1])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_consensus_against_counting_pixel_by_pixel(count, classes):
    raters = np.random.default_rng(count * classes).integers(0, classes, (count, 6, 5, 4))
    got = maps.consensus(raters, classes=classes, ties="smallest")
    assert got.dtype == np.int32
    for place in np.ndindex(6, 5, 4):
        drawn = raters[(slice(None), *place)].tolist()
        assert got[place] == min(range(classes), key=lambda label, drawn=drawn: (-drawn.count(label), label))
    order = np.random.default_rng(0).permutation(count)
    np.testing.assert_array_equal(maps.consensus(raters[order], classes=classes, ties="smallest"), got)
    if classes == 2:
        share = raters.mean(axis=0)
        np.testing.assert_array_equal(maps.consensus(raters, classes=2, ties="foreground"), share >= 0.5)
        np.testing.assert_array_equal(got, share > 0.5)


@pytest.mark.usefixtures("unchecked")
def test_consensus_refusals():
    good = np.zeros((2, 3), int)
    for raters, classes, ties, says in (
        (good + 2, 2, "smallest", r"labels 0\.\.1, got 2\.\.2"),
        (good - 2, 2, "smallest", r"labels 0\.\.1, got -2\.\.-2"),
        (good[:0], 2, "smallest", "a >= 1"),
        (good[0], 2, "smallest", "a >= 1"),
        (good, 3, "foreground", "needs two classes"),
        (good, 2, "largest", "expected smallest or foreground"),
    ):
        with pytest.raises(ValueError, match=says):
            maps.consensus(raters, classes=classes, ties=ties)


def test_shares_compare_equal_to_written_decimals():
    raters = (np.arange(10)[:, None, None] < np.array([[3, 7]])).astype(int)
    np.testing.assert_array_equal(maps.rater_mean(raters, classes=2)[..., 1], [[0.3, 0.7]])


def test_rater_order_changes_nothing():
    rng = np.random.default_rng(0)
    raters = rng.integers(0, 3, (5, 6, 7))
    mean = maps.rater_mean(raters, classes=3)
    np.testing.assert_array_equal(mean, maps.rater_mean(raters[::-1], classes=3))
    np.testing.assert_allclose(mean.sum(axis=-1), 1, atol=1e-15)
    assert 0 <= maps.entropy_map(mean).min() and maps.entropy_map(mean).max() <= np.log(3) + 1e-15


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_contour_distance_equals_brute_force(spacing):
    rng = np.random.default_rng(1)
    for classes in (2, 4):
        labels = rng.integers(0, classes, (9, 11)) * (rng.random((9, 11)) < 0.4)
        labels[:, :4] = 0
        np.testing.assert_allclose(
            maps.contour_distance(labels, spacing=spacing), brute_force_distance(labels, spacing), atol=1e-12
        )


def test_contour_distance_in_three_dimensions():
    labels = np.zeros((4, 5, 6), int)
    labels[1:3, 1:4, 2:5] = 1
    labels[0, 0, 0] = 7  # labels need not be consecutive
    got = maps.contour_distance(labels, spacing=(3.0, 1.0, 0.5))
    np.testing.assert_allclose(got, brute_force_distance(labels, (3.0, 1.0, 0.5)), atol=1e-12)


def test_contour_distance_by_hand():
    labels = np.array([[0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(maps.contour_distance(labels), [[3, 2, 1, 1, 2]])
    np.testing.assert_array_equal(maps.contour_distance(labels, spacing=(1.0, 0.5)), [[1.5, 1, 0.5, 0.5, 1]])


def test_band_and_boundary_map():
    distance = maps.contour_distance(np.array([[0, 0, 0, 1, 1]]))
    np.testing.assert_array_equal(maps.boundary_band(distance, width=1.0), [[0, 0, 1, 1, 0]])
    fine = maps.contour_distance(np.array([[0, 0, 0, 0, 1]]), spacing=(1.0, 0.1))
    assert maps.boundary_band(fine, width=0.3).sum() == 4  # .3, .2, .1 | .1, though 3 * .1 > .3 in floating point
    expected = np.exp([[-4.5 / 4, -0.5, -0.125, -0.125, -0.5]])  # d²/2s² with s = 2
    np.testing.assert_allclose(maps.boundary_map(distance, sigma=2.0), expected)


def test_no_contour():
    distance = maps.contour_distance(np.ones((3, 3), int))
    assert np.isinf(distance).all()
    assert not maps.boundary_band(distance, width=1e300).any()
    assert not maps.boundary_map(distance, sigma=1.0).any()


def test_scaling_to_unit():
    np.testing.assert_array_equal(maps.scale_to_unit(np.array([1.0, 3.0, 2.0])), [0, 1, 0.5])
    assert np.isnan(maps.scale_to_unit(np.ones((2, 2)))).all()
    assert maps.scale_to_unit(np.zeros(0)).size == 0


def test_bounding_box():
    mask = np.zeros((5, 6), int)
    assert mask[bounding_box(mask)].size == 0
    mask[1, 2] = mask[3, 4] = 1
    assert bounding_box(mask) == (slice(1, 4), slice(2, 5))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"raters: expected labels 0\.\.1, got 0\.\.2"):
        maps.rater_mean(np.array([[[0, 2]]]), classes=2)
    with pytest.raises(ValueError, match="a >= 1"):
        maps.rater_mean(np.zeros((0, 3, 3), int), classes=2)
    with pytest.raises(ValueError, match="sigma"):
        maps.boundary_map(np.ones((2, 2)), sigma=0.0)
    for spacing in ((1.0,), (1.0, -1.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="spacing: expected 2 positive"):
            voxel_size(spacing, 2)
