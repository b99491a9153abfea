"""Laws of searches and volumes: what company, order, place and flips may not change."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quam_jax.case.prediction import predict_logits
from quam_jax.case.quantified import Quantified
from quam_jax.case.quantify import quantify, quantify_images
from quam_jax.case.shared import CaseModel, whole_image_model
from quam_jax.case.structures import structure_volumes
from quam_jax.config import Config, SampleConfig, SearchConfig, TargetConfig
from quam_jax.core.decomposition import entropy
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import Targets
from quam_jax.data.patches import importance, lay_patches
from quam_jax.models.model import SegmentationModel
from quam_jax.models.predict import predict
from quam_jax.models.prepare import prepare
from quam_jax.targets.pixels import pixel_targets
from tests.tiny import SIZE, tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets
from tests.volume_by_hand import tiny_fold

SEEDS = st.integers(0, 2**20)
laws = settings(max_examples=25, deadline=None, derandomize=True)
searches = settings(laws, max_examples=20)


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def assert_equal(found: Any, expected: Any, *, atol: float) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


HEADS = SearchConfig(space="head", members=3, steps=3, learning_rate=0.05, slack=0.02, fit_points=0)
POINTS = np.array([0, 7, 30, 41, 95])


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    with tiny_network():
        return tiny_model(classes=3)


@pytest.fixture(scope="module")
def heads(model: SegmentationModel) -> CaseModel:
    with tiny_network():
        return whole_image_model(model, tiny_fit(model), HEADS)


@searches
@given(order=st.permutations(range(5)), members=st.permutations(range(3)), seed=SEEDS)
def test_a_target_is_searched_alike_in_any_company(heads: CaseModel, order: list[int], members: list[int], seed: int) -> None:
    image = tiny_image(seed=seed)
    targets = pixel_targets(POINTS, np.asarray(predict(heads.folds[0].model, image)), members=3)
    turned = Targets(
        targets.points[np.array(order)], targets.labels[np.array(order)][:, np.array(members)], targets.weights[np.array(order)]
    )
    found, again = (search_prepared(heads.folds[0].prepared, image, some, key=jax.random.key(0)) for some in (targets, turned))
    assert_equal(again[:6], [np.asarray(leaf)[order][:, members] for leaf in found[:6]], atol=1e-5)


@searches
@given(members=st.permutations(range(3)), seed=SEEDS)
def test_masks_are_searched_alike_in_any_order(model: SegmentationModel, members: list[int], seed: int) -> None:
    prepared = prepare(model, tiny_fit(model), dataclasses.replace(HEADS, steps=2))
    targets = tiny_targets(classes=3, seed=seed)
    turned = targets._replace(labels=targets.labels[:, np.array(members)])
    found, again = (search_prepared(prepared, tiny_image(), some, key=jax.random.key(0)) for some in (targets, turned))
    assert_equal(again[:6], [np.asarray(leaf)[:, members] for leaf in found[:6]], atol=1e-5)


@searches
@given(
    seed=SEEDS,
    solver=st.sampled_from(["penalty", "backtrack"]),
    space=st.sampled_from(["head", "full"]),
    target=st.sampled_from(["mask", "pixel"]),
)
def test_without_learning_there_is_only_the_given_network(
    model: SegmentationModel, seed: int, solver: str, space: str, target: str
) -> None:
    search = dataclasses.replace(HEADS, learning_rate=0.0, solver=solver, space=space, steps=1, members=2)  # type: ignore[arg-type]
    points = TargetConfig(target=target, pixels="list", pixel_list="0,0;3,4;7,11")  # type: ignore[arg-type]
    image = tiny_image(seed=seed)
    found = quantify(
        model, image, tiny_fit(model), config=Config(search=search, targets=points, samples=SampleConfig(views="none"))
    )
    own = np.asarray(entropy(found.reference))
    np.testing.assert_allclose(found.total, own, rtol=1e-4)
    np.testing.assert_allclose(found.aleatoric, own, rtol=1e-4)
    assert found.epistemic.max() == 0
    np.testing.assert_array_equal(found.adversarial, np.broadcast_to(found.segmentation, found.adversarial.shape))


def asked(shared: CaseModel, settings: TargetConfig) -> Quantified:
    return quantify_images(shared, [tiny_image()], config=Config(search=HEADS, targets=settings))[0]


def assert_same_maps(found: Quantified, expected: Quantified) -> None:
    for name, values in (expected.maps | expected.fragility).items():
        own = (found.maps | found.fragility)[name]
        np.testing.assert_allclose(own, values, rtol=1e-3, atol=1e-6, err_msg=name)


@searches
@given(pixels=st.lists(st.integers(0, 95), min_size=4, max_size=4, unique=True), twice=st.permutations(range(4)))
def test_a_pixel_asked_twice_gets_the_maps_of_one_asked_once(heads: CaseModel, pixels: list[int], twice: list[int]) -> None:
    def listed(points: list[int]) -> TargetConfig:
        places = ";".join(f"{p // SIZE[1]},{p % SIZE[1]}" for p in points)
        return TargetConfig(target="pixel", pixels="list", pixel_list=places)

    assert_same_maps(asked(heads, listed([*pixels, *(pixels[n] for n in twice[:3])])), asked(heads, listed(pixels)))


def test_a_pyramid_whose_levels_agree_is_one_level(heads: CaseModel) -> None:
    one, three = (TargetConfig(target="region", regions="pyramid", region_size=12, pyramid_levels=n) for n in (1, 3))
    found = asked(heads, three)
    assert found.regions is not None and found.regions.shape[0] == 3
    assert_same_maps(found, asked(heads, one))


# volumes


@laws
@given(SEEDS, st.tuples(*[st.integers(-2, 2)] * 3), st.tuples(*[st.floats(0.2, 5)] * 3), st.floats(0.5, 3))
def test_volumes_do_not_move_with_the_mask_and_grow_with_its_voxels(
    seed: int, shift: tuple[int, ...], spacing: tuple[float, ...], scale: float
) -> None:
    rng = np.random.default_rng(seed)
    masks, reference = np.zeros((3, 9, 8, 7), np.int32), np.zeros((9, 8, 7, 3))
    masks[:, 2:7, 2:6, 2:5] = rng.integers(0, 3, (3, 5, 4, 3))
    reference[..., 0] = 1
    reference[2:7, 2:6, 2:5] = rng.dirichlet(np.ones(3), (5, 4, 3))

    def volumes(shift: tuple[int, ...], spacing: tuple[float, ...]) -> dict[str, dict[str, Any]]:
        moved = np.roll(masks, shift, (1, 2, 3))
        return structure_volumes(
            moved[0],
            np.roll(reference, shift, (0, 1, 2))[..., 1:],
            moved[1:],
            structures=np.eye(3, dtype=bool)[1:],
            names=("a", "b"),
            voxel=float(np.prod(spacing)) / 1000,
            raters={"r": moved[1]},
        )

    own, moved, larger = volumes((0, 0, 0), spacing), volumes(shift, spacing), volumes(shift, (scale * spacing[0], *spacing[1:]))
    for name in ("a", "b"):
        label = ("background", "a", "b").index(name)
        assert own[name]["volume_ml"] == pytest.approx((masks[0] == label).sum() * np.prod(spacing) / 1000)
        for figure, value in own[name].items():
            if figure == "raters_ml":
                continue
            assert moved[name][figure] == pytest.approx(value, rel=1e-6), figure
            assert larger[name][figure] == pytest.approx(scale * np.asarray(value), rel=1e-6), figure


@searches
@given(SEEDS, st.sampled_from([(1,), (2,), (1, 2)]))
def test_a_flipped_volume_is_predicted_flipped(seed: int, axes: tuple[int, ...]) -> None:
    """With all mirrorings; sides that patches of odd size cover evenly, so that weights and places are symmetrical too."""
    volume = np.random.default_rng(seed).standard_normal((2, 9, 7, 1)).astype(np.float32)
    patches = lay_patches(volume.shape[:3], (5, 5))
    folds = [tiny_fold(n, classes=2) for n in (0, 1)]
    logits = predict_logits(folds, volume, patches, mirror_axes=(0, 1))
    flipped = predict_logits(folds, np.flip(volume, axes), patches, mirror_axes=(0, 1))
    np.testing.assert_allclose(flipped, np.flip(logits, axes), rtol=1e-4, atol=1e-5)
    assert np.abs(flipped - logits).max() > 1e-3
    weights = importance((1, 5, 5))
    np.testing.assert_allclose(np.flip(weights, axes), weights, rtol=1e-6)
