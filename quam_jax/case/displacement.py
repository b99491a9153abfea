"""Predictions that may be displaced by about a pixel: what raters disagree about at a contour, and shifts of an image move.

Every sample stands for copies of itself that are displaced by a Gaussian of some width, so that the mixture of all is the mean
prediction blurred by it, and the mean entropy of its parts the aleatoric map blurred. Total is the entropy of that mixture, and
epistemic the rest, which is not negative: the entropy is concave.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from ..core.decomposition import decompose
from ..core.types import Samples, Uncertainty


def displaced(found: Uncertainty, mean: Float[Array | np.ndarray, "p c"], *, width: float, shape: tuple[int, ...]) -> Uncertainty:
    """Uncertainty `[p]` of an image of this shape with samples displaced by a Gaussian of `width` pixels; `mean` is theirs."""
    if width == 0:
        return found
    probs = _blurred(np.asarray(mean, np.float64).reshape(*shape, -1), (*(width,) * len(shape), 0))
    probs /= probs.sum(-1, keepdims=True)
    total = -np.sum(probs * np.log(np.where(probs > 0, probs, 1.0)), -1)
    aleatoric = np.minimum(_blurred(np.asarray(found.aleatoric, np.float64).reshape(shape), (width,) * len(shape)), total)
    parts = (total, aleatoric, total - aleatoric)
    return Uncertainty(*(part.reshape(-1).astype(np.float32) for part in parts))  # type: ignore[arg-type]  # arrays of NumPy


def displaced_samples(samples: Samples, *, width: float, shape: tuple[int, ...]) -> Uncertainty:
    """Uncertainty `[p]` of the samples of one target, of an image of this shape, displaced by a Gaussian of `width` pixels."""
    plain = decompose(samples)
    mean = jnp.einsum("n,npc->pc", samples.weights[0], samples.probs[0])
    return displaced(Uncertainty(*(values[0] for values in plain)), mean, width=width, shape=shape)


def _blurred(values: np.ndarray, widths: tuple[float, ...]) -> np.ndarray:
    return ndimage.gaussian_filter(values, widths, mode="nearest")
