"""What training minimises: the loss of an ordinary segmentation network, and what other losses have to look like."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# logits [b *space c], targets [b *space c] and dice_weight to a number. One with the attribute `of_network` takes network,
# weights and images instead of logits, and gives the statistics too.
Loss = Callable[..., Any]


def segmentation_loss(
    logits: Float[Array, "b *space c"], targets: Float[Array, "b *space c"], *, dice_weight: float | Array
) -> Float[Array, ""]:
    """Cross-entropy in nats a labelled pixel, plus `dice_weight` times 1 - soft Dice of the classes but the first.

    Soft Dice is (2 sum(p y) + 1) / (sum p + sum y + 1) over the whole batch (the linear form of Drozdzal et al. 2016;
    the 1 keeps classes that are absent quiet). Rows of zeros in `targets` do not count.
    """
    logs = jax.nn.log_softmax(logits)
    row = jnp.sum(targets, -1, keepdims=True)
    cross_entropy = -jnp.sum(targets * logs) / jnp.maximum(jnp.sum(row), 1.0)
    probs, axes = jnp.exp(logs) * row, tuple(range(targets.ndim - 1))
    overlap = 2 * jnp.sum(probs * targets, axes) + 1
    dice = overlap / (jnp.sum(probs, axes) + jnp.sum(targets, axes) + 1)
    return cross_entropy + dice_weight * jnp.mean(1 - dice[1:])
