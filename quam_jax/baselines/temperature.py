"""Temperature scaling (Guo et al. 2017): one number for all logits, fitted on validation cases by likelihood."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import ArrayLike, Float
from scipy import optimize, special

from ..core.types import Samples
from ..evaluation.reference_maps import rater_mean
from ..models.model import SegmentationModel
from .method import Method, Run, Settings, Subject, in_one_pass
from .records import as_samples, check_image

RANGE = (0.05, 20.0)


def temperature(model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, temperature: float) -> Samples:
    """softmax(logits / T) as one sample; ValueError unless T > 0."""
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number > 0, got {temperature}")
    return as_samples(jax.nn.softmax(model(check_image(model, image)[None]) / temperature))


def fit_temperature(logits: Sequence[Float[np.ndarray, "... c"]], targets: Sequence[Float[np.ndarray, "... c"]]) -> float:
    """The T in [0.05, 20] of smallest mean negative log-likelihood a pixel over the validation cases.

    `targets` are class probabilities: rater means, or rows with a single 1. The likelihood is convex in 1/T, so a bounded
    search over ln T finds its minimum. ValueError without a case.
    """
    if not logits or len(logits) != len(targets):
        raise ValueError(f"temperature: expected as many validation targets as logits, got {len(targets)} and {len(logits)}")
    z = np.concatenate([np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in logits])
    y = np.concatenate([np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in targets])

    def loss(log_temperature: float) -> float:
        scaled = z * np.exp(-log_temperature)
        return float(np.mean(special.logsumexp(scaled, axis=-1) * y.sum(-1) - (y * scaled).sum(-1)))

    found = optimize.minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def _start(subject: Subject, settings: Settings) -> Run:
    classes = subject.model.network.classes
    logits = [np.asarray(subject.model(case.image[None])[0]) for case in subject.validation]
    value = settings.get("temperature") or fit_temperature(
        logits, [rater_mean(case.raters, classes=classes) for case in subject.validation]
    )
    return in_one_pass(temperature, temperature=float(value))(subject, {})


METHODS = (Method("temperature", _start, temperature, place=2),)
