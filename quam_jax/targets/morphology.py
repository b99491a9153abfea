"""What moving a mask is made of: neighbourhoods of one step, and exact distances, of label maps of any spatial rank."""

import functools
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

Element = Literal["square", "cross", "disk"]
Outside = Literal["edge", "background"]
ROUNDING = 1e-6  # of distances in millimetres


def structuring_element(rank: int, element: Literal["square", "cross"]) -> Int[np.ndarray, "*window"]:
    """The neighbourhood of one step: all 3^rank cells, or the centre with its 2*rank face neighbours."""
    distance = np.abs(np.indices((3,) * rank) - 1).sum(0)
    return (distance <= (rank if element == "square" else 1)).astype(np.int32)


def neighbours_set(mask: Array, element: Int[np.ndarray, "*window"], *, pad: Literal["edge", "constant"]) -> Array:
    """How many cells of the window around every pixel are set."""
    padded = jnp.pad(mask.astype(jnp.float32), 1, mode=pad)
    total = jnp.zeros(mask.shape)
    for offset in np.argwhere(element):
        total = total + lax.dynamic_slice(padded, [int(o) for o in offset], mask.shape)
    return total


def squared_distance(mask: Bool[Array, "*space"], *, reach: int, outside: bool = False) -> Int[Array, "*space"]:
    """Squared Euclidean distance in pixels to the nearest set pixel, exact up to `reach` and larger than reach^2 beyond.

    `outside` counts everything beyond the image as set. One pass an axis: the minimum of d + o^2 over offsets o gives the
    exact transform because squared distances add up over axes (Felzenszwalb and Huttenlocher 2012).
    """
    far = reach * reach + 1
    squared = jnp.pad(jnp.where(mask, 0, far).astype(jnp.int32), reach, constant_values=0 if outside else far)
    for axis, size in enumerate(mask.shape):
        squared = functools.reduce(
            jnp.minimum,
            (
                lax.slice_in_dim(squared, reach + offset, reach + offset + size, axis=axis) + offset * offset
                for offset in range(-reach, reach + 1)
            ),
        )
    return squared
