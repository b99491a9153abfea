"""Choices of pixels: by hand, against brute force, and what a wrong list says."""

import numpy as np
import pytest
from scipy import ndimage

from quam_jax.config import TargetConfig
from quam_jax.targets.pixels import (
    all_pixels,
    boundary_band,
    chosen_pixels,
    listed,
    pixel_targets,
    stratified,
    uncertainty_ranked,
)


def blobs(shape: tuple[int, ...], *, seed: int, classes: int = 2) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.0)
    return np.digitize(field, np.quantile(field, np.linspace(0, 1, classes + 1)[1:-1]))


def test_all_pixels() -> None:
    np.testing.assert_array_equal(all_pixels((2, 3)), [0, 1, 2, 3, 4, 5])
    assert len(all_pixels((3, 4, 5))) == 60


def test_the_band_by_hand() -> None:
    labels = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 2]])
    np.testing.assert_array_equal(boundary_band(labels, 1), [2, 3, 6, 7, 10, 11])
    assert len(boundary_band(np.zeros((4, 4), int), 100)) == 0


@pytest.mark.parametrize("shape, classes", [((11, 13), 3), ((6, 7, 5), 2)])
def test_the_band_by_brute_force(shape: tuple[int, ...], classes: int) -> None:
    labels = blobs(shape, seed=1, classes=classes)
    places = np.indices(shape).reshape(len(shape), -1).T
    apart = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1))
    flat = labels.reshape(-1)
    apart[flat[:, None] == flat[None]] = np.inf
    for width in (1, 1.5, 2):
        np.testing.assert_array_equal(boundary_band(labels, width), np.flatnonzero(apart.min(1) <= width))


def test_most_uncertain_first() -> None:
    probs = np.array([[[1.0, 0.0], [0.6, 0.4]], [[0.4, 0.6], [0.9, 0.1]]])
    # entropies 0, .673, .673, .325: of the equal ones the first in the image comes first
    np.testing.assert_array_equal(uncertainty_ranked(probs, 3), [1, 2, 3])
    np.testing.assert_array_equal(uncertainty_ranked(probs, 9), [1, 2, 3, 0])


def test_strata_share_alike_by_hand() -> None:
    # ten pixels: six certain ones of class 0, one uncertain of class 0, three certain ones of class 1
    labels = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1]])
    high = np.where(labels == 1, 0.001, 0.999)
    high[1, 1] = 0.5
    probs = np.stack([high, 1 - high], -1)
    for seed in range(5):
        chosen = stratified(labels, probs, 6, seed)
        assert 6 in chosen  # the only one of its stratum
        # five more from the two other strata: three and two, or two and three, dealt out in turn beginning with class 0
        assert np.isin(chosen, [0, 1, 2, 3, 4, 5]).sum() == 3 and np.isin(chosen, [7, 8, 9]).sum() == 2
        # once class 1 is spent the rest comes from class 0
        assert np.isin([6, 7, 8, 9], stratified(labels, probs, 9, seed)).all()
    assert any(not np.array_equal(stratified(labels, probs, 6, 0), stratified(labels, probs, 6, s)) for s in range(1, 5))


@pytest.mark.parametrize("shape, classes", [((16, 18), 3), ((8, 9, 7), 2)])
def test_stratified_samples_have_no_repeats(shape: tuple[int, ...], classes: int) -> None:
    labels = blobs(shape, seed=4, classes=classes)
    probs = np.random.default_rng(0).dirichlet(np.ones(classes), shape)
    chosen = stratified(labels, probs, 50, 3)
    assert len(chosen) == 50 and (np.diff(chosen) > 0).all() and chosen.max() < labels.size
    np.testing.assert_array_equal(chosen, stratified(labels, probs, 50, 3))
    np.testing.assert_array_equal(stratified(labels, probs, 10**6, 3), all_pixels(shape))
    assert set(np.unique(labels.reshape(-1)[chosen])) == set(range(classes))


def test_listed_pixels() -> None:
    np.testing.assert_array_equal(listed([(0, 0), (1, 2), (0, 2)], (2, 3)), [0, 5, 2])
    np.testing.assert_array_equal(listed([(1, 2, 3)], (2, 3, 4)), [23])
    assert len(listed([], (2, 3))) == 0


@pytest.mark.parametrize("point", [(2, 0), (0, 3), (-1, 0), (0, 0, 0), (1,)])
def test_a_pixel_outside_the_image_is_named(point: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        listed([(0, 0), point], (2, 3))
    text = ",".join(map(str, point))
    assert str(caught.value) == f"pixel list: expected 2 indices inside the image (0..1, 0..2), got {text}"


def test_members_want_the_other_classes_in_order() -> None:
    probs = np.array([[[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]]])
    targets = pixel_targets(np.array([1, 0]), probs, members=4)
    np.testing.assert_array_equal(targets.points, [[1], [0]])
    np.testing.assert_array_equal(targets.weights, [[1], [1]])
    # pixel 1 ranks 1, 2, 0 and pixel 0 ranks 0, 2, 1: the runner-up, the last, the present one, and round again
    np.testing.assert_array_equal(targets.labels[..., 0], [[2, 0, 1, 2], [2, 1, 0, 2]])


def test_two_classes_pull_both_ways() -> None:
    probs = np.array([[[0.5, 0.5], [0.2, 0.8]]])
    targets = pixel_targets(all_pixels((1, 2)), probs, members=2)
    # of equal classes the first is the present one, as argmax has it
    np.testing.assert_array_equal(targets.labels[..., 0], [[1, 0], [0, 1]])


def test_pixel_targets_in_space_against_sorting() -> None:
    probs = np.random.default_rng(2).dirichlet(np.ones(4), (5, 6, 3))
    points = np.array([3, 80, 41])
    targets = pixel_targets(points, probs, members=3)
    np.testing.assert_array_equal(targets.labels[..., 0], np.argsort(probs.reshape(-1, 4)[points], -1)[:, 2::-1])


def test_choices_by_name() -> None:
    labels = blobs((12, 14), seed=6)
    probs = np.random.default_rng(1).dirichlet(np.ones(2), (12, 14))

    def chosen(**settings: object) -> np.ndarray:
        return chosen_pixels(TargetConfig(target="pixel", **settings), labels, probs, seed=4)  # type: ignore[arg-type]

    np.testing.assert_array_equal(chosen(), all_pixels((12, 14)))
    np.testing.assert_array_equal(chosen(pixels="band", band_width=1), boundary_band(labels, 1))
    np.testing.assert_array_equal(chosen(pixels="uncertain", pixel_count=7), uncertainty_ranked(probs, 7))
    np.testing.assert_array_equal(chosen(pixels="stratified", pixel_count=7), stratified(labels, probs, 7, 4))
    np.testing.assert_array_equal(chosen(pixels="list", pixel_list="1,2; 0,3"), [16, 3])
    with pytest.raises(ValueError, match="pixel list: expected 2 indices inside the image .*, got 12,0"):
        chosen(pixels="list", pixel_list="12,0")
