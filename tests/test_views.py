"""Views: exact inverses, which of them an image takes, and what a model says through them by hand, in every layout."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from quam_jax.config import ExecutionConfig, SearchConfig
from quam_jax.config.build import build_layout
from quam_jax.core.searching import search_images
from quam_jax.core.types import Trajectory
from quam_jax.core.views import Look, Symmetry, View, named_views, view_images
from quam_jax.models.prepare import prepare
from tests.member_searches import assert_equal
from tests.tiny import tiny_fit, tiny_image, tiny_model, tiny_targets

SQUARE = (8, 8)
NAMES = "identity,flip0,flip1,rotate1,rotate2,rotate3,noise,brighter,darker,blur"


def names(views: tuple[View, ...]) -> str:
    return ",".join(view.name for view in views)


@pytest.mark.parametrize(
    "shape, spacing", [((6, 6), None), ((6, 9), None), ((4, 6, 6), (5.0, 1.0, 1.0)), ((6, 6, 6), (1.0,) * 3)]
)
def test_every_view_has_an_exact_inverse(shape: tuple[int, ...], spacing: tuple[float, ...] | None) -> None:
    image = jnp.asarray(np.random.default_rng(0).standard_normal((*shape, 2)), jnp.float32)
    views = [view for view in named_views("standard", Symmetry.of(shape, spacing=spacing)) if view.change is None]
    assert len(views) >= 4
    for view in views:
        seen = view.apply(image, jax.random.key(0))
        assert seen.shape == image.shape
        assert view.name == "identity" or not np.array_equal(seen, image)
        np.testing.assert_array_equal(view.invert(seen), image)


@pytest.mark.parametrize(
    "shape, how, taken",
    [
        ((8, 8), {}, NAMES),
        ((8, 12), {}, NAMES.replace("rotate1,", "").replace("rotate3,", "")),
        ((8, 8), {"spacing": (1.0, 2.0)}, NAMES.replace("rotate1,", "").replace("rotate3,", "")),
        ((8, 8), {"mirrored": (1,), "turned": False}, "identity,flip1,noise,brighter,darker,blur"),
        ((8, 8), {"mirrored": (), "turned": False}, "identity,noise,brighter,darker,blur"),
        ((4, 6, 6), {}, "identity,flip0,flip1,flip2,rotate2,noise,brighter,darker,blur"),
        (
            (4, 6, 6),
            {"spacing": (5.0, 1.0, 1.0)},
            "identity,flip0,flip1,flip2,rotate1,rotate2,rotate3,noise,brighter,darker,blur",
        ),
        ((6, 6, 6), {"spacing": (5.0, 1.0, 2.0)}, "identity,flip0,flip1,flip2,rotate2,noise,brighter,darker,blur"),
    ],
)
def test_an_image_takes_the_views_that_keep_its_shape_and_spacing(shape: tuple[int, ...], how: dict, taken: str) -> None:
    assert names(named_views("standard", Symmetry.of(shape, **how))) == taken


def test_a_volume_turns_in_the_plane_of_its_fine_axes() -> None:
    assert Symmetry.of((6, 6, 4), spacing=(1.0, 1.0, 5.0)).plane == (0, 1)
    assert Symmetry.of((4, 6, 6), spacing=(5.0, 1.0, 1.0)).plane == (1, 2)
    assert Symmetry.of((6, 6, 6), spacing=(2.0, 2.0, 2.0)).plane == (1, 2)


@pytest.mark.parametrize("text", ["flip", "noise:much", "blur:2", "identity,,", "noise:-1", "rotate4", "noise:inf"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="views: expected none, flips, geometric, standard"):
        named_views(text, Symmetry())


def test_intensities_change_by_standard_deviations_of_the_image() -> None:
    image = jnp.asarray(np.random.default_rng(1).standard_normal((64, 64, 2)), jnp.float32) * jnp.asarray([[[1.0, 20.0]]])
    brighter, noise = named_views("brighter:0.5,noise:2", Symmetry())
    np.testing.assert_allclose(np.asarray(brighter.apply(image, jax.random.key(0)) - image)[5, 7], [0.5, 10.0], rtol=0.05)
    np.testing.assert_allclose(np.std(noise.apply(image, jax.random.key(0)) - image, (0, 1)), [2.0, 40.0], rtol=0.05)


def test_a_view_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"keep the shape \(8, 12, 2\) of the image, got turned"):
        view_images([View("turned", turns=1)], jnp.asarray(tiny_image()), jax.random.key(0))


VIEWED = SearchConfig(members=3, steps=3, learning_rate=0.3, slack=0.05)


@functools.cache
def searched(execution: ExecutionConfig, *, view_all: bool = False, at_once: int = 0, each: int = 0) -> Trajectory:
    """A search whose models look through `each` of the views (0: all); `at_once` of them in a pass."""
    model = tiny_model()
    prepared = prepare(model, tiny_fit(model, size=SQUARE), VIEWED)
    (found,) = search_images(
        prepared,
        [tiny_image(size=SQUARE)],
        [tiny_targets(size=SQUARE)],
        keys=[jax.random.key(0)],
        layout=build_layout(execution),
        look=Look(named_views("standard", Symmetry.of(SQUARE)), view_all, each=each),
    )
    return jax.tree.map(np.asarray, found)


def test_what_the_given_network_says_through_views_by_hand(tiny: None) -> None:
    found, model = searched(ExecutionConfig()), tiny_model()
    key, image = jax.random.key(0), jnp.asarray(tiny_image(size=SQUARE))
    said = []
    for n, view in enumerate(named_views("standard", Symmetry.of(SQUARE))):
        logits = np.asarray(model(view.apply(image, jax.random.fold_in(key, n))[None]), np.float64)[0]
        said.append(np.asarray(view.invert(jnp.asarray(softmax(logits, -1)))).reshape(-1, 2))
    mean = np.mean(said, 0)
    assert found.given is not None
    np.testing.assert_allclose(found.given.probs[0], mean, rtol=1e-5)
    entropies = -np.mean([(p * np.log(p)).sum(-1) for p in said], 0)
    np.testing.assert_allclose(found.given.disagreement[0], -(mean * np.log(mean)).sum(-1) - entropies, rtol=1e-4, atol=3e-7)
    assert found.given.disagreement.max() > 4e-6


LAYOUTS = [
    ExecutionConfig("loop", "loop", 1),
    ExecutionConfig("loop", "loop", 2),
    ExecutionConfig("unroll", "loop", 2),
    ExecutionConfig("vmap", "scan", 2),
    ExecutionConfig("vmap", "loop", 2),
    ExecutionConfig("loop", "unroll"),
]


@pytest.mark.parametrize(
    "execution, view_all, each",
    [*((one, False, 4) for one in LAYOUTS[1:]), (LAYOUTS[3], False, 0), *((one, True, 0) for one in LAYOUTS[2:5:2])],
)
def test_every_layout_sees_the_same(tiny: None, execution: ExecutionConfig, view_all: bool, each: int) -> None:
    found, expected = (searched(one, view_all=view_all, each=each) for one in (execution, LAYOUTS[0]))
    feasible = found.fit_loss <= found.bound
    assert feasible.any() and not feasible.all()
    assert found.viewed is not None
    spared = found.viewed.disagreement.max(-1) == 0
    assert np.array_equal(spared, np.zeros_like(feasible) if view_all else ~feasible)
    assert_equal(found, expected)


@pytest.mark.parametrize("space, record", [("full", "same"), ("full", "after"), ("last_block", "same"), ("low_rank:1", "after")])
def test_a_recorded_model_looks_with_the_weights_that_it_has(tiny: None, space: str, record: str) -> None:
    """A search that looks through the identity alone sees what it records of the image."""
    model, size = tiny_model(), (7, 12)  # padded to even sides
    prepared = prepare(model, tiny_fit(model, size=size), dataclasses.replace(VIEWED, space=space, record=record))
    views = named_views("identity", Symmetry.of(size))
    (found,) = search_images(
        prepared, [tiny_image(size=size)], [tiny_targets(size=size)], keys=[jax.random.key(0)], look=Look(views, True)
    )
    assert found.viewed is not None and np.ptp(found.probs, 2).max() > 1e-3
    np.testing.assert_allclose(found.viewed.probs, found.probs, rtol=1e-5)
    assert not np.asarray(found.viewed.disagreement).any()


def test_views_in_parts_are_views_at_once(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = searched(LAYOUTS[0])
    monkeypatch.setattr("quam_jax.core.whole.views_at_once", lambda setup, operations: 2)
    assert_equal(searched(LAYOUTS[0], at_once=2), whole)
    assert_equal(searched(LAYOUTS[3], at_once=2), whole)


def test_models_look_through_the_views_in_turn(tiny: None) -> None:
    """What a record says through its views is what it says in a search that has no others."""
    views = named_views("geometric", Symmetry.of(SQUARE))
    prepared = prepare(tiny_model(), tiny_fit(tiny_model(), size=SQUARE), VIEWED)

    def viewed(*numbers: int, each: int = 0) -> np.ndarray:
        (found,) = search_images(
            prepared,
            [tiny_image(size=SQUARE)],
            [tiny_targets(size=SQUARE)],
            keys=[jax.random.key(0)],
            look=Look(tuple(views[n] for n in numbers), True, each=each),
        )
        assert found.viewed is not None and found.given is not None
        return np.concatenate([found.viewed.probs[..., 0], found.viewed.disagreement], -1)

    assert len(views) == 6
    turns = viewed(*range(6), each=4)
    for s, numbers in enumerate(((0, 1, 2, 3), (4, 5, 0, 1), (2, 3, 4, 5))):
        np.testing.assert_allclose(turns[:, :, s], viewed(*numbers)[:, :, s], rtol=1e-5, atol=1e-7)
    assert np.abs(turns - viewed(*range(6))).max() > 1e-5


def test_images_that_are_searched_together_look_at_their_own_views(tiny: None) -> None:
    model = tiny_model()
    prepared = prepare(model, tiny_fit(model, size=SQUARE), VIEWED)
    images = [tiny_image(size=SQUARE, seed=seed) for seed in (1, 7)]
    keys = [jax.random.key(seed) for seed in range(2)]
    look = Look(named_views("standard", Symmetry.of(SQUARE)))
    layout = build_layout(ExecutionConfig("vmap", "scan"))
    both = search_images(prepared, images, [tiny_targets(size=SQUARE)] * 2, keys=keys, look=look, layout=layout)
    for image, key, found in zip(images, keys, both, strict=True):
        (alone,) = search_images(prepared, [image], [tiny_targets(size=SQUARE)], keys=[key], look=look, layout=layout)
        assert_equal(found, alone)
