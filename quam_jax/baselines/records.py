"""What every baseline gives back: Samples, and what they cost."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core.compilation import jit
from ..core.network import pad_to_multiple
from ..core.types import Samples
from ..models.model import Network, Parameters, SegmentationModel


class Compute(NamedTuple):
    """Cost of one case: forward and backward passes, each counted as one image of the case's size, and seconds."""

    forward: float
    backward: float
    seconds: float


def as_samples(probs: Float[ArrayLike, "n *space c"], weights: Float[ArrayLike, " n"] | None = None) -> Samples:
    """Probability maps as Samples `[1 n p c]`, of equal weight unless weights are given (they are scaled to sum to 1)."""
    probs = jnp.asarray(probs)
    count = probs.shape[0]
    shares = jnp.full(count, 1.0 / count) if weights is None else jnp.asarray(weights) / jnp.sum(jnp.asarray(weights))
    return Samples(probs.reshape(1, count, -1, probs.shape[-1]), shares[None])


def mean_probabilities(samples: Samples, shape: tuple[int, ...]) -> Float[np.ndarray, "*space c"]:
    """The weighted mean of the samples on the grid of the image."""
    mean = np.einsum("n,npc->pc", np.asarray(samples.weights[0], np.float64), np.asarray(samples.probs[0], np.float64))
    return (mean / mean.sum(-1, keepdims=True)).reshape(*shape, -1)


def check_image(model: SegmentationModel, image: Float[ArrayLike, "*space i"]) -> Float[Array, "*space i"]:
    """The image as float32; ValueError unless it has the axes and channels of the network and is finite."""
    x = np.asarray(image, np.float32)
    rank, channels = model.network.rank, model.network.in_channels
    if x.ndim != rank + 1 or x.shape[-1] != channels:
        raise ValueError(f"image: expected {rank} spatial axes and {channels} channels last, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"image: expected finite values, got {int((~np.isfinite(x)).sum())} that are not")
    return jnp.asarray(x)


def predict_batch(model: SegmentationModel, images: Float[ArrayLike, "b *space i"]) -> Float[Array, "b *space c"]:
    """Class probabilities of a batch in eval mode."""
    return jax.nn.softmax(model(images))


@jit(static_argnums=0)
def _features(network: Network, params: Parameters, stats: Parameters, images: Array) -> Array:
    return network.trunk(params, stats, images, cut="head")


def head_features(model: SegmentationModel, images: Float[Array, "b *space i"]) -> Float[Array, "b *space f"]:
    """The activation in front of the head, cropped to the image; ValueError if the network has no such cut."""
    model.network.tail_names("head")
    x = jnp.asarray(images, jnp.float32)
    features = _features(model.network, model.params, model.stats, pad_to_multiple(x, model.network, leading=1))
    return features[tuple(slice(n) for n in x.shape[:-1])]


@jit(static_argnums=0)
def _logits(network: Network, params: Parameters, stats: Parameters, features: Array) -> Array:
    return network.tail(params, stats, features, cut="head")[0]


def head_logits(model: SegmentationModel, features: Float[Array, "b *space f"]) -> Float[Array, "b *space c"]:
    """Logits from the activation in front of the head."""
    return _logits(model.network, model.params, model.stats, features)
