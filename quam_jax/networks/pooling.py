"""Max-pooling; max-pooling that remembers where each maximum stood, and the un-pooling that puts values back there.

All are written with comparisons: the gradient of a maximum by reduction is not safe to compile, and those of gather and scatter
are slow.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def max_pool(x: Float[Array, "b *space c"], window: int, *, ceil_mode: bool = False) -> Float[Array, "b *out c"]:
    """Maximum over non-overlapping windows; an incomplete window at the end is dropped, or kept with `ceil_mode`.

    The gradient goes to the first of equal values, row by row, as in PyTorch.
    """
    for axis in range(x.ndim - 2, 0, -1):  # the last axis first, which makes the first of equal values the row-by-row one
        size = x.shape[axis]
        if ceil_mode and size % window:
            padding = [(0, -size % window if a == axis else 0) for a in range(x.ndim)]
            x = jnp.pad(x, padding, constant_values=-jnp.inf)
        else:
            x = lax.slice_in_dim(x, 0, size // window * window, axis=axis)
        x = x.reshape(*x.shape[:axis], x.shape[axis] // window, window, *x.shape[axis + 1 :])
        entries = [lax.index_in_dim(x, k, axis + 1, keepdims=False) for k in range(window)]
        x = functools.reduce(_first_maximum, entries)
    return x


def _first_maximum(a: Array, b: Array) -> Array:
    """The larger one, the first of equal ones, NaN where one is NaN.

    Not `max`, whose gradient divides by the number of entries equal to it: the compiler may compute them anew for that, with
    another rounding, so that none is equal and the gradient is 0 / 0.
    """
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def max_pool_place(x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b u v c"], Int[Array, "b u v c"]]:
    """2x2 maximum and its place 0..3 in the window (row by row), the first on ties; an odd last row or column is dropped."""
    u, v = x.shape[1] // 2, x.shape[2] // 2
    windows = x[:, : 2 * u, : 2 * v].reshape(x.shape[0], u, 2, v, 2, x.shape[-1])
    corners = [windows[:, :, dy, :, dx] for dy in (0, 1) for dx in (0, 1)]
    best, place = corners[0], jnp.zeros(corners[0].shape, jnp.int8)
    for index, corner in enumerate(corners[1:], start=1):
        larger = corner > best
        best, place = jnp.where(larger, corner, best), jnp.where(larger, jnp.int8(index), place)
    return best, place


def unpool(x: Float[Array, "b u v c"], place: Int[Array, "b u v c"], size: tuple[int, int]) -> Float[Array, "b h w c"]:
    """Values at their places in 2x2 windows, zeros elsewhere and in the rows and columns beyond the windows."""
    b, u, v, c = x.shape
    rows = [jnp.stack([jnp.where(place == 2 * dy + dx, x, 0) for dx in (0, 1)], 3) for dy in (0, 1)]
    y = jnp.stack(rows, 2).reshape(b, 2 * u, 2 * v, c)
    return jnp.pad(y, ((0, 0), (0, size[0] - 2 * u), (0, size[1] - 2 * v), (0, 0)))
