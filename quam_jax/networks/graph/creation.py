"""Operations of imported graphs that make arrays: constants, sequences, and arrays like others."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .elementwise import DTYPES
from .values import operation


def _type(dtype: str | None, default: Any) -> Any:
    return default if dtype is None else DTYPES[dtype]


def _natural(value: Any) -> Any:
    return jnp.bool_ if isinstance(value, bool) else jnp.int32 if isinstance(value, int) else jnp.float32


@operation("full", "scalar_tensor")
def full(*given: Any, dtype: str | None = None, **_: Any) -> Array:
    """An array of one value."""
    size, value = given if len(given) == 2 else ((), given[0])
    return jnp.full(size, value, _type(dtype, _natural(value)))


@operation("zeros", "empty")
def zeros(size: Sequence[int], dtype: str | None = None, **_: Any) -> Array:
    """Zeros."""
    return jnp.zeros(size, _type(dtype, jnp.float32))


@operation("ones")
def ones(size: Sequence[int], dtype: str | None = None, **_: Any) -> Array:
    """Ones."""
    return jnp.ones(size, _type(dtype, jnp.float32))


@operation("full_like")
def full_like(x: Array, value: Any, dtype: str | None = None, **_: Any) -> Array:
    """An array of one value in the shape of another."""
    return jnp.full(x.shape, value, _type(dtype, x.dtype))


@operation("zeros_like", "empty_like")
def zeros_like(x: Array, dtype: str | None = None, **_: Any) -> Array:
    """Zeros in the shape of another."""
    return jnp.zeros(x.shape, _type(dtype, x.dtype))


@operation("ones_like")
def ones_like(x: Array, dtype: str | None = None, **_: Any) -> Array:
    """Ones in the shape of another."""
    return jnp.ones(x.shape, _type(dtype, x.dtype))


@operation("new_zeros", "new_empty")
def new_zeros(x: Array, size: Sequence[int], dtype: str | None = None, **_: Any) -> Array:
    """Zeros of the type of another."""
    return jnp.zeros(size, _type(dtype, x.dtype))


@operation("new_ones")
def new_ones(x: Array, size: Sequence[int], dtype: str | None = None, **_: Any) -> Array:
    """Ones of the type of another."""
    return jnp.ones(size, _type(dtype, x.dtype))


@operation("new_full")
def new_full(x: Array, size: Sequence[int], value: Any, dtype: str | None = None, **_: Any) -> Array:
    """An array of one value of the type of another."""
    return jnp.full(size, value, _type(dtype, x.dtype))


@operation("arange")
def arange(*given: Any, dtype: str | None = None, **_: Any) -> Array:
    """Numbers from start to end in steps."""
    return jnp.arange(*given, dtype=_type(dtype, jnp.int32 if all(isinstance(g, int) for g in given) else jnp.float32))


@operation("linspace")
def linspace(start: float, end: float, steps: int, dtype: str | None = None, **_: Any) -> Array:
    """Equally spaced numbers."""
    return jnp.linspace(start, end, steps, dtype=_type(dtype, jnp.float32))


@operation("eye")
def eye(n: int, m: int | None = None, dtype: str | None = None, **_: Any) -> Array:
    """Ones on the diagonal."""
    return jnp.eye(n, m, dtype=_type(dtype, jnp.float32))
