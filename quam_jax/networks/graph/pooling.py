"""Pooling of imported graphs: maxima and means over windows, and values put back where a maximum stood."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..pooling import max_pool
from .axes import Sizes, each
from .values import Last, last, plain, register


def _windows(
    size: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> list[tuple[int, int]]:
    """How many windows an axis has, and how much padding its end needs for them."""
    result = []
    for n, k, s, p, d in zip(size, window, stride, padding, dilation, strict=True):
        span = n + 2 * p - d * (k - 1) - 1
        count = (-(-span // s) if ceil_mode else span // s) + 1
        if ceil_mode and (count - 1) * s >= n + p:  # a window may not start in the padding of the end
            count -= 1
        result.append((count, max((count - 1) * s + d * (k - 1) + 1 - n - p, 0)))
    return result


@register("max_pool1d", "max_pool2d", "max_pool3d")
def pool_max(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: bool = False
) -> Last:
    """Maximum over windows; the common non-overlapping ones by reshapes."""
    x = last(x)
    count = x.ndim - 2
    window, padding, dilation = each(kernel_size, count), each(padding, count, 0), each(dilation, count)
    stride = window if stride is None or stride == [] else each(stride, count)
    if window == stride and len(set(window)) == 1 and not any(padding) and set(dilation) == {1}:
        return Last(max_pool(x, window[0], ceil_mode=ceil_mode))
    layout = _windows(x.shape[1:-1], window, stride, padding, dilation, ceil_mode)
    return Last(_fold_windows(jnp.maximum, x, -jnp.inf, window, stride, padding, dilation, layout))


def _fold_windows(
    combine: Callable[[Array, Array], Array],
    x: Array,
    empty: float,
    window: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    layout: Sequence[tuple[int, int]],
) -> Array:
    """Combine the entries of windows, one axis after the other; reduce_window differentiates slowly on CPU."""
    pairs = [(p, end) for p, (_, end) in zip(padding, layout, strict=True)]
    x = jnp.pad(x, [(0, 0), *pairs, (0, 0)], constant_values=empty)
    for axis, (k, s, d, (count, _)) in enumerate(zip(window, stride, dilation, layout, strict=True), start=1):
        parts = [lax.slice_in_dim(x, t * d, t * d + (count - 1) * s + 1, s, axis) for t in range(k)]
        x = parts[0]
        for part in parts[1:]:
            x = combine(x, part)
    return x


@register("max_pool2d_with_indices", "max_pool3d_with_indices")
def pool_max_indices(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: bool = False
) -> tuple[Last, Last]:
    """Maximum over windows and its place in the flattened space, the first on ties."""
    value = last(x)
    count = value.ndim - 2
    window, padding, dilation = each(kernel_size, count), each(padding, count, 0), each(dilation, count)
    stride = window if stride is None or stride == [] else each(stride, count)
    layout = _windows(value.shape[1:-1], window, stride, padding, dilation, ceil_mode)
    space = value.shape[1:-1]
    place = jnp.arange(math.prod(space)).reshape(1, *space, 1)
    pairs = [(0, 0), *((p, end) for p, (_, end) in zip(padding, layout, strict=True)), (0, 0)]
    value, place = jnp.pad(value, pairs, constant_values=-jnp.inf), jnp.pad(place, pairs, constant_values=-1)
    best: tuple[Array, Array] | None = None
    for tap in itertools.product(*map(range, window)):
        start = [t * d for t, d in zip(tap, dilation, strict=True)]
        limit = [b + (n - 1) * s + 1 for b, (n, _), s in zip(start, layout, stride, strict=True)]
        part, where = (lax.slice(a, (0, *start, 0), (a.shape[0], *limit, a.shape[-1]), (1, *stride, 1)) for a in (value, place))
        if best is None:
            best = part, jnp.broadcast_to(where, part.shape)
        else:
            better = part > best[0]
            best = jnp.where(better, part, best[0]), jnp.where(better, where, best[1])
    assert best is not None
    return Last(best[0]), Last(best[1])


@register("max_unpool2d", "max_unpool3d")
def unpool_max(x: Any, indices: Any, output_size: Sequence[int], *_: Any) -> Array:
    """Values put to their places in the flattened space, zeros elsewhere."""
    x, indices = plain(x), plain(indices)
    batch, channels = x.shape[:2]
    flat = jnp.zeros((batch, channels, math.prod(output_size)), x.dtype)
    put = jax.vmap(jax.vmap(lambda f, i, v: f.at[i].set(v)))
    return put(flat, indices.reshape(batch, channels, -1), x.reshape(batch, channels, -1)).reshape(batch, channels, *output_size)


@register("avg_pool1d", "avg_pool2d", "avg_pool3d")
def pool_mean(
    x: Any,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Last:
    """Mean over windows."""
    x = last(x)
    count = x.ndim - 2
    window, padding = each(kernel_size, count), each(padding, count, 0)
    stride = window if stride is None or stride == [] else each(stride, count)
    dilation = (1,) * count
    layout = _windows(x.shape[1:-1], window, stride, padding, dilation, ceil_mode)
    total = _fold_windows(jnp.add, x, 0.0, window, stride, padding, dilation, layout)
    if divisor_override is not None:
        return Last(total / divisor_override)
    # the padding counts where asked, what ceil_mode adds beyond it never does
    inside = jnp.ones((1, *x.shape[1:-1], 1))
    if count_include_pad:
        inside = jnp.pad(inside, [(0, 0), *((p, p) for p in padding), (0, 0)], constant_values=1.0)
        ends = [(n, max(end - p, 0)) for (n, end), p in zip(layout, padding, strict=True)]
        number = _fold_windows(jnp.add, inside, 0.0, window, stride, (0,) * count, dilation, ends)
    else:
        number = _fold_windows(jnp.add, inside, 0.0, window, stride, padding, dilation, layout)
    return Last(total / number)


@register("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
def pool_mean_adaptive(x: Any, output_size: Sizes) -> Last:
    """Mean over as many nearly equal parts of each axis as asked: from floor(i n / m) to ceil((i + 1) n / m)."""
    x = last(x)
    for axis, out in enumerate(each(output_size, x.ndim - 2), start=1):
        size = x.shape[axis]
        if size % out == 0:
            x = x.reshape(*x.shape[:axis], out, size // out, *x.shape[axis + 1 :]).mean(axis + 1)
        else:
            parts = [
                lax.slice_in_dim(x, i * size // out, -(-(i + 1) * size // out), axis=axis).mean(axis, keepdims=True)
                for i in range(out)
            ]
            x = jnp.concatenate(parts, axis)
    return Last(x)
