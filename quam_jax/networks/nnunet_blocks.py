"""What the two networks of nnU-Net v2 are built of: convolution units, two kinds of encoder, one decoder.

Instance normalisation (epsilon 1e-5, affine), LeakyReLU of slope 0.01, strided convolutions instead of pooling, transposed
convolutions whose kernel is their stride.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .activations import leaky_relu
from .layers import Conv, ConvTranspose
from .norms import InstanceNorm
from .recomputation import recomputable

SLOPE = 0.01
Sizes = tuple[tuple[int, ...], ...]


class ConvUnit(nnx.Module):
    """Convolution, instance normalisation and, unless `linear`, LeakyReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        *,
        stride: Sequence[int] | int = 1,
        bias: bool,
        linear: bool = False,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(inputs, outputs, kernel, rank=len(kernel), stride=stride, bias=bias, rngs=rngs)
        self.norm = InstanceNorm(outputs)
        self.linear = linear

    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *out o"]:
        y = self.norm(self.conv(x))
        return y if self.linear else leaky_relu(y, SLOPE)


class Stack(nnx.Module):
    """Convolution units in a row; the first one changes the width and has the stride."""

    def __init__(
        self,
        count: int,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        *,
        stride: Sequence[int] | int = 1,
        bias: bool,
        rngs: nnx.Rngs,
    ):
        self.convs = nnx.List(
            [
                ConvUnit(outputs if n else inputs, outputs, kernel, stride=1 if n else stride, bias=bias, rngs=rngs)
                for n in range(count)
            ]
        )

    @recomputable
    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *out o"]:
        for conv in self.convs:
            x = conv(x)
        return x


class ResidualBlock(nnx.Module):
    """LeakyReLU(two convolution units, the second linear, + the input); the skip is averaged and projected as needed."""

    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], *, stride: Sequence[int], bias: bool, rngs: nnx.Rngs):
        self.stride = tuple(stride)
        self.conv1 = ConvUnit(inputs, outputs, kernel, stride=stride, bias=bias, rngs=rngs)
        self.conv2 = ConvUnit(outputs, outputs, kernel, bias=bias, linear=True, rngs=rngs)
        pooled = math.prod(stride) > 1
        # the place in the published sequence [average pool, projection], where each is there only if needed
        self.skip = (
            nnx.Dict({str(int(pooled)): ConvUnit(inputs, outputs, (1,) * len(kernel), bias=False, linear=True, rngs=rngs)})
            if inputs != outputs
            else None
        )

    @recomputable
    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *out o"]:
        y = self.conv2(self.conv1(x))
        skip = _average_pool(x, self.stride)
        if self.skip is not None:
            skip = self.skip[str(int(math.prod(self.stride) > 1))](skip)
        return leaky_relu(y + skip, SLOPE)


class ResidualStage(nnx.Module):
    """Residual blocks in a row; the first one changes the width and has the stride."""

    def __init__(
        self, count: int, inputs: int, outputs: int, kernel: Sequence[int], *, stride: Sequence[int], bias: bool, rngs: nnx.Rngs
    ):
        ones = (1,) * len(kernel)
        self.blocks = nnx.List(
            [
                ResidualBlock(outputs if n else inputs, outputs, kernel, stride=ones if n else stride, bias=bias, rngs=rngs)
                for n in range(count)
            ]
        )

    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *out o"]:
        for block in self.blocks:
            x = block(x)
        return x


class PlainEncoder(nnx.Module):
    """Stages of plain convolution units."""

    def __init__(
        self,
        in_channels: int,
        features: Sequence[int],
        counts: Sequence[int],
        *,
        kernels: Sizes,
        strides: Sizes,
        bias: bool,
        rngs: nnx.Rngs,
    ):
        inputs = (in_channels, *features)
        self.stages = nnx.List(
            [
                nnx.List([Stack(counts[s], inputs[s], features[s], kernels[s], stride=strides[s], bias=bias, rngs=rngs)])
                for s in range(len(features))
            ]
        )

    def __call__(self, x: Float[Array, "b *space i"]) -> list[Float[Array, "b ... _"]]:
        skips = []
        for (stage,) in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class ResidualEncoder(nnx.Module):
    """A stem of one convolution unit, then stages of residual blocks."""

    def __init__(
        self,
        in_channels: int,
        features: Sequence[int],
        counts: Sequence[int],
        *,
        kernels: Sizes,
        strides: Sizes,
        bias: bool,
        rngs: nnx.Rngs,
    ):
        self.stem = Stack(1, in_channels, features[0], kernels[0], bias=bias, rngs=rngs)
        inputs = (features[0], *features)
        self.stages = nnx.List(
            [
                ResidualStage(counts[s], inputs[s], features[s], kernels[s], stride=strides[s], bias=bias, rngs=rngs)
                for s in range(len(features))
            ]
        )

    def __call__(self, x: Float[Array, "b *space i"]) -> list[Float[Array, "b ... _"]]:
        x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nnx.Module):
    """Transposed convolution, [up-sampled, skip], plain convolution units, from the deepest stage up; a 1x1 head."""

    def __init__(
        self,
        n_classes: int,
        features: Sequence[int],
        counts: Sequence[int],
        *,
        kernels: Sizes,
        strides: Sizes,
        bias: bool,
        rngs: nnx.Rngs,
    ):
        levels = range(len(features) - 2, -1, -1)
        rank = len(kernels[0])
        self.transpconvs = nnx.List(
            [
                ConvTranspose(
                    features[s + 1], features[s], strides[s + 1], rank=rank, stride=strides[s + 1], bias=bias, rngs=rngs
                )
                for s in levels
            ]
        )
        self.stages = nnx.List(
            [
                Stack(count, 2 * features[s], features[s], kernels[s], bias=bias, rngs=rngs)
                for count, s in zip(counts, levels, strict=True)
            ]
        )
        self.seg_layers = nnx.Dict({str(len(features) - 2): Conv(features[0], n_classes, 1, rank=rank, rngs=rngs)})

    def last_input(self, skips: list[Float[Array, "b ... _"]]) -> Float[Array, "b *space f"]:
        """The input of the last stage."""
        *skips, x = skips
        for index, transpconv in enumerate(self.transpconvs):
            x = jnp.concatenate([transpconv(x), skips.pop()], -1)
            if skips:
                x = self.stages[index](x)
        return x

    def last_block(self, x: Float[Array, "b *space f"]) -> Float[Array, "b *out g"]:
        """The head's input."""
        return self.stages[-1](x)

    def head(self, x: Float[Array, "b *space g"]) -> Float[Array, "b *space c"]:
        """Logits."""
        (head,) = self.seg_layers.values()
        return head(x)


def _average_pool(x: Float[Array, "b *space c"], window: Sequence[int]) -> Float[Array, "b *out c"]:
    for axis, size in enumerate(window, start=1):
        if size > 1:
            x = x.reshape(*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :]).mean(axis + 1)
    return x
