"""From a recorded search to weighted samples: every rule is only a choice of weights.

Weights are computed for one target over its flattened (member, step) samples, sum to 1, are 0 where a prediction is not
finite, and are all 0 where nothing may count (the caller then falls back to the reference, see `to_samples`).
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .types import Samples, Trajectory

Rule = Literal["all", "last", "best", "softmax", "mis"]


def _normalised(weights: Float[Array, " n"]) -> Float[Array, " n"]:
    total = jnp.sum(weights)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)


def uniform_weights(counts: Bool[Array, "m s"]) -> Float[Array, "m s"]:
    """Equal weights on the samples that count."""
    return _normalised(counts.astype(jnp.float32).ravel()).reshape(counts.shape)


def last_weights(counts: Bool[Array, "m s"]) -> Float[Array, "m s"]:
    """Equal weights on the last sample of each member that counts."""
    later = jnp.cumsum(counts[:, ::-1], 1)[:, ::-1] - counts  # how many that count come after
    return uniform_weights(counts & (later == 0))


def best_weights(counts: Bool[Array, "m s"], objective: Float[Array, "m s"]) -> Float[Array, "m s"]:
    """Equal weights on each member's sample of smallest objective among those that count; ties: the first."""
    best = jnp.argmin(jnp.where(counts, objective, jnp.inf), 1)
    return uniform_weights(counts & (jnp.arange(counts.shape[1]) == best[:, None]))


def loss_weights(
    counts: Bool[Array, "m s"], fit_loss: Float[Array, "m s"], *, scale: float | Float[Array, ""]
) -> Float[Array, "m s"]:
    """Weights proportional to exp(-scale L) over all samples that count: softmax (scale 1/T) and mis (N_eff/T)."""
    logits = jnp.where(counts, -scale * fit_loss, -jnp.inf)
    top = jnp.max(logits)
    weights = jnp.where(counts, jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0.0)), 0.0)
    return _normalised(weights.ravel()).reshape(counts.shape)


def feasible(trajectory: Trajectory) -> Bool[Array, "t m s"]:
    """Samples whose fit loss stayed within the bound (NaN losses did not)."""
    return trajectory.fit_loss <= trajectory.bound


@jax.jit
def finite(trajectory: Trajectory) -> Bool[Array, "t m s"]:
    """Samples whose prediction and losses are finite; the others get weight 0 and are counted in the audit."""
    return (
        jnp.all(jnp.isfinite(trajectory.probs), (-2, -1)) & jnp.isfinite(trajectory.fit_loss) & jnp.isfinite(trajectory.objective)
    )


@partial(jax.jit, static_argnames="feasible_only")
def counted(trajectory: Trajectory, *, feasible_only: bool = True) -> Bool[Array, "t m s"]:
    """Samples that may have a weight: finite, and within the bound unless infeasible ones count too."""
    return finite(trajectory) & (feasible(trajectory) if feasible_only else True)


def trajectory_weights(
    trajectory: Trajectory,
    *,
    rule: Rule = "all",
    feasible_only: bool = True,
    temperature: float = 1.0,
    effective_size: float = 1.0,
) -> Float[Array, "t m s"]:
    """Weights of every recorded sample by one rule; a target without any sample that counts gets zeros."""
    counts = counted(trajectory, feasible_only=feasible_only)
    loss = jnp.where(counts, trajectory.fit_loss, 0.0)
    if rule == "all":
        return jax.vmap(uniform_weights)(counts)
    if rule == "last":
        return jax.vmap(last_weights)(counts)
    if rule == "best":
        return jax.vmap(best_weights)(counts, trajectory.objective)
    if rule in ("softmax", "mis"):
        scale = (effective_size if rule == "mis" else 1.0) / temperature
        return jax.vmap(lambda c, x: loss_weights(c, x, scale=scale))(counts, loss)
    raise ValueError(f"weighting: expected all, last, best, softmax or mis, got {rule!r}")


def to_samples(
    trajectory: Trajectory, weights: Float[Array, "t m s"], *, reference: Float[Array, "t p c"], include_reference: bool = True
) -> Samples:
    """Flatten (member, step) to samples and append the reference as the last one.

    The reference gets the share of one more uniform sample (1/(count+1), with count the samples of weight > 0) when
    included, and all the weight where no sample counts.
    """
    t, m, s, p, c = trajectory.probs.shape
    flat = weights.reshape(t, m * s)
    count = jnp.sum(flat > 0, 1)
    share = jnp.where(count == 0, 1.0, 1.0 / (count + 1.0) if include_reference else 0.0)
    probs = jnp.where(flat[..., None, None] > 0, trajectory.probs.reshape(t, m * s, p, c), 1.0 / c)
    return Samples(
        jnp.concatenate([probs, reference[:, None]], 1), jnp.concatenate([flat * (1.0 - share)[:, None], share[:, None]], 1)
    )
