"""Test-time augmentation (Wang et al. 2019): predictions of changed images, brought back to the image's own grid.

Every change of place has an exact inverse: a flip or a quarter turn is a permutation of pixels, and the zoom interpolates
between pixels (sides 2n - 1) and its inverse keeps the original ones. So a network that treats every pixel alike gives equal
samples under all of them. Noise, brightness and blur leave pixels in place.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..core.types import Samples
from ..models.model import SegmentationModel
from .method import Method, Outcome, Run, Settings, Subject, outcome_of
from .records import as_samples, check_image, predict_batch

GEOMETRIC = ("identity", "flip0", "flip1", "rotate1", "rotate2", "rotate3")
ALL = (*GEOMETRIC, "noise", "brighter", "darker", "blur", "zoom")


class Transform(NamedTuple):
    """A change of the image and the way back of its prediction; `cost` in passes over an image of the original size."""

    apply: Callable[[Array, Key[Array, ""]], Array]
    invert: Callable[[Array], Array]
    cost: float = 1.0


def transforms(*, strength: float = 0.1) -> dict[str, Transform]:
    """Every transform by name; `strength` is the standard deviation of the noise and the offset of brightness, in the
    units of the prepared image."""

    def same(probs: Array) -> Array:
        return probs

    def flip(axis: int) -> Transform:
        return Transform(lambda x, key: jnp.flip(x, axis), lambda y: jnp.flip(y, axis))

    def rotate(k: int) -> Transform:
        return Transform(lambda x, key: jnp.rot90(x, k), lambda y: jnp.rot90(y, -k))

    return (
        {f"flip{axis}": flip(axis) for axis in range(3)}
        | {f"rotate{k}": rotate(k) for k in (1, 2, 3)}
        | {
            "identity": Transform(lambda x, key: x, same),
            "noise": Transform(lambda x, key: x + strength * jax.random.normal(key, x.shape), same),
            "brighter": Transform(lambda x, key: x + strength, same),
            "darker": Transform(lambda x, key: x - strength, same),
            "blur": Transform(lambda x, key: _smooth(x), same),
            "zoom": Transform(lambda x, key: _between(x), _every_second, cost=4.0),
        }
    )


def tta(
    model: SegmentationModel,
    image: Float[ArrayLike, "*space i"],
    *,
    key: Key[Array, ""],
    names: Sequence[str] = GEOMETRIC,
    strength: float = 0.1,
) -> Samples:
    """One sample a transform, of equal weight; ValueError for an unknown transform, or a flip of an axis that is not there.

    The n-th transform draws from `fold_in(key, n)`. Images of equal size go through the network together.
    """
    x, known = check_image(model, image), transforms(strength=strength)
    wrong = [n for n in names if n not in known or (n == "flip2" and x.ndim < 4)]
    if wrong or not names:
        raise ValueError(f"tta: expected transforms among {', '.join(sorted(known))}, got {wrong[0] if wrong else 'none'}")
    changed = [known[name].apply(x, jax.random.fold_in(key, n)) for n, name in enumerate(names)]
    probs: dict[int, Array] = {}
    for shape in dict.fromkeys(c.shape for c in changed):
        places = [n for n, c in enumerate(changed) if c.shape == shape]
        predicted = predict_batch(model, jnp.stack([changed[n] for n in places]))
        probs |= {n: known[names[n]].invert(predicted[i]) for i, n in enumerate(places)}
    return as_samples(jnp.stack([probs[n] for n in range(len(names))]))


def _smooth(x: Float[Array, "*space i"]) -> Float[Array, "*space i"]:
    """The binomial filter 1/4, 1/2, 1/4 along every axis, borders repeated."""
    for axis in range(x.ndim - 1):
        padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)], mode="edge")
        parts = [jax.lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis) for start in range(3)]
        x = parts[0] / 4 + parts[1] / 2 + parts[2] / 4
    return x


def _between(x: Float[Array, "*space i"]) -> Float[Array, "*large i"]:
    """Twice the size: every pixel, and the mean of every two neighbours between them."""
    for axis in range(x.ndim - 1):
        length = x.shape[axis]
        first = jax.lax.slice_in_dim(x, 0, length - 1, axis=axis)
        middle = (first + jax.lax.slice_in_dim(x, 1, length, axis=axis)) / 2
        pairs = jnp.stack([first, middle], axis + 1).reshape(*x.shape[:axis], 2 * (length - 1), *x.shape[axis + 1 :])
        x = jnp.concatenate([pairs, jax.lax.slice_in_dim(x, length - 1, length, axis=axis)], axis)
    return x


def _every_second(probs: Float[Array, "*large c"]) -> Float[Array, "*space c"]:
    return probs[(*(slice(None, None, 2),) * (probs.ndim - 1), slice(None))]


def _start(subject: Subject, settings: Settings) -> Run:
    known = transforms()
    names = GEOMETRIC if settings["transforms"] == "geometric" else ALL

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = tta(subject.model, image, key=key, names=names, strength=settings.get("strength", 0.1))
        return outcome_of(samples, image.shape[:-1], forward=sum(known[n].cost for n in names))

    return run


METHODS = (
    Method(
        "tta",
        _start,
        tta,
        grid=({"transforms": "geometric"}, {"transforms": "all", "strength": 0.1}, {"transforms": "all", "strength": 0.3}),
        place=3,
    ),
)
