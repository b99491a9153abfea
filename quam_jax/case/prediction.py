"""The given network's logits over a large image or a volume: patch by patch, mirrored, averaged over folds, as nnU-Net predicts.

What is averaged are logits, over mirrorings and folds alike, and over patches with Gaussian weights.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from ..core.compilation import side_by_side
from ..core.progress import tell
from ..data.large import label_type, release, row_blocks, zeros
from ..data.patches import Patches, cut, importance, weight_sum
from ..data.preprocess import PreparedInParts
from ..models.model import SegmentationModel

TOGETHER = 2**17  # voxels of the patches that go through the network together; two such batches are in flight


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All subsets of the axes that may be flipped, the empty one first."""
    return [subset for count in range(len(axes) + 1) for subset in itertools.combinations(axes, count)]


def predict_logits(
    models: Sequence[SegmentationModel],
    volume: Float[np.ndarray, "*grid i"] | PreparedInParts,
    patches: Patches,
    *,
    mirror_axes: Sequence[int] = (),
    precision: str = "highest",
) -> Float[np.ndarray, "*grid c"]:
    """Mean logits of the models over a prepared volume, float32; `mirror_axes` are axes of the patch.

    Memory grows with the volume only by the logits themselves.
    """
    total = zeros((*patches.shape, models[0].network.classes))
    flips = mirrorings(mirror_axes)
    for index, logits in _logits_of_patches(models, volume, patches, flips=flips, precision=precision):
        outer, inner = patches.overlap(index)
        total[outer] += logits[inner]
        release(total)
    for rows in row_blocks(total.shape):
        box = (rows, *(slice(0, n) for n in patches.shape[1:]))
        total[rows] /= weight_sum(patches, box)[..., None] * np.float32(len(models) * len(flips))
        release(total)
    return total


def to_probs(logits: Float[np.ndarray, "*grid c"]) -> Int[np.ndarray, "*grid"]:
    """Turn logits into class probabilities, in their place; returns the labels, of the smallest type that holds them."""
    labels = zeros(logits.shape[:-1], label_type(logits.shape[-1]))
    for rows in row_blocks(logits.shape):
        labels[rows] = logits[rows].argmax(-1)
        logits[rows] = softmax(logits[rows], -1)
    return labels


def _logits_of_patches(
    models: Sequence[SegmentationModel],
    volume: np.ndarray | PreparedInParts,
    patches: Patches,
    *,
    flips: Sequence[tuple[int, ...]],
    precision: str,
) -> Iterator[tuple[int, np.ndarray]]:
    """Weighted logits `[*patch c]` of every model, patch and flip, with the patch's number."""
    rank = models[0].network.rank
    weights = importance(patches.patch)[..., None]
    jobs = list(itertools.product(range(len(patches.starts)), flips))
    together = min(max(1, TOGETHER // math.prod(patches.patch)), len(jobs))

    def run(what: tuple[SegmentationModel, int]) -> list[tuple[int, np.ndarray]]:
        model, start = what
        part = jobs[start : start + together]
        images = np.zeros((together, *patches.patch[len(patches.patch) - rank :], volume.shape[-1]), np.float32)
        for image, (index, flip) in zip(images, part, strict=False):
            image[...] = np.flip(cut(volume, patches, index).reshape(image.shape), flip)
        with jax.default_matmul_precision(precision):
            logits = np.asarray(model(images))
        return [
            (index, np.flip(value, flip).reshape(*patches.patch, -1) * weights)
            for value, (index, flip) in zip(logits, part, strict=False)
        ]

    passes = list(itertools.product(models, range(0, len(jobs), together)))
    for number, found in enumerate(side_by_side(run, passes), 1):
        yield from found
        tell("predicting", "patch", number * len(patches.starts) // len(passes), len(patches.starts))
