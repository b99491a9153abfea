"""Where the patches of a sliding window lie and how much each of their voxels counts: nnU-Net's rules.

Patches overlap by half or more and are spread evenly; their predictions are averaged with Gaussian weights. A grid smaller
than a patch is padded with zeros around its centre.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import ndimage

from .preprocess import PreparedInParts

STEP = 0.5  # of a patch, between two neighbours at most
HIGHEST_WEIGHT = 10.0


class Patches(NamedTuple):
    """The patches of one grid; one patch of the grid's own shape is the grid itself.

    `padded` is the grid's shape after padding, `before` how many voxels of padding stand in front of each axis, `starts`
    the first voxel of every patch in the padded grid, `patch` their shape.
    """

    shape: tuple[int, ...]
    padded: tuple[int, ...]
    before: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    patch: tuple[int, ...]

    def start(self, index: int) -> tuple[int, ...]:
        """The first voxel of a patch, in voxels of the grid; negative in the padding."""
        return tuple(s - b for s, b in zip(self.starts[index], self.before, strict=True))

    def overlap(self, index: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of a patch inside the grid proper: its voxels in the grid, and the same voxels in the patch."""
        axes = zip(self.starts[index], self.patch, self.before, self.shape, strict=True)
        inside = [(max(s, b), min(s + p, b + n), s, b) for s, p, b, n in axes]
        return (
            tuple(slice(low - b, high - b) for low, high, _, b in inside),
            tuple(slice(low - s, high - s) for low, high, s, _ in inside),
        )


def lay_patches(shape: Sequence[int], patch: Sequence[int], *, step: float = STEP) -> Patches:
    """Spread patches over a grid; a patch of fewer axes than the grid takes every slice of the leading ones."""
    shape = tuple(shape)
    patch = (1,) * (len(shape) - len(patch)) + tuple(patch)
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    before = tuple((m - n) // 2 for n, m in zip(shape, padded, strict=True))
    starts = itertools.product(*(_starts(n, p, step) for n, p in zip(padded, patch, strict=True)))
    return Patches(shape, padded, before, tuple(starts), patch)


def cut(volume: Num[np.ndarray, "*space i"] | PreparedInParts, patches: Patches, index: int) -> Num[np.ndarray, "*patch i"]:
    """The values of one patch, zero where it is padding."""
    outer, inner = patches.overlap(index)
    if all(s.start == 0 and s.stop == n for s, n in zip(inner, patches.patch, strict=True)):
        return volume[outer]
    inside = volume[outer]
    patch = np.zeros((*patches.patch, *volume.shape[len(patches.shape) :]), inside.dtype)
    patch[inner] = inside
    return patch


@functools.lru_cache(maxsize=4)
def _importance(patch: tuple[int, ...]) -> Float[np.ndarray, "*patch"]:
    impulse = np.zeros(patch)
    impulse[tuple(n // 2 for n in patch)] = 1
    weights = ndimage.gaussian_filter(impulse, [n / 8 for n in patch], 0, mode="constant", cval=0)
    weights = (weights / (weights.max() / HIGHEST_WEIGHT)).astype(np.float32)
    weights[weights == 0] = weights[weights > 0].min()
    weights.setflags(write=False)
    return weights


def importance(patch: Sequence[int]) -> Float[np.ndarray, "*patch"]:
    """The weight of every voxel of a patch: a Gaussian of width patch/8 around its centre, scaled to a maximum of 10.

    Where it underflows to 0 the smallest positive weight stands, so that every voxel counts. The array is shared: read only.
    """
    return _importance(tuple(patch))


@functools.lru_cache(maxsize=4)
def _first_voxels(patches: Patches) -> Int[np.ndarray, "n rank"]:
    return np.array(patches.starts) - np.array(patches.before)


def weight_sum(patches: Patches, box: tuple[slice, ...] | None = None) -> Float[np.ndarray, "*grid"]:
    """The sum of the weights of all patches at every voxel of the grid, or of a box of it."""
    box = tuple(slice(0, n) for n in patches.shape) if box is None else box
    weights, total = importance(patches.patch), np.zeros([s.stop - s.start for s in box], np.float32)
    low, high = (np.array([getattr(s, end) for s in box]) for end in ("start", "stop"))
    first = _first_voxels(patches)
    for index in np.flatnonzero(((first < high) & (first + np.array(patches.patch) > low)).all(1)).tolist():
        outer, inner = patches.overlap(index)
        here, there = [], []
        for o, i, b in zip(outer, inner, box, strict=True):
            start, stop = max(o.start, b.start), min(o.stop, b.stop)
            here.append(slice(start - o.start + i.start, stop - o.start + i.start))
            there.append(slice(start - b.start, stop - b.start))
        total[tuple(there)] += weights[tuple(here)]
    return total


def _starts(size: int, patch: int, step: float) -> list[int]:
    if patch == 1:
        return list(range(size))
    count = math.ceil((size - patch) / (patch * step)) + 1
    apart = (size - patch) / (count - 1) if count > 1 else 0
    return [int(np.round(apart * i)) for i in range(count)]
