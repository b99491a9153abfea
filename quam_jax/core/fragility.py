"""How little it takes to change a prediction: what a search says beside the uncertainty.

A point is flipped by a recorded model that keeps the constraint and prefers another class there than the given network. The
first such model tells how many steps and how much slack the flip took. Nothing found is infinite, so that costs can be
compared and the smallest taken; only maps know NaN, for pixels that nobody asked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .types import Targets, Trajectory
from .weighting import counted

HALF = 0.5 - 1e-6  # weights of 1/p do not add up to exactly one half


class Fragility(NamedTuple):
    """What flipped, and what it took; inf where no feasible model did it.

    Of a point: `flipped`; `steps` of the optimiser until the first flip; `slack`, by how much that model's fit loss exceeds
    the given network's, in nats (the smallest where several members flip in the same step; negative where it explains the
    fit data better). Of a target: `objective`, the smallest of a feasible model; `share`, the largest part of the weight
    that one feasible model flips; `half_steps` and `half_slack`, steps and slack until one model flips half of the weight.
    """

    flipped: Bool[Array, "t p"]
    steps: Float[Array, "t p"]
    slack: Float[Array, "t p"]
    objective: Float[Array, " t"]
    share: Float[Array, " t"]
    half_steps: Float[Array, " t"]
    half_slack: Float[Array, " t"]


def measure_fragility(trajectory: Trajectory, reference: Float[ArrayLike, "t p c"], targets: Targets) -> Fragility:
    """Read flips and their costs off the recorded steps of a search.

    `reference` are the given network's probabilities at the targets' points. Records that are not finite or not feasible do
    not count.
    """
    counts = counted(trajectory)
    differs = jnp.argmax(trajectory.probs, -1) != jnp.argmax(reference, -1)[:, None, None]
    flips = differs & counts[..., None]
    used = jnp.where(counts, trajectory.fit_loss - trajectory.reference_loss, jnp.inf)
    weights = targets.weights[:, None, None]
    share = jnp.sum(jnp.where(flips, weights, 0.0), -1) / jnp.sum(weights, -1)
    steps, slack = _first(flips, used[..., None])
    half_steps, half_slack = _first((share >= HALF)[..., None], used[..., None])
    return Fragility(
        flipped=jnp.isfinite(steps),
        steps=steps,
        slack=slack,
        objective=jnp.min(jnp.where(counts, trajectory.objective, jnp.inf), (1, 2)),
        share=jnp.max(share, (1, 2)),
        half_steps=half_steps[:, 0],
        half_slack=half_slack[:, 0],
    )


def _first(hits: Bool[Array, "t m s p"], used: Float[Array, "t m s _"]) -> tuple[Float[Array, "t p"], Float[Array, "t p"]]:
    """The number, from 1, of the first step with a hit of any member, and the smallest slack of the hits in that step."""
    at_step = jnp.any(hits, 1)
    first = jnp.argmax(at_step, 1)
    smallest = jnp.min(jnp.where(hits, used, jnp.inf), 1)
    steps = jnp.where(jnp.any(at_step, 1), first + 1.0, jnp.inf)
    return steps, jnp.take_along_axis(smallest, first[:, None], 1)[:, 0]


def flip_cost_head(margin: Float[Array, "*points"], curvature: Float[Array, "*points"]) -> Float[Array, "*points"]:
    """Fit loss, in nats, that the head must give up before a class overtakes: m^2 / (2 f^T H^-1 f).

    `margin` is the logit of the present class less that of the other, `curvature` is f^T H^-1 f with H the damped Fisher
    matrix of the fit loss over the weights that change the margin. It minimises the quadratic model d^T H d / 2 of the loss
    subject to f^T d = m (Lagrange), and holds as far as that model does. Without curvature a margin cannot be overcome: inf.
    """
    squared = margin * margin
    return jnp.where(squared > 0, squared / (2.0 * curvature), 0.0)


def scatter(
    values: Float[Array | np.ndarray, "t _"], targets: Targets, shape: Sequence[int], *, largest: bool = False
) -> Float[np.ndarray, "*space"]:
    """A map of values of targets or of their points; NaN where no target asked.

    Where targets overlap the smallest value counts, or the `largest`. Padding takes no part, and neither do values of NaN.
    """
    asked = np.asarray(targets.weights) > 0
    points = np.asarray(targets.points)[asked]
    given = np.broadcast_to(np.asarray(values, np.float32), asked.shape)[asked]
    present = ~np.isnan(given)
    flat = np.full(int(np.prod(shape)), -np.inf if largest else np.inf, np.float32)
    (np.maximum if largest else np.minimum).at(flat, points[present], given[present])
    nobody = np.ones(flat.shape, bool)
    nobody[points[present]] = False
    flat[nobody] = np.nan
    return flat.reshape(tuple(shape))


def fragility_maps(fragility: Fragility, targets: Targets, shape: Sequence[int]) -> dict[str, Float[np.ndarray, "*space"]]:
    """Every measure as a map `[*space]` by its name, NaN where no target asked, inf where nothing flipped.

    `flipped` is 1 or 0. Targets that overlap count with the cheapest flip and the largest share.
    """
    per_target = {name: getattr(fragility, name)[:, None] for name in ("objective", "half_steps", "half_slack")}
    maps = {
        name: scatter(values, targets, shape)
        for name, values in ({"steps": fragility.steps, "slack": fragility.slack} | per_target).items()
    }
    return maps | {
        "flipped": scatter(jnp.asarray(fragility.flipped, jnp.float32), targets, shape, largest=True),
        "share": scatter(fragility.share[:, None], targets, shape, largest=True),
    }
