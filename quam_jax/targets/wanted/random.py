"""A random class at every pixel."""

import jax
from jaxtyping import Array, Int

from ..wish import Wish

PLACE = 6


def wanted(labels: Int[Array, "*space"], wish: Wish) -> Int[Array, "*space"]:
    """Classes drawn from `wish.key`; ValueError without one."""
    if wish.key is None:
        raise ValueError("wanted mask random: expected a key, got none")
    return jax.random.randint(wish.key, labels.shape, 0, wish.classes)
