"""Random directions with the slack of a search: what any move inside the constraint shows, without a search.

Weights go from the given network along random directions, up to the largest step at which the fit loss still keeps the bound.
Directions and steps depend on the fit data alone, so they are found once a network; its models are drawn again when they are
asked for, as many of them would take as many times its memory.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .compilation import jit
from .loss import Loss
from .network import Parameters
from .searching import Prepared
from .solvers import Moving
from .space import Space

BISECTIONS = 7  # the step is found to one part in 128 of its bracket


class Directions(NamedTuple):
    """Models inside the constraint, two a direction; `steps` are their distances in units of the weights' own size.

    `space` is what of a network moves, `start` the given network's part of it.
    """

    space: Space
    start: Moving
    key: Key[Array, ""]
    steps: Float[np.ndarray, " n"]
    fit_loss: Float[np.ndarray, "n k"]
    bound: Float[np.ndarray, " k"]
    forward: int

    def models(self) -> Iterator[Moving]:
        """What is moved of each model, one after the other."""
        for n, step in enumerate(self.steps):
            yield _moved(self.start, self.key, n // 2, step if n % 2 == 0 else -step)


def fit_directions(prepared: Prepared, *, count: int = 8, key: Key[Array, ""], largest: float = 4.0) -> Directions:
    """`count` directions in both senses, each as far as all fit batches keep their bound (at most `largest`).

    A direction is Gaussian, and every tensor of it has the norm of the tensor that it moves (zero tensors: norm 1), so a
    step of 0.1 changes every tensor by a tenth. Direction n uses `fold_in(key, n)`. ValueError if the space does not change
    the fit loss, or the given network itself breaks a bound.
    """
    network, params, stats, procedure = prepared[:4]
    space = procedure.space
    if not space.constrained:
        raise ValueError("random directions: expected a space that changes the fit loss, got the input")
    start = space.start(network, params, prepared.fit[0][:1])
    bound = np.asarray(prepared.bound)
    passes = 0

    def losses(n: int, step: float) -> Float[np.ndarray, " k"]:
        nonlocal passes
        passes += int(prepared.fit_labels.shape[0] * prepared.fit_labels.shape[1])
        z = _moved(start, key, n, step)
        batches = zip(prepared.fit, prepared.fit_labels, strict=True)
        return np.asarray([_fit_loss(network, space, procedure.loss, z, params, stats, *batch) for batch in batches])

    def keeps(n: int, step: float) -> bool:
        return bool((losses(n, step) <= bound).all())

    if (losses(0, 0.0) > bound * (1 + 1e-5)).any():
        raise ValueError("random directions: the given network exceeds the bound; expected a slack >= 0")
    steps = []
    for n in range(count):
        for sign in (1.0, -1.0):
            low, high = 0.0, 0.01
            while high < largest and keeps(n, sign * high):
                low, high = high, 2 * high
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                low, high = (middle, high) if keeps(n, sign * middle) else (low, middle)
            steps.append(low)
    fit_loss = np.stack([losses(n // 2, step if n % 2 == 0 else -step) for n, step in enumerate(steps)])
    return Directions(space, start, key, np.array(steps), fit_loss, bound, passes)


@jit()
def _moved(start: Moving, key: Key[Array, ""], n: int | Array, step: float | Array) -> Moving:
    leaves, tree = jax.tree.flatten(start)
    key, moved = jax.random.fold_in(key, n), []
    for place, leaf in enumerate(leaves):
        noise = jax.random.normal(jax.random.fold_in(key, place), leaf.shape)
        norm = jnp.linalg.norm(leaf.ravel())
        direction = noise * jnp.where(norm > 0, norm, 1.0) / jnp.linalg.norm(noise.ravel())
        moved.append(leaf + step * direction)
    return jax.tree.unflatten(tree, moved)


@jit(static_argnums=(0, 1, 2))
def _fit_loss(
    network: Any, space: Space, loss: Loss, z: Moving, params: Parameters, stats: Parameters, batch: Array, labels: Array
) -> Array:
    return loss.mean(space.logits(network, z, params, stats, batch)[0], labels)
