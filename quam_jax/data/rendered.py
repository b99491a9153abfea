"""CT-like pictures drawn from the masks of real raters: synthetic images with real disagreement.

Multi-rater masks can be shared where scans cannot. A rendering draws lung texture, vessels and a nodule where the raters
outlined one. It is no CT image and proves nothing about scans; it shows what a method does when the disagreement is that of
people and the image evidence is known. Two renderings differ in what the image tells:

- `soft`: the nodule's density is the raters' mean, so the image shows where people disagree;
- `crisp`: the nodule is the raters' majority with a sharp edge, so the image hides it, and a network trained on majority
  masks becomes over-confident.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Integer, UInt8
from scipy import ndimage

Rendering = Literal["soft", "crisp"]
RENDERINGS: tuple[Rendering, ...] = ("soft", "crisp")
LUNG, TISSUE = -850.0, 20.0  # Hounsfield units
WINDOW = (-1100.0, 300.0)  # shown as 0 to 255


def render(raters: Integer[np.ndarray, " a h w"], *, rendering: Rendering, seed: int) -> UInt8[np.ndarray, "h w"]:
    """One picture for the masks of one nodule; equal seeds give equal backgrounds in both renderings.

    ValueError for another rendering, or masks that are not 0 and 1 of shape [a h w].
    """
    raters = np.asarray(raters)
    if rendering not in RENDERINGS:
        raise ValueError(f"rendering: expected {' or '.join(RENDERINGS)}, got {rendering!r}")
    if raters.ndim != 3 or raters.shape[0] < 1 or not np.isin(raters, (0, 1)).all():
        raise ValueError(f"raters: expected masks of 0 and 1 with axes [a h w], got shape {raters.shape}")
    rng = np.random.default_rng(seed)
    shape = raters.shape[1:]
    field = LUNG + 35.0 * _grain(rng, shape, 2.0) + 45.0 * _grain(rng, shape, 8.0)
    for _ in range(rng.poisson(2)):
        field = _over(field, _vessel(rng, shape), TISSUE - rng.uniform(0, 200))
    for _ in range(rng.poisson(1)):
        field = _over(field, _blob(rng, shape), TISSUE - rng.uniform(0, 300))
    density = TISSUE - rng.uniform(0, 250) + 40.0 * _grain(rng, shape, 2.5)
    field = _over(field, nodule_opacity(raters, rendering=rendering), density)
    field = ndimage.gaussian_filter(field, 0.6) + rng.normal(0, 30.0, shape)
    low, high = WINDOW
    return np.rint(255 * np.clip((field - low) / (high - low), 0, 1)).astype(np.uint8)


def nodule_opacity(raters: Integer[np.ndarray, " a h w"], *, rendering: Rendering) -> Float[np.ndarray, "h w"]:
    """How much of each pixel is nodule: the raters' mean, slightly smoothed, or their majority (more than half)."""
    mean = np.asarray(raters).mean(0)
    return ndimage.gaussian_filter(mean, 0.8) if rendering == "soft" else (mean > 0.5).astype(np.float64)


def _over(field: np.ndarray, opacity: np.ndarray, density: float | np.ndarray) -> np.ndarray:
    return field * (1 - opacity) + density * opacity


def _grain(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    """Noise of standard deviation 1, correlated over `width` pixels."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), width, mode="wrap")
    return noise / noise.std()


def _vessel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A straight tube through the picture."""
    rows, columns = np.indices(shape)
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5) * min(shape)
    centre = [(n - 1) / 2 for n in shape]
    distance = (rows - centre[0]) * np.cos(angle) + (columns - centre[1]) * np.sin(angle) - offset
    return np.exp(-np.square(distance / rng.uniform(0.6, 1.6)) / 2)


def _blob(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A soft spot away from the middle, where the nodule is: something else that looks like one."""
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.48) * min(shape)
    centre = [(n - 1) / 2 + radius * f(angle) for n, f in zip(shape, (np.sin, np.cos), strict=True)]
    rows, columns = np.indices(shape)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    return 1 / (1 + np.exp(2 * (distance - rng.uniform(1.5, 3.5))))
