"""Wanted masks against scipy's morphology and against small masks drawn by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from quam_jax.config import WANTED_MASKS, TargetConfig
from quam_jax.targets.masks import mask_targets, ranked_classes, wanted_mask
from quam_jax.targets.millimetres import wanted_volume
from quam_jax.targets.morphology import squared_distance, structuring_element
from quam_jax.targets.wanted import dilate as dilating
from quam_jax.targets.wanted import erode as eroding
from quam_jax.targets.wanted.alternating import checkerboard

# one compilation a shape; eager operations would be compiled one by one
SETTINGS = ("radius", "classes", "element")
dilate = jax.jit(dilating.dilate, static_argnames=SETTINGS)
erode = jax.jit(eroding.erode, static_argnames=(*SETTINGS, "outside"))


def blobs(shape: tuple[int, ...], *, seed: int, level: float = 0.0) -> np.ndarray:
    """Smooth random structures, some of them touching the border."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return (field > level * field.std()).astype(np.int32)


def structure(rank: int, element: str) -> np.ndarray:
    return ndimage.generate_binary_structure(rank, rank if element == "square" else 1)


@pytest.mark.parametrize("element", ["square", "cross"])
@pytest.mark.parametrize("shape, radius", [((13, 17), 1), ((13, 17), 3), ((7, 8, 9), 2)])
def test_binary_morphology_is_scipys(shape: tuple[int, ...], radius: int, element: str) -> None:
    mask = blobs(shape, seed=radius)
    elements = structure(len(shape), element)
    assert 0 < mask.mean() < 1 and mask[0].any()
    np.testing.assert_array_equal(structuring_element(len(shape), element), elements)
    grown = ndimage.binary_dilation(mask, elements, iterations=radius)
    np.testing.assert_array_equal(dilate(jnp.asarray(mask), radius=radius, element=element), grown)
    for outside, border in (("background", 0), ("edge", 1)):
        found = erode(jnp.asarray(mask), radius=radius, element=element, outside=outside)
        if outside == "background":
            shrunk = ndimage.binary_erosion(mask, elements, iterations=radius, border_value=border)
        else:  # the edge is repeated anew before every step
            shrunk = mask
            for _ in range(radius):
                padded = ndimage.binary_erosion(np.pad(shrunk, 1, mode="edge"), elements)
                shrunk = padded[(slice(1, -1),) * len(shape)]
        np.testing.assert_array_equal(found, shrunk, err_msg=outside)


@pytest.mark.parametrize("shape, radius", [((13, 17), 1), ((13, 17), 4), ((8, 9, 7), 2), ((8, 9, 7), 12)])
def test_a_disk_keeps_the_euclidean_radius(shape: tuple[int, ...], radius: int) -> None:
    mask = blobs(shape, seed=radius, level=0.5)
    assert 0 < mask.mean() < 1
    places = np.indices(shape).reshape(len(shape), -1).T
    squared = ((places[:, None] - places[None]) ** 2).sum(-1)
    near = squared <= radius**2
    grown = (near & mask.reshape(-1)).any(1).reshape(shape)
    np.testing.assert_array_equal(dilate(jnp.asarray(mask), radius=radius, element="disk"), grown)
    shrunk = ~(near & ~mask.reshape(-1).astype(bool)).any(1).reshape(shape)
    np.testing.assert_array_equal(erode(jnp.asarray(mask), radius=radius, element="disk"), shrunk)
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[(slice(1, -1),) * len(shape)]
    np.testing.assert_array_equal(erode(jnp.asarray(mask), radius=radius, element="disk", outside="background"), inside > radius)


def test_squared_distance_by_hand() -> None:
    mask = jnp.zeros((3, 5), bool).at[0, 0].set(True)
    found = np.asarray(squared_distance(mask, reach=3))
    np.testing.assert_array_equal(found[:, :4], [[0, 1, 4, 9], [1, 2, 5, 10], [4, 5, 8, 10]])
    assert (found[:, 4] > 9).all()
    np.testing.assert_array_equal(squared_distance(mask, reach=2, outside=True)[1], [1, 2, 4, 4, 1])


def test_a_disk_gives_a_pixel_to_the_nearest_class() -> None:
    labels = jnp.array([[1, 0, 0, 0, 0, 2]])
    np.testing.assert_array_equal(dilate(labels, radius=2, classes=3, element="disk"), [[1, 1, 1, 2, 2, 2]])
    np.testing.assert_array_equal(dilate(labels[:, 1:], radius=9, classes=3, element="disk"), [[2] * 5])
    # of two as near the smaller
    np.testing.assert_array_equal(dilate(jnp.array([[2, 0, 1]]), radius=1, classes=3, element="disk"), [[2, 1, 1]])
    np.testing.assert_array_equal(
        erode(jnp.array([[1, 1, 1, 2, 2, 2]]), radius=1, classes=3, element="disk"), [[1, 1, 0, 0, 2, 2]]
    )


def test_classes_in_order_of_probability() -> None:
    probs = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.5, 0.5, 0.0]])
    np.testing.assert_array_equal(ranked_classes(probs), [[1, 2, 0], [0, 2, 1], [0, 1, 2]])


def test_the_border_eats_a_mask_only_with_background_outside() -> None:
    full = jnp.ones((5, 6), jnp.int32)
    np.testing.assert_array_equal(erode(full, radius=2), np.ones((5, 6)))
    expected = np.zeros((5, 6))
    expected[2:3, 2:4] = 1
    np.testing.assert_array_equal(erode(full, radius=2, outside="background"), expected)


