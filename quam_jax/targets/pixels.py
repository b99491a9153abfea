"""Which pixels to ask, and the target that each of them makes.

A choice of pixels is an array of flat indices into the image; every function takes label maps or probabilities of any
spatial rank and is deterministic. A pixel target has one point, and its members want other classes there.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ..config import TargetConfig
from ..core.types import Targets
from ..evaluation.reference_maps import contour_distance
from .masks import ranked_classes

Chosen = Int[np.ndarray, " t"]

ENTROPY_BINS = 4


def all_pixels(shape: Sequence[int]) -> Chosen:
    """Every pixel in order."""
    return np.arange(math.prod(shape), dtype=np.int32)


def boundary_band(labels: Int[np.ndarray, "*space"], width: float) -> Chosen:
    """Pixels within the Euclidean distance `width` of a pixel of another label; width 1 is the layer on either side."""
    return np.flatnonzero(contour_distance(labels) <= width).astype(np.int32)


def _entropy(probs: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, " pixels"]:
    flat = np.asarray(probs, np.float64).reshape(-1, probs.shape[-1])
    return -np.sum(flat * np.log(np.where(flat > 0, flat, 1.0)), 1)


def uncertainty_ranked(probs: Float[np.ndarray, "*space c"], count: int) -> Chosen:
    """The `count` pixels of largest entropy, largest first; of equal ones the first in the image."""
    return np.argsort(-_entropy(probs), kind="stable")[:count].astype(np.int32)


def stratified(labels: Int[np.ndarray, "*space"], probs: Float[np.ndarray, "*space c"], count: int, seed: int) -> Chosen:
    """A random sample of `count` pixels, in order, that shares itself out evenly among classes and levels of certainty.

    A stratum is one present class and one of four equal parts of the entropy's range [0, ln c]. Every stratum gives the same
    number of pixels, or all that it has where it is smaller; what is left over goes round again. An image with fewer pixels
    than `count` gives all.
    """
    classes = probs.shape[-1]
    level = np.minimum((_entropy(probs) / math.log(classes) * ENTROPY_BINS).astype(int), ENTROPY_BINS - 1)
    stratum = np.unique(np.asarray(labels).reshape(-1).astype(int) * ENTROPY_BINS + level, return_inverse=True)[1].reshape(-1)
    shuffled = np.random.default_rng(seed).permutation(len(stratum))
    grouped = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sizes = np.bincount(stratum)
    place = np.empty(len(stratum), int)  # of a pixel in the random order of its stratum
    place[grouped] = np.arange(len(stratum)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # taking by place, then by stratum, deals one pixel to each stratum in turn until the count is reached
    return np.sort(np.lexsort((stratum, place))[:count]).astype(np.int32)


def listed(points: Sequence[Sequence[int]], shape: Sequence[int]) -> Chosen:
    """Flat indices of pixels given by one index an axis; ValueError for a pixel outside the image."""
    for point in points:
        if len(point) != len(shape) or not all(0 <= index < side for index, side in zip(point, shape, strict=True)):
            inside = ", ".join(f"0..{side - 1}" for side in shape)
            raise ValueError(
                f"pixel list: expected {len(shape)} indices inside the image ({inside}), got {','.join(map(str, point))}"
            )
    return np.ravel_multi_index(np.asarray(points, int).T.reshape(len(shape), -1), tuple(shape)).astype(np.int32)


def chosen_pixels(
    settings: TargetConfig, labels: Int[np.ndarray, "*space"], probs: Float[np.ndarray, "*space c"], *, seed: int
) -> Chosen:
    """The pixels that the settings ask for; ValueError for a listed pixel outside the image."""
    if settings.pixels == "all":
        return all_pixels(labels.shape)
    if settings.pixels == "band":
        return boundary_band(labels, settings.band_width)
    if settings.pixels == "uncertain":
        return uncertainty_ranked(probs, settings.pixel_count)
    if settings.pixels == "stratified":
        return stratified(labels, probs, settings.pixel_count, seed)
    return listed(settings.listed_points, labels.shape)


def pixel_targets(points: Chosen, probs: Float[np.ndarray, "*space c"], *, members: int) -> Targets:
    """One target a pixel (p = 1): member 0 wants the runner-up class there, further members the next ones.

    After the least probable class comes the present one: with two classes member 1 pulls in the opposite direction.
    """
    classes = probs.shape[-1]
    labels = ranked_classes(np.asarray(probs).reshape(-1, classes)[points])[:, (np.arange(members) + 1) % classes]
    # on the host: a device would compile its copies anew for every number of pixels
    own = np.asarray(points, np.int32)[:, None]
    return Targets(own, labels[:, :, None], np.ones(own.shape, np.float32))  # type: ignore[arg-type]  # NumPy arrays
