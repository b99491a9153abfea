"""Each space starts at the given network, moves only what it says, and names what it does not find."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config.build import build_space
from quam_jax.core.network import EVAL
from quam_jax.core.space import FullSpace, InputSpace, LowRankSpace, Space, SubsetSpace, TailSpace
from quam_jax.models.model import SegmentationModel
from tests.tiny import tiny_image, tiny_model, tiny_network

NAMES = ["full", "subset:last|head", "last_block", "head", "low_rank:2", "input:0.1"]


@pytest.fixture(scope="module")
def model() -> Iterator[SegmentationModel]:
    with tiny_network():
        yield tiny_model(classes=3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([tiny_image(seed=seed) for seed in range(2)])


def logits_of(space: Space, model: SegmentationModel, images: np.ndarray, change: float = 0.0) -> np.ndarray:
    """Logits with every moving number changed by so much from the start."""

    @jax.jit
    def run(params: dict, stats: dict, images: jax.Array, change: float) -> jax.Array:
        z = jax.tree.map(lambda x: x + change, space.start(model.network, params, images))
        activation = space.prepare(model.network, params, stats, images)
        return space.logits(model.network, z, params, stats, activation, EVAL)[0]

    return np.asarray(run(model.params, model.stats, images, change))


@pytest.mark.parametrize("name", NAMES)
def test_start_gives_the_reference_logits(name: str, model: SegmentationModel, images: np.ndarray) -> None:
    space = build_space(name, model.network)
    found = logits_of(space, model, images)
    np.testing.assert_allclose(found, model(images), rtol=1e-5, atol=1e-6)
    assert np.abs(logits_of(space, model, images, change=0.3) - found).max() > 1e-4  # and moving it matters


@pytest.mark.parametrize(
    "name, expected",
    [
        (
            "full",
            {"first.bias", "first.weight", "head.bias", "head.weight", "last.bias", "last.weight", "norm.bias", "norm.weight"},
        ),
        ("subset:last|head", {"head.bias", "head.weight", "last.bias", "last.weight"}),
        ("subset:.*weight", {"first.weight", "head.weight", "last.weight", "norm.weight"}),
        ("last_block", {"head.bias", "head.weight", "last.bias", "last.weight"}),
        ("head", {"head.bias", "head.weight"}),
        ("low_rank:2", {"first.weight", "head.weight", "last.weight"}),
    ],
)
def test_what_moves(name: str, expected: set[str], model: SegmentationModel, images: np.ndarray) -> None:
    space = build_space(name, model.network)
    assert set(space.start(model.network, model.params, images)) == expected
    assert space.constrained


@pytest.mark.parametrize("cut", ["head", "last_block"])
def test_trunk_and_tail_are_the_network(cut: str, model: SegmentationModel, images: np.ndarray) -> None:
    @jax.jit
    def both(params: dict, stats: dict, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        activation = model.network.trunk(params, stats, images, cut=cut)
        return model.network.tail(params, stats, activation, cut=cut)[0], activation

    logits, activation = both(model.params, model.stats, images)
    np.testing.assert_allclose(logits, model(images), rtol=1e-5, atol=1e-6)
    assert activation.shape == (2, 8, 12, 4)


def test_a_subset_is_the_same_as_its_tail(model: SegmentationModel, images: np.ndarray) -> None:
    by_name = logits_of(SubsetSpace("last|head"), model, images, change=0.2)
    by_cut = logits_of(TailSpace("last_block"), model, images, change=0.2)
    np.testing.assert_allclose(by_name, by_cut, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [-1e6, -1.0, 0.5, 1e6])
def test_the_image_stays_in_its_ball(size: float, model: SegmentationModel, images: np.ndarray) -> None:
    space = InputSpace(0.25)
    assert not space.constrained
    seen = []

    class Recorder:  # stands for the network and keeps the image it is given
        def apply(self, params: dict, stats: dict, x: jax.Array, mode: object) -> tuple[jax.Array, dict]:
            seen.append(np.asarray(x))
            return x, stats

    z = space.start(model.network, model.params, jnp.asarray(images)) + size
    space.logits(Recorder(), z, {}, {}, jnp.asarray(images), EVAL)  # type: ignore[arg-type]
    assert np.abs(seen[0] - images).max() <= 0.25 + 1e-6
    np.testing.assert_allclose(seen[0] - images, 0.25 * np.tanh(size), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 50])
def test_low_rank_changes_have_that_rank(rank: int, model: SegmentationModel, images: np.ndarray) -> None:
    moving = LowRankSpace(rank).start(model.network, model.params, images)
    rng = np.random.default_rng(0)
    for name, uv in moving.items():
        weight = model.params[name]
        rows, columns = weight.size // weight.shape[-1], weight.shape[-1]
        width = min(rank, rows, columns)
        assert uv["u"].shape == (rows, width) and uv["v"].shape == (width, columns)
        np.testing.assert_array_equal(uv["u"], 0)
        np.testing.assert_allclose(uv["v"] @ uv["v"].T, np.eye(width), atol=1e-5)
        change = rng.standard_normal(uv["u"].shape) @ np.asarray(uv["v"])
        assert np.linalg.matrix_rank(change, tol=1e-4) == width


def test_names(model: SegmentationModel) -> None:
    assert build_space("full", model.network) == FullSpace()
    assert build_space("subset:head", model.network) == SubsetSpace("head")
    assert build_space("head", model.network) == TailSpace("head")
    assert build_space("low_rank:3", model.network) == LowRankSpace(3)
    assert build_space("input:0.5", model.network) == InputSpace(0.5)
    assert hash(build_space("low_rank:3", model.network)) == hash(LowRankSpace(3))  # jit takes it as static


@pytest.mark.parametrize(
    "name",
    [
        "",
        "everything",
        "full:1",
        "subset:",
        "head:2",
        "low_rank",
        "low_rank:0",
        "low_rank:x",
        "low_rank:1.5",
        "input:0",
        "input:-1",
        "input:x",
        "input:nan",
    ],
)
def test_unknown_spaces(name: str, model: SegmentationModel) -> None:
    with pytest.raises(ValueError, match="space: expected full, subset:REGEX, last_block, head, low_rank:R or input:EPS"):
        build_space(name, model.network)


def test_patterns_that_match_nothing(model: SegmentationModel) -> None:
    with pytest.raises(ValueError, match="space: parameter pattern 'Conv9': no parameter of tiny matches; names look like"):
        build_space("subset:Conv9", model.network)
    with pytest.raises(ValueError, match=r"tiny: expected a cut among \['head', 'last_block'\], got 'middle'"):
        model.network.tail_names("middle")
