"""What the given network says: reference probabilities of a case and its loss on every fit batch, in eval mode.

The reference losses do not depend on the case that is searched, so they are computed once a model and fit set.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ..core.compilation import jit
from ..core.step import cross_entropy
from ..core.types import FitData
from .model import Network, Parameters, SegmentationModel, pad_to_multiple


@jit(static_argnames="network")
def _batch_loss(network: Network, params: Parameters, stats: Parameters, images: Array, labels: Array) -> Array:
    return cross_entropy(network.apply(params, stats, images)[0], labels)


@jax.jit
def _softmax(logits: Array) -> Array:
    return jax.nn.softmax(logits)[0]


def predict(model: SegmentationModel, image: Float[Array | np.ndarray, "*space i"]) -> Float[Array, "*space c"]:
    """Class probabilities of one prepared image."""
    return _softmax(model(image[None]))


def fit_data(model: SegmentationModel, images: Float[ArrayLike, "k b *space i"], labels: Int[ArrayLike, "k b *space"]) -> FitData:
    """Fit batches with the given network's loss on each, in nats per labelled pixel.

    Sides that the network cannot take are padded by repeating the edge, with the ignored label -1. ValueError if there is
    no batch, a batch without any label, or a label that the network does not have.
    """
    images, labels = jnp.asarray(images), np.asarray(labels, np.int32)
    if images.shape[0] == 0:
        raise ValueError("fit data: expected at least one fit batch, got none")
    classes = model.network.classes
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= classes:
        raise ValueError(f"fit labels: expected 0..{classes - 1} (or -1 to ignore), got values from {low} to {high}")
    if not (labels >= 0).any(axis=tuple(range(1, labels.ndim))).all():
        raise ValueError("fit data: expected labelled pixels in every fit batch, got a batch without any")
    images = pad_to_multiple(images, model.network, leading=2)
    padding = [(0, p - n) for p, n in zip(images.shape[2:-1], labels.shape[2:], strict=True)]
    labels = jnp.asarray(np.pad(labels, [(0, 0), (0, 0), *padding], constant_values=-1))
    losses = [_batch_loss(model.network, model.params, model.stats, x, y) for x, y in zip(images, labels, strict=True)]
    return FitData(images, labels, jnp.stack(losses))
