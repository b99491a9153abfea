"""From a recorded search to weighted samples: every rule is only a choice of weights, and stands here alone.

Weights of a target sum to 1 over its (member, step) samples, are 0 where a prediction is not finite, and are all 0 where
nothing may count (the caller then falls back to the reference, see `to_samples`).
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .types import Samples, Trajectory

Rule = Literal["all", "last", "best", "softmax", "mis"]


def feasible(trajectory: Trajectory) -> Bool[Array | np.ndarray, "t m s"]:
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


def log_weights(
    trajectory: Trajectory,
    *,
    rule: Rule = "all",
    feasible_only: bool = True,
    temperature: Float[ArrayLike, ""] = 1.0,
    effective_size: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, "t m s"]:
    """Logarithms of the weights of every recorded sample before they are normalised; -inf where a sample does not count.

    `all`: equal; `last`: each member's last sample that counts; `best`: its sample of smallest objective (ties: the first);
    `softmax`: exp(-L/T); `mis`: exp(-N L/T), with L the fit loss, T `temperature` and N `effective_size`. ValueError for
    another rule.
    """
    counts = counted(trajectory, feasible_only=feasible_only)
    if rule == "last":
        counts &= (jnp.cumsum(counts[..., ::-1], -1)[..., ::-1] - counts) == 0  # none that counts comes after
    elif rule == "best":
        best = jnp.argmin(jnp.where(counts, trajectory.objective, jnp.inf), -1, keepdims=True)
        counts &= jnp.arange(counts.shape[-1])[None, None] == best
    elif rule not in ("all", "softmax", "mis"):
        raise ValueError(f"weighting: expected all, last, best, softmax or mis, got {rule!r}")
    scale = {"softmax": 1.0, "mis": effective_size}.get(rule, 0.0) / temperature
    return jnp.where(counts, -scale * jnp.where(counts, trajectory.fit_loss, 0.0), -jnp.inf)


def normalise(log_weight: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Weights that sum to 1 over the last axis, from their logarithms; all 0 where nothing counts."""
    top = jnp.max(log_weight, -1, keepdims=True)
    weight = jnp.exp(log_weight - jnp.where(jnp.isfinite(top), top, 0.0))
    total = jnp.sum(weight, -1, keepdims=True)
    return jnp.where(total > 0, weight / jnp.where(total > 0, total, 1.0), 0.0)


def trajectory_weights(
    trajectory: Trajectory,
    *,
    rule: Rule = "all",
    feasible_only: bool = True,
    temperature: Float[ArrayLike, ""] = 1.0,
    effective_size: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, "t m s"]:
    """Weights of every recorded sample by one rule (see `log_weights`); a target without any that counts gets zeros."""
    logs = log_weights(trajectory, rule=rule, feasible_only=feasible_only, temperature=temperature, effective_size=effective_size)
    return normalise(logs.reshape(logs.shape[0], -1)).reshape(logs.shape)


def to_samples(
    trajectory: Trajectory,
    weights: Float[Array, "t m s"],
    *,
    reference: Float[Array | np.ndarray, "t p c"],
    include_reference: bool = True,
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
