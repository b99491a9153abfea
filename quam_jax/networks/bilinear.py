"""Functions of an array and a weight, linear in each, that keep these two for the backward pass and nothing else.

Whatever JAX can compute in the forward pass it keeps for the backward one: for a convolution written with padding and shifted
copies that is the padded and the shifted input beside the input. An operation of its own has derivatives by rule: its transposes
are programs of their own, which make such copies anew. They can be differentiated again.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

LARGE = 1_000_000  # numbers from which on it counts how long an array is kept

Product = Callable[..., Array]


def bilinear(name: str, forward: Product, *, for_input: Product | None = None, for_weight: Product | None = None) -> Product:
    """The operation `forward(x, weight, **settings)`, the images of `x` on its first axis; settings are hashable.

    `for_input(dy, x, weight, **settings)` and `for_weight(dy, x, weight, **settings)` are its gradients, by default those of
    `forward`; of what they are the gradient in, they are given shape and type alone.
    """
    operation = Primitive(name)

    def gradient_of_input(dy: Array, x: Any, weight: Array, **settings: Any) -> Array:
        shape = jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype)
        if for_input is not None:
            return for_input(dy, shape, weight, **settings)
        return jax.linear_transpose(lambda x: forward(x, weight, **settings), shape)(dy)[0]

    def gradient_of_weight(dy: Array, x: Array, weight: Any, **settings: Any) -> Array:
        shape = jax.ShapeDtypeStruct(weight.aval.shape, weight.aval.dtype)
        if for_weight is not None:
            return for_weight(dy, x, shape, **settings)
        x = lax.optimization_barrier(x)  # else the compiler finds copies that the forward pass makes too, and keeps them
        return jax.linear_transpose(lambda weight: forward(x, weight, **settings), shape)(dy)[0]

    def batched(arrays: Any, axes: Any, **settings: Any) -> tuple[Array, int]:
        (x, weight), (of_x, of_weight) = arrays, axes
        if of_weight is not None:  # networks side by side
            return jax.vmap(functools.partial(forward, **settings), (of_x, of_weight))(x, weight), 0
        x = jnp.moveaxis(x, of_x, 0)
        y = operation.bind(x.reshape(-1, *x.shape[2:]), weight, **settings)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0

    def result(x: Any, weight: Any, *_: Any, **settings: Any) -> Any:
        found = jax.eval_shape(functools.partial(forward, **settings), x, weight)
        return x.update(shape=found.shape, dtype=found.dtype)

    ad.defbilinear(operation, gradient_of_input, gradient_of_weight)
    batching.primitive_batchers[operation] = batched
    _complete(operation, forward, result)

    # both tangents in one operation, so that its transpose decides in which order the two gradients are computed
    both = Primitive(f"{name}_tangent")

    def tangent(x: Array, weight: Array, dx: Array, dweight: Array, **settings: Any) -> Array:
        return operation.bind(dx, weight, **settings) + operation.bind(x, dweight, **settings)

    def gradients(dy: Any, x: Array, weight: Array, dx: Any, dweight: Any, **settings: Any) -> list[Any]:
        if isinstance(dy, ad.Zero):
            return [None, None, *(ad.Zero(a.aval) if ad.is_undefined_primal(a) else None for a in (dx, dweight))]
        found: list[Any] = [None, None, None, None]
        if ad.is_undefined_primal(dweight):
            found[3] = gradient_of_weight(dy, x, dweight, **settings)
            if x.size >= LARGE:  # input and output gradient of a later layer are not kept until the end
                found[3], dy = lax.optimization_barrier((found[3], dy))
        if ad.is_undefined_primal(dx):
            found[2] = gradient_of_input(dy, dx, weight, **settings)
        return found

    def derivative(primals: Any, tangents: Any, **settings: Any) -> tuple[Array, Any]:
        (x, weight), (dx, dweight) = primals, tangents
        if not isinstance(dweight, ad.Zero):
            x = materialised(x)
        y = operation.bind(x, weight, **settings)
        moving = [not isinstance(t, ad.Zero) for t in tangents]
        if all(moving):
            return y, both.bind(x, weight, dx, dweight, **settings)
        if not any(moving):
            return y, ad.Zero.from_primal_value(y)  # type: ignore[attr-defined]
        return y, operation.bind(dx, weight, **settings) if moving[0] else operation.bind(x, dweight, **settings)

    def tangent_derivative(primals: Any, tangents: Any, **settings: Any) -> tuple[Array, Array]:
        return jax.jvp(functools.partial(tangent, **settings), primals, [*map(ad.instantiate_zeros, tangents)])

    def tangent_batched(arrays: Any, axes: Any, **settings: Any) -> tuple[Array, int]:
        return jax.vmap(functools.partial(tangent, **settings), axes)(*arrays), 0

    ad.primitive_jvps[operation] = derivative
    ad.primitive_jvps[both] = tangent_derivative
    ad.primitive_transposes[both] = gradients
    batching.primitive_batchers[both] = tangent_batched
    _complete(both, tangent, result)

    def call(x: Array, weight: Array, **settings: Any) -> Array:
        return operation.bind(x, weight, **settings)

    return call


def materialised(x: Array) -> Array:
    """The array itself, which a compiled program computes once if it is large.

    Else the compiler computes it again wherever it is needed, from arrays that it keeps for that, and keeps it too.
    """
    return lax.optimization_barrier(x) if x.size >= LARGE else x


def _sum(y: Array, bias: Array) -> Array:
    return y + lax.broadcast_to_rank(bias, y.ndim)


def _sum_tangent(dy: Any, dbias: Any) -> Any:
    if isinstance(dbias, ad.Zero):
        return dy
    return _sum_p.bind(ad.instantiate_zeros(dy), dbias)


def _sum_gradients(dy: Any, y: Any, bias: Any) -> list[Any]:
    if isinstance(dy, ad.Zero):
        return [ad.Zero(a.aval) if ad.is_undefined_primal(a) else None for a in (y, bias)]
    if not ad.is_undefined_primal(bias):
        return [dy, None]
    total = dy.sum(tuple(range(dy.ndim - 1)))
    if ad.is_undefined_primal(y) and dy.size >= LARGE:  # as above: the gradient is summed before it goes on
        total, dy = lax.optimization_barrier((total, dy))
    return [dy if ad.is_undefined_primal(y) else None, total]


def _complete(operation: Primitive, function: Product, result: Callable[..., Any]) -> None:
    operation.def_impl(lambda *arrays, **settings: jax.jit(functools.partial(function, **settings))(*arrays))
    operation.def_abstract_eval(result)
    mlir.register_lowering(operation, mlir.lower_fun(function, multiple_results=False))


_sum_p = Primitive("add_bias")
ad.primitive_transposes[_sum_p] = _sum_gradients
ad.primitive_jvps[_sum_p] = lambda primals, tangents: (_sum_p.bind(*primals), _sum_tangent(*tangents))
batching.primitive_batchers[_sum_p] = lambda arrays, axes: (jax.vmap(_sum, axes)(*arrays), 0)
_complete(_sum_p, _sum, lambda y, bias: y)


def add_bias(y: Float[Array, "*batch c"], bias: Float[Array, " c"]) -> Float[Array, "*batch c"]:
    """A number for each channel added."""
    return _sum_p.bind(y, bias)
