"""Every architecture: its two cuts, its inference from shapes, its modes, and the published numbers it has no golden for."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core.network import DrawnNoise, GivenNoise, Mode
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks import guess_architecture, infer_arguments
from tests.small_networks import TINY, create, example

DEAR = ("swin_unet_wrapper", "unetpp", "unetppp")  # to compile
NORMED = ("att_unet", "segnet", "unet_dropout", "unetpp", "unetppp", "wnet")  # by running statistics


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in DEAR else name for name in TINY])
def test_tail_after_trunk_is_the_network_and_reads_only_its_own_weights(name):
    network, params, stats, images = example(name)

    @jax.jit
    def run(params, stats, broken, images):
        tails = {}
        for cut in ("head", "last_block"):
            activation = network.trunk(params, stats, images, cut=cut)
            own = broken | {n: params[n] for n in network.tail_names(cut)}
            tails[cut] = network.tail(own, stats, activation, cut=cut)[0]
        return *network.apply(params, stats, images), tails

    broken = {n: jnp.full_like(v, jnp.nan) for n, v in params.items()}
    whole, kept, tails = run(params, stats, broken, images)
    assert kept.keys() == stats.keys() and all(bool((kept[n] == stats[n]).all()) for n in stats)
    assert whole.shape == (2, *TINY[name][2], 2) and float(jnp.std(whole)) > 0
    for cut, logits in tails.items():
        np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-5 * float(jnp.abs(whole).max()), err_msg=cut)
    assert set(network.tail_names("head")) < set(network.tail_names("last_block")) < set(params)


@pytest.mark.parametrize("name", TINY)
def test_the_head_reads_every_weight_of_its_cut(name):
    network, params, stats, images = example(name)
    shape = jax.eval_shape(lambda p, s, x: network.trunk(p, s, x, cut="head"), params, stats, images).shape
    activation = jax.random.normal(jax.random.key(3), shape)
    gradient = jax.grad(lambda z: jnp.square(network.tail(params | z, stats, activation, cut="head")[0]).sum())(
        {n: params[n] for n in network.tail_names("head")}
    )
    assert gradient and all(float(jnp.abs(v).max()) > 0 for v in gradient.values())


def test_which_networks_have_running_statistics():
    assert [name for name in TINY if example(name)[2]] == list(NORMED)


@pytest.mark.parametrize("name", NORMED)
def test_batch_statistics_update_every_running_value(name):
    network, params, stats, images = example(name)
    logits, after = jax.jit(lambda p, s, x: network.apply(p, s, x, Mode(batch_statistics=True)))(params, stats, images)
    assert bool(jnp.isfinite(logits).all()) and after.keys() == stats.keys()
    assert all(float(jnp.abs(after[n] - stats[n]).max()) > 0 for n in stats)


def dropout_layers(name: str, **rates: float) -> list[tuple[tuple[int, ...], float]]:
    """Shape and rate of the mask that each dropout layer of a pass asks for."""
    network = create(name, **rates)
    asked = []

    class Listening:
        def keep(self, shape, rate):
            asked.append((shape, rate))
            return jnp.ones(shape)

    params, stats = network.shapes()
    empty = [{n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in group.items()} for group in (params, stats)]
    image = jax.ShapeDtypeStruct((2, *TINY[name][2], 3), jnp.float32)
    jax.eval_shape(lambda p, s, x: network.apply(p, s, x, Mode(noise=Listening()))[0], *empty, image)
    return asked


def test_dropout_layers_stand_where_the_published_networks_have_them():
    # three layers a triple block; U-Net: 5 encoder and 4 decoder blocks, U-Net++: 5 and 10, attention U-Net: 7 and 3
    assert dropout_layers("unet") == []
    assert [rate for _, rate in dropout_layers("unet_dropout", drop=0.1)] == [0.1] * 15 + [0.3] * 12
    assert [rate for _, rate in dropout_layers("unetpp", drop=0.1)] == [0.1] * 15 + [0.3] * 30
    assert [rate for _, rate in dropout_layers("unetppp", drop=0.2)] == [0.2] * 12
    rates = [rate for _, rate in dropout_layers("att_unet", drop=0.1)]
    assert rates == [0.1] * 12 + ([0.3] * 3 + [0.1] * 3) * 3
    assert {shape for shape, _ in dropout_layers("unetpp")} == {(2, 2)}  # whole channels of each image
    assert dropout_layers("plain_unet")[0] == ((2, 8, 12, 2), 0.2)  # single values
    branches = [rate for shape, rate in dropout_layers("swin_unet") if shape == (2, 1, 1, 1)]
    # rates 0, 1/40, ..., 4/40 for the five encoder blocks, the decoder has those of its level: 3, 2 and (0, 1); two
    # branches a block, and a rate of 0 asks for no mask
    np.testing.assert_allclose(branches, np.repeat([1, 2, 3, 4, 3, 2, 1], 2) / 40, rtol=1e-6)


def test_dropped_values_are_zero_and_the_rest_is_scaled():
    network, params, stats, images = example("plain_unet")
    everything = GivenNoise(
        [jnp.ones((2, *s, c)) for s, c in (((8, 12), 2), ((4, 6), 4), ((2, 3), 8), ((4, 6), 4), ((8, 12), 2))]
    )
    undropped = Network.create("plain_unet", **{**dict(network.arguments), "drop": 0.0})
    scaled = {n: v / 0.8 if n in [f"conv{k}.weight" for k in (2, 4, 6, 8, 10)] else v for n, v in params.items()}
    np.testing.assert_allclose(
        network.apply(params, stats, images, Mode(noise=everything))[0],
        undropped.apply(scaled, stats, images)[0],
        rtol=1e-5,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", ["plain_unet", "unetppp"])
def test_noise_repeats_with_its_key(name):
    network, params, stats, images = example(name)
    noisy = jax.jit(lambda key: network.apply(params, stats, images, Mode(noise=DrawnNoise(key)))[0])
    first, again, other = noisy(jax.random.key(1)), noisy(jax.random.key(1)), noisy(jax.random.key(2))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 0


@pytest.mark.parametrize("name", ["nnunet_plain_3d", "wnet"])
def test_images_of_any_size_are_padded_and_cropped(name):
    network, params, stats, _ = example(name)
    shape = tuple(n - 3 for n in TINY[name][2])
    images = jax.random.normal(jax.random.key(5), (1, *shape, 3))
    logits = SegmentationModel(network, params, stats)(images)
    assert logits.shape == (1, *shape, 2) and bool(jnp.isfinite(logits).all())


def test_sizes_that_a_network_cannot_take_are_named():
    network, params, stats, _ = example("segnet")
    with pytest.raises(ValueError, match=r"expected image sides of 32 or more, got \(40, 20\)"):
        SegmentationModel(network, params, stats)(jnp.zeros((1, 40, 20, 3)))
    network, params, stats, _ = example("swin_unet")
    with pytest.raises(ValueError, match=r"expected images of 64 x 64, got \(128, 64\)"):
        SegmentationModel(network, params, stats)(jnp.zeros((1, 70, 60, 3)))


def test_plain_unet_is_the_graph_of_its_architecture_file():
    torch = pytest.importorskip("torch")
    network, params, stats, images = example("plain_unet")
    weights = {n: torch.tensor(np.array(v.transpose(3, 2, 0, 1) if v.ndim == 4 else v)) for n, v in params.items()}
    functional = torch.nn.functional

    def conv(index: int, x: Any) -> Any:
        weight = weights[f"conv{index}.weight"]
        return functional.conv2d(x, weight, weights[f"conv{index}.bias"], padding=weight.shape[-1] // 2).relu()

    def block(index: int, x: Any) -> Any:
        return conv(index + 1, conv(index, x))

    def above(x: Any, skip: Any) -> Any:
        return torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), skip], 1)

    e1 = block(1, torch.tensor(np.moveaxis(np.asarray(images), -1, 1)))
    e2 = block(3, functional.max_pool2d(e1, 2))
    e3 = block(5, functional.max_pool2d(e2, 2))
    expected = conv(11, block(9, above(block(7, above(e3, e2)), e1))).numpy()
    np.testing.assert_allclose(
        np.moveaxis(np.asarray(network.apply(params, stats, images)[0]), -1, 1),
        expected,
        rtol=1e-5,
        atol=1e-5 * np.abs(expected).max(),
    )


def test_nnunet_tiles_are_those_of_nnunet(shared: Path):
    folder = shared / "golden" / "N_nnunet"
    readers = pytest.importorskip("converters.readers")
    checked = 0
    for stages in sorted(folder.glob("stages/*/thick.npz")):
        configuration = stages.parent.name
        name = configuration.removesuffix("_regions").removeprefix("resenc_")
        for model in sorted(folder.glob(f"models/*/*__{name}")):
            if ("Regions" in str(model)) != configuration.endswith("regions"):
                continue
            if ("ResEnc" in str(model)) != configuration.startswith("resenc"):
                continue
            _check_tile(readers.read_weights(model / "fold_0" / "checkpoint_final.pth").tensors, stages)
            checked += 1
    assert checked > 0


def _check_tile(weights: dict[str, np.ndarray], stages: Path) -> None:
    shapes = {n: v.shape for n, v in weights.items()}
    architecture = guess_architecture(shapes)
    assert architecture is not None
    network = Network.create(architecture, **infer_arguments(architecture, shapes))
    params, stats = network.shapes()
    layouts = network.layouts()
    # all that is left are deep-supervision heads of coarser levels
    assert all(n.startswith("decoder.seg_layers.") for n in weights.keys() - params.keys())

    def arranged(name: str) -> jax.Array:
        value, layout = weights[name], layouts.get(name, "plain")
        space = tuple(range(2, value.ndim))
        order = {"conv": (*space, 1, 0), "transposed": (*space, 0, 1)}.get(layout)
        return jnp.asarray(value if order is None else value.transpose(order))

    with np.load(stages) as arrays:
        tile, expected = arrays["tile_input"], arrays["tile_logits_plain"]
    logits = SegmentationModel(network, {n: arranged(n) for n in params}, stats)(np.moveaxis(tile, 0, -1)[None])[0]
    np.testing.assert_allclose(
        np.moveaxis(np.asarray(logits), -1, 0), expected, rtol=0, atol=1e-5 * float(np.abs(expected).max())
    )
