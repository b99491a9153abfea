"""Networks in memory: the same one in every framework has the maps of the network that we build ourselves, in every space."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import quam_jax
from quam_jax import Config, SearchConfig
from quam_jax.config import TargetConfig
from quam_jax.core.head.problem import is_linear_head
from quam_jax.models.description import model_digest
from tests.frameworks import KINDS, as_function, as_linen, as_nnx, conv
from tests.tiny import NO_VIEWS, SIZE, tiny_image, tiny_model

pytestmark = pytest.mark.usefixtures("tiny")
EXAMPLE = jnp.ones((1, 8, 12, 2))
PIXELS = TargetConfig(target="pixel", pixels="list", pixel_list="1,1;3,4;7,11")


def known(model: quam_jax.SegmentationModel) -> quam_jax.FitData:
    rng = np.random.default_rng(4)
    images = rng.standard_normal((2, *SIZE, 2)).astype(np.float32)
    return quam_jax.fit_data(model, images, np.argmax(np.asarray(model(images)), -1))


@pytest.fixture(scope="module", autouse=True)
def _as_users_have_it() -> Iterator[None]:
    """Networks of others add axes to arrays as NumPy does."""
    before = jax.config.jax_numpy_rank_promotion
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    jax.config.update("jax_numpy_rank_promotion", before)


@pytest.fixture(scope="module")
def own() -> quam_jax.SegmentationModel:
    return tiny_model()


@pytest.mark.parametrize("kind", KINDS)
def test_every_framework_gives_the_maps_of_our_own_network(kind: str, own: quam_jax.SegmentationModel) -> None:
    wrapped = KINDS[kind](own, last_block="last")
    assert len(wrapped.network.tail_names("head")) == 2 and len(wrapped.network.tail_names("last_block")) == 4
    assert wrapped.network.size_multiple == (1, 1) and not wrapped.network.fixed
    images = np.stack([tiny_image(seed=seed) for seed in range(2)])
    np.testing.assert_allclose(wrapped(images), own(images), atol=2e-5)
    for cut in ("head", "last_block"):
        inner, expected = (m.network.trunk(m.params, m.stats, jnp.asarray(images), cut=cut) for m in (wrapped, own))
        np.testing.assert_allclose(inner, expected, atol=2e-5)
        np.testing.assert_allclose(wrapped.network.tail(wrapped.params, wrapped.stats, inner, cut=cut)[0], own(images), atol=2e-5)
    assert is_linear_head(wrapped.network, wrapped.params, wrapped.stats)


def test_the_searches_of_a_wrapped_network_are_those_of_our_own(own: quam_jax.SegmentationModel) -> None:
    wrapped = as_nnx(own, last_block="last")
    for search, target in (
        (SearchConfig(learning_rate=0.02, steps=3), None),
        (SearchConfig(space="head", learning_rate=0.02), PIXELS),
    ):
        config = Config(samples=NO_VIEWS, search=search, **({} if target is None else {"targets": target}))
        one, other = (quam_jax.quantify(m, tiny_image(), known(own), config=config) for m in (own, wrapped))
        assert float(one.epistemic.max()) > 1e-4
        np.testing.assert_allclose(one.total, other.total, atol=2e-4)
        np.testing.assert_allclose(one.fit_loss, other.fit_loss, atol=2e-4)


@pytest.mark.parametrize("space", ["low_rank:1", "input:0.1", "subset:head.*"])
def test_every_other_space_runs(space: str, own: quam_jax.SegmentationModel) -> None:
    wrapped = as_function(own, last_block="last.*")
    config = Config(samples=NO_VIEWS, search=SearchConfig(space=space, learning_rate=0.02, steps=2))
    one, other = (quam_jax.quantify(m, tiny_image(), known(own), config=config) for m in (own, wrapped))
    if space != "low_rank:1":  # whose bases belong to names in order
        np.testing.assert_allclose(one.total, other.total, atol=2e-4)
    assert float(other.epistemic.max()) > 0


def test_the_line_search_runs(own: quam_jax.SegmentationModel) -> None:
    search = SearchConfig(space="head", solver="line_search", members=1)
    maps = [
        quam_jax.quantify(m, tiny_image(), known(own), config=Config(search=search, targets=PIXELS)) for m in (own, as_nnx(own))
    ]
    np.testing.assert_allclose(maps[0].total, maps[1].total, atol=2e-4)


def test_a_network_with_a_skip_around_the_block_and_halved_sides_is_cut(own: quam_jax.SegmentationModel) -> None:
    """Several activations in front of a cut: the skip and what was pooled."""

    def apply(params: Any, images: jax.Array) -> jax.Array:
        skip = jax.nn.silu(conv(images, params["in"]))
        low = skip.reshape(len(skip), skip.shape[1] // 2, 2, skip.shape[2] // 2, 2, -1).max((2, 4))
        low = jax.nn.silu(conv(low, params["low"]))
        up = jnp.repeat(jnp.repeat(low, 2, 1), 2, 2)
        return conv(jnp.concatenate([up, skip], -1), params["out"])

    rng = np.random.default_rng(0)
    params = {
        name: {"weight": jnp.asarray(rng.standard_normal(shape) * 0.3, jnp.float32), "bias": jnp.zeros(shape[-1])}
        for name, shape in {"in": (3, 3, 2, 4), "low": (3, 3, 4, 4), "out": (1, 1, 8, 2)}.items()
    }
    model = quam_jax.wrap(apply, params, example=EXAMPLE, last_block="low")
    assert model.network.size_multiple == (2, 2)
    activation = model.network.trunk(model.params, {}, EXAMPLE, cut="last_block")
    assert [leaf.shape for leaf in activation] == [(1, 4, 6, 4), (1, 8, 12, 4)]
    config = Config(samples=NO_VIEWS, search=SearchConfig(space="last_block", learning_rate=0.02))
    odd = tiny_image(size=(9, 13))
    maps = quam_jax.quantify(model, odd, known(model), config=config)
    assert maps.total.shape == (9, 13) and float(maps.epistemic.max()) > 0
    frozen = Config(samples=NO_VIEWS, search=SearchConfig(space="subset:(low|out).*", learning_rate=0.02))
    np.testing.assert_allclose(quam_jax.quantify(model, odd, known(model), config=frozen).total, maps.total, atol=2e-4)


def test_one_channel_and_volumes_and_names() -> None:
    params = {"out": {"kernel": jnp.ones((1, 1, 1, 3, 1)) * 0.3}}

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            images, params["out"]["kernel"], (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )

    model = quam_jax.wrap(apply, params, example=np.ones((1, 6, 7, 8, 3)), class_names=["background", "lesion"], name="mine")
    assert (model.network.rank, model.network.classes, model.network.architecture) == (3, 2, "mine")
    assert model.manifest["class_names"] == ["background", "lesion"]
    image = np.random.default_rng(0).standard_normal((1, 6, 7, 8, 3)).astype(np.float32)
    logits = np.asarray(model(image))
    np.testing.assert_allclose(logits[..., 0], 0)
    np.testing.assert_allclose(logits[..., 1], 0.3 * image.sum(-1), atol=1e-5)


def bad_network(what: str) -> Any:
    def apply(params: Any, x: jax.Array) -> Any:
        y = x @ params["w"]
        return {
            "probabilities": lambda: jax.nn.softmax(y),
            "first": lambda: jnp.moveaxis(y, -1, 1),
            "small": lambda: y[:, ::2, ::2],
            "no class axis": lambda: y[..., 0],
            "batch": lambda: y - y.mean((0, 1, 2)),
            "nan": lambda: y / 0.0 * 0.0,
            "pair": lambda: {"out": y},
            "fails": lambda: y.reshape(3, 7),
        }[what]()

    return apply


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("probabilities", "return what goes into the softmax"),
        ("first", "channels='first'"),
        ("small", "resized to the image's"),
        ("no class axis", r"logits\[\.\.\., None\]"),
        ("batch", "depend on what else is in its batch"),
        ("nan", "NaN or infinity"),
        ("pair", "lambda params, x"),
        ("fails", r"apply: cannot be called with an example of shape \[1 8 12 2\]"),
    ],
)
def test_what_is_no_network_is_told_with_a_remedy(what: str, said: str) -> None:
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)), jnp.float32)}
    with pytest.raises(ValueError, match=said) as error:
        quam_jax.wrap(bad_network(what), params, example=EXAMPLE)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_told(own: quam_jax.SegmentationModel) -> None:
    for options, said in (
        ({"head": "hed"}, "head: no parameter matches 'hed'; there are first.bias"),
        ({"last_block": "("}, "expected a path or a regular expression"),
        ({"classes": 3}, "expected logits of 3 channels, as classes says, got 2"),
        ({"channels": "middle"}, "channels: expected first or last"),
        ({"size_multiple": 0}, "size_multiple: expected a number >= 1"),
        ({"outputs": "relu"}, "outputs: expected one of softmax, sigmoid"),
    ):
        with pytest.raises(ValueError, match=said.replace("(", r"\(")):
            as_function(own, **options)
    with pytest.raises(ValueError, match=r"add the axis of the batch: example\[None\]"):
        quam_jax.wrap(lambda p, x: x @ p["w"], {"w": jnp.ones((2, 2))}, example=EXAMPLE[0])
    with pytest.raises(ValueError, match="params: a function keeps none itself"):
        quam_jax.wrap(lambda p, x: x, example=EXAMPLE)
    with pytest.raises(ValueError, match="expected a function"):
        quam_jax.wrap(3, example=EXAMPLE)


def test_what_a_network_in_memory_cannot_do_is_told(own: quam_jax.SegmentationModel, tmp_path: Path) -> None:
    model = as_linen(own)
    with pytest.raises(ValueError, match="network in memory, whose function has no file; quam_jax.run"):
        quam_jax.save_model(tmp_path / "net", model)
    assert not (tmp_path / "net").exists()
    with pytest.raises(ValueError, match=r"space: TinyLinen: no cut 'last_block', it has head; .*last_block='REGEX'"):
        quam_jax.quantify(
            model, tiny_image(), known(own), config=Config(samples=NO_VIEWS, search=SearchConfig(space="last_block"))
        )
    with pytest.raises(ValueError, match="runs in eval mode alone"):
        quam_jax.quantify(model, tiny_image(), known(own), config=Config(samples=NO_VIEWS, search=SearchConfig(mode="train")))


def test_digest_covers_program_and_numbers(own: quam_jax.SegmentationModel) -> None:
    first = model_digest(as_function(own))
    assert first == model_digest(as_function(own))
    assert first != model_digest(as_function(tiny_model(seed=1)))
    params = {"out": {"kernel": jnp.ones((2, 2))}}
    relu, silu = (
        quam_jax.wrap(lambda p, x, f=f: f(x @ p["out"]["kernel"]), params, example=EXAMPLE) for f in (jnp.tanh, jnp.sin)
    )
    assert model_digest(relu) != model_digest(silu)


def test_notes_say_what_was_decided(own: quam_jax.SegmentationModel) -> None:
    notes = as_linen(own).manifest["notes"]
    assert notes == ["called with train=False", "head: head.kernel, head.bias, the last kernel that the image meets"]


def test_load_model_takes_networks_too(own: quam_jax.SegmentationModel) -> None:
    model = quam_jax.load_model(lambda p, x: x @ p["w"], params={"w": jnp.ones((2, 2))}, example=EXAMPLE)
    assert model.network.classes == 2
    with pytest.raises(ValueError, match="example=..."):
        quam_jax.load_model(lambda p, x: x)
    with pytest.raises(ValueError, match="are of files"):
        quam_jax.load_model(lambda p, x: x, arch="unet", example=EXAMPLE)
