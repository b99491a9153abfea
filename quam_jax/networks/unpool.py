"""Max-pooling that remembers where each maximum stood, and the un-pooling that puts values back there.

Both are written with a comparison against the place instead of gather and scatter, whose gradients are slow.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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
