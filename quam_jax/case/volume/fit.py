"""Fit data from volumes: patches on the network's grid that show enough foreground, the same ones in every run.

Cases are prepared as images to predict are. Of each case's patches two in three are centred on a foreground voxel, labels in
turn, and the third is anywhere; places come from a generator seeded by the case's number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ...data.geometry import Geometry
from ...data.plans import Plan, labels_to_grid, to_grid
from ...data.preprocess import IGNORED, stack_fit_batches
from ...models.coding import Coding

FOREGROUND_SHARE = 3  # every such patch is anywhere, the others show foreground
BATCH_VOXELS = 2**19  # of the fit batch where the settings leave its size open


class FitVolume(NamedTuple):
    """One fit case as read."""

    image: Float[np.ndarray, "*space i"]
    labels: Int[np.ndarray, "*space"]
    geometry: Geometry


def patches_a_case(cases: int, wanted: int) -> int:
    """How many patches each case gives so that there are as many as asked for; one where none is asked for."""
    return max(1, -(-wanted // cases))


def fit_patches(
    volume: FitVolume, plan: Plan, coding: Coding, *, count: int, seed: int
) -> list[tuple[Float[np.ndarray, "*patch i"], Int[np.ndarray, "*patch"]]]:
    """Some patches of a case with their classes; -1 marks padding and the label that is to be ignored."""
    image, grid = to_grid(volume.image, volume.geometry, plan)
    labels = labels_to_grid(volume.labels, grid)
    table = np.full(max(coding.labels, int(labels.max()) + 1), IGNORED, np.int32)
    table[: coding.labels] = coding.class_of_label
    if plan.ignore_label is not None:
        table[plan.ignore_label] = IGNORED
    classes = table[labels]
    size = (1,) * (3 - plan.rank) + plan.patch
    rng = np.random.default_rng(seed)
    present = [label for label in np.unique(labels) if label > 0 and label != plan.ignore_label]
    patches = []
    for number in range(count):
        if present and number % FOREGROUND_SHARE != FOREGROUND_SHARE - 1:
            places = np.argwhere(labels == present[number % len(present)])
            centre = places[rng.integers(len(places))]
        else:
            centre = np.array([rng.integers(n) for n in labels.shape])
        patches.append(tuple(_around(array, centre, size, fill) for array, fill in ((image, 0), (classes, IGNORED))))
    lead = tuple(range(3 - plan.rank))
    return [(x.squeeze(lead), y.squeeze(lead)) for x, y in patches]


def batch_patches(
    patches: Sequence[tuple[np.ndarray, np.ndarray]], *, fit_batch: int
) -> tuple[Float[np.ndarray, "k b *patch i"], Int[np.ndarray, "k b *patch"]]:
    """Fit batches of `fit_batch` patches; 0 takes as many as fit `BATCH_VOXELS`."""
    size = fit_batch or max(1, min(len(patches), BATCH_VOXELS // patches[0][1].size))
    return stack_fit_batches([x for x, _ in patches], [y for _, y in patches], batch_size=size)


def _around(array: np.ndarray, centre: Int[np.ndarray, " 3"], size: Sequence[int], fill: int) -> np.ndarray:
    """The patch around a voxel, moved inside the volume; what a small volume lacks is `fill`."""
    patch = np.full((*size, *array.shape[3:]), fill, array.dtype)
    outer, inner = [], []
    for n, p, c in zip(array.shape, size, centre, strict=False):
        start = min(max(int(c) - p // 2, 0), n - p) if n >= p else -((p - n) // 2)
        low, high = max(start, 0), min(start + p, n)
        outer.append(slice(low, high))
        inner.append(slice(low - start, high - start))
    patch[tuple(inner)] = array[tuple(outer)]
    return patch
