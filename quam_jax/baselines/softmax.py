"""The given network's own prediction: one sample, whose entropy is all the uncertainty there is."""

from jaxtyping import ArrayLike, Float

from ..core.types import Samples
from ..models.model import SegmentationModel
from .method import Method, in_one_pass
from .records import as_samples, check_image, predict_batch


def softmax(model: SegmentationModel, image: Float[ArrayLike, "*space i"]) -> Samples:
    """Class probabilities of the network in eval mode, as one sample."""
    return as_samples(predict_batch(model, check_image(model, image)[None]))


METHODS = (Method("softmax", in_one_pass(softmax), softmax, place=1),)
