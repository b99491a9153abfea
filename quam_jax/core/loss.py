"""Losses: what a point costs and how points add up, one for the target's points and for the fit data alike."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

PerPoint = Callable[[Float[Array, "*batch c"], Int[ArrayLike, "*batch"]], Float[Array, "*batch"]]
Reduction = Callable[[Float[Array, "*batch"], ArrayLike], Float[Array, ""]]


def weighted_mean(
    losses: Float[Array, "*batch"], weights: Float[ArrayLike, "*batch"] | Bool[ArrayLike, "*batch"]
) -> Float[Array, ""]:
    """The mean of the losses under weights >= 0, some of which are not 0."""
    return jnp.sum(weights * losses) / jnp.sum(jnp.asarray(weights))


@dataclass(frozen=True)
class Loss:
    """`per_point(logits, labels)` gives the loss of every point, `reduce(losses, weights)` one number of them.

    Both are pure functions of arrays; a loss is told apart by them, so define them once and not in a loop.
    """

    per_point: PerPoint = optax.softmax_cross_entropy_with_integer_labels
    reduce: Reduction = weighted_mean

    @property
    def adds_up(self) -> bool:
        """Whether the loss of all points is that of parts of them, weighted by their numbers of points."""
        return self.reduce is weighted_mean

    def mean(self, logits: Float[Array, "*batch c"], labels: Int[ArrayLike, "*batch"]) -> Float[Array, ""]:
        """The loss over the positions with a label >= 0."""
        labels = jnp.asarray(labels)
        labelled = labels >= 0
        losses = jnp.where(labelled, self.per_point(logits, jnp.where(labelled, labels, 0)), 0.0)
        return self.reduce(losses, labelled | ~jnp.any(labelled))  # of no labels the loss is 0

    def at_points(
        self, logits: Float[Array, "p c"], labels: Int[ArrayLike, " p"], weights: Float[ArrayLike, " p"]
    ) -> Float[Array, ""]:
        """The loss over a target's points."""
        return self.reduce(self.per_point(logits, labels), weights)


cross_entropy = Loss()
