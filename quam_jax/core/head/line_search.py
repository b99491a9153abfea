"""The closed direction with an exact line search: one factorisation for all pixels, then one number a pixel.

Near the given head the fit loss is L_ref + d^T H d / 2 with H the Fisher matrix, so the direction that moves the wanted
margin m of a target furthest for its cost is u = H^-1 grad m, and the largest step inside the slack is
sqrt(2 slack / grad m^T u). That is only safe for tiny slack: where the head is saturated the loss has no curvature and
grows far later and faster. So only the direction is taken from it; the step is the root of the true fit loss along it,
L(theta + a u) = bound, found by Newton's method between brackets (the loss is convex along a line).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from .iterative import Asked, HeadRecord
from .loss import class_probabilities, point_loss, probabilities
from .problem import HeadProblem

FURTHEST = 40.0  # a margin that moves by this many logits is settled, however little the fit loss minds
EVALUATIONS = 20
TOLERANCE = 1e-3  # of the slack: what may be left of it unused


class Factor(NamedTuple):
    """The Cholesky factor of the damped Fisher matrix, lower, over the flattened head `[k f]`.

    Where the columns are sums of channels it is that of the channels, and `spread` takes theirs to the columns.
    """

    lower: Float[Array, "g g"]
    spread: Float[Array, "l g"] | None = None


def fisher(problem: HeadProblem, *, damping: float) -> Factor:
    """Factor of H = mean over fit points of (diag p - p p^T) x f f^T, plus `damping` times its mean diagonal."""
    features, theta = problem.features[0], problem.theta
    count, columns = features.shape[0], theta.shape[1]
    probs = probabilities((features @ theta)[..., None])[0][..., 0]
    blocks = []
    for a in range(columns):
        row = [(features * (probs[:, a] * ((a == b) - probs[:, b]))[:, None]).T @ features / count for b in range(columns)]
        blocks.append(row)
    matrix = jnp.block(blocks)
    spread = None
    if problem.sums is not None and columns > 1:
        spread = jnp.kron(problem.sums, jnp.eye(features.shape[1]))
        matrix = spread.T @ matrix @ spread
    size = matrix.shape[0]
    matrix = matrix + damping * jnp.trace(matrix) / size * jnp.eye(size)
    return Factor(cho_factor(matrix, lower=True)[0], spread)


def directions(factor: Factor, asked: Asked, against: Float[Array, "p k t"]) -> tuple[Float[Array, "f k t"], Float[Array, " t"]]:
    """u = H^-1 grad m for every target, and grad m^T u; m is the mean margin of the wanted class over the one `against`."""
    turned = asked.labels - against
    wanted = jnp.einsum("fpt,pkt->kft", asked.features, asked.weights[:, None] * turned)
    columns, length, targets = wanted.shape
    flat = wanted.reshape(-1, targets)
    own = flat if factor.spread is None else factor.spread.T @ flat
    solved = cho_solve((factor.lower, True), own)
    solved = solved if factor.spread is None else factor.spread @ solved
    return jnp.swapaxes(solved.reshape(columns, length, targets), 0, 1), jnp.sum(flat * solved, 0)


def line_search(
    problem: HeadProblem, factor: Factor, asked: Asked, against: Float[Array, "p k t"], *, bound: Float[Array, ""]
) -> HeadRecord:
    """The head at the bound, along the direction of every target: one record a target.

    The step returned is the largest one evaluated whose true fit loss is within the bound (0 where even the reference
    is not), so that every record is feasible; it leaves at most TOLERANCE of the slack unused, or is FURTHEST.
    """
    features, theta = problem.features[0], problem.theta
    count, (_, columns) = features.shape[0], theta.shape
    direction, gain = directions(factor, asked, against)
    base = (features @ theta)[..., None]
    moved = (features @ direction.reshape(direction.shape[0], -1)).reshape(count, columns, -1)
    linear = jnp.einsum("fk,fkt->t", problem.wanted[0], direction)
    start = jnp.sum(problem.wanted[0] * theta)
    gain = jnp.maximum(gain, jnp.finfo(gain.dtype).tiny)
    slack = jnp.maximum(bound - problem.reference_loss[0], 0.0)
    furthest = FURTHEST / gain
    goal = bound - slack * TOLERANCE / 2  # Newton's method comes from above: aimed a little lower it ends inside

    def loss_and_slope(step: Array) -> tuple[Array, Array]:
        probs, partition = probabilities(base + step[None, None] * moved)
        slope = jnp.einsum("qkt,qkt->t", probs, moved) / count - linear
        return partition / count - start - step * linear, slope

    def narrow(found: tuple) -> tuple:
        step, low, low_loss, high = found
        loss, slope = loss_and_slope(step)
        inside = loss <= bound
        low_loss = jnp.where(inside, loss, low_loss)
        low, high = jnp.where(inside, step, low), jnp.where(inside, high, jnp.minimum(step, high))
        newton = step + (goal - loss) / slope
        middle = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * low)
        usable = (newton > low) & (newton < jnp.minimum(high, 4 * step)) & (slope > 0)
        return jnp.minimum(jnp.where(usable, newton, middle), furthest), low, low_loss, high

    def open_yet(state: tuple) -> Array:
        (step, low, low_loss, _), count = state
        settled = (bound - low_loss <= TOLERANCE * slack) | (low >= furthest) | (step <= low)
        return (count < EVALUATIONS) & ~jnp.all(settled)

    first = jnp.minimum(jnp.sqrt(2 * slack / gain), furthest)
    zeros = jnp.zeros_like(gain)
    (_, step, loss, _), _ = jax.lax.while_loop(
        open_yet,
        lambda state: (narrow(state[0]), state[1] + 1),
        ((first, zeros, zeros + problem.reference_loss[0], zeros + jnp.inf), 0),
    )
    logits, objective, _ = point_loss(*asked, theta[..., None] + step[None, None] * direction)
    record = HeadRecord(class_probabilities(logits), objective, loss, zeros)
    return HeadRecord(*(leaf[None] for leaf in record))
