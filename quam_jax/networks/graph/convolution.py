"""Convolutions, pooling and matrix products of imported graphs, on the same fast forms as `layers.py`."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..convolution import convolution
from ..layers import max_pool, transposed_convolution
from .values import Last, kernel, last, plain, register

Sizes = int | Sequence[int]


def each(value: Sizes | None, count: int, default: int = 1) -> tuple[int, ...]:
    """One number for every spatial axis."""
    if value is None or (not isinstance(value, int) and len(value) == 0):
        return (default,) * count
    if isinstance(value, int):
        return (value,) * count
    return tuple(value) * (count if len(value) == 1 else 1)


def _numbers(count: int) -> tuple[str, str, str]:
    space = "DHW"[-count:]
    return f"N{space}C", f"{space}IO", f"N{space}C"


@register("conv1d", "conv2d", "conv3d")
def convolve(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1
) -> Last:
    """Convolution; a pointwise one is a matrix product, a depthwise one a sum of shifted products."""
    x, weight = last(x), kernel(weight, "conv")
    count = x.ndim - 2
    stride, dilation = each(stride, count), each(dilation, count)
    taps = weight.shape[:count]
    if padding == "same":  # PyTorch pads the end more where the total is odd
        total = [d * (k - 1) for d, k in zip(dilation, taps, strict=True)]
        pairs = [(t // 2, t - t // 2) for t in total]
    else:
        pairs = [(p, p) for p in ((0,) * count if isinstance(padding, str) else each(padding, count))]
    if all(n == 1 for n in (*taps, *stride, groups)) and not any(map(any, pairs)):
        y = x @ weight.reshape(weight.shape[-2:])
    elif groups == x.shape[-1] == weight.shape[-1] and groups > 1:
        y = _depthwise(x, weight, stride=stride, pairs=pairs, dilation=dilation)
    else:
        if any(a != b for a, b in pairs):
            x, pairs = jnp.pad(x, [(0, 0), *pairs, (0, 0)]), [(0, 0)] * count
        y = convolution(x, weight, stride=stride, padding=[p for p, _ in pairs], dilation=dilation, groups=groups)
    return Last(y if bias is None else y + plain(bias))


def _depthwise(
    x: Float[Array, "b *space c"],
    weight: Float[Array, "*kernel 1 c"],
    *,
    stride: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Float[Array, "b *out c"]:
    taps = weight.shape[:-2]
    x = jnp.pad(x, [(0, 0), *pairs, (0, 0)])
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[1:-1], taps, stride, dilation, strict=True)]
    total = jnp.zeros((), x.dtype)
    for tap in itertools.product(*map(range, taps)):
        start = [t * d for t, d in zip(tap, dilation, strict=True)]
        limit = [b + (n - 1) * s + 1 for b, n, s in zip(start, sizes, stride, strict=True)]
        window = lax.slice(x, (0, *start, 0), (x.shape[0], *limit, x.shape[-1]), (1, *stride, 1))
        total = total + window * weight[(*tap, 0)]
    return total


@register("conv1d.padding", "conv2d.padding", "conv3d.padding")
def convolve_padded(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes | str = "valid", dilation: Sizes = 1, groups: int = 1
) -> Last:
    """Convolution with padding given by name."""
    return convolve(x, weight, bias, stride, padding, dilation, groups)


@register("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolve_transposed(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Last:
    """Transposed convolution; by phases, or with groups or dilation by a convolution of the dilated input."""
    x, weight = last(x), kernel(weight, "transposed")
    count = x.ndim - 2
    stride, padding, dilation = each(stride, count), each(padding, count, 0), each(dilation, count)
    output_padding = each(output_padding, count, 0)
    if groups == 1 and all(d == 1 for d in dilation):
        y = transposed_convolution(x, weight, stride=stride, padding=padding, output_padding=output_padding)
    else:
        taps, (inputs, outputs) = weight.shape[:count], weight.shape[count:]
        weight = lax.rev(weight, tuple(range(count))).reshape(*taps, groups, inputs // groups, outputs)
        weight = jnp.moveaxis(weight, count, -2).reshape(*taps, inputs // groups, groups * outputs)
        reach = [d * (k - 1) - p for d, k, p in zip(dilation, taps, padding, strict=True)]
        pairs = [(r, r + o) for r, o in zip(reach, output_padding, strict=True)]
        y = lax.conv_general_dilated(
            x,
            weight,
            (1,) * count,
            pairs,
            lhs_dilation=stride,
            rhs_dilation=dilation,
            dimension_numbers=_numbers(count),
            feature_group_count=groups,
        )
    return Last(y if bias is None else y + plain(bias))


@register("convolution")
def convolve_any(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Last:
    """ATen's one operation for both kinds of convolution."""
    if transposed:
        return convolve_transposed(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolve(x, weight, bias, stride, padding, dilation, groups)


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


@register("linear")
def multiply_weights(x: Any, weight: Any, bias: Any = None) -> Array:
    """x @ weight + bias."""
    y = plain(x) @ kernel(weight, "linear")
    return y if bias is None else y + plain(bias)


@register("matmul", "mm", "bmm")
def multiply(x: Any, y: Any) -> Array:
    """Matrix product."""
    return plain(x) @ plain(y)


@register("addmm", "baddbmm")
def multiply_add(bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Array:
    """beta bias + alpha x @ y."""
    product = plain(x) @ plain(y)
    scaled = product if alpha == 1 else alpha * product
    return scaled + (plain(bias) if beta == 1 else beta * plain(bias))


@register("einsum")
def sum_products(equation: str, operands: Sequence[Any], path: Any = None) -> Array:
    """Einstein summation."""
    return jnp.einsum(equation.replace(" ", ""), *plain(list(operands)))


@register("scaled_dot_product_attention")
def attend(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Array:
    """softmax(query key^T * scale + mask) value, in eval mode; scale defaults to 1/sqrt(width)."""
    query, key, value, mask = plain(query), plain(key), plain(value), plain(attn_mask)
    if enable_gqa:
        key, value = (jnp.repeat(a, query.shape[-3] // a.shape[-3], -3) for a in (key, value))
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ jnp.swapaxes(key, -1, -2)
    if is_causal:
        mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    return jax.nn.softmax(scores, -1) @ value


def weight_layout(op: str, position: int, count: int) -> str:
    """The axis order in which a weight that only this argument uses is best kept."""
    if position != 1:
        return "plain"
    if op.split(".")[0] in ("conv1d", "conv2d", "conv3d"):
        return "conv"
    if op.startswith("conv_transpose"):
        return "transposed"
    return "linear" if op == "linear" and count == 2 else "plain"
