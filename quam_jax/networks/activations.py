"""Activations whose derivative is read off their output, which the next layer keeps anyway: their input need not be kept.

Values and derivatives are those of `jax.nn`, at 0 too.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .bilinear import materialised


@jax.custom_jvp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0); the derivative at 0 is 0."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = materialised(relu(*primals))
    return y, jnp.where(y > 0, tangents[0], 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def leaky_relu(x: Float[Array, "..."], slope: float = 0.01) -> Float[Array, "..."]:
    """x where it is not negative, else slope * x, for a slope above 0; the derivative at 0 is 1."""
    return jnp.where(x >= 0, x, slope * x)


@leaky_relu.defjvp
def _leaky_relu_jvp(slope: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = materialised(leaky_relu(*primals, slope))
    return y, jnp.where(y >= 0, tangents[0], slope * tangents[0])
