"""Every architecture: its two cuts, its inference from shapes, its modes, and the published numbers it has no golden for."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core.network import DrawnNoise, GivenNoise, Mode
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks import NETWORKS, guess_architecture, infer_arguments

NNUNET_2D = dict(rank=2, features_per_stage=(3, 4, 4))
NNUNET_3D = dict(
    rank=3,
    features_per_stage=(2, 3, 4),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    conv_bias=False,
    n_conv_per_stage_decoder=(2, 1),
)
# architecture, arguments, image
TINY: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "att_unet": ("att_unet", dict(channels=3), (16, 24)),
    "nnunet_plain": ("nnunet_plain", NNUNET_2D, (8, 12)),
    "nnunet_plain_3d": ("nnunet_plain", {**NNUNET_3D, "n_conv_per_stage": (1, 2, 1)}, (4, 8, 8)),
    "nnunet_residual": ("nnunet_residual", NNUNET_2D, (8, 12)),
    "nnunet_residual_3d": ("nnunet_residual", {**NNUNET_3D, "n_blocks_per_stage": (1, 2, 1)}, (4, 8, 8)),
    "plain_unet": ("plain_unet", dict(channels=2), (8, 12)),
    "segnet": ("segnet", dict(widths=(2, 3, 4, 5)), (33, 38)),
    "swin_unet": (
        "swin_unet",
        dict(img_size=64, embed_dim=4, num_heads=(1, 2, 2, 4), window_size=4, depths=(2, 1, 1, 1), mlp_ratio=2.0),
        (64, 64),
    ),
    "swin_unet_wrapper": (
        "swin_unet_wrapper",
        dict(
            img_size=32,
            embed_dim=2,
            num_heads=(1, 1, 2, 2),
            window_size=4,
            depths=(1, 1, 1, 1),
            ape=True,
            patch_norm=False,
            qkv_bias=False,
        ),
        (32, 32),
    ),
    "unet": ("unet", dict(channels=3, is_batchnorm=False), (16, 32)),
    "unet_dropout": ("unet_dropout", dict(channels=3, is_deconv=False), (16, 32)),
    "unetpp": ("unetpp", dict(channels=2), (16, 32)),
    "unetppp": ("unetppp", dict(channels=2), (16, 24)),
    "wnet": ("wnet", dict(widths=(2, 3, 4)), (8, 12)),
}


def create(name: str, **changes: Any) -> Network:
    architecture, arguments, _ = TINY[name]
    return Network.create(architecture, **{"in_channels": 3, "n_classes": 2, **arguments, **changes})


@cache
def example(name: str) -> tuple[Network, dict, dict, jax.Array]:
    """A tiny network with weights of size one, so that every one of them matters, and two images."""
    network = create(name)
    keys = iter(jax.random.split(jax.random.key(0), 999))
    params, stats = network.shapes()
    weights = {n: jax.random.normal(next(keys), s) * (0.5 if len(s) > 1 else 0.2) + (len(s) == 1) for n, s in params.items()}
    statistics = {n: 0.5 + jax.random.uniform(next(keys), s) for n, s in stats.items()}
    return network, weights, statistics, jax.random.normal(next(keys), (2, *TINY[name][2], 3))


def torch_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The shapes of the network's weights in PyTorch's axis order."""
    params, stats = network.shapes()
    layouts = network.layouts()
    arrange = {
        "conv": lambda s: (s[-1], s[-2], *s[:-2]),
        "transposed": lambda s: (s[-2], s[-1], *s[:-2]),
        "linear": lambda s: s[::-1],
        "plain": lambda s: s,
    }
    return {n: arrange[layouts.get(n, "plain")](s) for n, s in {**params, **stats}.items()}


def test_every_architecture_has_an_example():
    # a graph is built by an importer, from what it finds in a file; prob_unet is a baseline (test_baselines.py)
    assert {architecture for architecture, *_ in TINY.values()} == set(NETWORKS) - {"graph", "prob_unet"}


@pytest.mark.parametrize("name", TINY)
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


