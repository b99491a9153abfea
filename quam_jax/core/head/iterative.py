"""The iterative solvers on the head: the steps of search.py for thousands of heads at once, with the same numbers.

A step of one head is the step of `search.step` in the space `head`, on the fit points of the step. For two classes the two
columns of a head move oppositely by equal amounts, under gradient descent as under Adam, so that the margin moves by twice
the step of a column.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ..step import Procedure
from .loss import class_probabilities, fit_gradient, fit_loss, point_loss
from .problem import HeadProblem

DECAY, DECAY_SQUARE, EPSILON = 0.9, 0.999, 1e-8  # optax.scale_by_adam


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
    theta: Array
    first: Array
    second: Array
    count: Array  # type: ignore[assignment]  # tuple.count is not used
    held: Array  # the last feasible theta, for backtracking
    done: Array  # heads that rest, for an early stop


def _move(state: _State, gradient: Array, rate: Array, *, procedure: Procedure) -> _State:
    step = rate * (2.0 if gradient.shape[1] == 1 else 1.0)
    if procedure.optimizer == "sgd":
        return state._replace(theta=state.theta - step * gradient)
    count = state.count + 1
    first = DECAY * state.first + (1 - DECAY) * gradient
    second = DECAY_SQUARE * state.second + (1 - DECAY_SQUARE) * gradient**2
    direction = first / (1 - DECAY**count) / (jnp.sqrt(second / (1 - DECAY_SQUARE**count)) + EPSILON)
    return state._replace(theta=state.theta - step * direction, first=first, second=second, count=count)


def _step(
    state: _State, asked: Asked, problem: HeadProblem, numbers: tuple, *, procedure: Procedure, first: bool
) -> tuple[_State, HeadRecord]:
    bound, coefficient, rate = numbers
    # before the first step all heads are the given one
    theta = problem.theta[..., None] if first else state.theta
    loss, probs = fit_loss(problem.features, problem.wanted, theta)
    loss = jnp.broadcast_to(loss, state.theta.shape[-1:])
    logits, objective, gradient = point_loss(*asked, state.theta)
    violation = loss - bound
    active = violation > 0 if procedure.hinge else jnp.ones_like(violation, bool)
    penalty = coefficient * jnp.where(active, violation, 0.0)
    record = HeadRecord(class_probabilities(logits), objective, loss, penalty)
    feasible = violation <= 0
    if procedure.solver == "penalty":
        # half of a step's operations, which nobody needs where all heads of the chunk keep the bound
        gradient = lax.cond(
            jnp.any(active),
            lambda: gradient + jnp.where(active, coefficient, 0.0) * fit_gradient(problem.transposed, problem.wanted, probs),
            lambda: gradient,
        )
        after = _move(state, gradient, rate, procedure=procedure)
    else:
        moved = _move(state, gradient, rate, procedure=procedure)
        back = state._replace(theta=(state.theta + state.held) / 2)
        after = jax.tree.map(lambda a, b: jnp.where(feasible, a, b), moved, back)
        after = after._replace(held=jnp.where(feasible, state.theta, state.held))
    if procedure.stop:
        done = state.done | (feasible & _has_all(logits, asked))
        theta, first_moment, second, count = (jnp.where(done, old, new) for old, new in zip(state[:4], after[:4], strict=True))
        after = after._replace(theta=theta, first=first_moment, second=second, count=count, done=done)
    return after, record


def _has_all(logits: Float[Array, "p k t"], asked: Asked) -> Bool[Array, " t"]:
    if logits.shape[1] == 1:
        right = (logits[:, 0] > 0) == (asked.labels[:, 0] > 0)
    else:
        right = jnp.argmax(logits, 1) == jnp.argmax(asked.labels, 1)
    return jnp.all(right | (asked.weights == 0), 0)


def search_heads(
    problem: HeadProblem,
    asked: Asked,
    *,
    bound: Float[Array, " s"],
    coefficient: Float[Array, " s"],
    rate: Float[Array, ""],
    procedure: Procedure,
) -> HeadRecord:
    """Search all heads of a chunk; the records belong to the weights after steps 1, 2, ..., s - 1.

    `problem` has one set of fit points a record: the first is that of the reference, which is not recorded, so that its
    last set serves the measurement of the last iterate.
    """
    targets = asked.features.shape[-1]
    theta = jnp.broadcast_to(problem.theta[..., None], (*problem.theta.shape, targets))
    zeros = jnp.zeros_like(theta)
    count = jnp.zeros(targets if procedure.solver == "backtrack" or procedure.stop else ())
    state = _State(theta, zeros, zeros, count, theta, jnp.zeros(targets, bool))
    numbers = (bound, coefficient, jnp.broadcast_to(rate, bound.shape))

    def step(state: _State, s: Any, first: bool = False) -> tuple[_State, HeadRecord]:
        here = HeadProblem(
            problem.features[s], problem.transposed[s], problem.wanted[s], problem.theta, problem.reference_loss[s]
        )
        return _step(state, asked, here, tuple(number[s] for number in numbers), procedure=procedure, first=first)

    state, _ = step(state, 0, first=True)
    # products run as fast inside a scan as outside (convolutions do not), and only one step is compiled for all of these
    return lax.scan(step, state, jnp.arange(1, len(problem.reference_loss)))[1]
