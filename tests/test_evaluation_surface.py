"""Surface distances: squares by hand, all pairs of border pixels by brute force, scipy's Hausdorff."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, directed_hausdorff

from quam_jax.evaluation import surface


def brute_force(a, b, spacing):
    def points(mask):
        found = []
        for index in np.argwhere(mask):
            for axis in range(mask.ndim):
                for step in (-1, 1):
                    other = index.copy()
                    other[axis] += step
                    if not 0 <= other[axis] < mask.shape[axis] or not mask[tuple(other)]:
                        found.append(tuple(index))
        return np.array(sorted(set(found))) * np.asarray(spacing)

    gaps = cdist(points(a), points(b))
    return gaps.min(axis=1), gaps.min(axis=0)


@pytest.fixture(params=[(12, 15), (6, 7, 8)])
def pair(request):
    rng = np.random.default_rng(3)
    a, b = rng.random((2, *request.param)) < 0.3
    a[:3] = 0
    b[..., :4] = 0
    return a, b


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_distances_equal_brute_force(pair, scale):
    a, b = pair
    spacing = [scale * (axis + 1) for axis in range(a.ndim)]
    got = surface.surface_distances(a, b, spacing=spacing)
    forward, backward = brute_force(a, b, spacing)
    np.testing.assert_allclose(np.sort(got.forward), np.sort(forward), atol=1e-12)
    np.testing.assert_allclose(np.sort(got.backward), np.sort(backward), atol=1e-12)
    pooled = np.concatenate([forward, backward])
    assert surface.hausdorff(got) == pytest.approx(pooled.max())
    percentiles = np.percentile(forward, 95), np.percentile(backward, 95)
    assert surface.hausdorff95(got) == pytest.approx(max(percentiles))
    assert surface.hausdorff95_pooled(got) == pytest.approx(np.percentile(pooled, 95))
    assert surface.surface_dice(got, tolerance=scale) == pytest.approx(np.mean(pooled <= scale + 1e-12))


def test_hausdorff_equals_scipy(pair):
    a, b = (surface.border(mask) for mask in pair)
    expected = max(
        directed_hausdorff(np.argwhere(a), np.argwhere(b))[0],
        directed_hausdorff(np.argwhere(b), np.argwhere(a))[0],
    )
    assert surface.hausdorff(surface.surface_distances(*pair)) == pytest.approx(expected)


def test_shifted_square_by_hand():
    a, b = np.zeros((2, 10, 10), int)
    a[2:5, 2:5] = 1
    b[2:5, 4:7] = 1  # shifted by two columns
    distances = surface.surface_distances(a, b, spacing=(1.0, 0.5))
    assert surface.hausdorff(distances) == 1.0  # two columns of .5
    # the border of a 3x3 square has 8 pixels; of each square the shared column (3) lies at distance 0,
    # the middle column's two pixels at .5, the far column's three at 1
    assert sorted(distances.forward) == [0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.0]
    assert surface.surface_dice(distances, tolerance=0.5) == 5 / 8
    assert surface.surface_dice(distances, tolerance=0.0) == 3 / 8


def test_border_of_a_mask_at_the_image_edge():
    np.testing.assert_array_equal(
        surface.border(np.ones((4, 5))), [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    )
    # a diagonal neighbour outside does not make a border pixel
    mask = np.ones((5, 5), int)
    mask[0, 0] = 0
    assert not surface.border(mask)[1, 1]
    assert surface.border(mask)[0, 1] and surface.border(mask)[1, 0]


def test_empty_masks_get_what_the_caller_says():
    a, nothing = np.zeros((2, 4, 4), int)
    a[1, 1] = 1
    neither, one = surface.surface_distances(nothing, nothing), surface.surface_distances(a, nothing)
    back = surface.surface_distances(nothing, a)
    for figure in (surface.hausdorff, surface.hausdorff95, surface.hausdorff95_pooled):
        assert np.isnan(figure(neither)) and np.isnan(figure(one)) and np.isnan(figure(back))
        assert figure(neither, both_empty=0.0) == 0.0
        assert figure(one, one_empty=9.0) == figure(back, one_empty=9.0) == 9.0
    assert np.isnan(surface.surface_dice(neither, tolerance=1.0))
    assert surface.surface_dice(neither, tolerance=1.0, both_empty=1.0) == 1.0
    assert surface.surface_dice(one, tolerance=1.0) == 0.0


def test_laws(pair):
    a, b = pair
    forth, back = surface.surface_distances(a, b), surface.surface_distances(b, a)
    assert surface.hausdorff(forth) == surface.hausdorff(back)
    assert surface.hausdorff95(forth) <= surface.hausdorff(forth)
    shares = [surface.surface_dice(forth, tolerance=tolerance) for tolerance in (0.0, 1.0, 2.0, 50.0)]
    assert shares == sorted(shares) and shares[-1] == 1.0
    same = surface.surface_distances(a, a)
    assert surface.hausdorff(same) == 0 and surface.surface_dice(same, tolerance=0.0) == 1.0
    # the position in the image and the room around the masks change nothing
    wide = [np.pad(mask, [(3, 5)] * mask.ndim) for mask in pair]
    assert surface.hausdorff(surface.surface_distances(*wide)) == surface.hausdorff(forth)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one shape"):
        surface.surface_distances(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="tolerance"):
        surface.surface_dice(surface.SurfaceDistances(np.ones(1), np.ones(1)), tolerance=-1.0)
