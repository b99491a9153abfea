"""Normalisation and reductions of imported graphs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .elementwise import DTYPES
from .values import Last, aligned, last, operation, physical, plain, rank, register

Axes = int | Sequence[int] | None


def _affine(x: Array, weight: Any, bias: Any) -> Array:
    x = x if weight is None else x * aligned(weight, x)
    return x if bias is None else x + aligned(bias, x)


def _normalise(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = x - jnp.mean(x, axes, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(jnp.square(centred), axes, keepdims=True) + epsilon)


@register("batch_norm_inference")
def normalise_batch(x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> Last:
    """(x - mean) / sqrt(var + eps) weight + bias by running statistics."""
    x, scale = last(x), lax.rsqrt(plain(var) + eps)
    return Last(_affine((x - aligned(mean, x)) * aligned(scale if weight is None else scale * plain(weight), x), None, bias))


@register("instance_norm")
def normalise_instance(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, use_input_stats: bool, momentum: float, eps: float, *_: Any
) -> Last:
    """Each image and channel over space, or by running statistics where it was trained with them."""
    if not use_input_stats:
        return normalise_batch(x, weight, bias, mean, var, eps)
    x = last(x)
    return Last(_affine(_normalise(x, tuple(range(1, x.ndim - 1)), eps), weight, bias))


@register("group_norm")
def normalise_group(x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Last:
    """Each image over space and the channels of a group."""
    x = last(x)
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    normed = _normalise(grouped, (*range(1, x.ndim - 1), x.ndim), eps)
    return Last(_affine(normed.reshape(x.shape), weight, bias))


@register("native_group_norm")
def normalise_group_native(x: Any, weight: Any, bias: Any, n: int, c: int, hw: int, group: int, eps: float) -> list[Any]:
    """group_norm with its sizes spelled out; the statistics that it returns too are not used."""
    return [normalise_group(x, group, weight, bias, eps), None, None]


@register("layer_norm")
def normalise_layer(x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Array:
    """Over the last axes."""
    x = plain(x)
    return _affine(_normalise(x, tuple(range(-len(shape), 0)), eps), weight, bias)


@register("native_layer_norm")
def normalise_layer_native(x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> list[Any]:
    """layer_norm; the statistics that it returns too are not used."""
    return [normalise_layer(x, shape, weight, bias, eps), None, None]


@operation("rms_norm")
def normalise_root(x: Array, shape: Sequence[int], weight: Array | None = None, eps: float | None = None) -> Array:
    """x / sqrt(mean(x^2) + eps) weight over the last axes."""
    axes = tuple(range(-len(shape), 0))
    epsilon = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    return _affine(x * lax.rsqrt(jnp.mean(jnp.square(x), axes, keepdims=True) + epsilon), weight, None)


@register("_native_batch_norm_legit.no_stats")
def normalise_batch_own(x: Any, weight: Any, bias: Any, training: bool, momentum: float, eps: float) -> list[Any]:
    """By the statistics of the batch itself: what instance normalisation decomposes to."""
    x = last(x)
    return [Last(_affine(_normalise(x, tuple(range(x.ndim - 1)), eps), weight, bias)), None, None]


def _axes(dim: Axes, count: int) -> tuple[int, ...]:
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(count))
    return tuple(d % count for d in ((dim,) if isinstance(dim, int) else dim)) if count else ()


def _reduce(function: Callable[..., Array], x: Any, dim: Axes, keepdim: bool) -> Any:
    """Reduce axes; a value with its channels last stays so where its axes are kept."""
    axes = _axes(dim, rank(x))
    if isinstance(x, Last) and keepdim:
        return Last(function(x.array, axis=tuple(physical(a, rank(x)) for a in axes), keepdims=True))
    return function(plain(x), axis=axes, keepdims=keepdim)


def _typed(x: Any, dtype: str | None) -> Any:
    if dtype is None:
        return x
    return Last(x.array.astype(DTYPES[dtype])) if isinstance(x, Last) else plain(x).astype(DTYPES[dtype])


@register("mean", "mean.dim")
def mean(x: Any, dim: Axes = None, keepdim: bool = False, dtype: str | None = None) -> Any:
    """Mean over axes, all by default."""
    return _reduce(jnp.mean, _typed(x, dtype), dim, keepdim)


@register("sum", "sum.dim_IntList")
def total(x: Any, dim: Axes = None, keepdim: bool = False, dtype: str | None = None) -> Any:
    """Sum over axes, all by default."""
    return _reduce(jnp.sum, _typed(x, dtype), dim, keepdim)


@register("amax")
def maximum(x: Any, dim: Axes = None, keepdim: bool = False) -> Any:
    """Maximum over axes, all by default."""
    return _reduce(jnp.max, x, dim, keepdim)


@register("amin")
def minimum(x: Any, dim: Axes = None, keepdim: bool = False) -> Any:
    """Minimum over axes, all by default."""
    return _reduce(jnp.min, x, dim, keepdim)


@operation("max")
def maximum_all(x: Array) -> Array:
    """The largest entry."""
    return jnp.max(x)


@operation("min")
def minimum_all(x: Array) -> Array:
    """The smallest entry."""
    return jnp.min(x)


@register("max.dim")
def maximum_place(x: Any, dim: int, keepdim: bool = False) -> list[Any]:
    """Maximum over an axis and its place."""
    return [_reduce(jnp.max, x, dim, keepdim), place_max(plain(x), dim, keepdim)]


@register("min.dim")
def minimum_place(x: Any, dim: int, keepdim: bool = False) -> list[Any]:
    """Minimum over an axis and its place."""
    return [_reduce(jnp.min, x, dim, keepdim), place_min(plain(x), dim, keepdim)]


@operation("argmax")
def place_max(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Place of the maximum, the first on ties."""
    return jnp.argmax(x, dim, keepdims=keepdim)


