"""Predictions that may be displaced: by the mixture of displaced copies itself, in a whole image and through the settings."""

import numpy as np
import pytest
from scipy import ndimage

from quam_jax.case.displacement import displaced
from quam_jax.case.quantify import quantify
from quam_jax.config import Config, SearchConfig, change
from quam_jax.core.decomposition import decompose
from quam_jax.core.types import Samples, Uncertainty
from tests.tiny import NO_VIEWS, tiny_fit, tiny_image, tiny_model, tiny_network

MAPS = ("total", "aleatoric", "epistemic")
PLAIN = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=0.3, slack=0.3))


def samples_of(shape: tuple[int, ...], *, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(3, 0.4), (1, 4, int(np.prod(shape)))).astype(np.float32)
    return Samples(probs, rng.dirichlet(np.ones(4), 1).astype(np.float32))


def displaced_samples(samples: Samples, *, width: float, shape: tuple[int, ...]) -> Uncertainty:
    mean = np.einsum("n,npc->pc", samples.weights[0], samples.probs[0]).reshape(*shape, -1)
    found = displaced(decompose(samples).aleatoric[0].reshape(shape), mean, width=width)
    return Uncertainty(*(part.reshape(-1) for part in found))


@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 4)])
def test_it_is_the_mixture_of_displaced_copies(shape: tuple[int, ...]) -> None:
    """Every sample as copies at all places of the kernel, each with its weight, edges repeated: decomposed as any samples."""
    samples, width = samples_of(shape), 0.4
    reach = int(4 * width + 0.5)
    line = np.zeros(2 * reach + 1)
    line[reach] = 1
    line = ndimage.gaussian_filter1d(line, width)
    stack = np.asarray(samples.probs[0]).reshape(4, *shape, 3)
    padded = np.pad(stack, [(0, 0), *[(reach, reach)] * len(shape), (0, 0)], mode="edge")
    copies, weights = [], []
    for place in np.ndindex(*(len(line),) * len(shape)):
        inside = tuple(slice(at, at + n) for at, n in zip(place, shape, strict=True))
        copies.append(padded[(slice(None), *inside)].reshape(4, -1, 3))
        weights.append(np.prod([line[at] for at in place]) * samples.weights[0])
    whole = Samples(np.concatenate(copies)[None].astype(np.float32), np.concatenate(weights)[None].astype(np.float32))
    expected = decompose(whole)
    found = displaced_samples(samples, width=width, shape=shape)
    for own, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, wanted[0], rtol=1e-4, atol=1e-5)
    assert np.abs(found.total - decompose(samples).total[0]).max() > 0.05


def test_what_is_the_same_everywhere_stays_and_parts_add_up() -> None:
    samples = samples_of((1, 1))
    flat = Samples(np.repeat(samples.probs, 30, 2), samples.weights)
    for before, after in zip(decompose(flat), displaced_samples(flat, width=2.0, shape=(6, 5)), strict=True):
        np.testing.assert_allclose(after, before[0], atol=1e-6)
    total, aleatoric, epistemic = displaced_samples(samples_of((6, 5), seed=3), width=0.7, shape=(6, 5))
    np.testing.assert_allclose(total, aleatoric + epistemic, atol=1e-6)
    assert (epistemic >= 0).all() and (aleatoric >= 0).all() and total.max() <= np.log(3)


def test_a_search_displaces_its_maps_and_nothing_else() -> None:
    with tiny_network():
        model = tiny_model(classes=3)
        found = {
            blur: quantify(model, tiny_image(), tiny_fit(model), config=change(PLAIN, {"blur": blur}))
            for blur in (0.0, 1e-6, 1.0)
        }
    for name in MAPS:  # a width of nothing goes the other way to the same maps
        np.testing.assert_allclose(found[1e-6].maps[name], found[0.0].maps[name], rtol=1e-4, atol=2e-6)
        assert np.abs(found[1.0].maps[name] - found[0.0].maps[name]).max() > 1e-3
    for name in ("segmentation", "adversarial", "reference", "softmax"):
        np.testing.assert_array_equal(getattr(found[1.0], name), getattr(found[0.0], name))


def test_where_it_means_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="blur: expected a number >= 0"):
        change(Config(), {"blur": -1.0})
    with pytest.raises(ValueError, match="blur: expected 0 with other targets than masks"):
        change(Config(), {"blur": 1.0, "target": "pixel"})
    with pytest.raises(ValueError, match="blur: expected 0 with cross_entropy"):
        change(Config(), {"blur": 1.0, "decomposition": "cross_entropy"})
