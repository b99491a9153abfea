"""Layers that give the numbers of their PyTorch namesakes, in forms that XLA runs fast on CPU and GPU.

Every layer keeps the parameter names of its namesake (`weight`, `bias`, `running_mean`, ...), so that the joined path of
a parameter is the name it has in a checkpoint; only the axis order differs, and `Layer.layout` says how (converters read
it). Arrays are channels-last, `[b *space channels]`, with one, two or three spatial axes.

The forms that differ from a literal translation were chosen by measurement: a transposed convolution is a matrix product to
`stride^rank` times the channels followed by depth-to-space (its gradient is more than ten times faster than that of a
convolution), and a 1x1 convolution is a matrix product. What normalises is in `norms`, what pools in `pooling`, what
interpolates in `resizing`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from ..core.network import Mode
from .bilinear import add_bias, bilinear
from .convolution import convolution


def _each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _uniform(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> Float[Array, "..."]:
    bound = 1.0 / math.sqrt(fan_in)
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)


def per_channel(values: Float[Array, " c"], x: Float[Array, "*batch c"]) -> Float[Array, "*ones c"]:
    """A number for each channel of `x`, with an axis of size 1 in place of every other axis."""
    return lax.broadcast_to_rank(values, x.ndim)


class Layer(nnx.Module):
    """A layer with parameters; `layout` names the axis order of its weight relative to PyTorch's."""

    layout: str = "plain"


class Conv(Layer):
    """Convolution with zero padding; weight `[*kernel in/groups out]` (PyTorch: `[out in/groups *kernel]`)."""

    layout = "conv"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        rngs: nnx.Rngs,
        rank: int = 2,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | None = None,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        self.kernel, self.stride, self.dilation = _each(kernel, rank), _each(stride, rank), _each(dilation, rank)
        same = tuple(d * (k - 1) // 2 for k, d in zip(self.kernel, self.dilation, strict=True))
        self.padding = same if padding is None else _each(padding, rank)
        self.groups = groups
        fan_in = inputs // groups * math.prod(self.kernel)
        self.weight = nnx.Param(_uniform(rngs, (*self.kernel, inputs // groups, outputs), fan_in))
        self.bias = nnx.Param(_uniform(rngs, (outputs,), fan_in)) if bias else None

    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *out o"]:
        return self.apply(x, self.weight[...], None if self.bias is None else self.bias[...])

    def apply(
        self, x: Float[Array, "b *space i"], weight: Float[Array, "*kernel j o"], bias: Float[Array, " o"] | None
    ) -> Float[Array, "b *out o"]:
        """The convolution with other numbers in place of its own."""
        y = convolution(x, weight, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return y if bias is None else add_bias(y, bias)


def conv_norm(pair: nnx.List, x: Float[Array, "b *space i"], mode: Mode) -> Float[Array, "b *out o"]:
    """A pair of Conv and BatchNorm; with running statistics it is folded into weight and bias, which saves passes over x."""
    conv: Any = pair[0]
    norm: Any = pair[1]
    if mode.batch_statistics or not mode.folded:
        return norm(conv(x), mode)
    scale, shift = norm.affine()
    bias = shift if conv.bias is None else conv.bias[...] * scale + shift
    return conv.apply(x, conv.weight[...] * per_channel(scale, conv.weight[...]), bias)


class ConvTranspose(Layer):
    """Transposed convolution; weight `[*kernel in out]` (PyTorch: `[in out *kernel]`).

    Output position n = stride*i - padding + k is split by phase (n + padding) mod stride: all phases together are one
    matrix product of ceil(kernel/stride)^rank shifted copies of the input, to stride^rank times the channels, which are
    then moved to space. Exact for every kernel, stride and padding.
    """

    layout = "transposed"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sequence[int],
        *,
        rngs: nnx.Rngs,
        rank: int = 2,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        bias: bool = True,
    ):
        self.kernel, self.stride = _each(kernel, rank), _each(stride, rank)
        self.padding, self.output_padding = _each(padding, rank), _each(output_padding, rank)
        fan_in = outputs * math.prod(self.kernel)
        self.weight = nnx.Param(_uniform(rngs, (*self.kernel, inputs, outputs), fan_in))
        self.bias = nnx.Param(_uniform(rngs, (outputs,), fan_in)) if bias else None

    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *out o"]:
        y = transposed_convolution(
            x, self.weight[...], stride=self.stride, padding=self.padding, output_padding=self.output_padding
        )
        return y if self.bias is None else add_bias(y, self.bias[...])


def transposed_convolution(
    x: Float[Array, "b *space i"],
    weight: Float[Array, "*kernel i o"],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
) -> Float[Array, "b *out o"]:
    """Transposed convolution by phases (see ConvTranspose)."""
    return _transposed(x, weight, stride=tuple(stride), padding=tuple(padding), output_padding=tuple(output_padding))


def _by_phases(x: Array, weight: Array, *, stride: Sequence[int], padding: Sequence[int], output_padding: Sequence[int]) -> Array:
    rank = len(stride)
    kernel, (inputs, outputs) = weight.shape[:rank], weight.shape[rank:]
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    weight = jnp.pad(weight, [(0, t * s - k) for t, s, k in zip(taps, stride, kernel, strict=True)] + [(0, 0)] * 2)
    # [taps_1, s_1, taps_2, s_2, ..., i, o] -> [taps reversed ..., i, s_1, s_2, ..., o]
    weight = weight.reshape([n for pair in zip(taps, stride, strict=True) for n in pair] + [inputs, outputs])
    weight = weight.transpose([*range(0, 2 * rank, 2), 2 * rank, *range(1, 2 * rank, 2), 2 * rank + 1])
    weight = lax.rev(weight, tuple(range(rank))).reshape(math.prod(taps) * inputs, math.prod(stride) * outputs)
    size = tuple(n + t - 1 for n, t in zip(x.shape[1:-1], taps, strict=True))
    padded = jnp.pad(x, [(0, 0), *((t - 1, t - 1) for t in taps), (0, 0)])
    shifted = [
        lax.slice(padded, (0, *place, 0), (x.shape[0], *(p + n for p, n in zip(place, size, strict=True)), inputs))
        for place in itertools.product(*map(range, taps))
    ]
    y = jnp.concatenate(shifted, -1) @ weight
    y = y.reshape(y.shape[0], *size, *stride, outputs)
    y = y.transpose([0, *itertools.chain(*((1 + a, 1 + rank + a) for a in range(rank))), 2 * rank + 1])
    y = y.reshape(y.shape[0], *(n * s for n, s in zip(size, stride, strict=True)), outputs)
    for axis, (n, k, s, p, extra) in enumerate(zip(x.shape[1:-1], kernel, stride, padding, output_padding, strict=True), start=1):
        length = (n - 1) * s - 2 * p + k + extra
        if p + length > y.shape[axis]:  # only with output padding: positions that no kernel tap reaches
            y = jnp.pad(y, [(0, p + length - y.shape[axis] if a == axis else 0) for a in range(y.ndim)])
        y = lax.slice_in_dim(y, p, p + length, axis=axis)
    return y


_transposed = bilinear("transposed_convolution", _by_phases)


class Linear(Layer):
    """x @ weight + bias; weight `[in out]` (PyTorch: `[out in]`)."""

    layout = "linear"

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: bool = True):
        self.weight = nnx.Param(_uniform(rngs, (inputs, outputs), inputs))
        self.bias = nnx.Param(_uniform(rngs, (outputs,), inputs)) if bias else None

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        y = x @ self.weight[...]
        return y if self.bias is None else y + per_channel(self.bias[...], y)
