"""The search for one adversarial model: objective, constraint, one step. How many run together is execution.py's matter.

For a target (points P with wanted labels y) the search minimises A(z) + c * phi(L(z) - bound), where A is the
cross-entropy at the target's points, L the cross-entropy on a fit batch, bound = L_ref + slack, and phi the identity
(published) or max(0, .). Everything a step needs beyond its state comes in as arrays (`StepInputs`), so that schedules,
fit batches and learning rate are data and one compiled step serves them all.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from .config import SearchConfig
from .model import Network, Parameters
from .networks.layers import EVAL, DrawnNoise, GivenNoise, Mode
from .space import Moving, Space


class Setup(NamedTuple):
    """What is fixed at compile time."""

    network: Network
    space: Space
    procedure: "Procedure"
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Procedure:
    """The choices of SearchConfig that change the computation rather than its numbers."""

    optimizer: str
    train: bool
    hinge: bool
    record_after: bool

    @staticmethod
    def of(config: SearchConfig) -> "Procedure":
        return Procedure(config.optimizer, config.mode == "train", config.penalty == "hinge", config.record == "after")


class Frozen(NamedTuple):
    """What all members of a case share: weights, prepared image, prepared fit batches and their bounds."""

    params: Parameters
    stats: Parameters
    image: Any  # activations [1 *space f]
    fit: Any  # activations [k b *space f]
    fit_labels: Int[Array, "k b *space"]
    reference_loss: Float[Array, " k"]
    bound: Float[Array, " k"]


class Target(NamedTuple):
    """One target as one member sees it."""

    points: Int[Array, " p"]
    labels: Int[Array, " p"]
    weights: Float[Array, " p"]


class StepInputs(NamedTuple):
    """What changes from step to step; `noise` is a key, recorded dropout masks of three passes, or None."""

    batch: Int[Array, ""]
    coefficient: Float[Array, ""]
    learning_rate: Float[Array, ""]
    noise: Any


class State(NamedTuple):
    """What a member carries from step to step."""

    z: Moving
    optimizer: optax.OptState
    stats: Parameters


class Record(NamedTuple):
    """What one step reports, in nats; see types.Trajectory."""

    probs: Float[Array, "p c"]
    objective: Float[Array, ""]
    fit_loss: Float[Array, ""]
    bound: Float[Array, ""]
    penalty: Float[Array, ""]


class StepPlan(NamedTuple):
    """Fit batch and penalty coefficient of every step."""

    batch: Int[np.ndarray, " s"]
    coefficient: Float[np.ndarray, " s"]


def plan_steps(config: SearchConfig, batches: int) -> StepPlan:
    """Lay the steps out over `batches` fit batches.

    With `epochs`, every `batch_stride`-th batch of each epoch is used and the schedule counts all batches, used or not
    (PUBLISHED: t = epoch*n + index); otherwise `steps` steps take the batches in turn. The first step uses `coefficient`,
    every later one the schedule's value at the batch before it. ValueError if there are fewer batches than the stride.
    """
    if config.epochs:
        if batches < config.batch_stride:
            raise ValueError(f"fit data: expected at least batch_stride = {config.batch_stride} fit batches, got "
                             f"{batches}; lower --batch-stride or give more fit cases")
        used = np.arange(config.batch_stride - 1, batches, config.batch_stride)
        count = np.concatenate([epoch * batches + used for epoch in range(config.epochs)])
    else:
        count = np.arange(config.steps)
    periods = count // config.schedule_every
    value = {"constant": np.full(len(count), config.coefficient),
             "linear": config.schedule_start + config.schedule_rate * periods,
             "exponential": config.schedule_start * config.schedule_rate ** periods.astype(float)}[config.schedule]
    return StepPlan(count % batches, np.concatenate([[config.coefficient], value[:-1]]).astype(np.float64))


def slack_bound(reference_loss: Float[Array, " k"], config: SearchConfig) -> Float[Array, " k"]:
    """The largest fit loss an admissible model may have on each fit batch: L_ref + slack, in nats a pixel."""
    slack = config.slack * reference_loss if config.slack_unit == "relative" else config.slack
    return reference_loss + slack


def cross_entropy(logits: Float[Array, "*batch c"], labels: Int[Array, "*batch"]) -> Float[Array, ""]:
    """Mean cross-entropy over the positions with a label >= 0, in nats."""
    labelled = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(labelled, labels, 0))
    return jnp.sum(jnp.where(labelled, losses, 0.0)) / jnp.maximum(jnp.sum(labelled), 1)


def _passes(setup: Setup, inputs: StepInputs) -> tuple[Mode, Mode, Mode]:
    """Modes of the fit pass, the image pass and the recording pass."""
    if not setup.procedure.train:
        return EVAL, EVAL, EVAL
    if inputs.noise is None:
        return (Mode(batch_statistics=True),) * 3
    if isinstance(inputs.noise, tuple):
        fit, image, record = (Mode(True, GivenNoise(masks)) for masks in inputs.noise)
        return fit, image, record
    keys = jax.random.split(inputs.noise, 3)
    fit, image, record = (Mode(True, DrawnNoise(keys[i])) for i in range(3))
    return fit, image, record


def _optimizer(procedure: Procedure) -> optax.GradientTransformation:
    # the learning rate is applied by the step, so that changing it (the control with 0) compiles nothing anew
    return optax.scale_by_adam() if procedure.optimizer == "adam" else optax.identity()


def begin(setup: Setup, frozen: Frozen) -> State:
    """The state before the first step: the reference model."""
    z = setup.space.start(setup.network, frozen.params, frozen.image)
    return State(z, _optimizer(setup.procedure).init(z), frozen.stats)


def _at_points(setup: Setup, logits: Float[Array, "1 *padded c"], points: Int[Array, " p"]) -> Float[Array, "p c"]:
    image = logits[(0, *(slice(n) for n in setup.shape))].reshape(-1, logits.shape[-1])
    if points.shape[0] == math.prod(setup.shape):
        return image  # a target of all pixels lists them in order; a gather would only cost time
    return image[points]


def _logits(setup: Setup, z: Moving, stats: Parameters, frozen: Frozen,
            inputs: StepInputs) -> tuple[Array | None, Array, Parameters]:
    """Logits of the fit batch (None where the space cannot change them) and of the image, and the statistics after."""
    def run(activation: Any, mode: Mode, stats: Parameters) -> tuple[Array, Parameters]:
        return setup.space.logits(setup.network, z, frozen.params, stats, activation, mode)

    fit_mode, image_mode, _ = _passes(setup, inputs)
    if not setup.space.constrained:
        logits, stats = run(frozen.image, image_mode, stats)
        return None, logits, stats
    batch = jax.tree.map(lambda x: x[inputs.batch], frozen.fit)
    alike = jax.tree.map(lambda x: x.shape[1:], batch) == jax.tree.map(lambda x: x.shape[1:], frozen.image)
    if alike and not setup.procedure.train:  # in eval mode images do not see each other: one pass is cheaper than two
        joined, stats = run(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch, frozen.image), EVAL, stats)
        return joined[:-1], joined[-1:], stats
    fit_logits, stats = run(batch, fit_mode, stats)
    logits, stats = run(frozen.image, image_mode, stats)
    return fit_logits, logits, stats


def _losses(setup: Setup, z: Moving, stats: Parameters, frozen: Frozen, target: Target,
            inputs: StepInputs) -> tuple[Float[Array, ""], tuple[Record, Parameters]]:
    bound = frozen.bound[inputs.batch]
    fit_logits, logits, stats = _logits(setup, z, stats, frozen, inputs)
    if fit_logits is None:
        fit_loss = frozen.reference_loss[inputs.batch]
    else:
        fit_loss = cross_entropy(fit_logits, frozen.fit_labels[inputs.batch])
    violation = fit_loss - bound
    penalty = inputs.coefficient * (jnp.maximum(violation, 0.0) if setup.procedure.hinge else violation)
    logits = _at_points(setup, logits, target.points)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, target.labels)
    objective = jnp.sum(target.weights * losses) / jnp.sum(target.weights)
    record = Record(jax.nn.softmax(logits), objective, fit_loss, bound, penalty)
    return objective + penalty, (record, stats)


def measure(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> Record:
    """Prediction and losses at the state's weights, without a step."""
    return _losses(setup, state.z, state.stats, frozen, target, inputs)[1][0]


def step(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> tuple[State, Record]:
    """One optimiser step, and the record of it.

    The losses in the record are those before the step. So is the prediction, or, where the procedure records `after`,
    that of the moved weights in a pass of its own (published).
    """
    gradient, (record, stats) = jax.grad(_losses, argnums=1, has_aux=True)(
        setup, state.z, state.stats, frozen, target, inputs)
    direction, optimizer = _optimizer(setup.procedure).update(gradient, state.optimizer)
    z = jax.tree.map(lambda value, d: value - inputs.learning_rate * d, state.z, direction)
    if setup.procedure.record_after:
        mode = _passes(setup, inputs)[2]
        logits, stats = setup.space.logits(setup.network, z, frozen.params, stats, frozen.image, mode)
        record = record._replace(probs=jax.nn.softmax(_at_points(setup, logits, target.points)))
    return State(z, optimizer, stats), record