VARIANTS = [
    *((name, {}) for name in TINY),
    ("att_unet", dict(is_deconv=False)),
    ("att_unet", dict(is_batchnorm=False, channels=5)),
    ("unet", dict(is_deconv=False)),
    ("unet_dropout", dict(is_batchnorm=False)),
    ("unetpp", dict(is_batchnorm=False, is_deconv=False)),
    ("unetppp", dict(is_batchnorm=False)),
    ("wnet", dict(widths=(2, 3), n_classes=1)),
    ("swin_unet", dict(ape=True, patch_norm=False)),
    ("nnunet_plain", dict(strides=((1, 1), (2, 1), (1, 2)), conv_bias=False, n_conv_per_stage=(3, 1, 2))),
]


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_arguments_come_back_from_shapes(name, changes):
    network = create(name, **changes)
    shapes = torch_shapes(network)
    architecture = TINY[name][0]
    assert guess_architecture(shapes) == ("unet" if architecture == "unet_dropout" else architecture)
    assert guess_architecture({f"other.{n}": s for n, s in shapes.items()}) is None
    inferred = infer_arguments(architecture, shapes)
    again = Network.create(architecture, **inferred)
    assert torch_shapes(again) == shapes
    arguments = dict(network.arguments)
    counts = {n: v for n, v in inferred.items() if isinstance(v, tuple) and not isinstance(arguments[n], tuple)}
    for argument in inferred.keys() - counts.keys():
        assert inferred[argument] == arguments[argument], argument


def test_swin_sizes_come_from_masks_or_shrunken_windows_or_not_at_all():
    shapes = torch_shapes(create("swin_unet", img_size=128, window_size=4))  # grids 32, 16, 8, 4: no window shrinks
    assert "img_size" not in infer_arguments("swin_unet", shapes)
    with pytest.raises(ValueError, match=r"missing arguments \['img_size'\]"):
        Network.create("swin_unet", **infer_arguments("swin_unet", shapes))
    shapes["layers.0.blocks.1.attn_mask"] = (64, 16, 16)  # 8 x 8 windows of 4 x 4 patches of 4 x 4 pixels
    assert infer_arguments("swin_unet", shapes)["img_size"] == 128
    shapes = torch_shapes(create("swin_unet"))  # grids 16, 8, 4, 2: the last window is 2
    assert infer_arguments("swin_unet", shapes)["img_size"] == 64


@pytest.mark.parametrize(
    ("architecture", "shapes", "message"),
    [
        ("resnet", {}, "architecture: expected one of att_unet"),
        ("unet", {"conv1.conv1.0.weight": (4, 3, 3, 3)}, "unet: expected a tensor outconv1.weight"),
        ("nnunet_plain", {"encoder.stages.0.0.convs.0.norm.running_mean": (4,)}, "expected instance normalisation"),
        ("nnunet_residual", {"encoder.stages.0.blocks.0.conv3.conv.weight": (4, 4, 1, 1)}, "expected basic residual blocks"),
        ("swin_unet", {"patch_embed.proj.weight": (8, 3, 2, 2)}, r"expected patches of 4x4, got \[2, 2\]"),
    ],
)
def test_weights_of_something_else_are_named(architecture, shapes, message):
    with pytest.raises(ValueError, match=message):
        infer_arguments(architecture, shapes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("swin_unet", dict(img_size=72), "img_size: expected a multiple of 32"),
        ("swin_unet", dict(depths=(2, 2, 2**31, 2)), "depths: expected numbers from 1 to 100, got 2147483648"),
        ("swin_unet", dict(window_size=2**31), "window_size: expected numbers from 1 to 64"),
        ("swin_unet", dict(depths=(2, 2)), "expected depths and num_heads of 4 stages"),
        ("nnunet_plain", dict(strides=((2, 2), (2, 2), (2, 2))), "expected 1 in stage 0"),
        ("nnunet_plain", dict(kernel_sizes=((2, 3), (3, 3), (3, 3))), "expected odd numbers"),
        ("nnunet_plain", dict(rank=3, strides=((1, 1),) * 3), "expected 3 entries of 3 numbers"),
        ("nnunet_plain", dict(n_conv_per_stage=(1, 2)), "n_conv_per_stage: expected 3 numbers from 1 to 100"),
        ("nnunet_plain", dict(n_conv_per_stage_decoder=2**31), "n_conv_per_stage_decoder: expected 2 numbers from 1 to 100"),
        ("nnunet_residual", dict(rank=1), "rank: expected 2 or 3, got 1"),
        ("nnunet_residual", dict(features_per_stage=(4,)), "two stages or more, got 1"),
        ("wnet", dict(widths=(8,)), "two levels or more"),
        ("plain_unet", dict(drop=1.0), "expected 0 <= rate < 1"),
    ],
)
def test_impossible_arguments_are_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        create(name, **changes).shapes()


@pytest.mark.parametrize("name", [name for name in TINY if create(name).shapes()[1]])
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
