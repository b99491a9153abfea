"""Matrix products of imported graphs, and attention."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .values import aligned, kernel, plain, register


@register("linear")
def multiply_weights(x: Any, weight: Any, bias: Any = None) -> Array:
    """x @ weight + bias."""
    y = plain(x) @ kernel(weight, "linear")
    return y if bias is None else y + aligned(bias, y)


@register("matmul", "mm", "bmm")
def multiply(x: Any, y: Any) -> Array:
    """Matrix product."""
    return plain(x) @ plain(y)


@register("addmm", "baddbmm")
def multiply_add(bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Array:
    """beta bias + alpha x @ y."""
    product = plain(x) @ plain(y)
    scaled = product if alpha == 1 else alpha * product
    added = aligned(bias, product)
    return scaled + (added if beta == 1 else beta * added)


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
        mask = aligned(mask, scores)
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    return jax.nn.softmax(scores, -1) @ value
