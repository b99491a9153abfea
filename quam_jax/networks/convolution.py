"""Convolutions in the forms that XLA runs fast; the numbers are those of a plain convolution.

On a CPU two things are slow and are avoided here (measured, float32): the weight gradient of a feature map, which XLA
computes as a convolution with a kernel as large as the map (see `weight_gradient`), and any convolution over three axes, so the
first axis goes to the batch and its taps to the channels (4 times faster, with stride 2 even 30 times in all gradients). The
backward pass needs the input and the weight as they came, and nothing else is kept for it: padding and shifted copies are made
anew there. On other backends a convolution is one XLA operation, unless a search asks for weight gradients as products
(`core.network.weight_products`): with weights mapped over members XLA's own are grouped convolutions.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..core.network import are_on_patches, are_weight_products
from .bilinear import bilinear
from .weight_gradient import weight_gradient, window

SLICED = 16_000_000  # numbers of all slices with their taps beside each other up to which they are convolved at once

Settings = tuple[int, ...]


def convolution(
    x: Float[Array, "b *space i"],
    weight: Float[Array, "*kernel j o"],
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Float[Array, "b *out o"]:
    """Convolution with zero padding, over one, two or three axes."""
    settings = (tuple(stride), tuple(padding), tuple(dilation))
    if groups == 1 and math.prod(weight.shape[:-2]) == 1 and set(stride) == {1} and not any(padding):
        return _pointwise(x, weight) if jax.default_backend() == "cpu" else _product(x, weight)
    if are_on_patches():
        return _on_patches(x, weight, *settings, groups)
    if groups > 1 or (jax.default_backend() != "cpu" and not are_weight_products()):
        return _plain(x, weight, *settings, groups)
    return _convolve(x, weight, stride=settings[0], padding=settings[1], dilation=settings[2])


def _plain(
    x: Array, weight: Array, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int = 1
) -> Array:
    space = "DHW"[-len(stride) :]
    return lax.conv_general_dilated(
        x,
        weight,
        stride,
        [(p, p) for p in padding],
        rhs_dilation=dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )


def _convolved(x: Array, weight: Array, *, stride: Settings, padding: Settings, dilation: Settings) -> Array:
    if len(stride) < 3:
        return _plain(x, weight, stride, padding, dilation)
    taps, (s, p, d) = weight.shape[0], (stride[0], padding[0], dilation[0])
    count = (x.shape[1] + 2 * p - d * (taps - 1) - 1) // s + 1
    parts = min(-(-x.size * taps // SLICED), count)
    size = -(-count // parts)
    pieces = []
    for start in range(0, count, size):
        stop = min(start + size, count)
        piece = window(x, 1, start * s - p, s * (stop - start - 1) + d * (taps - 1) + 1)
        pieces.append(_by_slices(piece, weight, stride, (0, *padding[1:]), dilation))
    return jnp.concatenate(pieces, 1) if len(pieces) > 1 else pieces[0]


def _by_slices(x: Array, weight: Array, stride: Settings, padding: Settings, dilation: Settings) -> Array:
    """A convolution over three axes as one over two: slices of the first axis are images, its taps stand on channels."""
    taps, (s, d) = weight.shape[0], (stride[0], dilation[0])
    count = (x.shape[1] - d * (taps - 1) - 1) // s + 1
    x = jnp.concatenate([lax.slice_in_dim(x, d * t, d * t + s * (count - 1) + 1, s, axis=1) for t in range(taps)], -1)
    kernel = jnp.moveaxis(weight, 0, 2).reshape(*weight.shape[1:3], -1, weight.shape[-1])
    y = _plain(x.reshape(-1, *x.shape[2:]), kernel, stride[1:], padding[1:], dilation[1:])
    return y.reshape(-1, count, *y.shape[1:])


def _input_gradient(dy: Array, x: Any, weight: Array, **settings: Any) -> Array:
    if len(settings["stride"]) == 3 and set(settings["stride"]) == {1}:
        reach = [d * (k - 1) for d, k in zip(settings["dilation"], weight.shape[:-2], strict=True)]
        padding = tuple(r - p for r, p in zip(reach, settings["padding"], strict=True))
        if min(padding) >= 0:  # the same convolution of the gradient with the mirrored kernel
            mirrored = jnp.swapaxes(lax.rev(weight, (0, 1, 2)), -1, -2)
            return _convolved(dy, mirrored, **{**settings, "padding": padding})
    return jax.linear_transpose(lambda x: _convolved(x, weight, **settings), x)(dy)[0]


def _weight_gradient(dy: Array, x: Array, weight: Any, **settings: Any) -> Array:
    return weight_gradient(x, dy, weight.shape[:-2], **settings)


_convolve = bilinear("convolution", _convolved, for_input=_input_gradient, for_weight=_weight_gradient)


def _product(x: Array, weight: Array) -> Array:
    return x @ weight.reshape(weight.shape[-2:])


def _product_weight_gradient(dy: Array, x: Array, weight: Any) -> Array:
    ones = (1,) * (x.ndim - 2)
    return weight_gradient(x, dy, ones, stride=ones, padding=(0,) * len(ones), dilation=ones)


_pointwise = bilinear("pointwise_convolution", _product, for_weight=_product_weight_gradient)


def _on_patches(
    x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Array:
    taps = weight.shape[:-2]
    if set(stride) != {1} or groups > 1 or any(2 * p != d * (k - 1) for p, d, k in zip(padding, dilation, taps, strict=True)):
        raise ValueError("on patches: expected convolutions that keep the size")
    size = [n - 2 * p for n, p in zip(x.shape[1:-1], padding, strict=True)]
    if math.prod(taps) > 1:
        x = lax.optimization_barrier(x)  # else what made x is computed again for every tap
    shifted = []
    for tap in itertools.product(*map(range, taps)):
        start = [t * d for t, d in zip(tap, dilation, strict=True)]
        stop = [b + n for b, n in zip(start, size, strict=True)]
        shifted.append(lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1])))
    patches = jnp.concatenate(shifted, -1).reshape(-1, weight[..., 0].size)
    return (patches @ weight.reshape(-1, weight.shape[-1])).reshape(x.shape[0], *size, weight.shape[-1])
