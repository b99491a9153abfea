"""Views of a case: the pool of given network, models found and random directions by hand, whole and in patches; its controls."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.baselines.tta import tta
from quam_jax.case.quantified import Quantified
from quam_jax.case.quantify import quantify, quantify_images, sample_image
from quam_jax.case.samples import decompose_samples, decompose_sums_of
from quam_jax.case.shared import find_directions, whole_image_model
from quam_jax.case.view_check import views_not_understood
from quam_jax.case.views import choose_look
from quam_jax.config import Config, SampleConfig, SearchConfig, TargetConfig, change
from quam_jax.core.decomposition import decompose
from quam_jax.core.views import Symmetry, named_views
from quam_jax.models.predict import predict
from tests.tiny import tiny_fit, tiny_image, tiny_model, tiny_network
from tests.volume_by_hand import folds_of, geometry_of, tiny_fold

SEARCH = SearchConfig(steps=2, learning_rate=0.3, slack=0.05)
VIEWED = Config(search=SEARCH)
POOL = Config(search=SEARCH, samples=SampleConfig(random_directions=2))
MAPS = ("total", "aleatoric", "epistemic")


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def found_by(config: Config, *, size: tuple[int, int] = (8, 8)) -> Quantified:
    model = tiny_model(classes=3)
    return quantify(model, tiny_image(size=size), tiny_fit(model, size=(8, 8)), config=config)


def test_without_learning_the_pool_is_test_time_augmentation() -> None:
    found = found_by(change(VIEWED, {"learning_rate": 0.0, "views_each": 5}))  # two steps: all ten views
    own = decompose(tta(tiny_model(classes=3), tiny_image(size=(8, 8)), key=jax.random.key(0)))
    for name in MAPS:
        np.testing.assert_allclose(found.maps[name].reshape(-1), getattr(own, name)[0], rtol=1e-4, atol=2e-6)


def entropy(probs: np.ndarray) -> np.ndarray:
    return -(probs * np.log(probs)).sum(-1)


def test_the_pool_by_hand() -> None:
    """Total is the entropy of the mean of three groups, aleatoric the mean of the groups' mean entropies."""
    model, image = tiny_model(classes=3), tiny_image(size=(8, 8))
    shared = find_directions(whole_image_model(model, tiny_fit(model, size=(8, 8)), SEARCH), POOL)
    samples, (trajectory,) = sample_image(shared, image, config=POOL, key=jax.random.key(0))
    seen, given, others = trajectory.viewed, trajectory.given, trajectory.others
    assert seen is not None and given is not None and others is not None
    counts = np.asarray(trajectory.fit_loss <= trajectory.bound)[0]
    assert 0 < counts.sum() < counts.size
    groups = [np.asarray(given.probs), np.asarray(seen.probs)[0][counts], np.asarray(others.probs)[0]]
    within = [np.asarray(given.disagreement), np.asarray(seen.disagreement)[0][counts], np.asarray(others.disagreement)[0]]
    assert [len(group) for group in groups] == [1, counts.sum(), 4]
    total = entropy(np.mean([group.mean(0) for group in groups], 0))
    aleatoric = np.mean([(entropy(group) - own).mean(0) for group, own in zip(groups, within, strict=True)], 0)
    (maps,) = quantify_images(shared, [image], config=POOL)
    np.testing.assert_allclose(maps.total.reshape(-1), total, rtol=1e-5)
    np.testing.assert_allclose(maps.aleatoric.reshape(-1), aleatoric, rtol=1e-4)
    np.testing.assert_allclose(maps.epistemic.reshape(-1), total - aleatoric, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(decompose(samples).total[0], total, rtol=1e-5)
    assert maps.epistemic.max() > 1e-3


@pytest.mark.parametrize("config", [VIEWED, POOL])
def test_running_sums_of_a_patch_are_the_decomposition_of_its_samples(config: Config) -> None:
    model, image = tiny_model(classes=3), tiny_image(size=(8, 8))
    shared = find_directions(whole_image_model(model, tiny_fit(model, size=(8, 8)), SEARCH), config)
    _, trajectories = sample_image(shared, image, config=config, key=jax.random.key(0))
    reference = predict(model, jnp.asarray(image)).reshape(-1, 3)
    whole = decompose_samples(trajectories, [reference[None]], samples=config.samples)
    sums = decompose_sums_of(trajectories, [reference], samples=config.samples)
    for one, other in zip(whole, sums, strict=True):
        np.testing.assert_allclose(one[0], other, rtol=1e-4, atol=2e-6)


def test_patches_that_are_not_searched_look_through_views_too() -> None:
    """Masks that want what is there already leave every patch to the given network."""
    own = change(VIEWED, {"shapes": ("all_zero",), "patch_size": "8", "patch_step": "1"})
    model = tiny_model(classes=3)
    always = dataclasses.replace(model, params={**model.params, "head.bias": np.array([9.0, 0, 0], np.float32)})
    image = np.concatenate([tiny_image(size=(8, 8))] * 2, 1)
    found = quantify(always, image, tiny_fit(always, size=(8, 8)), config=own)
    assert not found.audit and found.epistemic.max() > 0
    first = decompose(tta(always, image[:, :8], key=jax.random.key(0), views="standard"))
    assert np.corrcoef(found.total[:, :8].ravel(), first.total[0])[0, 1] > 0.99


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"target": "pixel", "space": "head", "views": "standard"}, "views: expected auto or none with target pixel"),
        ({"target": "region", "random_directions": 2}, "random_directions: expected 0 with target region"),
        ({"space": "input:0.1", "views": "flips"}, "views: expected auto or none with space input:0.1"),
        ({"decomposition": "cross_entropy", "views": "flips"}, "views: expected auto or none with decomposition cross_entropy"),
        ({"views": "sideways"}, "views: expected none, flips, geometric, standard"),
        ({"random_directions": -1}, "random_directions: expected a whole number >= 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        change(Config(), changes)


def test_directions_that_were_not_found_are_missed() -> None:
    model = tiny_model()
    shared = whole_image_model(model, tiny_fit(model), SEARCH)
    with pytest.raises(ValueError, match="random_directions: expected those of 2 directions to be found"):
        quantify_images(shared, [tiny_image()], config=POOL)


def test_a_plan_mirrors_its_own_axes_and_turns_nothing() -> None:
    shared = folds_of([tiny_fold(0, classes=3)], VIEWED, patch=(4, 4), spacing=(1.0, 1.0), mirror_axes=[1])
    assert [view.name for view in choose_look(shared, (4, 4), config=VIEWED).views] == (
        "identity flip1 noise brighter darker blur".split()
    )
    assert not choose_look(shared, (4, 4), config=Config(targets=TargetConfig(target="pixel"))).views


def sampled_volumes(how: Config, **plan: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Volumes of the samples of a scan of two patches, their weights, and those that say what the given network does."""
    image = np.random.default_rng(2).standard_normal((4, 6, 4, 1)).astype(np.float32)
    settings = {"patch": (4, 4), "spacing": (1.0, 1.0), "mirror_axes": [0, 1]} | plan
    shared = find_directions(folds_of([tiny_fold(0, classes=3)], how, **settings), how)
    (found,) = quantify_images(shared, [image], config=how, geometries=[geometry_of(image, (1.0, 1.0, 2.0))])
    assert found.volumes is not None
    return found.volumes.ml, found.volumes.weights, found.feasible


@pytest.mark.parametrize("config", [VIEWED, POOL])
def test_views_move_the_volumes_of_a_planned_model(config: Config) -> None:
    ml, weights, _ = sampled_volumes(config)
    plain, _, _ = sampled_volumes(change(config, {"views": "none"}))
    assert ml.shape[0] == len(weights) == plain.shape[0] == 4 + 2 * config.samples.random_directions + 1
    np.testing.assert_allclose([weights.sum(), weights[-1]], [1, 0.5 if config is VIEWED else 1 / 3], rtol=1e-6)
    assert np.abs(ml[-1] - plain[-1]).max() > 1e-6  # the given network through views


def test_a_sample_that_does_not_count_is_the_given_network_through_views() -> None:
    ml, weights, feasible = sampled_volumes(change(VIEWED, {"slack": -10.0, "slack_unit": "nats"}))
    assert not feasible.any() and weights[-1] == 1
    np.testing.assert_allclose(ml, np.repeat(ml[-1:], len(ml), 0), rtol=1e-6)


def test_patches_that_are_left_move_every_sample_as_the_given_network_does() -> None:
    ml, _, feasible = sampled_volumes(change(VIEWED, {"learning_rate": 0.0, "views_each": 9}))  # all of them
    assert feasible.all()
    np.testing.assert_allclose(ml, np.repeat(ml[-1:], len(ml), 0), rtol=1e-5)


def test_a_view_that_the_network_does_not_understand_is_left_out_and_told() -> None:
    """The network calls what is bright in the upper half a structure: upside down it finds nothing, on its side two thirds."""

    def upper(images: Any) -> np.ndarray:
        bright = np.array(images)[..., 0] > 0.5
        bright[:, 4:] = False
        return np.stack([~bright, bright], -1).astype(np.float32)

    image = np.zeros((1, 2, 8, 8, 1), np.float32)
    image[:, 0, 1:4, 2:6] = image[:, 1, 0:3, 1:7] = 1.0
    labels = (image[..., 0] > 0.5).astype(np.int32)
    views = named_views("standard", Symmetry.of((8, 8)))
    missed = views_not_understood(upper, image, labels, views)
    assert missed == ("flip0", "rotate1", "rotate2", "rotate3")
    assert views_not_understood(upper, image, 1 - labels, views) == ()  # finds nothing as it is
    shared = whole_image_model(tiny_model(), tiny_fit(tiny_model(), size=(8, 8)), SEARCH)._replace(not_understood=missed)
    taken = [view.name for view in choose_look(shared, (8, 8), config=VIEWED).views]
    assert not set(missed) & set(taken) and len(taken) == len(views) - len(missed)
    asked = change(VIEWED, {"views": "flips"})
    assert len(choose_look(shared, (8, 8), config=asked).views) == 3  # a person may know better
