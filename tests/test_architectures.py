"""How an architecture is told from the names and shapes of its weights, and which arguments it refuses."""

import pytest

from quam_jax.models.model import Network
from quam_jax.networks import NETWORKS, guess_architecture, infer_arguments
from tests.small_networks import TINY, create, torch_shapes


def test_every_architecture_has_an_example():
    # a graph is built by an importer, from what it finds in a file; prob_unet is a baseline (test_baselines.py)
    assert {architecture for architecture, *_ in TINY.values()} == set(NETWORKS) - {"graph", "prob_unet"}


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
