"""Which views a network understands: those under which it still finds on the fit data what it finds there without them.

A network that never saw an image upside down may find nothing in one, and would call every pixel of it uncertain. So views are
tried on some fit images before any search, by the Dice of what is rare there: a loss would not do, as that of a network that is
sure of itself grows tenfold under a little noise.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..core.fit import part_size
from ..core.views import View, view_images

Logits = Callable[[Any], Any]  # of images, such as a SegmentationModel

TRIED = 4  # fit images at most
KEPT = 0.75  # of its Dice that a view must leave


def views_not_understood(
    model: Logits,
    images: Float[Array | np.ndarray, "k b *space i"],
    labels: Int[Array | np.ndarray, "k b *space"],
    views: Sequence[View],
) -> tuple[str, ...]:
    """The names of the views under which the network finds less than three quarters of what it finds without, on some fit images.

    It is told by Dice: the mean over the classes that the masks show, but for the most frequent one. A network that finds nothing
    as it is understands every view as well.
    """
    some, wanted = np.asarray(images[0])[:TRIED], np.asarray(labels[0])[:TRIED]
    alone = _dice(np.stack([_labels(model, one[None])[0] for one in some]), wanted)
    seen = [view_images(views, jnp.asarray(one), jax.random.key(n)) for n, one in enumerate(some)]
    missed = []
    for v, view in enumerate(views):
        said = [jnp.asarray(_labels(model, one[v : v + 1])[0][..., None], jnp.float32) for one in seen]
        found = np.stack([np.asarray(view.invert(labels), np.int64)[..., 0] for labels in said])
        if _dice(found, wanted) < KEPT * alone:
            missed.append(view.name)
    return tuple(missed)


def _labels(model: Logits, images: Float[Array | np.ndarray, "b *space i"]) -> Int[np.ndarray, "b *space"]:
    size = part_size(images.shape[:-1])
    parts = [np.asarray(model(images[start : start + size])).argmax(-1) for start in range(0, len(images), size)]
    return np.concatenate(parts)


def _dice(found: Int[np.ndarray, "b *space"], wanted: Int[np.ndarray, "b *space"]) -> float:
    labelled = wanted >= 0
    counts = np.bincount(wanted[labelled])
    rare = [c for c in np.flatnonzero(counts) if c != counts.argmax()]
    scores = []
    for c in rare:
        own, drawn = labelled & (found == c), wanted == c
        scores.append(2 * (own & drawn).sum() / (own.sum() + drawn.sum()))
    return float(np.mean(scores)) if scores else 0.0
