"""A checkerboard of 0 and 1."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..wish import Wish

PLACE = 5


def wanted(labels: Int[Array, "*space"], wish: Wish) -> Int[Array, "*space"]:
    """Neighbours differ, wherever the mask is."""
    return checkerboard(labels.shape)


def checkerboard(shape: Sequence[int]) -> Int[Array, "*space"]:
    """Alternating 0 and 1."""
    return jnp.asarray(np.indices(tuple(shape)).sum(0) % 2, jnp.int32)
