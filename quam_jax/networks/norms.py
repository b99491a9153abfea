"""Normalisation layers that give the numbers of their PyTorch namesakes."""

import math

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .layers import Layer, per_channel


class BatchNorm(Layer):
    """Normalisation by running statistics, or by those of the batch when `mode.batch_statistics` is set.

    As in PyTorch the batch is normalised with its biased variance, and the running variance is updated with the unbiased
    one: running <- 0.9 running + 0.1 batch.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        self.epsilon, self.momentum = epsilon, momentum
        self.weight = nnx.Param(jnp.ones(channels)) if affine else None
        self.bias = nnx.Param(jnp.zeros(channels)) if affine else None
        self.running_mean = nnx.BatchStat(jnp.zeros(channels))
        self.running_var = nnx.BatchStat(jnp.ones(channels))

    def affine(self) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Scale and shift of the normalisation by running statistics."""
        scale = lax.rsqrt(self.running_var[...] + self.epsilon)
        if self.weight is None or self.bias is None:
            return scale, -self.running_mean[...] * scale
        scale = scale * self.weight[...]
        return scale, self.bias[...] - self.running_mean[...] * scale

    def __call__(self, x: Float[Array, "b *space c"], mode: Mode = EVAL) -> Float[Array, "b *space c"]:
        mean, var = self.running_mean[...], self.running_var[...]
        if mode.batch_statistics:
            axes = tuple(range(x.ndim - 1))
            count = math.prod(x.shape[:-1])
            batch_mean = jnp.mean(x, axes)
            batch_var = jnp.mean(jnp.square(x - per_channel(batch_mean, x)), axes)
            self.running_mean[...] = mean + self.momentum * (batch_mean - mean)
            unbiased = batch_var * (count / max(count - 1, 1))
            self.running_var[...] = var + self.momentum * (unbiased - var)
            mean, var = batch_mean, batch_var
        scale = lax.rsqrt(var + self.epsilon)
        if self.weight is None or self.bias is None:
            return (x - per_channel(mean, x)) * per_channel(scale, x)
        return (x - per_channel(mean, x)) * per_channel(scale * self.weight[...], x) + per_channel(self.bias[...], x)


class InstanceNorm(Layer):
    """Normalisation of each image and channel over space (biased variance), with an optional affine map."""

    def __init__(self, channels: int, *, epsilon: float = 1e-5, affine: bool = True):
        self.epsilon = epsilon
        self.weight = nnx.Param(jnp.ones(channels)) if affine else None
        self.bias = nnx.Param(jnp.zeros(channels)) if affine else None

    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        axes = tuple(range(1, x.ndim - 1))
        mean = jnp.mean(x, axes, keepdims=True)
        var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
        scale = lax.rsqrt(var + self.epsilon)
        if self.weight is None or self.bias is None:
            return (x - mean) * scale
        return (x - mean) * (scale * per_channel(self.weight[...], x)) + per_channel(self.bias[...], x)


class GroupNorm(Layer):
    """Normalisation of each image over space and the channels of a group (biased variance), with an affine map."""

    def __init__(self, groups: int, channels: int, *, epsilon: float = 1e-5, affine: bool = True):
        self.groups, self.epsilon = groups, epsilon
        self.weight = nnx.Param(jnp.ones(channels)) if affine else None
        self.bias = nnx.Param(jnp.zeros(channels)) if affine else None

    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        grouped = x.reshape(*x.shape[:-1], self.groups, x.shape[-1] // self.groups)
        axes = (*range(1, x.ndim - 1), x.ndim)
        mean = jnp.mean(grouped, axes, keepdims=True)
        var = jnp.mean(jnp.square(grouped - mean), axes, keepdims=True)
        y = ((grouped - mean) * lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        if self.weight is None or self.bias is None:
            return y
        return y * per_channel(self.weight[...], x) + per_channel(self.bias[...], x)


class LayerNorm(Layer):
    """Normalisation over the last axis (biased variance), with an affine map."""

    def __init__(self, channels: int, *, epsilon: float = 1e-5):
        self.epsilon = epsilon
        self.weight = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        mean = jnp.mean(x, -1, keepdims=True)
        var = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
        normal = (x - mean) * lax.rsqrt(var + self.epsilon)
        return normal * per_channel(self.weight[...], x) + per_channel(self.bias[...], x)
