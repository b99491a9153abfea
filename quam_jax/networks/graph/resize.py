"""Interpolation of imported graphs: nearest, linear and cubic, in PyTorch's conventions."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .values import Last, last, register


def _sizes(x: Array, output_size: Sequence[int] | None, factors: Sequence[float] | None) -> list[tuple[int, float]]:
    """Output size of every spatial axis, and input samples an output sample (by the factor, where one was given)."""
    space = x.shape[1:-1]
    if output_size is None:
        assert factors is not None
        return [(int(n * f), 1.0 / f) for n, f in zip(space, factors, strict=True)]
    given: Sequence[float | None] = factors or [None] * len(space)
    return [(out, n / out if f is None else 1.0 / f) for n, out, f in zip(space, output_size, given, strict=True)]


def _single(values: Sequence[Any] | None) -> list[float] | None:
    """The factors of the overloads that take one an axis, None where they are not given."""
    return [v for v in values] if values and all(v is not None for v in values) else None


def linear_matrix(size: int, out: int, step: float, *, align_corners: bool) -> Float[np.ndarray, "out size"]:
    """Rows of linear-interpolation weights."""
    if align_corners:
        position = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        position = np.maximum((np.arange(out) + 0.5) * step - 0.5, 0.0)
    low = np.minimum(np.floor(position).astype(int), size - 1)
    high, part = np.minimum(low + 1, size - 1), position - low
    matrix = np.zeros((out, size))
    np.add.at(matrix, (np.arange(out), low), 1.0 - part)
    np.add.at(matrix, (np.arange(out), high), part)
    return matrix


def cubic_matrix(size: int, out: int, step: float, *, align_corners: bool) -> Float[np.ndarray, "out size"]:
    """Rows of cubic-convolution weights with a = -0.75 (Keys 1981), the edge repeated."""
    if align_corners:
        position = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        position = (np.arange(out) + 0.5) * step - 0.5
    low = np.floor(position).astype(int)
    matrix = np.zeros((out, size))
    for offset in range(-1, 3):
        distance = np.abs(position - (low + offset))
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
        np.add.at(matrix, (np.arange(out), np.clip(low + offset, 0, size - 1)), np.where(distance <= 1, near, far))
    return matrix


def _apply(x: Array, matrices: Sequence[np.ndarray]) -> Last:
    for axis, matrix in enumerate(matrices, start=1):
        if matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, np.eye(len(matrix))):
            x = jnp.moveaxis(jnp.tensordot(jnp.asarray(matrix, x.dtype), x, (1, axis)), 0, axis)
    return Last(x)


@register("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def resize_linear_vec(
    x: Any, output_size: Sequence[int] | None, align_corners: bool, scale_factors: Sequence[float] | None = None
) -> Last:
    """Linear interpolation to a size, or by factors."""
    x = last(x)
    return _apply(
        x,
        [
            linear_matrix(n, out, step, align_corners=align_corners)
            for n, (out, step) in zip(x.shape[1:-1], _sizes(x, output_size, scale_factors), strict=True)
        ],
    )


@register("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def resize_linear(x: Any, output_size: Sequence[int], align_corners: bool, *factors: float | None) -> Last:
    """Linear interpolation to a size."""
    return resize_linear_vec(x, output_size, align_corners, _single(factors))


@register("upsample_bicubic2d.vec")
def resize_cubic_vec(
    x: Any, output_size: Sequence[int] | None, align_corners: bool, scale_factors: Sequence[float] | None = None
) -> Last:
    """Cubic interpolation to a size, or by factors."""
    x = last(x)
    return _apply(
        x,
        [
            cubic_matrix(n, out, step, align_corners=align_corners)
            for n, (out, step) in zip(x.shape[1:-1], _sizes(x, output_size, scale_factors), strict=True)
        ],
    )


@register("upsample_bicubic2d")
def resize_cubic(x: Any, output_size: Sequence[int], align_corners: bool, *factors: float | None) -> Last:
    """Cubic interpolation to a size."""
    return resize_cubic_vec(x, output_size, align_corners, _single(factors))


def _nearest(size: int, out: int, step: float, offset: float) -> Int[np.ndarray, " out"]:
    # in float32 as PyTorch does, where a product may round to the next whole number
    return np.minimum(((np.arange(out, dtype=np.float32) + np.float32(offset)) * np.float32(step)).astype(int), size - 1)


def _take(x: Array, indices: Sequence[Int[np.ndarray, " _"]]) -> Last:
    for axis, index in enumerate(indices, start=1):
        size, out = x.shape[axis], len(index)
        if out % size == 0 and np.array_equal(index, np.arange(out) // (out // size)):
            x = jnp.repeat(x, out // size, axis) if out != size else x
        else:
            x = jnp.take(x, index, axis)
    return Last(x)


@register("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def resize_nearest_vec(x: Any, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None = None) -> Last:
    """The sample at floor(i * step)."""
    x = last(x)
    sizes = _sizes(x, output_size, scale_factors)
    return _take(x, [_nearest(n, out, step, 0.0) for n, (out, step) in zip(x.shape[1:-1], sizes, strict=True)])


@register("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def resize_nearest(x: Any, output_size: Sequence[int], *factors: float | None) -> Last:
    """The sample at floor(i * step)."""
    return resize_nearest_vec(x, output_size, _single(factors))


@register("_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec", "_upsample_nearest_exact3d.vec")
def resize_nearest_exact_vec(x: Any, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None = None) -> Last:
    """The sample at floor((i + 1/2) * step)."""
    x = last(x)
    sizes = _sizes(x, output_size, scale_factors)
    return _take(x, [_nearest(n, out, step, 0.5) for n, (out, step) in zip(x.shape[1:-1], sizes, strict=True)])


@register("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
def resize_nearest_exact(x: Any, output_size: Sequence[int], *factors: float | None) -> Last:
    """The sample at floor((i + 1/2) * step)."""
    return resize_nearest_exact_vec(x, output_size, _single(factors))
