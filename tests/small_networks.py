"""A small network of every architecture: arguments, weights that all matter, and images."""

from functools import cache
from typing import Any

import jax

from quam_jax.models.model import Network

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
