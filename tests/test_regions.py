"""Partitions: small ones drawn by hand, laws on random ones, and region targets against a loop over pixels."""

import math

import numpy as np
import pytest
from scipy import ndimage

from quam_jax.config import REGION_KINDS, TargetConfig
from quam_jax.evaluation.reference_maps import contour_distance
from quam_jax.targets.partition import region_maps, region_points, region_targets
from quam_jax.targets.pixels import boundary_band
from quam_jax.targets.regions.components import components
from quam_jax.targets.regions.pyramid import pyramid
from quam_jax.targets.regions.segments import boundary_segments
from quam_jax.targets.regions.superpixels import superpixels
from quam_jax.targets.regions.tiles import tiles


def blobs(shape: tuple[int, ...], *, seed: int, classes: int = 2) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.0)
    return np.digitize(field, np.quantile(field, np.linspace(0, 1, classes + 1)[1:-1]))


def assert_partition(regions: np.ndarray) -> None:
    """Numbers 0, 1, 2, ... in the order of the first pixels."""
    numbers, first = np.unique(regions[regions >= 0], return_index=True)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert (np.diff(first) > 0).all()
    assert regions.dtype == np.int32


def pieces(region: np.ndarray, *, corners: bool = False) -> int:
    return ndimage.label(region, ndimage.generate_binary_structure(region.ndim, region.ndim if corners else 1))[1]