@operation("argmin")
def place_min(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Place of the minimum, the first on ties."""
    return jnp.argmin(x, dim, keepdims=keepdim)


@register("prod", "prod.dim_int")
def product(x: Any, dim: Axes = None, keepdim: bool = False, dtype: str | None = None) -> Any:
    """Product over axes, all by default."""
    return _reduce(jnp.prod, _typed(x, dtype), dim, keepdim)


@register("any", "any.dim", "any.dims")
def any_of(x: Any, dim: Axes = None, keepdim: bool = False) -> Any:
    """Whether any entry is set."""
    return _reduce(jnp.any, x, dim, keepdim)


@register("all", "all.dim", "all.dims")
def all_of(x: Any, dim: Axes = None, keepdim: bool = False) -> Any:
    """Whether all entries are set."""
    return _reduce(jnp.all, x, dim, keepdim)


@register("logsumexp")
def log_sum_exp(x: Any, dim: Axes, keepdim: bool = False) -> Any:
    """log sum exp over axes."""
    return _reduce(jax.nn.logsumexp, x, dim, keepdim)


@register("var.correction")
def variance(x: Any, dim: Axes = None, *, correction: int | None = None, keepdim: bool = False) -> Any:
    """Variance over axes, its divisor lowered by the correction (1 by default)."""
    return _reduce(functools.partial(jnp.var, ddof=1 if correction is None else correction), x, dim, keepdim)


@register("std.correction")
def deviation(x: Any, dim: Axes = None, *, correction: int | None = None, keepdim: bool = False) -> Any:
    """Square root of the variance."""
    return _reduce(functools.partial(jnp.std, ddof=1 if correction is None else correction), x, dim, keepdim)


@register("var_mean.correction")
def variance_mean(x: Any, dim: Axes = None, *, correction: int | None = None, keepdim: bool = False) -> list[Any]:
    """Variance and mean over axes."""
    return [variance(x, dim, correction=correction, keepdim=keepdim), mean(x, dim, keepdim)]


@register("var", "var.dim")
def variance_unbiased(x: Any, dim: Axes | bool = None, unbiased: bool = True, keepdim: bool = False) -> Any:
    """Variance over axes."""
    if isinstance(dim, bool):  # the overload without axes
        return variance(x, correction=int(dim))
    return variance(x, dim, correction=int(unbiased), keepdim=keepdim)


@register("std", "std.dim")
def deviation_unbiased(x: Any, dim: Axes | bool = None, unbiased: bool = True, keepdim: bool = False) -> Any:
    """Square root of the variance."""
    if isinstance(dim, bool):
        return deviation(x, correction=int(dim))
    return deviation(x, dim, correction=int(unbiased), keepdim=keepdim)


@register("linalg_vector_norm", "norm.ScalarOpt_dim")
def length(x: Any, ord: float | None = 2, dim: Axes = None, keepdim: bool = False, dtype: str | None = None) -> Any:
    """Vector norm over axes."""

    def norm(value: Array, *, axis: Axes, keepdims: bool) -> Array:
        if ord in (None, 2):
            return jnp.sqrt(jnp.sum(jnp.square(value), axis=axis, keepdims=keepdims))
        if ord == float("inf"):
            return jnp.max(jnp.abs(value), axis=axis, keepdims=keepdims)
        return jnp.sum(jnp.abs(value) ** ord, axis=axis, keepdims=keepdims) ** (1 / ord)

    return _reduce(norm, x, dim, keepdim)


def _along(function: Callable[..., Array], x: Any, dim: int) -> Any:
    if isinstance(x, Last):
        return Last(function(x.array, axis=physical(dim, rank(x))))
    return function(plain(x), axis=dim)


@register("softmax", "_softmax", "_safe_softmax")
def softmax(x: Any, dim: int, *given: Any, **_: Any) -> Any:
    """Softmax along an axis."""
    return _along(jax.nn.softmax, x, dim)


@register("log_softmax", "_log_softmax")
def log_softmax(x: Any, dim: int, *given: Any, **_: Any) -> Any:
    """Logarithm of the softmax along an axis."""
    return _along(jax.nn.log_softmax, x, dim)


@register("cumsum")
def cumulate(x: Any, dim: int, dtype: str | None = None) -> Any:
    """Cumulative sum along an axis."""
    return _along(jnp.cumsum, _typed(x, dtype), dim)
