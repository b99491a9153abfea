"""The search for one adversarial model: objective, constraint, one step. How many run together is execution.py's matter.

For a target (points P with wanted labels y) the search minimises A(z) + c * phi(L(z) - bound), where A is the
cross-entropy at the target's points, L the cross-entropy on a fit batch, bound = L_ref + slack, and phi the identity
(published) or max(0, .). Everything a step needs beyond its state comes in as arrays (`StepInputs`), so that schedules,
fit batches and learning rate are data and one compiled step serves them all.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..config import SearchConfig
from ..core.network import EVAL, DrawnNoise, GivenNoise, Mode
from ..models.model import Network, Parameters
from .network import on_patches
from .space import Moving, Space


class Setup(NamedTuple):
    """What is fixed at compile time.

    With `patches` the fit batch is one of patches, whose logits are those of their middles, and so is a target's own image
    if it is an `inner` one; a `border` one is padded like the whole image.
    """

    network: Network
    space: Space
    procedure: "Procedure"
    shape: tuple[int, ...]
    patches: Literal["", "inner", "border"] = ""


@dataclass(frozen=True)
class Procedure:
    """The choices of SearchConfig that change the computation rather than its numbers."""

    optimizer: str
    train: bool
    hinge: bool
    record_after: bool
    solver: str = "penalty"
    stop: bool = False
    half: bool = False  # bfloat16 inside the network

    @staticmethod
    def of(config: SearchConfig, *, compute: str = "float32") -> "Procedure":
        """The choices of a config; ValueError for an optimiser that optax does not have."""
        if config.optimizer not in ("adam", "sgd") and not hasattr(optax, f"scale_by_{config.optimizer}"):
            known = sorted(n.removeprefix("scale_by_") for n in dir(optax) if n.startswith("scale_by_"))
            raise ValueError(f"optimizer: expected adam, sgd or one of {', '.join(known)}, got {config.optimizer!r}")
        return Procedure(
            config.optimizer,
            config.mode == "train",
            config.penalty == "hinge",
            config.record == "after",
            config.solver,
            config.stop == "flipped",
            compute == "bfloat16",
        )


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
    """One target as one member sees it; `image` are activations of its own (a patch, one of several images) in place of the
    case's."""

    points: Int[Array | np.ndarray, " p"]
    labels: Int[Array | np.ndarray, " p"]
    weights: Float[Array | np.ndarray, " p"]
    image: Any = None


class StepInputs(NamedTuple):
    """What changes from step to step; `noise` is a key, recorded dropout masks of three passes, or None.

    `fit_loss` is given where it is known, by `fit_loss_of`, that the weights keep the bound: the fit batch is then not run.
    """

    batch: Int[Array, ""]
    coefficient: Float[Array, ""]
    learning_rate: Float[Array, ""]
    noise: Any
    fit_loss: Any = None


class State(NamedTuple):
    """What a member carries from step to step: for backtracking its last feasible `z`, for an early stop whether it rests."""

    z: Moving
    optimizer: optax.OptState
    stats: Parameters
    held: Moving = ()
    done: Any = ()


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
            raise ValueError(
                f"fit data: expected at least batch_stride = {config.batch_stride} fit batches, got "
                f"{batches}; lower --batch-stride or give more fit cases"
            )
        used = np.arange(config.batch_stride - 1, batches, config.batch_stride)
        count = np.concatenate([epoch * batches + used for epoch in range(config.epochs)])
    else:
        count = np.arange(config.steps)
    periods = count // config.schedule_every
    value = {
        "constant": np.full(len(count), config.coefficient),
        "linear": config.schedule_start + config.schedule_rate * periods,
        "exponential": config.schedule_start * config.schedule_rate ** periods.astype(float),
    }[config.schedule]
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
    return optax.identity() if procedure.optimizer == "sgd" else getattr(optax, f"scale_by_{procedure.optimizer}")()


def begin(setup: Setup, frozen: Frozen) -> State:
    """The state before the first step: the reference model."""
    z = setup.space.start(setup.network, frozen.params, frozen.image)
    return State(
        z,
        _optimizer(setup.procedure).init(z),
        frozen.stats,
        held=z if setup.procedure.solver == "backtrack" else (),
        done=jnp.zeros((), bool) if setup.procedure.stop else (),
    )


def _at_points(setup: Setup, logits: Float[Array, "1 *padded c"], points: Int[Array | np.ndarray, " p"]) -> Float[Array, "p c"]:
    image = logits[(0, *(slice(n) for n in setup.shape))].reshape(-1, logits.shape[-1])
    if points.shape[0] == math.prod(setup.shape) > 1:
        return image  # a target of all pixels lists them in order; a gather would only cost time
    return image[points]


def _run(setup: Setup, z: Moving, stats: Parameters, frozen: Frozen, activation: Any, mode: Mode) -> tuple[Array, Parameters]:
    """One pass under `z`; in bfloat16, where asked, between float32 weights and float32 logits."""
    if not setup.procedure.half:
        return setup.space.logits(setup.network, z, frozen.params, stats, activation, mode)
    half = partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x)
    logits, after = setup.space.logits(setup.network, half(z), half(frozen.params), half(stats), half(activation), mode)
    return logits.astype(jnp.float32), jax.tree.map(lambda x, old: x.astype(old.dtype), after, stats)


