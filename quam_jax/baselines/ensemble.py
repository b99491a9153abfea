"""Deep ensemble (Lakshminarayanan et al. 2017): several checkpoints of one task, such as the folds of nnU-Net."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..core.types import Samples
from ..models.model import SegmentationModel
from .method import Method, Outcome, Run, Settings, Subject, outcome_of
from .records import as_samples, check_image, predict_batch


def ensemble(models: Sequence[SegmentationModel], image: Float[ArrayLike, "*space i"]) -> Samples:
    """One sample a model; ValueError without two models, or where they differ in classes or channels."""
    if len(models) < 2:
        raise ValueError(f"ensemble: expected at least two models, got {len(models)}")
    check_ensemble(models)
    return as_samples(jnp.concatenate([predict_batch(m, check_image(m, image)[None]) for m in models]))


def check_ensemble(models: Sequence[SegmentationModel]) -> None:
    """ValueError for models that differ in classes or channels."""
    kinds = {(m.network.in_channels, m.network.classes, m.network.rank) for m in models}
    if len(kinds) > 1:
        raise ValueError(f"ensemble: expected models of equal channels, classes and rank, got {sorted(kinds)}")


def _start(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        return outcome_of(ensemble(subject.ensemble, image), image.shape[:-1], forward=len(subject.ensemble))

    return run


METHODS = (Method("ensemble", _start, ensemble, ensemble=True, place=4),)
