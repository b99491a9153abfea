"""Float64 inside a block, for comparisons in which float32 rounding would hide an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp


@contextmanager
def double_precision() -> Iterator[None]:
    """Switch jax's 64-bit types on, and put the setting back."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def as_double(tree: Any) -> Any:
    """The floating leaves of a tree in float64."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        jax.tree.map(jnp.asarray, tree),
    )
