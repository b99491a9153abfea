"""Convolutions of imported graphs, on the same fast forms as `layers.py`."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..bilinear import add_bias
from ..convolution import convolution
from ..layers import transposed_convolution
from .axes import Sizes, each
from .values import Last, aligned, kernel, last, plain, register


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
    if groups == x.shape[-1] == weight.shape[-1] and groups > 1:
        y = _depthwise(x, weight, stride=stride, pairs=pairs, dilation=dilation)
    else:
        if any(a != b for a, b in pairs):
            x, pairs = jnp.pad(x, [(0, 0), *pairs, (0, 0)]), [(0, 0)] * count
        y = convolution(x, weight, stride=stride, padding=[p for p, _ in pairs], dilation=dilation, groups=groups)
    return Last(y if bias is None else add_bias(y, plain(bias)))


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
        total = total + window * aligned(weight[(*tap, 0)], window)
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
    return Last(y if bias is None else add_bias(y, plain(bias)))


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


def weight_layout(op: str, position: int, count: int) -> str:
    """The axis order in which a weight that only this argument uses is best kept."""
    if position != 1:
        return "plain"
    if op.split(".")[0] in ("conv1d", "conv2d", "conv3d"):
        return "conv"
    if op.startswith("conv_transpose"):
        return "transposed"
    return "linear" if op == "linear" and count == 2 else "plain"
