"""The two networks of nnU-Net v2, in two and three dimensions, for any plan: plain and residual encoder, one decoder.

Written from the facts of the plans file; the blocks are in `nnunet_blocks`. Of the deep-supervision heads only the last exists
here: the others act in training alone. Dropout, which the plans leave empty, is not built.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .architecture import Architecture, Named
from .nnunet_blocks import Decoder, PlainEncoder, ResidualEncoder, Sizes

DEEPEST = 100  # convolutions or blocks of a stage; nnU-Net's planners take up to six, and a file may say anything
_HEAD = re.compile(r"^decoder\.seg_layers\.(\d+)\.")


class _EncoderDecoder(nnx.Module):
    """What the two networks share: everything but how their encoder is built."""

    encoder: PlainEncoder | ResidualEncoder
    decoder: Decoder
    size_multiple: tuple[int, ...]

    @property
    def cuts(self) -> dict[str, tuple[str, ...]]:
        """What stands behind each cut, in the decoder."""
        last = len(self.decoder.stages) - 1
        head = f"decoder.seg_layers.{last}"
        return {"head": (head,), "last_block": (f"decoder.stages.{last}", head)}

    def __call__(self, x: Float[Array, "b *space i"], mode: Mode = EVAL) -> Float[Array, "b *space c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b *space i"], mode: Mode, *, cut: str) -> Float[Array, "b *space f"]:
        """The activation in front of the cut: the head's input, or the last decoder stage's."""
        last = self.decoder.last_input(self.encoder(x))
        return last if cut == "last_block" else self.decoder.last_block(last)

    def tail(self, activation: Float[Array, "b *space f"], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        return self.decoder.head(self.decoder.last_block(activation) if cut == "last_block" else activation)


class PlainConvUNet(_EncoderDecoder):
    """nnU-Net's plain network; stages from the shallowest to the deepest, decoder counts from the deepest up.

    An image side must be a multiple of the product of its strides. Kernels default to 3, strides to 2 (1 in stage 0).
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        features_per_stage: tuple[int, ...],
        *,
        rank: int,
        n_conv_per_stage: int | tuple[int, ...] = 2,
        n_conv_per_stage_decoder: int | tuple[int, ...] = 2,
        kernel_sizes: Sizes | None = None,
        strides: Sizes | None = None,
        conv_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        kernels, steps = _plan(len(features_per_stage), rank, kernel_sizes, strides)
        counts = _counts(n_conv_per_stage, len(features_per_stage), name="n_conv_per_stage")
        self.size_multiple = _multiple(steps)
        self.encoder = PlainEncoder(
            in_channels, features_per_stage, counts, kernels=kernels, strides=steps, bias=conv_bias, rngs=rngs
        )
        counts = _counts(n_conv_per_stage_decoder, len(features_per_stage) - 1, name="n_conv_per_stage_decoder")
        self.decoder = Decoder(n_classes, features_per_stage, counts, kernels=kernels, strides=steps, bias=conv_bias, rngs=rngs)


class ResidualEncoderUNet(_EncoderDecoder):
    """nnU-Net's network with a residual encoder; arguments as for PlainConvUNet, with blocks instead of convolutions."""

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        features_per_stage: tuple[int, ...],
        *,
        rank: int,
        n_blocks_per_stage: int | tuple[int, ...] = 2,
        n_conv_per_stage_decoder: int | tuple[int, ...] = 1,
        kernel_sizes: Sizes | None = None,
        strides: Sizes | None = None,
        conv_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        kernels, steps = _plan(len(features_per_stage), rank, kernel_sizes, strides)
        counts = _counts(n_blocks_per_stage, len(features_per_stage), name="n_blocks_per_stage")
        self.size_multiple = _multiple(steps)
        self.encoder = ResidualEncoder(
            in_channels, features_per_stage, counts, kernels=kernels, strides=steps, bias=conv_bias, rngs=rngs
        )
        counts = _counts(n_conv_per_stage_decoder, len(features_per_stage) - 1, name="n_conv_per_stage_decoder")
        self.decoder = Decoder(n_classes, features_per_stage, counts, kernels=kernels, strides=steps, bias=conv_bias, rngs=rngs)


def _plan(stages: int, rank: int, kernels: Sizes | None, strides: Sizes | None) -> tuple[Sizes, Sizes]:
    if rank not in (2, 3):
        raise ValueError(f"nnunet rank: expected 2 or 3, got {rank}")
    if stages < 2:
        raise ValueError(f"nnunet features_per_stage: expected two stages or more, got {stages}")
    kernels = ((3,) * rank,) * stages if kernels is None else kernels
    strides = ((1,) * rank, *((2,) * rank,) * (stages - 1)) if strides is None else strides
    for name, sizes in (("kernel_sizes", kernels), ("strides", strides)):
        if len(sizes) != stages or any(len(size) != rank for size in sizes):
            raise ValueError(f"nnunet {name}: expected {stages} entries of {rank} numbers, got {sizes}")
    if any(k % 2 == 0 for kernel in kernels for k in kernel):
        raise ValueError(f"nnunet kernel_sizes: expected odd numbers, got {kernels}")
    if math.prod(strides[0]) != 1:
        raise ValueError(f"nnunet strides: expected 1 in stage 0, got {strides[0]}")
    return kernels, strides


def _counts(value: int | tuple[int, ...], stages: int, *, name: str) -> tuple[int, ...]:
    counts = (value,) * stages if isinstance(value, int) else value
    if len(counts) != stages or not all(1 <= count <= DEEPEST for count in counts):
        raise ValueError(f"nnunet {name}: expected {stages} numbers from 1 to {DEEPEST}, got {value}")
    return counts


def _multiple(strides: Sizes) -> tuple[int, ...]:
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


def _infer(shapes: Named) -> dict[str, Any]:
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


def _unused_heads(names: Iterable[str]) -> set[str]:
    """The deep-supervision heads, which only training uses: all but the last."""
    heads = {name: int(match[1]) for name in names if (match := _HEAD.match(name))}
    last = max(heads.values(), default=0)
    return {name for name, index in heads.items() if index < last}


ARCHITECTURES = (
    Architecture(
        "nnunet_plain",
        PlainConvUNet,
        title="nnU-Net v2, plain",
        telling="encoder.stages.0.0.convs.0.conv.weight",
        infer=_infer,
        unused=_unused_heads,
    ),
    Architecture(
        "nnunet_residual",
        ResidualEncoderUNet,
        title="nnU-Net v2, residual encoder",
        telling="encoder.stages.0.blocks.0.conv1.conv.weight",
        infer=_infer,
        unused=_unused_heads,
    ),
)
