"""Image shifts at graded strength, on prepared images: what a network may meet that it has not seen.

Strength 1, 2, 3 are mild, moderate and strong, in units of the image's own standard deviation where they have one.
"""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

KINDS = ("noise", "blur", "contrast", "brightness")


def parse_shift(text: str) -> tuple[str, float]:
    """`noise:2` as kind and strength; ValueError for another kind or a strength that is not above 0."""
    kind, _, strength = text.partition(":")
    try:
        value = float(strength)
    except ValueError:
        value = 0.0
    if kind not in KINDS or not value > 0:
        raise ValueError(f"shift: expected KIND:STRENGTH with one of {', '.join(KINDS)} and a number > 0, got {text!r}")
    return kind, value


def shifted(image: Float[np.ndarray, "*space i"], shift: str, *, seed: int) -> Float[np.ndarray, "*space i"]:
    """The image after `none` or KIND:STRENGTH; the seed decides the noise.

    noise: Gaussian of 0.25 s standard deviations; blur: Gaussian of 0.75 s pixels; contrast: deviations from the mean times
    1/(1 + 0.5 s); brightness: plus 0.5 s standard deviations.
    """
    if shift == "none":
        return image
    kind, s = parse_shift(shift)
    axes = tuple(range(image.ndim - 1))
    deviation, mean = image.std(axis=axes, keepdims=True), image.mean(axis=axes, keepdims=True)
    if kind == "noise":
        changed = image + 0.25 * s * deviation * np.random.default_rng(seed).normal(size=image.shape)
    elif kind == "blur":
        changed = ndimage.gaussian_filter(image, (*(0.75 * s,) * (image.ndim - 1), 0), mode="nearest")
    elif kind == "contrast":
        changed = mean + (image - mean) / (1 + 0.5 * s)
    else:
        changed = image + 0.5 * s * deviation
    return changed.astype(np.float32)
