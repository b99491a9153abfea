"""Which architecture a set of weights belongs to and with which constructor arguments, from names and shapes alone.

Names and shapes are those of a PyTorch state_dict. Names may be more than the network needs (buffers, aliases); rates of
dropout leave no trace and keep their defaults. Where shapes cannot tell an argument it is left out, and `Network.create`
names it as missing unless the caller adds it.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

# one name that only this architecture has; UNet with and without dropout have the same weights
TELLING = {
    "att_unet": "Att4.psi.0.weight",
    "nnunet_plain": "encoder.stages.0.0.convs.0.conv.weight",
    "nnunet_residual": "encoder.stages.0.blocks.0.conv1.conv.weight",
    "plain_unet": "conv11.weight",
    "segnet": "encoder4.layers.2.0.weight",
    "swin_unet": "layers_up.0.expand.weight",
    "swin_unet_wrapper": "swin_unet.layers_up.0.expand.weight",
    "unet": "up_concat4.conv.conv1.0.weight",
    "unetpp": "up_concat04.conv.conv1.0.weight",
    "unetppp": "hd4_UT_hd1_conv.weight",
    "wnet": "unet2.first.block.0.weight",
}


def guess_architecture(shapes: Shapes) -> str | None:
    """The name of the architecture that has such weights, None if no known one does."""
    return next((name for name, telling in TELLING.items() if telling in shapes), None)


def infer_arguments(architecture: str, shapes: Shapes) -> dict[str, Any]:
    """Constructor arguments of an architecture as far as the weights tell them.

    Raises ValueError on an unknown architecture, and on weights that cannot be of this one, naming the first tensor that is
    missing or the property that this implementation does not have.
    """
    if architecture not in _INFER:
        raise ValueError(f"architecture: expected one of {', '.join(sorted(_INFER))}, got {architecture!r}")
    return _INFER[architecture](_Named(architecture, shapes))


class _Named:
    """Shapes by name, with one clear error for a name that is not there."""

    def __init__(self, architecture: str, shapes: Shapes):
        self.architecture, self.shapes = architecture, shapes

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise ValueError(f"{self.architecture}: expected a tensor {name}, got none of this name")
        return tuple(self.shapes[name])

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def count(self, pattern: str) -> int:
        """How many names there are when a running number from 0 is put in the pattern."""
        return next(n for n in itertools.count() if pattern.format(n) not in self.shapes)


def _published(first: str, up: str | None, head: str) -> Callable[[_Named], dict[str, Any]]:
    """The U-Net family: channels from the first block, flags from the presence of tensors."""

    def infer(shapes: _Named) -> dict[str, Any]:
        channels, in_channels = shapes[f"{first}.conv1.0.weight"][:2]
        found = {
            "in_channels": in_channels,
            "n_classes": shapes[f"{head}.weight"][0],
            "channels": channels,
            "is_batchnorm": f"{first}.conv1.1.weight" in shapes,
        }
        return found if up is None else {**found, "is_deconv": f"{up}.up.weight" in shapes}

    return infer


def _segnet(shapes: _Named) -> dict[str, Any]:
    first = [shapes[f"encoder{level}.layers.0.0.weight"] for level in range(4)]
    return {"in_channels": first[0][1], "n_classes": shapes["conv.weight"][0], "widths": tuple(w[0] for w in first)}


def _wnet(shapes: _Named) -> dict[str, Any]:
    first = shapes["unet1.first.block.0.weight"]
    down = [shapes[f"unet1.down_path.{n}.block.0.weight"][0] for n in range(shapes.count("unet1.down_path.{}.block.0.weight"))]
    return {"in_channels": first[1], "n_classes": shapes["unet2.final.weight"][0], "widths": (first[0], *down)}


def _plain_unet(shapes: _Named) -> dict[str, Any]:
    channels, in_channels = shapes["conv1.weight"][:2]
    return {"in_channels": in_channels, "n_classes": shapes["conv11.weight"][0], "channels": channels}


def _swin(prefix: str) -> Callable[[_Named], dict[str, Any]]:
    def infer(shapes: _Named) -> dict[str, Any]:
        embed_dim, in_channels, *patch = shapes[f"{prefix}patch_embed.proj.weight"]
        if patch != [4, 4]:
            raise ValueError(f"{shapes.architecture}: expected patches of 4x4, got {patch}")
        block = prefix + "layers.{}.blocks.{}."
        depths = tuple(shapes.count(block.replace("{}", str(level), 1) + "norm1.weight") for level in range(4))
        tables = [shapes[block.format(level, 0) + "attn.relative_position_bias_table"] for level in range(4)]
        windows = [(math.isqrt(rows) + 1) // 2 for rows, _ in tables]
        found = {
            "in_channels": in_channels,
            "n_classes": shapes[f"{prefix}output.weight"][0],
            "embed_dim": embed_dim,
            "depths": depths,
            "num_heads": tuple(heads for _, heads in tables),
            "window_size": max(windows),
            "mlp_ratio": shapes[block.format(0, 0) + "mlp.fc1.weight"][0] / embed_dim,
            "qkv_bias": block.format(0, 0) + "attn.qkv.bias" in shapes,
            "ape": f"{prefix}absolute_pos_embed" in shapes,
            "patch_norm": f"{prefix}patch_embed.norm.weight" in shapes,
        }
        size = _swin_image_side(shapes, prefix, windows)
        return found if size is None else {**found, "img_size": size}

    return infer


def _swin_image_side(shapes: _Named, prefix: str, windows: list[int]) -> int | None:
    if f"{prefix}absolute_pos_embed" in shapes:
        return 4 * math.isqrt(shapes[f"{prefix}absolute_pos_embed"][1])
    for level, window in enumerate(windows):
        mask = f"{prefix}layers.{level}.blocks.1.attn_mask"
        if mask in shapes:  # one row a window
            return (4 << level) * window * math.isqrt(shapes[mask][0])
        if window < max(windows):  # a window shrinks to its grid
            return (4 << level) * window
    return None


def _nnunet(shapes: _Named) -> dict[str, Any]:
    if any(name.endswith("running_mean") for name in shapes.shapes):
        raise ValueError(f"{shapes.architecture}: expected instance normalisation, got running statistics")
    if any(".conv3." in name for name in shapes.shapes):
        raise ValueError(f"{shapes.architecture}: expected basic residual blocks, got bottlenecks of three convolutions")
    residual = shapes.architecture == "nnunet_residual"
    block = "encoder.stages.{}.blocks.{}.conv1.conv." if residual else "encoder.stages.{}.0.convs.{}.conv."
    up = shapes.count("decoder.transpconvs.{}.weight")
    first = [shapes[block.format(stage, 0) + "weight"] for stage in range(up + 1)]
    rank = len(first[0]) - 2
    stem = shapes["encoder.stem.convs.0.conv.weight" if residual else block.format(0, 0) + "weight"]
    counts = tuple(shapes.count(block.replace("{}", str(stage), 1) + "weight") for stage in range(up + 1))
    return {
        "in_channels": stem[1],
        "n_classes": shapes[f"decoder.seg_layers.{up - 1}.weight"][0],
        "rank": rank,
        "features_per_stage": tuple(weight[0] for weight in first),
        "n_blocks_per_stage" if residual else "n_conv_per_stage": counts,
        "n_conv_per_stage_decoder": tuple(shapes.count(f"decoder.stages.{n}.convs.{{}}.conv.weight") for n in range(up)),
        "kernel_sizes": tuple(weight[2:] for weight in first),
        "strides": ((1,) * rank, *(shapes[f"decoder.transpconvs.{n}.weight"][2:] for n in reversed(range(up)))),
        "conv_bias": block.format(0, 0) + "bias" in shapes,
    }


_INFER: dict[str, Callable[[_Named], dict[str, Any]]] = {
    "att_unet": _published("Conv1", "Up4", "Conv"),
    "nnunet_plain": _nnunet,
    "nnunet_residual": _nnunet,
    "plain_unet": _plain_unet,
    "segnet": _segnet,
    "swin_unet": _swin(""),
    "swin_unet_wrapper": _swin("swin_unet."),
    "unet": _published("conv1", "up_concat4", "outconv1"),
    "unet_dropout": _published("conv1", "up_concat4", "outconv1"),
    "unetpp": _published("conv00", "up_concat01", "final_1"),
    "unetppp": _published("conv1", None, "outconv1"),
    "wnet": _wnet,
}
