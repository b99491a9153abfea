"""The runner-up class at every pixel."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from ..wish import Wish

PLACE = 7
LOCAL = True  # a pixel looks no further than the radius


def wanted(labels: Int[Array, "*space"], wish: Wish) -> Int[Array, "*space"]:
    """The second most probable class of `wish.probs`, of equal ones the smaller first; ValueError without them."""
    if wish.probs is None:
        raise ValueError("wanted mask other_class: expected probabilities, got none")
    return jnp.argsort(-jnp.asarray(wish.probs), axis=-1, stable=True)[..., 1]
