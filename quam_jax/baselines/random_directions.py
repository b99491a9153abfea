"""Random directions with the same slack: what any move inside the constraint shows, without a search.

Weights go from the given network along random directions, up to the largest step at which the fit loss still keeps the bound
of the search. The control of every adversarial claim: what it finds needs no adversary. Directions and steps depend on the
fit data alone, so they are found once a model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..config import FitConfig, SearchConfig
from ..core.compilation import jit
from ..core.loss import cross_entropy
from ..core.network import pad_to_multiple
from ..core.searching import Prepared
from ..core.solvers import Moving
from ..core.space import Space
from ..core.types import Samples
from ..models.model import Network, Parameters, SegmentationModel
from ..models.prepare import prepare
from .method import Method, Outcome, Run, Settings, Subject, fit_of, outcome_of, slack_grid
from .records import as_samples, check_image

BISECTIONS = 7  # the step is found to one part in 128 of its bracket


class Directions(NamedTuple):
    """Moved weights inside the constraint; `steps` are their distances in units of the weights' own size."""

    space: Space
    moved: tuple[Moving, ...]
    steps: Float[np.ndarray, " n"]
    fit_loss: Float[np.ndarray, "n k"]
    bound: Float[np.ndarray, " k"]
    forward: int


def fit_directions(prepared: Prepared, *, count: int = 8, key: Key[Array, ""], largest: float = 4.0) -> Directions:
    """`count` directions in both senses, each as far as all fit batches keep their bound (at most `largest`).

    A direction is Gaussian, and every tensor of it has the norm of the tensor that it moves (zero tensors: norm 1), so a
    step of 0.1 changes every tensor by a tenth. Direction n uses `fold_in(key, n)`. ValueError if the space does not change
    the fit loss, or the given network itself breaks a bound.
    """
    network, params, stats, space = *prepared[:3], prepared.procedure.space
    if not space.constrained:
        raise ValueError("random directions: expected a space that changes the fit loss, got the input")
    start = space.start(network, params, prepared.fit[0][:1])
    bound = np.asarray(prepared.bound)
    passes = 0

    def losses(z: Moving) -> Float[np.ndarray, " k"]:
        nonlocal passes
        passes += int(prepared.fit_labels.shape[0] * prepared.fit_labels.shape[1])
        return np.asarray(
            [
                _fit_loss(network, space, z, params, stats, batch, labels)
                for batch, labels in zip(prepared.fit, prepared.fit_labels, strict=True)
            ]
        )

    if (losses(start) > bound * (1 + 1e-5)).any():
        raise ValueError("random directions: the given network exceeds the bound; expected a slack >= 0")
    moved, steps, fit_losses = [], [], []
    for n in range(count):
        direction = _direction(start, jax.random.fold_in(key, n))
        for sign in (1.0, -1.0):
            low, high = 0.0, 0.01
            while high < largest and (losses(_along(start, direction, sign * high)) <= bound).all():
                low, high = high, 2 * high
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                if (losses(_along(start, direction, sign * middle)) <= bound).all():
                    low = middle
                else:
                    high = middle
            z = _along(start, direction, sign * low)
            moved.append(z)
            steps.append(low)
            fit_losses.append(losses(z))
    return Directions(space, tuple(moved), np.array(steps), np.stack(fit_losses), bound, passes)


def random_directions(model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, directions: Directions) -> Samples:
    """One sample a moved model, of equal weight."""
    x = check_image(model, image)
    activation = _prepare(
        model.network, directions.space, model.params, model.stats, pad_to_multiple(x[None], model.network, leading=1)
    )
    crop = tuple(slice(n) for n in (1, *x.shape[:-1]))
    probs = [_probs(model.network, directions.space, z, model.params, model.stats, activation)[crop] for z in directions.moved]
    return as_samples(jnp.concatenate(probs))


def _direction(start: Moving, key: Key[Array, ""]) -> Moving:
    leaves, tree = jax.tree.flatten(start)
    drawn = []
    for n, leaf in enumerate(leaves):
        noise = jax.random.normal(jax.random.fold_in(key, n), leaf.shape)
        norm = jnp.linalg.norm(leaf.ravel())
        drawn.append(noise * jnp.where(norm > 0, norm, 1.0) / jnp.linalg.norm(noise.ravel()))
    return jax.tree.unflatten(tree, drawn)


def _along(start: Moving, direction: Moving, step: float) -> Moving:
    return jax.tree.map(lambda value, d: value + step * d, start, direction)


@jit(static_argnums=(0, 1))
def _fit_loss(
    network: Network, space: Space, z: Moving, params: Parameters, stats: Parameters, batch: Array, labels: Array
) -> Array:
    return cross_entropy.mean(space.logits(network, z, params, stats, batch)[0], labels)


@jit(static_argnums=(0, 1))
def _prepare(network: Network, space: Space, params: Parameters, stats: Parameters, image: Array) -> Array:
    return space.prepare(network, params, stats, image)


@jit(static_argnums=(0, 1))
def _probs(network: Network, space: Space, z: Moving, params: Parameters, stats: Parameters, activation: Array) -> Array:
    return jax.nn.softmax(space.logits(network, z, params, stats, activation)[0])


def _start(subject: Subject, settings: Settings) -> Run:
    prepared = prepare(subject.model, fit_of(subject, FitConfig()), SearchConfig(slack=settings["slack"]))
    found = fit_directions(prepared, count=2, key=jax.random.key(subject.seed))

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = random_directions(subject.model, image, directions=found)
        return outcome_of(samples, image.shape[:-1], forward=len(found.moved))

    return run


METHODS = (Method("random_directions", _start, random_directions, grid=slack_grid(20.0), control=True, place=12),)
