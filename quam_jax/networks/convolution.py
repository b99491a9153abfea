"""Convolutions in the forms that XLA runs fast; the numbers are those of a plain convolution.

On a CPU two things are slow and are avoided here (measured, float32): the weight gradient of a feature map, which XLA
computes as a convolution with a kernel as large as the map, so it is one matrix product of shifted copies (2 to 4 times
faster), or, where these would leave the cache, a sum over strips of rows (2 to 3 times); and any convolution over three
axes, so the first axis goes to the batch and its taps to the channels (4 times, with stride 2 even 30 times in all
gradients). On other backends a convolution is one XLA operation.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ..core.network import are_on_patches

STRIP = 300_000  # numbers of a strip: about a megabyte, the size of a second-level cache
SHIFTED = 16_000_000  # numbers of the shifted copies up to which one matrix product is faster than strips
SMALL_MAP = 500  # pixels of a map below which XLA's own weight gradient is as fast


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
    if are_on_patches():
        return _on_patches(x, weight, *settings, groups)
    if jax.default_backend() != "cpu" or groups > 1:
        return _plain(x, weight, *settings, groups)
    if len(stride) == 3:
        return _by_slices(x, weight, *settings)
    return _striped(x, weight, *settings)


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


def _by_slices(x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    """A convolution over three axes as one over two: slices of the first axis are images, its taps stand on channels."""
    taps, (s, p, d) = weight.shape[0], (stride[0], padding[0], dilation[0])
    count = (x.shape[1] + 2 * p - d * (taps - 1) - 1) // s + 1
    x = jnp.pad(x, [(0, 0), (p, p), *((0, 0),) * 3])
    x = jnp.concatenate([lax.slice_in_dim(x, d * t, d * t + s * (count - 1) + 1, s, axis=1) for t in range(taps)], -1)
    kernel = jnp.moveaxis(weight, 0, 2).reshape(*weight.shape[1:3], -1, weight.shape[-1])
    y = _striped(x.reshape(-1, *x.shape[2:]), kernel, stride[1:], padding[1:], dilation[1:])
    return y.reshape(-1, count, *y.shape[1:])


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _striped(x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    return _plain(x, weight, stride, padding, dilation)


@functools.partial(_striped.defjvp, symbolic_zeros=True)
def _striped_jvp(
    stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
    x, weight = primals
    y = _striped(x, weight, stride, padding, dilation)
    terms = []
    if not isinstance(tangents[0], SymbolicZero):
        terms.append(_plain(tangents[0], weight, stride, padding, dilation))
    if not isinstance(tangents[1], SymbolicZero):  # only its transpose is ever run: the weight gradient
        terms.append(_for_weight(x, tangents[1], stride, padding, dilation))
    return y, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(y)


def _for_weight(x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    """The convolution in a form whose transpose in the weight is fast."""
    taps, channels = sum(weight.shape[:2]), min(weight.shape[2:])
    if len(stride) == 2 and set(stride) == {1} and channels >= 8 and x.shape[1] * x.shape[2] >= SMALL_MAP:
        if math.prod(x.shape[:3]) * taps * max(weight.shape[2:]) <= SHIFTED:
            return _by_shifts(x, weight, padding, dilation)
    return _in_strips(x, weight, stride, padding, dilation)


def _by_shifts(x: Array, weight: Array, padding: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
    """The convolution as one matrix product, of stride 1 over two axes.

    In the padded image as one list of pixels every tap is a shift. The horizontal taps are shifted copies of the input on
    the channel axis, the vertical ones stand on the channels of the product and are shifted after it; what a shift carries
    from one row or image to the next falls on padding and is cut off.
    """
    rows, columns, _, outputs = weight.shape
    x = jnp.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
    count, height, width, channels = x.shape
    flat, size = x.reshape(-1, channels), count * height * width
    across, down = dilation[1], dilation[0] * width
    half = -(-size // 2)  # halves side by side: XLA gives each product of a batch to a core, and splits a long one badly
    flat = jnp.pad(flat, [(0, across * (columns - 1) + 2 * half - size), (0, 0)])
    shifted = jnp.concatenate([flat[across * t : across * t + 2 * half] for t in range(columns)], 1)
    matrix = weight.transpose(1, 2, 0, 3).reshape(columns * channels, rows * outputs)
    product = jnp.matmul(shifted.reshape(2, half, -1), jnp.broadcast_to(matrix, (2, *matrix.shape)))
    product = jnp.pad(product.reshape(2 * half, -1), [(0, down * (rows - 1)), (0, 0)])
    pieces = [product[down * t : down * t + size, outputs * t : outputs * (t + 1)] for t in range(rows)]
    y = sum(pieces[1:], pieces[0]).reshape(count, height, width, outputs)
    return y[:, : height - dilation[0] * (rows - 1), : width - across * (columns - 1)]


def _in_strips(x: Array, weight: Array, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]) -> Array:
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
