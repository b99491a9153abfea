"""What the given network says, in eval mode, and fit data as its searches take them."""

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ..core import fit as core_fit
from ..core.types import FitData
from .model import SegmentationModel


@jax.jit
def _softmax(logits: Array) -> Array:
    return jax.nn.softmax(logits)[0]


def predict(model: SegmentationModel, image: Float[Array | np.ndarray, "*space i"]) -> Float[Array, "*space c"]:
    """Class probabilities of one prepared image."""
    return _softmax(model(image[None]))


def fit_data(model: SegmentationModel, images: Float[ArrayLike, "k b *space i"], labels: Int[ArrayLike, "k b *space"]) -> FitData:
    """Fit batches of a model, checked and padded to what the network takes.

    Padding has the ignored label -1. ValueError if there is no batch, a batch without any label, or a label that the network
    does not have.
    """
    return core_fit.fit_data(model.network, model.params, model.stats, images, labels)
