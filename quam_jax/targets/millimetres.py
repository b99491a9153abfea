"""Wanted masks of a volume, moved by millimetres: one definition over the whole volume, whatever patches look at it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from ..config import TargetConfig
from .masks import wanted_kind
from .wish import Wish


def wanted_volume(
    labels: Int[np.ndarray, "*space"],
    shape: str,
    *,
    settings: TargetConfig,
    spacing: Sequence[float],
    probs: Float[np.ndarray, "*space c"],
    key: Key[jax.Array, ""],
) -> Int[np.ndarray, "*space"]:
    """One wanted mask by name; `radius` counts steps of the middle one of the voxel sides, in mm the same on all axes.

    Masks that know no distance are those of an image.
    """
    kind = wanted_kind(shape)
    wish = Wish(settings.radius, probs.shape[-1], settings.element, settings.outside, probs, key)
    if hasattr(kind, "wanted_mm"):
        return kind.wanted_mm(labels, wish._replace(radius=settings.radius * float(np.median(spacing))), spacing=spacing)
    return np.asarray(kind.wanted(jnp.asarray(labels), wish), labels.dtype)
