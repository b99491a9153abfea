"""The gradient of a convolution in its weight, on a CPU: matrix products of shifted copies of input and output gradient.

Every tap of a kernel is a product of the input, shifted by it, with the gradient of the output. Copies shifted along the first
axis are taken of the gradient and those along the others of the input, side by side on channels, so that one product has all
taps. It is taken block by block of rows, in a loop, so that a block's copies stay in the caches and are all the memory that it
needs. XLA's own form is a convolution with a kernel as large as the map, two to four times slower on large maps.
"""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

BLOCK = 1_000_000  # numbers of the copies of a block
FEW = 16  # times the channels of the input that those of the output may be before XLA's own form is faster
PIECES = 4  # of rows in which XLA's own form is taken, lest it pads and turns whole maps

Settings = tuple[int, ...]


def weight_gradient(
    x: Float[Array, "b *space i"],
    dy: Float[Array, "b *out o"],
    kernel: Settings,
    *,
    stride: Settings,
    padding: Settings,
    dilation: Settings,
) -> Float[Array, "*kernel i o"]:
    """The sum over images and positions of input times output gradient, for every tap."""
    if FEW * x.shape[-1] <= dy.shape[-1]:
        return _by_xla(x, dy, kernel, stride, padding, dilation)
    whole = stride[0] == 1  # rows of the input are taken once, and the rows of the gradient that they meet are shifted
    reach = dilation[0] * (kernel[0] - 1)
    inputs, outputs = x.shape[-1], dy.shape[-1]
    copies = (math.prod(kernel[1:]), kernel[0]) if whole else (math.prod(kernel), 1)
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def places(start: Any, length: int) -> tuple[Any, Any, int]:
        """Where a block begins in the input and in the gradient, and its rows of the input."""
        if whole:
            return start, start + padding[0] - reach, length
        return start * stride[0] - padding[0], start, stride[0] * (length - 1) + reach + 1

    def product(rows: Array, gradients: list[Array], length: int) -> Array:
        for axis in range(2, x.ndim - 1):
            n, k, s, p, d = dy.shape[axis], *(v[axis - 1] for v in (kernel, stride, padding, dilation))
            rows = window(rows, axis, -p, s * (n - 1) + d * (k - 1) + 1)
        left = []
        for tap in itertools.product(range(1 if whole else kernel[0]), *map(range, kernel[1:])):
            begin = [t * d for t, d in zip(tap, dilation, strict=True)]
            stop = [b + (n - 1) * s + 1 for b, n, s in zip(begin, (length, *dy.shape[2:-1]), stride, strict=True)]
            left.append(lax.slice(rows, (0, *begin, 0), (rows.shape[0], *stop, inputs), (1, *stride, 1)))
        sides = [jnp.concatenate(side, -1) if len(side) > 1 else side[0] for side in (left, gradients)]
        a, b = (side.reshape(-1, side.shape[-1]) for side in sides)
        return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=wide)

    shifts = [reach - t * dilation[0] for t in range(kernel[0])] if whole else [0]

    def fixed(start: int, length: int) -> Array:
        of_x, of_dy, rows = places(start, length)
        return product(window(x, 1, of_x, rows), [window(dy, 1, of_dy + t, length) for t in shifts], length)

    def moving(index: Any, found: Array) -> Array:
        of_x, of_dy, rows = places(index * size, size)
        gradients = [lax.dynamic_slice_in_dim(dy, of_dy + t, size, 1) for t in shifts]
        return found + product(lax.dynamic_slice_in_dim(x, of_x, rows, 1), gradients, size)

    def inside(start: int) -> bool:
        of_x, of_dy, rows = places(start, size)
        ends = of_x + rows <= x.shape[1] and of_dy + size + (reach if whole else 0) <= dy.shape[1]
        return min(of_x, of_dy) >= 0 and ends and start + size <= total

    total = x.shape[1] if whole else dy.shape[1]
    row = math.prod(dy.shape[:-1]) // dy.shape[1] * (copies[0] * inputs + copies[1] * outputs)
    size = min(total, max(1, BLOCK // row))
    middle = [start // size for start in range(0, total, size) if inside(start)]
    found = jnp.zeros((copies[0] * inputs, copies[1] * outputs), wide)
    for start in range(0, total, size):
        if start // size not in middle:
            found = found + fixed(start, min(size, total - start))
    if middle:
        found = lax.fori_loop(middle[0], middle[-1] + 1, moving, found)
    if whole:
        found = jnp.moveaxis(found.reshape(*kernel[1:], inputs, kernel[0], outputs), -2, 0)
    return found.reshape(*kernel, inputs, outputs).astype(x.dtype)


def window(x: Array, axis: int, start: int, length: int) -> Array:
    """A part of an axis, with zeros where it lies outside."""
    size, stop = x.shape[axis], start + length
    low = min(max(start, 0), size)
    high = max(low, min(stop, size))
    before = min(max(-start, 0), length)
    padding = (before, length - before - (high - low))
    x = lax.slice_in_dim(x, low, high, axis=axis)
    return jnp.pad(x, [padding if a == axis else (0, 0) for a in range(x.ndim)]) if any(padding) else x


def _by_xla(x: Array, dy: Array, kernel: Settings, stride: Settings, padding: Settings, dilation: Settings) -> Array:
    space, reach = "DHW"[-len(kernel) :], dilation[0] * (kernel[0] - 1)
    size = -(-dy.shape[1] // (PIECES if dy.size > BLOCK else 1))
    found = []
    for start in range(0, dy.shape[1], size):
        gradient = lax.slice_in_dim(dy, start, min(start + size, dy.shape[1]), axis=1)
        rows = window(x, 1, start * stride[0] - padding[0], stride[0] * (gradient.shape[1] - 1) + reach + 1)
        convolved = functools.partial(
            lax.conv_general_dilated,
            rows,
            window_strides=stride,
            padding=[(0, 0), *((p, p) for p in padding[1:])],
            rhs_dilation=dilation,
            dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        )
        weight = jax.ShapeDtypeStruct((*kernel, x.shape[-1], dy.shape[-1]), x.dtype)
        found += jax.linear_transpose(convolved, weight)(gradient)
    return functools.reduce(jnp.add, found)
