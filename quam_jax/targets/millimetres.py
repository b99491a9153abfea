"""Wanted masks of a volume, moved by millimetres: one definition over the whole volume, whatever patches look at it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key
from scipy import ndimage

from ..config import TargetConfig
from .masks import wanted_mask

_ROUNDING = 1e-6


def dilate_mm(labels: Int[np.ndarray, "*space"], *, radius: float, spacing: Sequence[float]) -> Int[np.ndarray, "*space"]:
    """Grow the foreground to all voxels whose centre is within `radius` mm of it; each takes the nearest voxel's label."""
    if not labels.any():
        return labels.copy()
    distance, nearest = ndimage.distance_transform_edt(labels == 0, sampling=spacing, return_indices=True)
    return np.where(distance <= radius + _ROUNDING, labels[tuple(nearest)], 0).astype(labels.dtype)


def erode_mm(
    labels: Int[np.ndarray, "*space"], *, radius: float, spacing: Sequence[float], outside: str = "edge"
) -> Int[np.ndarray, "*space"]:
    """Shrink every structure to the voxels with no voxel of another label within `radius` mm.

    `outside` says what lies beyond the volume: more of the same (`edge`), or `background`.
    """
    kept = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        inside = labels == label
        if outside == "background":
            distance = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[(slice(1, -1),) * labels.ndim]
        elif inside.all():
            return labels.copy()
        else:
            distance = ndimage.distance_transform_edt(inside, sampling=spacing)
        kept[inside & (distance > radius + _ROUNDING)] = label
    return kept


def wanted_volume(
    labels: Int[np.ndarray, "*space"],
    shape: str,
    *,
    settings: TargetConfig,
    spacing: Sequence[float],
    probs: Float[np.ndarray, "*space c"],
    key: Key[jax.Array, ""],
) -> Int[np.ndarray, "*space"]:
    """One wanted mask by name; `radius` counts steps of the middle one of the voxel sides, in mm the same on all axes."""
    radius = settings.radius * float(np.median(spacing))
    if shape == "dilate":
        return dilate_mm(labels, radius=radius, spacing=spacing)
    if shape == "erode":
        return erode_mm(labels, radius=radius, spacing=spacing, outside=settings.outside)
    wanted = wanted_mask(
        jnp.asarray(labels),
        shape,
        radius=settings.radius,
        classes=probs.shape[-1],
        outside=settings.outside,
        probs=jnp.asarray(probs),
        key=key,
    )
    return np.asarray(wanted, labels.dtype)
