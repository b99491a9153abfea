"""Entropy of a blurred prediction: the control that knows the prediction and a width, and nothing of other models.

Prototypes found no method above it on over-confident networks, so it stands in every table. The width is fitted on
validation cases.
"""

import numpy as np
from jaxtyping import ArrayLike, Float

from ..case import displacement
from ..core.types import Samples
from ..models.model import SegmentationModel
from .method import Method, in_one_pass
from .records import as_samples, check_image, predict_batch


def blur(model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, width: float) -> Samples:
    """The class probabilities, each blurred by a Gaussian of `width` pixels, as one sample; ValueError unless width >= 0."""
    return as_samples(blurred(np.asarray(predict_batch(model, check_image(model, image)[None])[0]), width)[None])


def blurred_mask(model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, width: float) -> Samples:
    """The same of the predicted mask, which has no probabilities left: where the contour is, and a width."""
    probs = np.asarray(predict_batch(model, check_image(model, image)[None])[0])
    hard = (probs.argmax(-1)[..., None] == np.arange(probs.shape[-1])).astype(np.float32)
    return as_samples(blurred(hard, width)[None])


def blurred(probs: Float[np.ndarray, "*space c"], width: float) -> Float[np.ndarray, "*space c"]:
    """Class probabilities, each blurred by a Gaussian of `width` pixels; ValueError unless width >= 0."""
    if not width >= 0:
        raise ValueError(f"blur: expected a width >= 0, got {width}")
    if width == 0:
        return probs
    return displacement.blurred(probs, width).astype(np.float32)


WIDTHS = tuple({"width": width} for width in (1.0, 0.25, 0.5, 0.75, 1.5, 2.0, 3.0))
METHODS = (
    Method("blur", in_one_pass(blur), blur, grid=WIDTHS, control=True, place=10),
    Method("blurred_mask", in_one_pass(blurred_mask), blurred_mask, grid=WIDTHS, control=True, place=11),
)
