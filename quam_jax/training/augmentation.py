"""Random views of an example, made on the device: flips, quarter turns, warps, brightness, contrast and noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


class Strengths(NamedTuple):
    """How strong augmentation is (TrainConfig), as data of a step, so that other values compile nothing anew."""

    rotation: float | Array
    scaling: float | Array
    brightness: float | Array
    contrast: float | Array
    grain: float | Array


def augment(
    key: Key[Array, ""],
    image: Float[Array, "*space i"],
    target: Float[Array, "*space c"],
    *,
    strengths: Strengths,
    warp: bool,
    flips: bool,
) -> tuple[Float[Array, "*space i"], Float[Array, "*space c"]]:
    """A random view of one case: image and target move together, brightness, contrast and noise are the image's alone.

    What a warp brings in from outside continues the border in the image and is ignored in the target.
    """
    flip, turn, move, light = jax.random.split(key, 4)
    rank = image.ndim - 1
    if flips:
        both = jnp.concatenate([image, target], -1)
        for axis, chosen in enumerate(jax.random.bernoulli(flip, shape=(rank,))):
            both = jnp.where(chosen, jnp.flip(both, axis), both)
        if image.shape[0] == image.shape[1]:  # a transposition with the flips makes all quarter turns
            both = jnp.where(jax.random.bernoulli(turn), jnp.swapaxes(both, 0, 1), both)
        image, target = both[..., : image.shape[-1]], both[..., image.shape[-1] :]
    if warp:
        angle, size = jax.random.uniform(move, (2,), minval=-1.0)
        places = _warped(image.shape[:-1], angle * jnp.deg2rad(strengths.rotation), size * jnp.log1p(strengths.scaling))
        image, target = _read(image, places, mode="nearest"), _read(target, places, mode="constant")
    a, b, c, d = jax.random.split(light, 4)
    mean = jnp.mean(image, tuple(range(rank)), keepdims=True)
    factor = jnp.exp(jnp.log1p(strengths.contrast) * jax.random.uniform(a, minval=-1.0))
    offset = strengths.brightness * jax.random.uniform(b, minval=-1.0)
    grain = strengths.grain * jax.random.uniform(c) * jax.random.normal(d, image.shape)
    return (image - mean) * factor + mean + offset + grain, target


def _warped(shape: tuple[int, ...], angle: Array, log_size: Array) -> Float[Array, " r *space"]:
    """Where each output pixel is read from: turned about the centre in the first two axes, and scaled in all."""
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))
    grid = grid * jnp.exp(-log_size)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.concatenate([jnp.stack([cos * grid[0] - sin * grid[1], sin * grid[0] + cos * grid[1]]), grid[2:]])
    return turned + jnp.array([(n - 1) / 2 for n in shape]).reshape(-1, *(1,) * len(shape))


def _read(values: Float[Array, "*space c"], places: Float[Array, " r *space"], *, mode: str) -> Float[Array, "*space c"]:
    """Multilinear interpolation of every channel."""
    return jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(channel, list(places), order=1, mode=mode), in_axes=-1, out_axes=-1
    )(values)