def _image(frozen: Frozen, target: Target) -> Any:
    return frozen.image if target.image is None else target.image


def _logits(
    setup: Setup, z: Moving, stats: Parameters, frozen: Frozen, target: Target, inputs: StepInputs
) -> tuple[Array | None, Array, Parameters]:
    """Logits of the fit batch (None where they are not asked for) and of the image, and the statistics after."""
    run = partial(_run, setup, z, frozen=frozen)
    fit_mode, image_mode, _ = _passes(setup, inputs)
    image = _image(frozen, target)
    if not setup.space.constrained or inputs.fit_loss is not None:
        logits, stats = run(stats, activation=image, mode=image_mode)
        return None, logits, stats
    batch = jax.tree.map(lambda x: x[inputs.batch], frozen.fit)
    alike = jax.tree.map(lambda x: x.shape[1:], batch) == jax.tree.map(lambda x: x.shape[1:], image)
    # in eval mode images do not see each other: one pass is cheaper than two, unless the fit batch is shared by many patches
    if alike and not setup.patches and not setup.procedure.train:
        joined, stats = run(stats, activation=jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch, image), mode=EVAL)
        return joined[:-1], joined[-1:], stats
    with on_patches() if setup.patches else nullcontext():
        fit_logits, stats = run(stats, activation=batch, mode=fit_mode)
    with on_patches() if setup.patches == "inner" else nullcontext():
        logits, stats = run(stats, activation=image, mode=image_mode)
    return fit_logits, logits, stats


def _losses(
    setup: Setup, z: Moving, stats: Parameters, frozen: Frozen, target: Target, inputs: StepInputs
) -> tuple[Float[Array, ""], tuple[Record, Parameters]]:
    bound = frozen.bound[inputs.batch]
    fit_logits, logits, stats = _logits(setup, z, stats, frozen, target, inputs)
    if fit_logits is not None:
        fit_loss = cross_entropy(fit_logits, frozen.fit_labels[inputs.batch])
    else:
        fit_loss = frozen.reference_loss[inputs.batch] if inputs.fit_loss is None else inputs.fit_loss
    violation = fit_loss - bound
    penalty = inputs.coefficient * (jax.nn.relu(violation) if setup.procedure.hinge else violation)
    logits = _at_points(setup, logits, target.points)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, target.labels)
    objective = jnp.sum(target.weights * losses) / jnp.sum(target.weights)
    record = Record(jax.nn.softmax(logits), objective, fit_loss, bound, penalty)
    return objective if setup.procedure.solver == "backtrack" else objective + penalty, (record, stats)


def may_skip_fit(setup: Setup) -> bool:
    """Whether the fit batch has no part in a step from weights that keep the bound: its penalty and gradient are 0 there.

    The image's pass must not depend on it either, as it does in train mode through running statistics.
    """
    procedure = setup.procedure
    return (
        setup.space.constrained
        and not setup.patches
        and not procedure.train
        and procedure.hinge
        and procedure.solver == "penalty"
    )


def fit_loss_of(setup: Setup, frozen: Frozen, state: State, inputs: StepInputs) -> Float[Array, ""]:
    """The fit loss at the state's weights in eval mode, in nats a pixel."""
    batch = jax.tree.map(lambda x: x[inputs.batch], frozen.fit)
    logits, _ = _run(setup, state.z, state.stats, frozen, batch, EVAL)
    return cross_entropy(logits, frozen.fit_labels[inputs.batch])


def measure(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> Record:
    """Prediction and losses at the state's weights, without a step."""
    return _losses(setup, state.z, state.stats, frozen, target, inputs)[1][0]


def step(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> tuple[State, Record]:
    """One optimiser step, and the record of it.

    The losses in the record are those before the step. So is the prediction, or, where the procedure records `after`,
    that of the moved weights in a pass of its own (published).
    """
    gradient, (record, stats) = jax.grad(_losses, argnums=1, has_aux=True)(setup, state.z, state.stats, frozen, target, inputs)
    direction, optimizer = _optimizer(setup.procedure).update(gradient, state.optimizer, state.z)
    z = jax.tree.map(lambda value, d: value - inputs.learning_rate * d, state.z, direction)
    held, done = state.held, state.done
    feasible = record.fit_loss <= record.bound
    if setup.procedure.solver == "backtrack":
        halfway = jax.tree.map(lambda a, b: (a + b) / 2, state.z, held)
        z, optimizer = _where(feasible, (z, optimizer), (halfway, state.optimizer))
        held = _where(feasible, state.z, held)
    if setup.procedure.stop:
        has_all = jnp.all((jnp.argmax(record.probs, -1) == target.labels) | (target.weights == 0))
        done = done | (feasible & has_all)
        z, optimizer = _where(done, (state.z, state.optimizer), (z, optimizer))
    if setup.procedure.record_after:
        mode = _passes(setup, inputs)[2]
        logits, stats = _run(setup, z, stats, frozen, _image(frozen, target), mode)
        record = record._replace(probs=jax.nn.softmax(_at_points(setup, logits, target.points)))
    return State(z, optimizer, stats, held, done), record


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
