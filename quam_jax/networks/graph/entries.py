"""Operations of imported graphs that read or write single entries: by place, by index arrays, gathered and scattered."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from .values import is_array, operation


@operation("slice_scatter")
def put_slice(x: Array, source: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    """A range of an axis replaced."""
    return x.at[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)].set(source)


@operation("select_scatter")
def put_entry(x: Array, source: Array, dim: int, index: int) -> Array:
    """One entry of an axis replaced."""
    return x.at[(slice(None),) * (dim % x.ndim) + (index,)].set(source)


@operation("copy")
def copy(x: Array, source: Array, *_: Any) -> Array:
    """The source in the shape and type of x."""
    return jnp.broadcast_to(source, x.shape).astype(x.dtype)


@operation("index", "_unsafe_index")
def take_index(x: Array, indices: Sequence[Array | None]) -> Array:
    """Advanced indexing; None takes a whole axis."""
    return x[tuple(slice(None) if i is None else i for i in indices)]


@operation("index_put", "_unsafe_index_put")
def put_index(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False) -> Array:
    """Advanced indexing on the left-hand side."""
    place = x.at[tuple(slice(None) if i is None else i for i in indices)]
    return place.add(values) if accumulate else place.set(values)


@operation("index_select")
def take_entries(x: Array, dim: int, index: Array) -> Array:
    """Entries of an axis by their places."""
    return jnp.take(x, index, dim)


@operation("embedding")
def embed(weight: Array, indices: Array, *_: Any) -> Array:
    """Rows of a table."""
    return jnp.take(weight, indices, 0)


@operation("gather")
def gather(x: Array, dim: int, index: Array, **_: Any) -> Array:
    """Entries along an axis, each by its own place; the other axes are cut to those of the index."""
    dim = dim % x.ndim
    own = x[tuple(slice(None) if a == dim else slice(n) for a, n in enumerate(index.shape))]
    return jnp.take_along_axis(own, index, dim)


def _places(x: Array, dim: int, index: Array, source: Any) -> tuple[Any, Any]:
    places = list(jnp.meshgrid(*map(jnp.arange, index.shape), indexing="ij"))
    places[dim % x.ndim] = index
    values = source if not is_array(source) or source.ndim == 0 else source[tuple(map(slice, index.shape))]
    return x.at[tuple(places)], values


@operation("scatter")
def scatter(x: Array, dim: int, index: Array, source: Any) -> Array:
    """Entries along an axis set to values, each at its own place."""
    at, values = _places(x, dim, index, source)
    return at.set(values)


@operation("scatter_add")
def scatter_add(x: Array, dim: int, index: Array, source: Any) -> Array:
    """Values added to entries along an axis, each at its own place."""
    at, values = _places(x, dim, index, source)
    return at.add(values)
