"""How the parts of a case are put together: targets that overlap, draws for slices, patches and folds, fit patches."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.case.fit import fit_patches
from quam_jax.case.masks import wanted_masks
from quam_jax.case.patches import Scene
from quam_jax.case.quantified import Quantified
from quam_jax.case.quantify import quantify, quantify_images
from quam_jax.case.shared import CaseModel, whole_image_model
from quam_jax.config import Config, ExecutionConfig, SearchConfig, TargetConfig
from quam_jax.data.patches import lay_patches
from quam_jax.data.plans import Grid
from quam_jax.models.coding import Coding
from quam_jax.models.predict import predict
from tests.planned import plan_of
from tests.tiny import NO_VIEWS, SIZE, tiny_fit, tiny_image, tiny_model, tiny_network
from tests.volume_by_hand import AS_READ, folds_of, geometry_of, tiny_fold

HEADS = SearchConfig(space="head", members=2, steps=3, learning_rate=0.2, slack=0.2, fit_points=0)
LEVELS = {"tiles of 2": ("tiles", 2, 1), "tiles of 4": ("tiles", 4, 1), "pyramid": ("pyramid", 2, 2)}
MAPS = ("total", "aleatoric", "epistemic")


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def regions(kind: str) -> Config:
    """Tiles of 2 or 4 pixels a side, or a pyramid of both."""
    name, size, levels = LEVELS[kind]
    return Config(
        search=HEADS,
        targets=TargetConfig(
            target="region",
            regions=name,
            region_size=size,  # type: ignore[arg-type]
            pyramid_levels=levels,
            shapes=("all_one", "all_zero"),
        ),
    )


def quantify_scan(shared: CaseModel, image: np.ndarray, spacing: tuple[float, ...], config: Config) -> Quantified:
    return quantify_images(shared, [image], config=config, geometries=[geometry_of(image, spacing)])[0]


# targets that overlap


@pytest.fixture(scope="module")
def images() -> dict[str, Quantified]:
    """One image asked by two sizes of tiles, alone and together."""
    model = tiny_model(classes=3)
    return {kind: quantify(model, tiny_image(), tiny_fit(model), config=regions(kind)) for kind in LEVELS}


@pytest.fixture(scope="module")
def volumes() -> dict[str, Quantified]:
    """One volume asked by two sizes of tiles, alone and together."""
    image = np.random.default_rng(2).standard_normal((4, 6, 4, 1)).astype(np.float32)
    found = {}
    for kind in LEVELS:
        config = regions(kind)
        shared = folds_of([tiny_fold(0, classes=3)], config, patch=(4, 4), spacing=(1.0, 1.0), mirror_axes=[])
        found[kind] = quantify_scan(shared, image, (1.0, 1.0, 2.0), config)
    return found


def assert_mean_and_cheapest(fine: Quantified, coarse: Quantified, both: Quantified) -> None:
    for name in MAPS:
        one, other = getattr(fine, name), getattr(coarse, name)
        np.testing.assert_allclose(getattr(both, name), (one + other) / 2, rtol=1e-4, atol=1e-6)
        assert np.abs(one - other).max() > 1e-4
    one, other = fine.fragility["slack"], coarse.fragility["slack"]
    np.testing.assert_allclose(both.fragility["slack"], np.minimum(one, other), rtol=1e-3, atol=1e-6)
    assert not np.allclose(one, other, rtol=1e-2)


def test_targets_that_overlap_in_an_image_are_averaged(images: dict[str, Quantified]) -> None:
    assert_mean_and_cheapest(*(images[kind] for kind in LEVELS))


def test_targets_that_overlap_in_a_volume_are_averaged(volumes: dict[str, Quantified]) -> None:
    assert_mean_and_cheapest(*(volumes[kind] for kind in LEVELS))


def test_a_sample_of_a_pyramid_moves_volumes_by_the_mean_of_its_levels(volumes: dict[str, Quantified]) -> None:
    sampled = [volumes[kind].volumes for kind in LEVELS]
    fine, coarse, both = (one.ml for one in sampled if one is not None)
    np.testing.assert_allclose(both, (fine + coarse) / 2, rtol=1e-5, atol=1e-8)
    assert np.abs(fine - coarse).max() > 1e-5


def test_nobody_asked_is_what_the_given_network_says() -> None:
    model = tiny_model(classes=3)
    config = Config(search=HEADS, targets=TargetConfig(target="pixel", pixels="list", pixel_list="0,3;7,11"))
    reference = np.asarray(predict(model, tiny_image()))
    found = quantify(model, tiny_image(), tiny_fit(model), config=config)
    asked = np.zeros(SIZE, bool)
    asked[[0, 7], [3, 11]] = True
    entropy = -(reference * np.log(reference)).sum(-1)
    np.testing.assert_allclose(found.total[~asked], entropy[~asked], rtol=1e-5)
    np.testing.assert_allclose(found.aleatoric[~asked], entropy[~asked], rtol=1e-5)
    assert not found.epistemic[~asked].any() and (found.epistemic[asked] > 0).all()


# draws of their own

SLICED = {
    "random masks": Config(
        samples=NO_VIEWS, targets=TargetConfig(shapes=("random",)), search=SearchConfig(steps=2, learning_rate=0.02)
    ),
    "noise": Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=0.02, mode="train")),
    "random masks of regions": Config(targets=TargetConfig(target="region", region_size=4, shapes=("random",)), search=HEADS),
    "drawn fit points": Config(
        targets=TargetConfig(target="pixel", pixels="uncertain", pixel_count=5), search=dataclasses.replace(HEADS, fit_points=8)
    ),
}


@pytest.mark.parametrize("kind", SLICED)
def test_equal_slices_have_draws_of_their_own(kind: str) -> None:
    config = SLICED[kind]
    model = tiny_model(drop=0.5)
    shared = whole_image_model(model, tiny_fit(model), config.search)
    volume = np.stack([tiny_image()] * 3, 2)
    (found,) = quantify_images(shared, [volume], config=config)
    for z in (1, 2):
        np.testing.assert_allclose(found.reference[:, :, z], found.reference[:, :, 0])
        assert np.abs(found.objective[z] - found.objective[0]).max() > 1e-4
        assert np.abs(found.epistemic[:, :, z] - found.epistemic[:, :, 0]).max() > 1e-6
    np.testing.assert_array_equal(quantify_images(shared, [volume], config=config)[0].total, found.total)


def test_slices_that_are_searched_together_keep_their_draws() -> None:
    """Noise, and random masks of other seeds, belong to the slice and not to its company."""
    config = Config(
        samples=NO_VIEWS, targets=TargetConfig(shapes=("random",)), search=SearchConfig(steps=2, learning_rate=0.02, mode="train")
    )
    model = tiny_model(drop=0.5)
    shared = whole_image_model(model, tiny_fit(model), config.search)
    volume = np.stack([tiny_image()] * 3, 2)
    (alone,) = quantify_images(shared, [volume], config=config)
    together = quantify_images(shared, [volume], config=dataclasses.replace(config, execution=ExecutionConfig(together=2)))[0]
    np.testing.assert_allclose(together.objective, alone.objective, rtol=1e-4)
    np.testing.assert_allclose(together.total, alone.total, rtol=1e-3, atol=1e-5)


def test_equal_patches_and_folds_have_draws_of_their_own() -> None:
    """Equal slices are equal patches, and both folds are the same network: what differs is the noise."""
    config = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=0.02, mode="train"))
    model = tiny_fold(0, classes=3, drop=0.5)
    shared = folds_of([model, model], config, patch=(4, 4), spacing=(1.0, 1.0), mirror_axes=[])
    image = np.repeat(np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32), 3, 2)
    found = quantify_scan(shared, image, (1.0, 1.0, 9.0), config)
    assert found.searched_patches == 3
    losses = found.objective.reshape(3 * 2, -1)  # of patches and folds
    for first in range(6):
        for second in range(first):
            assert np.abs(losses[first] - losses[second]).max() > 1e-4


def test_folds_draw_fit_points_of_their_own() -> None:
    """Both folds are the same network, so that only the points drawn for them differ."""
    search = dataclasses.replace(HEADS, fit_points=8)
    config = Config(targets=TargetConfig(target="pixel", pixels="uncertain", pixel_count=5), search=search)
    model = tiny_fold(0, classes=3)
    shared = folds_of([model, model], config, patch=(4, 4), spacing=(1.0, 1.0), mirror_axes=[])
    image = np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32)
    first, second = quantify_scan(shared, image, (1.0, 1.0, 9.0), config).fit_loss
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("planned", [False, True])
def test_random_masks_differ(planned: bool) -> None:
    config = Config(targets=TargetConfig(shapes=("random", "random")), search=HEADS)
    shape, spacing = (6, 7, 8), (1.0, 1.0, 1.0)
    labels, logits = np.zeros(shape, np.int32), np.zeros((*shape, 3), np.float32)
    scene = Scene(logits, lay_patches(shape, shape), jax.random.key(0), jnp.asarray(labels), jnp.asarray(logits))
    if planned:
        box = tuple(slice(0, n) for n in shape)
        grid = Grid(geometry_of(labels, spacing), plan_of(), shape, box, spacing, shape, spacing)
        scene = scene._replace(grid=grid, logits=logits, probs=logits)
    shared = CaseModel((), Coding(3))
    first, second = wanted_masks(shared, scene, config=config)
    assert (first != second).any() and set(np.unique(first)) == set(np.unique(second)) == {0, 1, 2}


# fit patches


@pytest.mark.parametrize("seed", range(3))
def test_two_fit_patches_in_three_show_foreground(seed: int) -> None:
    """Two lone voxels in a large volume: a patch that is anywhere misses them."""
    labels = np.zeros((40, 40, 40), np.int32)
    labels[8, 30, 11], labels[31, 9, 28] = 1, 2
    image = np.ones((40, 40, 40, 1), np.float32)
    plan = plan_of()
    patches = fit_patches(
        image,
        labels,
        geometry_of(image, (1.0, 1.0, 1.0)),
        plan=plan,
        coding=Coding.of(plan, where="model"),
        count=9,
        seed=seed,
    )
    shown: list[Any] = [sorted({int(label) for label in np.unique(classes)} - {0}) for _, classes in patches]
    assert shown == [[1], [2], [], [2], [1], [], [1], [2], []]  # labels in turn by the number of the patch


@pytest.mark.parametrize(
    ("voxel", "start"), [((9, 12, 5), (5, 8, 1)), ((1, 19, 10), (0, 12, 6))], ids=["inside", "at the border"]
)
def test_a_fit_patch_lies_around_its_voxel_and_inside(voxel: tuple[int, ...], start: tuple[int, ...]) -> None:
    """Voxels of the image say where they are; axes are z y x."""
    labels = np.zeros((20, 20, 20), np.int32)
    labels[voxel] = 1
    image = np.arange(1, 1 + labels.size, dtype=np.float32).reshape(labels.shape)
    patch, classes = fit_patch(image, labels)
    np.testing.assert_array_equal(patch[..., 0], image[tuple(slice(s, s + 8) for s in start)])
    assert np.argwhere(classes == 1).tolist() == [[v - s for v, s in zip(voxel, start, strict=True)]]


def test_what_a_small_volume_lacks_and_what_is_not_rated_are_no_classes() -> None:
    labels = np.full((6, 8, 8), 2, np.int32)
    labels[:, :4], labels[0, 0, 0] = -1, 1
    settings = {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}, "ignore_label": 3}
    patch, classes = fit_patch(np.ones(labels.shape, np.float32), labels, **settings)
    assert (patch[1:7] == 1).all() and not patch[[0, 7]].any()
    expected = np.full((8, 8, 8), -1)
    expected[1:7, 4:], expected[1, 0, 0] = 2, 1
    np.testing.assert_array_equal(classes, expected)


def fit_patch(image: np.ndarray, mask: np.ndarray, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first fit patch, of 8 voxels a side, of a volume whose axes are z y x."""
    plan = plan_of(normalisation=[AS_READ], **changes)
    coding = Coding.of(plan, where="model")
    scan = image.T[..., None]
    return fit_patches(scan, mask.T, geometry_of(scan, (1.0, 1.0, 1.0)), plan=plan, coding=coding, count=1, seed=0)[0]
