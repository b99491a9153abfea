"""Predictions that may be displaced by about a pixel: what raters disagree about at a contour, and shifts of an image move.

Every sample stands for copies of itself that are displaced by a Gaussian of some width, so that the mixture of all is the mean
prediction blurred by it, and the mean entropy of its parts the aleatoric map blurred. Total is the entropy of that mixture, and
epistemic the rest, which is not negative: the entropy is concave.
"""

import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage
from scipy.special import entr

from ..core.types import Uncertainty


def displaced(
    aleatoric: Float[Array | np.ndarray, "*space"], mean: Float[Array | np.ndarray, "*space c"], *, width: float
) -> Uncertainty:
    """Uncertainty `[*space]` with samples displaced by a Gaussian of `width` pixels, of their mean and their own mean entropy."""
    own = np.asarray(aleatoric, np.float64)
    total = entr(blurred(np.asarray(mean), width)).sum(-1)
    within = np.minimum(_gaussian(own, (width,) * own.ndim), total)
    return Uncertainty(*(part.astype(np.float32) for part in (total, within, total - within)))  # type: ignore[arg-type]  # of NumPy


def blurred(probs: Float[np.ndarray, "*space c"], width: float) -> Float[np.ndarray, "*space c"]:
    """Class probabilities, each blurred by a Gaussian of `width` pixels, in double precision."""
    smooth = _gaussian(probs.astype(np.float64), (*(width,) * (probs.ndim - 1), 0))
    return smooth / smooth.sum(-1, keepdims=True)


def _gaussian(values: np.ndarray, widths: tuple[float, ...]) -> np.ndarray:
    return ndimage.gaussian_filter(values, widths, mode="nearest")
