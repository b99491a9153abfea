"""Grids of other voxel sizes: shapes, which axis goes apart, splines, and the way back slab by slab."""

import numpy as np
import pytest
from scipy import ndimage

from quam_jax.data.resampling import Scheme, coarse_axis, resample_image, resample_labels, resample_rows, resampled_shape


def test_half_voxels_round_to_even() -> None:
    assert resampled_shape((5, 7, 4), (0.5, 0.5, 1), (1, 1, 1)) == (2, 4, 4)  # 2.5 -> 2, 3.5 -> 4


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((1, 1, 1), (1, 1, 1), None),
        ((3, 1, 1), (1, 1, 1), None),
        ((3.01, 1, 1), (1, 1, 1), 0),
        ((1, 1, 1), (1, 5, 1), 1),
        ((1, 1, 4), (5, 1, 1), 2),
        ((5, 5, 1), (9, 1, 1), None),
    ],
)
def test_the_coarse_axis(spacing: tuple, target: tuple, axis: int | None) -> None:
    assert coarse_axis(spacing, target) == axis


def test_a_spline_with_half_pixel_centres_that_stays_in_range() -> None:
    image = np.zeros((6, 7, 8, 1), np.float32)
    image[3:, 2:5, 4:] = 1
    shape = (9, 5, 8)
    found = resample_image(image, shape, Scheme(3, None, 0))
    places = np.stack(
        np.meshgrid(*[n / m * (np.arange(m) + 0.5) - 0.5 for n, m in zip((6, 7, 8), shape, strict=True)], indexing="ij")
    )
    expected = ndimage.map_coordinates(image[..., 0].astype(float), places, order=3, mode="nearest")
    assert expected.max() > 1.01  # a cubic spline overshoots
    np.testing.assert_allclose(found[..., 0], np.clip(expected, 0, 1), atol=1e-6)


def test_a_coarse_axis_takes_the_nearest_slice() -> None:
    image = np.random.default_rng(0).standard_normal((2, 4, 4, 1)).astype(np.float32)
    found = resample_image(image, (4, 4, 4), Scheme(3, 0, 0))
    np.testing.assert_array_equal(found, image[[0, 0, 1, 1]])


@pytest.mark.parametrize("scheme", [Scheme(1, None, 0), Scheme(1, 0, 0), Scheme(1, 2, 0)])
def test_slabs_are_the_whole_and_the_whole_is_linear(scheme: Scheme) -> None:
    logits = np.random.default_rng(1).standard_normal((5, 6, 7, 2)).astype(np.float32)
    shape = (9, 4, 10)
    whole = resample_rows(logits, shape, scheme, rows=slice(None))
    parts = [resample_rows(logits, shape, scheme, rows=slice(a, min(a + 4, 9))) for a in range(0, 9, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    axes = []
    for axis, (n, m) in enumerate(zip((5, 6, 7), shape, strict=True)):
        centre = n / m * (np.arange(m) + 0.5) - 0.5
        axes.append(np.floor(centre + 0.5) if axis == scheme.apart else centre)
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    for c in range(2):
        expected = ndimage.map_coordinates(logits[..., c], places, order=1, mode="nearest")
        np.testing.assert_allclose(whole[..., c], expected, atol=1e-5)


def test_labels_stay_labels() -> None:
    labels = np.zeros((6, 6, 6), np.int32)
    labels[2:5, 2:5, 2:5] = 7
    found = resample_labels(labels, (12, 12, 12), Scheme(1, None, 0))
    assert set(np.unique(found)) == {0, 7} and found.sum() == 7 * (6**3 - 8)  # .75^3 < 1/2 at the corners
    np.testing.assert_array_equal(resample_labels(found, (6, 6, 6), Scheme(1, None, 0)), labels)
