"""Last-layer Laplace approximation (Ritter et al. 2018; Daxberger et al. 2021) in closed form.

The posterior of the head's weights is a Gaussian around the given ones, with precision H + prior, H the generalised
Gauss-Newton matrix of the fit data's cross-entropy: sum over labelled pixels of (diag(p) - p p') (x) f f', f the features in
front of the head with a 1 for the bias. Samples are draws of the head; the trunk runs once an image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..config import FitConfig
from ..core.types import FitData, Samples
from ..models.model import SegmentationModel
from .method import Method, Outcome, Run, Settings, Subject, fit_of, outcome_of
from .records import as_samples, check_image, head_features

LARGEST = 4096  # numbers of the head whose covariance is still factorised


class HeadPosterior(NamedTuple):
    """The head as a matrix `[f+1 c]` (the last row is the bias) and the Cholesky factor of its precision."""

    mean: Float[np.ndarray, "f c"]
    factor: Float[np.ndarray, "d d"]
    biased: bool


def fit_posterior(model: SegmentationModel, fit: FitData, *, prior_precision: float = 1.0) -> HeadPosterior:
    """The Gaussian over the head's weights, in float64; each labelled pixel of the fit data counts as one observation.

    ValueError for a head that is no 1x1 convolution, or one of too many weights to factorise.
    """
    if not prior_precision > 0:
        raise ValueError(f"laplace: expected a prior precision > 0, got {prior_precision}")
    mean, biased = _head(model)
    size = mean.size
    if size > LARGEST:
        raise ValueError(f"laplace: expected a head of at most {LARGEST} weights, got {size}")
    precision = np.zeros((size, size))
    for images, labels in zip(fit.images, fit.labels, strict=True):
        for image, truth in zip(images, labels, strict=True):
            features = head_features(model, image[None])[0]
            labelled = (np.asarray(truth) >= 0).astype(np.float32).ravel()
            rows = _extended(features.reshape(-1, features.shape[-1]), biased)
            precision += np.asarray(_gauss_newton(rows, jnp.asarray(mean, jnp.float32), labelled), np.float64)
    precision[np.diag_indices(size)] += prior_precision
    return HeadPosterior(mean, np.linalg.cholesky(precision), biased)


def laplace(
    model: SegmentationModel,
    image: Float[ArrayLike, "*space i"],
    *,
    posterior: HeadPosterior,
    samples: int = 16,
    scale: float = 1.0,
    key: Key[Array, ""],
) -> Samples:
    """`samples` draws of the head, of equal weight; `scale` multiplies the posterior's standard deviation.

    Pixels of a fit set are not independent observations, so the posterior is too narrow as it stands: `scale` is what
    validation cases choose.
    """
    x = check_image(model, image)
    features = head_features(model, x[None])[0]
    rows = _extended(features.reshape(-1, features.shape[-1]), posterior.biased)
    drawn = np.asarray(jax.random.normal(key, (posterior.mean.size, samples)), np.float64)
    moves = np.linalg.solve(posterior.factor.T, drawn).T.reshape(samples, *posterior.mean.shape)
    heads = jnp.asarray(posterior.mean + scale * moves, jnp.float32)
    probs = jax.nn.softmax(jnp.einsum("pf,nfc->npc", rows, heads))
    return as_samples(probs.reshape(samples, *x.shape[:-1], -1))


def _head(model: SegmentationModel) -> tuple[Float[np.ndarray, "f c"], bool]:
    """Weights of a 1x1 head as one matrix with the bias, if any, as its last row."""
    parts = {n.rsplit(".", 1)[-1]: np.asarray(model.params[n], np.float64) for n in model.network.tail_names("head")}
    weight = parts.get("weight")
    if weight is None or set(parts) - {"weight", "bias"} or any(n != 1 for n in weight.shape[:-2]):
        raise ValueError(
            f"laplace: {model.network.architecture}: expected a head that is one 1x1 convolution, got parameters "
            f"{', '.join(model.network.tail_names('head'))}"
        )
    matrix, biased = weight.reshape(weight.shape[-2:]), "bias" in parts
    matrix = np.vstack([matrix, parts["bias"]]) if biased else matrix
    sums = model.network.sums  # of channels, where these are not the classes
    return (matrix if sums is None else matrix @ np.asarray(sums, float).T), biased


def _extended(features: Float[Array, "p f"], biased: bool) -> Float[Array, "p g"]:
    return jnp.concatenate([features, jnp.ones((features.shape[0], 1))], 1) if biased else features


@jax.jit
@jax.default_matmul_precision("highest")
def _gauss_newton(rows: Float[Array, "p f"], head: Float[Array, "f c"], labelled: Float[Array, " p"]) -> Float[Array, "d d"]:
    """sum_i f_i f_i' (x) (diag(p_i) - p_i p_i'), indexed as the flattened matrix [f c]."""
    probs = jax.nn.softmax(rows @ head)
    classes = probs.shape[-1]
    blocks = {}
    for a in range(classes):
        for b in range(a, classes):
            weight = labelled * (probs[:, a] * ((a == b) - probs[:, b]))
            blocks[a, b] = blocks[b, a] = (rows * weight[:, None]).T @ rows
    square = jnp.stack([jnp.stack([blocks[a, b] for b in range(classes)], -1) for a in range(classes)], -2)  # [f f a b]
    return square.transpose(0, 2, 1, 3).reshape(rows.shape[1] * classes, -1)


def _start(subject: Subject, settings: Settings) -> Run:
    posterior = fit_posterior(subject.model, fit_of(subject, FitConfig(fit_cases=0)))

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = laplace(subject.model, image, posterior=posterior, samples=16, scale=settings["scale"], key=key)
        return outcome_of(samples, image.shape[:-1], forward=1)

    return run


METHODS = (Method("laplace", _start, laplace, grid=tuple({"scale": s} for s in (1.0, 3.0, 10.0, 30.0, 100.0)), place=6),)
