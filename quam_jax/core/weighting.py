"""From a recorded search to weighted samples: every rule is only a choice of weights, and stands here alone.

Weights of a target sum to 1 over its (member, step) samples, are 0 where a prediction is not finite, and are all 0 where
nothing may count (the caller then falls back to the reference, see `to_samples`).
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from .types import Samples, Trajectory, ViewMean

Rule = Literal["all", "last", "best", "softmax", "mis"]
Given = Literal["half", "sample", "none"]
"""What the given network counts beside the samples of a search: as much as all of them, as one more of them, or nothing."""


def feasible(trajectory: Trajectory) -> Bool[Array | np.ndarray, "t m s"]:
    """Samples whose fit loss stayed within the bound (NaN losses did not)."""
    return trajectory.fit_loss <= trajectory.bound


@jax.jit
def finite(trajectory: Trajectory) -> Bool[Array, "t m s"]:
    """Samples whose prediction and losses are finite; the others get weight 0 and are counted in the audit."""
    seen = trajectory.probs if trajectory.viewed is None else trajectory.probs + trajectory.viewed.probs
    return jnp.all(jnp.isfinite(seen), (-2, -1)) & jnp.isfinite(trajectory.fit_loss) & jnp.isfinite(trajectory.objective)


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


def given_share(count: Num[ArrayLike, "*targets"], given: Given) -> Float[Array, "*targets"]:
    """The weight of the given network beside so many samples that count; all of it where none does."""
    count = jnp.asarray(count, jnp.float32)
    shares = {"half": jnp.full(count.shape, 0.5), "sample": 1.0 / (count + 1.0), "none": jnp.zeros(count.shape)}
    return jnp.where(count == 0, 1.0, shares[given])


def others_share(given: Given) -> float:
    """The weight of models of another origin, where there are some: a group of their own, beside given network and search."""
    return 1 / 3 if given == "half" else 1 / 2


def to_samples(
    trajectory: Trajectory,
    weights: Float[Array, "t m s"],
    *,
    reference: Float[Array | np.ndarray, "t p c"],
    given: Given = "half",
) -> Samples:
    """Flatten (member, step) to samples and append the given network as the last one, with the weight of `given_share`.

    Where the search looked through views a sample is what its model says through all of them, and so is the last one; models of
    another origin stand before it, with `others_share` of the weight.
    """
    t, m, s, p, c = trajectory.probs.shape
    flat = weights.reshape(t, m * s)
    share = given_share(jnp.sum(flat > 0, 1), given)
    shares = jnp.concatenate([flat * (1.0 - share)[:, None], share[:, None]], 1)
    counts = flat[..., None] > 0
    seen, last = trajectory.viewed, trajectory.given
    if seen is None or last is None:
        probs = jnp.where(counts[..., None], trajectory.probs.reshape(t, m * s, p, c), 1.0 / c)
        return Samples(jnp.concatenate([probs, reference[:, None]], 1), shares)
    probs = jnp.where(counts[..., None], seen.probs.reshape(t, m * s, p, c), 1.0 / c)
    disagreement = jnp.where(counts, seen.disagreement.reshape(t, m * s, p), 0.0)
    parts, ends = [ViewMean(probs, disagreement)], jax.tree.map(lambda x: x[:, None], last)
    if trajectory.others is not None:
        count, part = trajectory.others.probs.shape[1], others_share(given)
        other = jnp.full((t, count), part / count)
        shares = jnp.concatenate([shares[:, :-1] * (1 - part), other, shares[:, -1:] * (1 - part)], 1)
        parts.append(trajectory.others)
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *parts, ends)
    return Samples(joined.probs, shares, joined.disagreement)
