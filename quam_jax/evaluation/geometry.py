"""The pixel grid: voxel sizes and the smallest box that holds a mask.

Lengths of this package are in the unit of `spacing` (millimetres in practice); without a spacing they are
in pixels.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped


def voxel_size(spacing: Sequence[float] | None, rank: int) -> Float[np.ndarray, " rank"]:
    """Edge lengths of a voxel, 1 along every axis where no spacing is given.

    Raises ValueError unless there is one positive, finite number an axis.
    """
    if spacing is None:
        return np.ones(rank)
    size = np.asarray(spacing, dtype=np.float64)
    if size.shape != (rank,) or not np.all(np.isfinite(size) & (size > 0)):
        raise ValueError(f"spacing: expected {rank} positive numbers, got {tuple(spacing)}")
    return size


def within(distance: Float[np.ndarray, "*axes"], limit: float) -> Bool[np.ndarray, "*axes"]:
    """Distances up to a limit, with room for rounding: 0.3 mm is within 3 voxels of 0.1 mm."""
    return np.asarray(distance) <= limit * (1 + 1e-9)


def bounding_box(mask: Shaped[np.ndarray, "*space"]) -> tuple[slice, ...]:
    """The smallest box around the non-zero pixels, as slices; empty slices if there are none."""
    mask = np.asarray(mask) != 0
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0))
    return tuple(box)


def wider(box: Sequence[slice], margin: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """A box with a margin of so many pixels along each axis, as far as the image of this shape goes."""
    return tuple(
        slice(max(part.start - more, 0), min(part.stop + more, length))
        for part, more, length in zip(box, margin, shape, strict=True)
    )
