"""The boundary control: a Gaussian of the distance to the predicted contour. Most of any score is due to the boundary."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..evaluation.reference_maps import boundary_map, contour_distance
from ..models.model import SegmentationModel
from .method import Method, Outcome, Run, Settings, Subject
from .records import check_image, predict_batch


def boundary(
    model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, sigma: float, spacing: Sequence[float] | None = None
) -> Float[np.ndarray, "*space"]:
    """exp(-d^2 / 2 sigma^2) around the contour of the prediction, in the unit of `spacing` (pixels without one).

    It is a map and no set of samples, since it says nothing of probabilities. Zero where there is no contour.
    """
    labels = np.asarray(predict_batch(model, check_image(model, image)[None])[0]).argmax(-1)
    return boundary_map(contour_distance(labels, spacing=spacing), sigma=sigma)


def _start(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        return Outcome({"total": boundary(subject.model, image, sigma=settings["sigma"])}, None, None, None, 1, 0)

    return run


METHODS = (
    Method(
        "boundary",
        _start,
        boundary,
        grid=tuple({"sigma": s} for s in (2.0, 0.5, 0.75, 1.0, 1.5, 3.0, 4.0)),
        control=True,
        place=9,
    ),
)
