"""Test-time augmentation (Wang et al. 2019): what networks say of views of the image, brought back to the image's own grid.

Views and their inverses are those through which a search looks (core/views.py), so that the two differ by the search alone.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..core.types import Samples
from ..models.model import SegmentationModel
from .blur import WIDTHS, blurred
from .ensemble import check_ensemble
from .method import Method, Outcome, Run, Settings, Subject, outcome_of
from .records import as_samples, check_image, predict_batch
from .views import through_views, views_for


def tta(
    model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, key: Key[Array, ""], views: str = "standard"
) -> Samples:
    """One sample a view of the image, of equal weight; ValueError for unknown views."""
    return tta_ensemble([model], image, key=key, views=views)


def tta_ensemble(
    models: Sequence[SegmentationModel], image: Float[ArrayLike, "*space i"], *, key: Key[Array, ""], views: str = "standard"
) -> Samples:
    """One sample a model and view, of equal weight; ValueError for unknown views, or models that differ in classes."""
    check_ensemble(models)
    x = check_image(models[0], image)
    chosen = views_for(x, views)
    said = [through_views(partial(predict_batch, model), x, views=chosen, key=key) for model in models]
    return as_samples(jnp.concatenate(said))


def tta_blur(
    model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, key: Key[Array, ""], width: float, views: str = "standard"
) -> Samples:
    """The mean over views, blurred by a Gaussian of `width` pixels, as one sample."""
    samples = tta(model, image, key=key, views=views)
    mean = np.asarray(samples.probs[0]).mean(0).reshape(*np.shape(image)[:-1], -1)
    return as_samples(blurred(mean, width)[None])


def _start(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = tta(subject.model, image, key=key, **settings)
        return outcome_of(samples, image.shape[:-1], forward=samples.probs.shape[1])

    return run


def _start_ensemble(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = tta_ensemble(subject.ensemble, image, key=key, **settings)
        return outcome_of(samples, image.shape[:-1], forward=samples.probs.shape[1])

    return run


def _start_blur(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        forward = len(views_for(check_image(subject.model, image), "standard"))
        return outcome_of(tta_blur(subject.model, image, key=key, **settings), image.shape[:-1], forward=forward)

    return run


VIEWS = tuple({"views": names} for names in ("standard", "geometric", "flips"))
METHODS = (
    Method("tta", _start, tta, grid=VIEWS, place=3),
    Method("tta_ensemble", _start_ensemble, tta_ensemble, grid=VIEWS, ensemble=True, control=True, place=13),
    Method("tta_blur", _start_blur, tta_blur, grid=WIDTHS, control=True, place=14),
)
