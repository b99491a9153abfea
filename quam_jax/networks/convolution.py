"""Convolutions in the forms that XLA runs fast; the numbers are those of a plain convolution.

On a CPU two things are slow and are avoided here (measured, float32): the weight gradient of a large feature map, whose
operands leave the cache, so it is summed over strips of rows (2 to 3 times faster); and any convolution over three axes, so
the first axis goes to the batch and its taps to the channels (4 times, with stride 2 even 30 times in all gradients). On
other backends a convolution is one XLA operation.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

STRIP = 300_000  # numbers of a strip: about a megabyte, the size of a second-level cache


def convolution(x: Float[Array, "b *space i"], weight: Float[Array, "*kernel j o"], *, stride: Sequence[int],
                padding: Sequence[int], dilation: Sequence[int], groups: int = 1) -> Float[Array, "b *out o"]:
    """Convolution with zero padding, over one, two or three axes."""
    settings = (tuple(stride), tuple(padding), tuple(dilation))
    if jax.default_backend() != "cpu" or groups > 1:
        return _plain(x, weight, *settings, groups)
    if len(stride) == 3:
        return _by_slices(x, weight, *settings)
    return _striped(x, weight, *settings)


def _plain(x: Array, weight: Array, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
           groups: int = 1) -> Array:
    space = "DHW"[-len(stride):]
    return lax.conv_general_dilated(x, weight, stride, [(p, p) for p in padding], rhs_dilation=dilation,
                                    dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
                                    feature_group_count=groups)


def _by_slices(x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...],
               dilation: tuple[int, ...]) -> Array:
    """A convolution over three axes as one over two: slices of the first axis are images, its taps stand on channels."""
    taps, (s, p, d) = weight.shape[0], (stride[0], padding[0], dilation[0])
    count = (x.shape[1] + 2 * p - d * (taps - 1) - 1) // s + 1
    x = jnp.pad(x, [(0, 0), (p, p), *((0, 0),) * 3])
    x = jnp.concatenate([lax.slice_in_dim(x, d * t, d * t + s * (count - 1) + 1, s, axis=1) for t in range(taps)], -1)
    kernel = jnp.moveaxis(weight, 0, 2).reshape(*weight.shape[1:3], -1, weight.shape[-1])
    y = _striped(x.reshape(-1, *x.shape[2:]), kernel, stride[1:], padding[1:], dilation[1:])
    return y.reshape(-1, count, *y.shape[1:])


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _striped(x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...],
             dilation: tuple[int, ...]) -> Array:
    return _plain(x, weight, stride, padding, dilation)


@functools.partial(_striped.defjvp, symbolic_zeros=True)
def _striped_jvp(stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], primals: tuple,
                 tangents: tuple) -> tuple[Array, Array]:
    x, weight = primals
    y = _striped(x, weight, stride, padding, dilation)
    terms = []
    if not isinstance(tangents[0], SymbolicZero):
        terms.append(_plain(tangents[0], weight, stride, padding, dilation))
    if not isinstance(tangents[1], SymbolicZero):  # transposed, this is a sum of weight gradients over strips
        terms.append(_in_strips(x, tangents[1], stride, padding, dilation))
    return y, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(y)


def _in_strips(x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...],
               dilation: tuple[int, ...]) -> Array:
    """The convolution as several, each for some rows of the output."""
    reach = dilation[0] * (weight.shape[0] - 1) + 1
    rows = (x.shape[1] + 2 * padding[0] - reach) // stride[0] + 1
    strips = min(-(-x.size // STRIP), rows, 32)
    if strips <= 1:
        return _plain(x, weight, stride, padding, dilation)
    x = jnp.pad(x, [(0, 0), (padding[0],) * 2, *((0, 0),) * (x.ndim - 2)])
    height = -(-rows // strips)
    pieces = []
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        piece = lax.slice_in_dim(x, start * stride[0], (stop - 1) * stride[0] + reach, axis=1)
        pieces.append(_plain(piece, weight, stride, (0, *padding[1:]), dilation))
    return jnp.concatenate(pieces, 1)
