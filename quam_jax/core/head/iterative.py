"""The iterative solvers on the head: the steps of step.py for thousands of heads at once, with the same numbers.

A step of one head is the step of a member in the space `head`, on the fit points of the step. Losses and gradients of all heads
are matrix products; what a solver makes of them is the solver's own `step`, mapped over heads.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ..solvers import Moving, Solver, where
from .loss import class_probabilities, fit_gradient, fit_loss, point_loss
from .problem import HeadProblem, columns_of


class Asked(NamedTuple):
    """What the heads of a chunk are asked for: their points' features, one-hot wanted labels (one column: class 1), weights."""

    features: Float[Array, "f p t"]
    labels: Float[Array, "p k t"]
    weights: Float[Array, "p t"]


class HeadRecord(NamedTuple):
    """One record of every head; see types.Trajectory."""

    probs: Float[Array, "s t p c"]
    objective: Float[Array, "s t"]
    fit_loss: Float[Array, "s t"]
    penalty: Float[Array, "s t"]


class _State(NamedTuple):
    z: Moving  # kernel [f c t] and, where there is one, bias [c t]: leaves as a whole network has them
    solver: Any
    done: Bool[Array, " t"]  # heads that rest, for an early stop


def search_heads(
    problem: HeadProblem,
    asked: Asked,
    *,
    bound: Float[Array, " s"],
    coefficient: Float[Array, " s"],
    rate: Float[Array, ""],
    solver: Solver,
    stop: bool,
) -> HeadRecord:
    """Search all heads of a chunk; the records belong to the weights after steps 1, 2, ..., s - 1.

    `problem` has one set of fit points a record: the first is that of the reference, which is not recorded, so that its
    last set serves the measurement of the last iterate.
    """
    targets = asked.features.shape[-1]
    z = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[..., None], (*leaf.shape, targets)), problem.head)
    state = _State(z, jax.vmap(solver.init, -1, -1)(z), jnp.zeros(targets, bool))
    numbers = (bound, coefficient, jnp.broadcast_to(rate, bound.shape))

    def step(state: _State, s: Any, first: bool = False) -> tuple[_State, HeadRecord]:
        own = {name: getattr(problem, name)[s] for name in ("features", "transposed", "wanted", "reference_loss")}
        here = problem._replace(**own)
        return _step(state, asked, here, tuple(number[s] for number in numbers), solver=solver, stop=stop, first=first)

    state, _ = step(state, 0, first=True)
    # products run as fast inside a scan as outside (convolutions do not), and only one step is compiled for all of these
    return lax.scan(step, state, jnp.arange(1, len(problem.reference_loss)))[1]


def _step(
    state: _State, asked: Asked, problem: HeadProblem, numbers: tuple, *, solver: Solver, stop: bool, first: bool
) -> tuple[_State, HeadRecord]:
    bound, coefficient, rate = numbers
    theta = columns_of(state.z, problem.sums)
    # before the first step all heads are the given one
    loss, probs = fit_loss(problem.features, problem.wanted, problem.theta[..., None] if first else theta)
    loss = jnp.broadcast_to(loss, theta.shape[-1:])
    logits, objective, gradient = point_loss(*asked, theta)
    violation = loss - bound
    penalty, slope = jax.vmap(jax.value_and_grad(solver.penalty), (0, None))(violation, coefficient)
    record = HeadRecord(class_probabilities(logits), objective, loss, penalty)
    # half of a step's operations, which nobody needs where no head of the chunk pays for the fit
    gradient = lax.cond(
        jnp.any(slope != 0),
        lambda: gradient + slope[None, None] * fit_gradient(problem.transposed, problem.wanted, probs),
        lambda: gradient,
    )
    feasible = violation <= 0

    def move(z: Moving, inner: Any, gradient: Moving, feasible: Array) -> tuple[Moving, Any]:
        return solver.step(z, inner, gradient, rate=rate, feasible=feasible)

    z, inner = jax.vmap(move, -1, -1)(state.z, state.solver, _as_head(gradient, state.z, problem.sums), feasible)
    done = state.done
    if stop:
        done = done | (feasible & _has_all(logits, asked))
        z, inner = jax.vmap(where, -1, -1)(done, (state.z, state.solver), (z, inner))
    return _State(z, inner, done), record


def _as_head(gradient: Float[Array, "g k t"], z: Moving, sums: Float[Array, "c h"] | None) -> Moving:
    """The gradient of the columns that matter as one of the head's own leaves: a margin pulls its two columns apart."""
    whole = jnp.concatenate([-gradient, gradient], 1) if gradient.shape[1] == 1 else gradient
    if sums is not None:
        whole = jnp.einsum("gct,ch->ght", whole, sums, precision="highest")
    return (whole,) if len(z) == 1 else (whole[:-1], whole[-1])


def _has_all(logits: Float[Array, "p k t"], asked: Asked) -> Bool[Array, " t"]:
    if logits.shape[1] == 1:
        right = (logits[:, 0] > 0) == (asked.labels[:, 0] > 0)
    else:
        right = jnp.argmax(logits, 1) == jnp.argmax(asked.labels, 1)
    return jnp.all(right | (asked.weights == 0), 0)
