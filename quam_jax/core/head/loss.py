"""The loss of many linear heads on the same points at once: two matrix products and one pass of exponentials between.

Targets are the last axis throughout, so that everything between the products is elementwise or a reduction over leading
axes. Logarithms are the dearest operation; their number is cut by multiplying GROUP arguments first, which cannot
underflow because each lies between 1/2 (1/c) and 1.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

GROUP = 32


def log_sum(values: Float[Array, "q t"]) -> Float[Array, " t"]:
    """Sum over the first axis of ln(values), for values in [1/4, 1]: exact to some roundings of each."""
    values = jnp.pad(values, [(0, -values.shape[0] % GROUP), (0, 0)], constant_values=1.0)
    return jnp.sum(jnp.log(jnp.prod(values.reshape(-1, GROUP, values.shape[1]), 1)), 0)


def probabilities(logits: Float[Array, "q k t"]) -> tuple[Float[Array, "q k t"], Float[Array, " t"]]:
    """Probabilities of the kept columns, and the sum over the points of the log of the partition function.

    With one column the logit is the margin of class 1 over class 0.
    """
    if logits.shape[1] == 1:
        margin = logits[:, 0]
        probs = lax.logistic(margin)
        partition = jnp.sum(jnp.maximum(margin, 0.0), 0) - log_sum(jnp.maximum(probs, 1.0 - probs))
        return probs[:, None], partition
    top = jnp.max(logits, 1, keepdims=True)
    exps = jnp.exp(logits - top)
    total = jnp.sum(exps, 1, keepdims=True)
    return exps / total, jnp.sum(top[:, 0], 0) + jnp.sum(jnp.log(total[:, 0]), 0)


def fit_loss(
    features: Float[Array, "q f"], wanted: Float[Array, "f k"], theta: Float[Array, "f k t"]
) -> tuple[Float[Array, " t"], Float[Array, "q k t"]]:
    """Mean cross-entropy of every head on the fit points, in nats, and the probabilities of the kept columns.

    `wanted` is the mean over the points of feature times one-hot label: the part that is linear in theta.
    """
    count, (_, columns, targets) = features.shape[0], theta.shape
    logits = (features @ theta.reshape(theta.shape[0], -1)).reshape(count, columns, targets)
    probs, partition = probabilities(logits)
    return partition / count - jnp.einsum("fk,fkt->t", wanted, theta), probs


def fit_gradient(
    transposed: Float[Array, "f q"], wanted: Float[Array, "f k"], probs: Float[Array, "q k t"]
) -> Float[Array, "f k t"]:
    """The gradient of `fit_loss` in theta, from its probabilities.

    The features come transposed because a product with them is a third faster than one that transposes.
    """
    count, columns, targets = probs.shape
    return (transposed @ probs.reshape(count, -1)).reshape(-1, columns, targets) / count - wanted[..., None]


def point_loss(
    features: Float[Array, "f p t"], labels: Float[Array, "p k t"], weights: Float[Array, "p t"], theta: Float[Array, "f k t"]
) -> tuple[Float[Array, "p k t"], Float[Array, " t"], Float[Array, "f k t"]]:
    """Logits of the target's own points, their weighted cross-entropy towards the wanted one-hot labels, its gradient."""
    logits = jnp.einsum("fpt,fkt->pkt", features, theta)
    if theta.shape[1] == 1:
        margin, wants = logits[:, 0], labels[:, 0]
        losses = jnp.logaddexp(0.0, jnp.where(wants > 0, -margin, margin))
        slope = (lax.logistic(margin) - wants)[:, None]
    else:
        top = jnp.max(logits, 1, keepdims=True)
        shifted = logits - top
        total = jnp.sum(jnp.exp(shifted), 1, keepdims=True)
        losses = jnp.log(total[:, 0]) - jnp.sum(labels * shifted, 1)
        slope = jnp.exp(shifted) / total - labels
    objective = jnp.sum(weights * losses, 0)
    return logits, objective, jnp.einsum("fpt,pkt->fkt", features, weights[:, None] * slope)


def class_probabilities(logits: Float[Array, "p k t"]) -> Float[Array, "t p c"]:
    """Probabilities of all classes, targets first."""
    if logits.shape[1] == 1:
        one = lax.logistic(logits[:, 0])
        return jnp.stack([lax.logistic(-logits[:, 0]), one], -1).swapaxes(0, 1)
    exps = jnp.exp(logits - jnp.max(logits, 1, keepdims=True))
    return jnp.moveaxis(exps / jnp.sum(exps, 1, keepdims=True), 2, 0)
