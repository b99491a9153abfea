"""Float64 inside a block, for comparisons in which float32 rounding would hide an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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

    def converted(leaf: Any) -> Any:
        value = np.asarray(leaf)
        return jnp.asarray(value.astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value)

    return jax.tree.map(converted, tree)