def test_tiles_by_hand() -> None:
    np.testing.assert_array_equal(tiles((3, 5), 2), [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
    np.testing.assert_array_equal(tiles((2, 1, 2), 1), [[[0, 1]], [[2, 3]]])
    assert tiles((3, 5), 9).max() == 0


@pytest.mark.parametrize("shape, size", [((20, 31), 7), ((9, 10, 11), 4)])
def test_tiles_are_full_but_at_the_border(shape: tuple[int, ...], size: int) -> None:
    regions = tiles(shape, size)
    assert_partition(regions)
    assert regions.max() + 1 == math.prod(-(-n // size) for n in shape)
    assert (np.bincount(regions.reshape(-1)) == size ** len(shape)).sum() == math.prod(n // size for n in shape)


def test_a_pyramid_nests() -> None:
    fine, coarse = pyramid((13, 16), [3, 6])
    np.testing.assert_array_equal(fine, tiles((13, 16), 3))
    # every fine tile lies in one coarse tile
    assert all(len(np.unique(coarse[fine == r])) == 1 for r in range(fine.max() + 1))


def test_components_by_hand() -> None:
    labels = np.array([[1, 1, 0, 2], [0, 0, 1, 2], [0, 2, 2, 2]])
    # the single 1 touches the other ones at a corner only
    np.testing.assert_array_equal(components(labels), [[0, 0, 1, 2], [3, 3, 4, 2], [3, 2, 2, 2]])


@pytest.mark.parametrize("shape, classes", [((24, 30), 3), ((10, 12, 9), 2)])
def test_components_are_scipys(shape: tuple[int, ...], classes: int) -> None:
    labels = blobs(shape, seed=1, classes=classes)
    regions = components(labels)
    assert_partition(regions)
    assert regions.min() == 0
    assert regions.max() + 1 == sum(ndimage.label(labels == c)[1] for c in range(classes))
    for r in range(regions.max() + 1):
        assert len(np.unique(labels[regions == r])) == 1 and pieces(regions == r) == 1
    np.testing.assert_array_equal(regions, components(labels - 3))  # no label stands for no region


def test_a_straight_boundary_is_cut_evenly() -> None:
    labels = np.zeros((12, 6), int)
    labels[:, 3:] = 1
    # 12 pixels of contour in pieces of 4: rows 0-3, 4-7, 8-11 of the two columns beside the boundary
    expected = np.full((12, 6), -1)
    expected[:, 2:4] = np.repeat([0, 1, 2], 4)[:, None]
    np.testing.assert_array_equal(boundary_segments(labels, band=1, length=4), expected)


def test_a_ring_is_cut_into_arcs() -> None:
    rows, columns = np.indices((40, 40)) - 20
    labels = (rows**2 + columns**2 < 14**2).astype(int)
    regions = boundary_segments(labels, band=2, length=10)
    contour = contour_distance(labels) <= 1
    count = round(contour.sum() / 20)
    assert regions.max() + 1 == count == 8
    per_arc = np.bincount(regions[contour])
    assert per_arc.min() >= contour.sum() / count - 3 and per_arc.max() <= contour.sum() / count + 3
    assert all(pieces(regions == r, corners=True) == 1 for r in range(count))


@pytest.mark.parametrize("shape, classes, length", [((40, 36), 3, 6.0), ((14, 15, 16), 2, 5.0), ((30, 30), 2, 1000.0)])
def test_segments_cover_the_band_and_nothing_else(shape: tuple[int, ...], classes: int, length: float) -> None:
    labels = blobs(shape, seed=3, classes=classes)
    regions = boundary_segments(labels, band=2, length=length)
    assert_partition(regions)
    np.testing.assert_array_equal(np.flatnonzero(regions >= 0), boundary_band(labels, 2))
    assert all(pieces(regions == r, corners=True) == 1 for r in range(regions.max() + 1))
    np.testing.assert_array_equal(regions, boundary_segments(labels, band=2, length=length))
    contour = np.bincount(regions[contour_distance(labels) <= 1], minlength=regions.max() + 1)
    if length < 1000:
        parts = pieces(regions >= 0, corners=True)
        assert regions.max() + 1 > parts
        # no piece is longer than one and a half of what was asked, with the rounding of a split
        assert contour.max() <= 1.5 * 2 * length ** (len(shape) - 1) + 2
    else:
        assert regions.max() + 1 == pieces(regions >= 0, corners=True)


def test_one_label_has_no_boundary() -> None:
    labels = np.ones((5, 6), int)
    assert (boundary_segments(labels, band=3, length=4) == -1).all()
    targets = region_targets(
        [boundary_segments(labels, band=3, length=4)], labels, [labels], probs=np.full((5, 6, 2), 0.5), members=2
    )
    assert targets.points.shape == (0, 1) and targets.labels.shape == (0, 2, 1) and targets.weights.shape == (0, 1)


def test_superpixels_follow_the_values() -> None:
    image = np.zeros((24, 24, 1))
    image[:, 9:] = 5.0  # an edge that no border of a regular grid follows
    regions = superpixels(image, 16, 0.1)
    assert regions.max() >= 3 and all(np.ptp(image[regions == r]) == 0 for r in range(regions.max() + 1))
    # where distance counts alone, the edge is cut through
    compact = superpixels(image, 16, 1e3)
    assert any(np.ptp(image[compact == r]) > 0 for r in range(compact.max() + 1))
    np.testing.assert_array_equal(compact, superpixels(np.zeros((24, 24, 1)), 16))


@pytest.mark.parametrize("shape, count, channels", [((40, 50), 30, 1), ((33, 32), 20, 3), ((12, 14, 13), 12, 1)])
def test_superpixels_are_connected_and_about_as_many_as_asked(shape: tuple[int, ...], count: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.standard_normal((*shape, channels)), (2.0,) * len(shape) + (0,))
    regions = superpixels(image, count, 0.5)
    assert_partition(regions)
    assert regions.min() == 0
    assert all(pieces(regions == r) == 1 for r in range(regions.max() + 1))
    assert count / 2 <= regions.max() + 1 <= 2 * count
    np.testing.assert_array_equal(regions, superpixels(image, count, 0.5))
    # neither an offset nor the scale of the values matters
    np.testing.assert_array_equal(regions, superpixels(4.0 * image + 8.0, count, 0.5))

    # values vary less inside regions than inside tiles
    def inside(partition: np.ndarray) -> float:
        return sum(image[partition == r].var(0).sum() * (partition == r).sum() for r in range(partition.max() + 1))

    side = (math.prod(shape) / count) ** (1 / len(shape))
    assert inside(regions) < inside(tiles(shape, max(1, int(side))))


def test_superpixel_counts_that_make_no_sense() -> None:
    for count in (0, 10):
        with pytest.raises(ValueError, match=f"superpixels: expected a count from 1 to 9 pixels, got {count}"):
            superpixels(np.zeros((3, 3, 1)), count)
    with pytest.raises(ValueError, match="superpixels: expected finite values, got 2 that are not"):
        superpixels(np.array([[0.0, np.nan], [np.inf, 1.0]])[..., None], 2)
    with pytest.raises(ValueError, match="superpixels: expected two or three spatial axes, got 1"):
        superpixels(np.zeros((9, 1)), 2)
    assert superpixels(np.zeros((3, 3, 1)), 1).max() == 0
    np.testing.assert_array_equal(superpixels(np.zeros((3, 3, 1)), 9), np.arange(9).reshape(3, 3))


def test_region_targets_by_hand() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1]])
    regions = np.array([[0, 0, 1], [-1, 0, 1]])
    probs = np.array([[[0.5, 0.2, 0.3], [0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], [[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.3, 0.4, 0.3]]])
    dilated = np.array([[0, 1, 1], [0, 1, 1]])
    empty = np.zeros((2, 3), int)
    targets = region_targets([regions], labels, [dilated, empty], probs=probs, members=3)
    np.testing.assert_array_equal(targets.points, [[0, 1, 4], [2, 5, 2]])
    np.testing.assert_allclose(targets.weights, [[1 / 3] * 3, [0.5, 0.5, 0]], rtol=1e-6)
    # member 0 wants the dilated mask: new in region 0; in region 1 nothing is new, so the runner-up classes 2 and 0 (a tie:
    # the smaller). Member 1 wants zeros: nothing new in region 0 (runner-up 2, 1, 1). Member 2 is member 0 again.
    np.testing.assert_array_equal(targets.labels, [[[0, 1, 1], [2, 1, 1], [0, 1, 1]], [[2, 0, 2], [0, 0, 0], [2, 0, 2]]])
    two = region_targets([regions, tiles((2, 3), 1)], labels, [dilated], probs=probs, members=1)
    np.testing.assert_array_equal(two.points[:2], targets.points)
    np.testing.assert_array_equal(two.points[2:], np.repeat(np.arange(6)[:, None], 3, 1))
    np.testing.assert_array_equal(two.weights[2:], [[1, 0, 0]] * 6)


@pytest.mark.parametrize("shape, classes", [((17, 19), 2), ((15, 16), 4), ((7, 8, 6), 3)])
def test_region_targets_against_a_loop(shape: tuple[int, ...], classes: int) -> None:
    rng = np.random.default_rng(5)
    labels = blobs(shape, seed=7, classes=classes)
    probs = rng.dirichlet(np.ones(classes), shape)  # the labels need not be its most probable classes
    wanted = [np.where(rng.random(shape) < 0.02, rng.integers(0, classes, shape), labels) for _ in range(2)]
    maps = [tiles(shape, 4), components(labels)]
    targets = region_targets(maps, labels, wanted, probs=probs, members=3)
    regions = [np.flatnonzero(m == r) for m in maps for r in range(m.max() + 1)]
    assert targets.points.shape == (len(regions), max(map(len, regions)))
    fallen = 0
    for t, points in enumerate(regions):
        size = len(points)
        np.testing.assert_array_equal(targets.points[t, :size], points)
        np.testing.assert_allclose(targets.weights[t], [1 / size] * size + [0] * (targets.weights.shape[1] - size), rtol=1e-6)
        for m in range(3):
            asked = wanted[m % 2].reshape(-1)[points]
            if (asked == labels.reshape(-1)[points]).all():
                fallen += 1
                rest = probs.reshape(-1, classes)[points].copy()
                rest[np.arange(size), labels.reshape(-1)[points]] = -1
                asked = rest.argmax(1)
            np.testing.assert_array_equal(targets.labels[t, m, :size], asked)
            assert (asked != labels.reshape(-1)[points]).any()
    assert 0 < fallen < 3 * len(regions)


def test_region_points_list_every_region() -> None:
    found = region_points(np.array([[1, -1, 0], [1, 0, 0]]))
    assert [p.tolist() for p in found] == [[2, 4, 5], [0, 3]]


@pytest.mark.usefixtures("unchecked")
def test_a_map_of_another_shape_is_refused() -> None:
    labels = np.zeros((4, 5), int)
    with pytest.raises(ValueError, match=r"region map: expected the shape of the labels \(4, 5\), got \(5, 4\)"):
        region_targets([tiles((5, 4), 2)], labels, [labels], probs=np.full((4, 5, 2), 0.5), members=1)


@pytest.mark.parametrize("name", REGION_KINDS)
def test_partitions_by_name(name: str) -> None:
    labels = blobs((32, 40), seed=2)
    image = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((32, 40, 1)), (2, 2, 0))
    maps = region_maps(TargetConfig(target="region", regions=name, region_size=8, band_width=1, pyramid_levels=3), image, labels)
    expected = {
        "tiles": [tiles((32, 40), 8)],
        "components": [components(labels)],
        "segments": [boundary_segments(labels, band=1, length=8)],
        "superpixels": [superpixels(image, 20)],
        "pyramid": [tiles((32, 40), 8), tiles((32, 40), 16), tiles((32, 40), 32)],
    }[name]
    assert len(maps) == len(expected)
    for found, wanted in zip(maps, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_super_pixels_of_a_volume_are_as_many_as_its_cubes() -> None:
    image = np.random.default_rng(0).standard_normal((8, 12, 8, 1)).astype(np.float32)
    settings = TargetConfig(target="region", regions="superpixels", region_size=4, compactness=100)
    (found,) = region_maps(settings, image, np.zeros((8, 12, 8), int))
    assert found.max() + 1 == 2 * 3 * 2


@pytest.mark.parametrize("band", [1, 3])
def test_pieces_are_counted_by_the_contour_and_not_by_the_band(band: int) -> None:
    labels = (np.arange(12) >= 6).astype(int)[None] * np.ones((16, 1), int)
    assert boundary_segments(labels, band=band, length=4).max() + 1 == 4


def test_an_unknown_kind_of_regions_is_named() -> None:
    with pytest.raises(
        ValueError, match="regions: expected one of tiles, components, segments, superpixels, pyramid, got 'rings'"
    ):
        TargetConfig(regions="rings")
