"""What an adversarial model is asked for: points of the image and the labels wanted there.

Masks are moved as a whole: `mask_targets` makes one target whose members want the reference mask dilated, eroded, or one
of the fixed patterns (`wanted/`, a file each). Pure functions of label maps of any spatial rank; a binary mask gives the
published pair exactly.
"""

import importlib
import math
from collections.abc import Sequence
from types import ModuleType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from ..config import WANTED_MASKS
from ..core.types import Targets
from .morphology import Element, Outside
from .wish import Wish


def ranked_classes(probs: Float[np.ndarray, "*space c"]) -> Int[np.ndarray, "*space c"]:
    """The classes of every pixel from the most to the least probable; of equal ones the smaller first."""
    return np.argsort(-np.asarray(probs), axis=-1, kind="stable").astype(np.int32)


def wanted_kind(shape: str) -> ModuleType:
    """The file of a wanted mask; ValueError if there is none of this name."""
    if shape not in WANTED_MASKS:
        raise ValueError(f"wanted mask: expected one of {', '.join(WANTED_MASKS)}, got {shape!r}")
    return importlib.import_module(f".wanted.{shape}", __package__)


def wanted_mask(
    labels: Int[ArrayLike, "*space"],
    shape: str,
    *,
    radius: int,
    classes: int,
    element: Element = "square",
    outside: Outside = "edge",
    probs: Float[Array, "*space c"] | None = None,
    key: Key[Array, ""] | None = None,
) -> Int[Array, "*space"]:
    """One wanted mask by the name of its file in `wanted/`; ValueError for another name, or where it lacks what it needs."""
    wish = Wish(radius, classes, element, outside, probs, key)
    return wanted_kind(shape).wanted(jnp.asarray(labels), wish).astype(jnp.int32)


def mask_targets(wanted: Sequence[Int[Array, "*space"]], *, members: int) -> Targets:
    """One target of all pixels whose members want the given masks in turn; equal weights that sum to 1.

    Members beyond the number of masks repeat them, as the published code alternates dilated and eroded.
    """
    size = math.prod(wanted[0].shape)
    labels = jnp.stack([wanted[k % len(wanted)].reshape(-1) for k in range(members)])
    return Targets(points=jnp.arange(size)[None], labels=labels[None], weights=jnp.full((1, size), 1.0 / size))