def test_growing_into_two_classes_by_hand() -> None:
    labels = jnp.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 2], [1, 0, 0, 0, 2], [0, 0, 0, 0, 0]])
    expected = [[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [1, 1, 0, 2, 2]]
    np.testing.assert_array_equal(dilate(labels, radius=1, classes=3), expected)
    # in the second step the middle column sees three of each: the smaller label wins
    np.testing.assert_array_equal(dilate(labels, radius=2, classes=3)[1], [1, 1, 1, 2, 2])


def test_growing_takes_the_most_frequent_neighbour_and_keeps_labels() -> None:
    labels = jnp.array([[2, 2, 1], [0, 0, 0]])
    # below the middle lie 2, 2 and 1
    np.testing.assert_array_equal(dilate(labels, radius=1, classes=3), [[2, 2, 1], [2, 2, 1]])


def test_shrinking_separates_two_classes_that_touch() -> None:
    labels = jnp.array([[1, 1, 2, 2]] * 3)
    np.testing.assert_array_equal(erode(labels, radius=1, classes=3), [[1, 0, 0, 2]] * 3)


def test_shrinking_never_leaves_its_class_and_growing_never_loses_a_label() -> None:
    labels = jnp.asarray(blobs((16, 16), seed=4) + blobs((16, 16), seed=5, level=1.0) * blobs((16, 16), seed=4))
    grown, shrunk = dilate(labels, radius=2, classes=3), erode(labels, radius=1, classes=3)
    assert bool(((grown == labels) | (labels == 0)).all())
    assert bool(((shrunk == labels) | (shrunk == 0)).all())
    assert int((shrunk > 0).sum()) < int((labels > 0).sum()) < int((grown > 0).sum())


def test_empty_masks_and_radius_zero_stay() -> None:
    empty = jnp.zeros((4, 5), jnp.int32)
    np.testing.assert_array_equal(dilate(empty, radius=3), empty)
    np.testing.assert_array_equal(erode(empty, radius=3), empty)
    mask = jnp.asarray(blobs((6, 6), seed=1))
    np.testing.assert_array_equal(dilate(mask, radius=0), mask)


def test_wanted_masks_by_name() -> None:
    labels = jnp.asarray(blobs((6, 7), seed=2))
    probs = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(3), (6, 7)))

    def wanted(shape: str) -> np.ndarray:
        mask = wanted_mask(labels, shape, radius=2, classes=3, probs=probs, key=jax.random.key(0), outside="background")
        assert mask.dtype == jnp.int32 and mask.shape == labels.shape
        return np.asarray(mask)

    np.testing.assert_array_equal(wanted("dilate"), dilate(labels, radius=2, classes=3))
    np.testing.assert_array_equal(wanted("erode"), erode(labels, radius=2, classes=3, outside="background"))
    np.testing.assert_array_equal(wanted("all_one"), np.ones((6, 7)))
    np.testing.assert_array_equal(wanted("all_zero"), np.zeros((6, 7)))
    np.testing.assert_array_equal(wanted("alternating")[:2, :3], [[0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(wanted("random"), wanted("random"))
    assert set(np.unique(wanted("random"))) == {0, 1, 2}
    order = np.argsort(np.asarray(probs), -1)
    np.testing.assert_array_equal(wanted("other_class"), order[..., 1])  # of three classes the middle one
    assert (wanted("other_class") != order[..., 2]).all()
    assert all(wanted(name).shape == (6, 7) for name in WANTED_MASKS)


def test_checkerboard_in_space() -> None:
    board = np.asarray(checkerboard((2, 3, 2)))
    assert board[0, 0, 0] == 0 and (np.abs(np.diff(board, axis=1)) == 1).all() and board.shape == (2, 3, 2)


def test_what_a_wanted_mask_lacks_is_said() -> None:
    labels = jnp.zeros((3, 3), jnp.int32)
    with pytest.raises(ValueError, match="wanted mask: expected one of dilate, erode, .*, got 'shift'"):
        wanted_mask(labels, "shift", radius=1, classes=2)
    with pytest.raises(ValueError, match="wanted mask random: expected a key, got none"):
        wanted_mask(labels, "random", radius=1, classes=2)
    with pytest.raises(ValueError, match="wanted mask other_class: expected probabilities, got none"):
        wanted_mask(labels, "other_class", radius=1, classes=2)


def test_members_want_the_masks_in_turn() -> None:
    first, second = jnp.zeros((2, 3), jnp.int32), jnp.ones((2, 3), jnp.int32)
    targets = mask_targets([first, second], members=3)
    np.testing.assert_array_equal(targets.points, [[0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(targets.labels[0], [[0] * 6, [1] * 6, [0] * 6])
    assert float(targets.weights.sum()) == pytest.approx(1) and bool((targets.weights > 0).all())


@pytest.mark.parametrize(("radius", "sides"), [(1, (1, 3, 5)), (2, (1, 5, 9)), (4, (3, 9, 17))])
def test_a_step_in_a_volume_is_the_middle_voxel_side(radius: int, sides: tuple[int, ...]) -> None:
    """Voxels of 4, 1 and 0.5 mm: so many of them lie within `radius` mm of one, along each axis."""
    labels = np.zeros((19, 19, 19), np.int32)
    labels[9, 9, 9] = 1
    grown = wanted_volume(
        labels,
        "dilate",
        settings=TargetConfig(radius=radius),
        spacing=(4.0, 1.0, 0.5),
        probs=np.zeros((19, 19, 19, 2)),
        key=jax.random.key(0),
    )
    assert tuple(int(line.sum()) for line in (grown[:, 9, 9], grown[9, :, 9], grown[9, 9])) == sides
