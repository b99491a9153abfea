"""Layers that give the numbers of their PyTorch namesakes, in forms that XLA runs fast on CPU and GPU.

Every layer keeps the parameter names of its namesake (`weight`, `bias`, `running_mean`, ...), so that the joined path of
a parameter is the name it has in a checkpoint; only the axis order differs, and `Layer.layout` says how (converters read
it). Arrays are channels-last, `[b *space channels]`, with one, two or three spatial axes.

The forms that differ from a literal translation were chosen by measurement: a transposed convolution is a matrix product to
`stride^rank` times the channels followed by depth-to-space (its gradient is more than ten times faster than that of a
convolution), a 1x1 convolution is a matrix product, a 2x2 max-pool is two reshapes, and
interpolation is one small matrix product an axis.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .convolution import convolution


def _each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _uniform(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> Float[Array, "..."]:
    bound = 1.0 / math.sqrt(fan_in)
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)


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
        pointwise = all(n == 1 for n in (*self.kernel, *self.stride, self.groups)) and not any(self.padding)
        if pointwise:
            y = x @ weight.reshape(weight.shape[-2:])
        else:
            y = convolution(x, weight, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return y if bias is None else y + bias


def conv_norm(pair: nnx.List, x: Float[Array, "b *space i"], mode: Mode) -> Float[Array, "b *out o"]:
    """A pair of Conv and BatchNorm; with running statistics it is folded into weight and bias, which saves passes over x."""
    conv: Any = pair[0]
    norm: Any = pair[1]
    if mode.batch_statistics or not mode.folded:
        return norm(conv(x), mode)
    scale, shift = norm.affine()
    bias = shift if conv.bias is None else conv.bias[...] * scale + shift
    return conv.apply(x, conv.weight[...] * scale, bias)


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
        return y if self.bias is None else y + self.bias[...]


def transposed_convolution(
    x: Float[Array, "b *space i"],
    weight: Float[Array, "*kernel i o"],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
) -> Float[Array, "b *out o"]:
    """Transposed convolution by phases (see ConvTranspose)."""
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


class Linear(Layer):
    """x @ weight + bias; weight `[in out]` (PyTorch: `[out in]`)."""

    layout = "linear"

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: bool = True):
        self.weight = nnx.Param(_uniform(rngs, (inputs, outputs), inputs))
        self.bias = nnx.Param(_uniform(rngs, (outputs,), inputs)) if bias else None

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        y = x @ self.weight[...]
        return y if self.bias is None else y + self.bias[...]


class BatchNorm(Layer):
    """Normalisation by running statistics, or by those of the batch when `mode.batch_statistics` is set.

    As in PyTorch the batch is normalised with its biased variance, and the running variance is updated with the unbiased
    one: running <- 0.9 running + 0.1 batch.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        self.epsilon, self.momentum = epsilon, momentum
        self.weight = nnx.Param(jnp.ones(channels)) if affine else None
        self.bias = nnx.Param(jnp.zeros(channels)) if affine else None
        self.running_mean = nnx.BatchStat(jnp.zeros(channels))
        self.running_var = nnx.BatchStat(jnp.ones(channels))

    def affine(self) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Scale and shift of the normalisation by running statistics."""
        scale = lax.rsqrt(self.running_var[...] + self.epsilon)
        if self.weight is None or self.bias is None:
            return scale, -self.running_mean[...] * scale
        scale = scale * self.weight[...]
        return scale, self.bias[...] - self.running_mean[...] * scale

    def __call__(self, x: Float[Array, "b *space c"], mode: Mode = EVAL) -> Float[Array, "b *space c"]:
        mean, var = self.running_mean[...], self.running_var[...]
        if mode.batch_statistics:
            axes = tuple(range(x.ndim - 1))
            count = math.prod(x.shape[:-1])
            batch_mean = jnp.mean(x, axes)
            batch_var = jnp.mean(jnp.square(x - batch_mean), axes)
            self.running_mean[...] = mean + self.momentum * (batch_mean - mean)
            unbiased = batch_var * (count / max(count - 1, 1))
            self.running_var[...] = var + self.momentum * (unbiased - var)
            mean, var = batch_mean, batch_var
        scale = lax.rsqrt(var + self.epsilon)
        if self.weight is None or self.bias is None:
            return (x - mean) * scale
        return (x - mean) * (scale * self.weight[...]) + self.bias[...]


class InstanceNorm(Layer):
    """Normalisation of each image and channel over space (biased variance), with an optional affine map."""

    def __init__(self, channels: int, *, epsilon: float = 1e-5, affine: bool = True):
        self.epsilon = epsilon
        self.weight = nnx.Param(jnp.ones(channels)) if affine else None
        self.bias = nnx.Param(jnp.zeros(channels)) if affine else None

    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        axes = tuple(range(1, x.ndim - 1))
        mean = jnp.mean(x, axes, keepdims=True)
        var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
        scale = lax.rsqrt(var + self.epsilon)
        if self.weight is None or self.bias is None:
            return (x - mean) * scale
        return (x - mean) * (scale * self.weight[...]) + self.bias[...]


class GroupNorm(Layer):
    """Normalisation of each image over space and the channels of a group (biased variance), with an affine map."""

    def __init__(self, groups: int, channels: int, *, epsilon: float = 1e-5, affine: bool = True):
        self.groups, self.epsilon = groups, epsilon
        self.weight = nnx.Param(jnp.ones(channels)) if affine else None
        self.bias = nnx.Param(jnp.zeros(channels)) if affine else None

    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        grouped = x.reshape(*x.shape[:-1], self.groups, x.shape[-1] // self.groups)
        axes = (*range(1, x.ndim - 1), x.ndim)
        mean = jnp.mean(grouped, axes, keepdims=True)
        var = jnp.mean(jnp.square(grouped - mean), axes, keepdims=True)
        y = ((grouped - mean) * lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        return y if self.weight is None or self.bias is None else y * self.weight[...] + self.bias[...]


class LayerNorm(Layer):
    """Normalisation over the last axis (biased variance), with an affine map."""

    def __init__(self, channels: int, *, epsilon: float = 1e-5):
        self.epsilon = epsilon
        self.weight = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        mean = jnp.mean(x, -1, keepdims=True)
        var = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
        return (x - mean) * lax.rsqrt(var + self.epsilon) * self.weight[...] + self.bias[...]


class ChannelDropout(nnx.Module):
    """Drops whole channels of an image and scales the rest by 1/(1-rate), as Dropout2d and Dropout3d do."""

    def __init__(self, rate: float):
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"dropout rate: expected 0 <= rate < 1, got {rate}")
        self.rate = rate

    def __call__(self, x: Float[Array, "b *space c"], mode: Mode = EVAL) -> Float[Array, "b *space c"]:
        if mode.noise is None or self.rate == 0.0:
            return x
        keep = mode.noise.keep((x.shape[0], x.shape[-1]), self.rate)
        return x * (keep / (1.0 - self.rate)).reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])


def max_pool(x: Float[Array, "b *space c"], window: int, *, ceil_mode: bool = False) -> Float[Array, "b *out c"]:
    """Maximum over non-overlapping windows; an incomplete window at the end is dropped, or kept with `ceil_mode`.

    The gradient goes to the first of equal values, row by row, as in PyTorch.
    """
    for axis in range(x.ndim - 2, 0, -1):  # the last axis first, which makes the first of equal values the row-by-row one
        size = x.shape[axis]
        if ceil_mode and size % window:
            padding = [(0, -size % window if a == axis else 0) for a in range(x.ndim)]
            x = jnp.pad(x, padding, constant_values=-jnp.inf)
        else:
            x = lax.slice_in_dim(x, 0, size // window * window, axis=axis)
        x = x.reshape(*x.shape[:axis], x.shape[axis] // window, window, *x.shape[axis + 1 :])
        entries = [lax.index_in_dim(x, k, axis + 1, keepdims=False) for k in range(window)]
        x = functools.reduce(_first_maximum, entries)
    return x


def _first_maximum(a: Array, b: Array) -> Array:
    """The larger one, the first of equal ones, NaN where one is NaN.

    Not `max`, whose gradient divides by the number of entries equal to it: the compiler may compute them anew for that, with
    another rounding, so that none is equal and the gradient is 0 / 0.
    """
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def interpolation_matrix(size: int, out: int, *, align_corners: bool) -> Float[np.ndarray, "out size"]:
    """Rows of linear-interpolation weights from `size` to `out` samples, in PyTorch's two conventions."""
    if align_corners:
        position = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        position = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, None)
    low = np.minimum(np.floor(position).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((out, size))
    np.add.at(matrix, (np.arange(out), low), 1.0 - (position - low))
    np.add.at(matrix, (np.arange(out), high), position - low)
    return matrix


def resize_linear(x: Float[Array, "b *space c"], size: Sequence[int], *, align_corners: bool) -> Float[Array, "b *size c"]:
    """Linear, bilinear or trilinear interpolation to `size`, as torch.nn.functional.interpolate computes it."""
    for axis, out in enumerate(size, start=1):
        if x.shape[axis] != out:
            matrix = jnp.asarray(interpolation_matrix(x.shape[axis], out, align_corners=align_corners), x.dtype)
            x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


def space_size(x: Float[Array, "b *space c"]) -> tuple[int, ...]:
    """The spatial shape of a batch."""
    return x.shape[1:-1]
