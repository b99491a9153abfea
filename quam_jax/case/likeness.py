"""Whether an image looks like the fit images: a bound that is kept on others says little of it.

Five plain statistics of the prepared values are compared, channel by channel: the darkest and brightest (5 and 95 %), the
middle, their spread, and how much neighbours differ in proportion to it. What is far outside of all fit images is told.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

FAR = 3.0  # times the range of the fit images outside of it,
LEAST = 0.5  # and their spread times this, at least: images prepared alike have hardly any range
FEWEST = 3  # fit images that show a range
MOST = 2**16  # pixels that are looked at, evenly spread
NAMES = ("darkest values", "middle", "brightest values", "contrast", "fineness")


class Looks(NamedTuple):
    """What the fit images look like: the smallest and largest of every statistic, by channel, and the spread of their values."""

    low: Float[np.ndarray, "s i"]
    high: Float[np.ndarray, "s i"]
    spread: Float[np.ndarray, " i"]

    def unlike(self, image: Float[np.ndarray, "*space i"]) -> list[str]:
        """The statistics in which a prepared image is unlike all of them."""
        found = statistics_of(image)
        scale = np.stack([self.spread] * 4 + [np.ones_like(self.spread)])
        allowed = np.maximum(FAR * (self.high - self.low), LEAST * scale)
        far = (found < self.low - allowed) | (found > self.high + allowed)
        return [name for name, own in zip(NAMES, far, strict=True) if own.any()]


def looks_of(images: Float[np.ndarray, "k b *space i"], labels: Int[np.ndarray, "k b *space"]) -> Looks | None:
    """What fit images look like where somebody rated them (padding is not rated); None of fewer than three."""
    pairs = [pair for batch in zip(images, labels, strict=True) for pair in zip(*batch, strict=True)]
    known = [statistics_of(image, marks >= 0) for image, marks in pairs if (marks >= 0).any()]
    if len(known) < FEWEST:
        return None
    found = np.stack(known)
    return Looks(found.min(0), found.max(0), found[:, 3].mean(0))


def statistics_of(
    image: Float[np.ndarray, "*space i"], inside: Bool[np.ndarray, "*space"] | None = None
) -> Float[np.ndarray, "s i"]:
    """The statistics of an image by channel, of the pixels inside; fineness is 0 where nothing varies."""
    if inside is None:
        inside = np.ones(image.shape[:-1], bool)
    step = _step(image.shape[:-1])
    near = inside[1:] & inside[:-1]
    apart = np.abs(image[1:][near][::step].astype(np.float64) - image[:-1][near][::step])
    values = image[inside][::step].astype(np.float64)
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=0)
    spread = values.std(0)
    fineness = (apart.mean(0) if len(apart) else np.zeros_like(spread)) / np.where(spread > 0, spread, 1)
    return np.stack([low, middle, high, spread, fineness])


def _step(space: Sequence[int]) -> int:
    return max(1, int(np.prod(space)) // MOST)
