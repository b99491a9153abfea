"""One step of the search for one adversarial model: objective, constraint, gradient, record. How many run together is layout's.

For a target (points P with wanted labels y) the search minimises A(z) + penalty(L(z) - bound), where A is the loss at the
target's points, L the loss on a fit batch, and bound = L_ref + slack. What a solver makes of its gradient is the solver's.
Everything a step needs beyond its state comes in as arrays (`StepInputs`), so that schedules, fit batches, learning rate and
slack are data and one compiled step serves them all.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .loss import Loss, cross_entropy
from .network import EVAL, DrawnNoise, GivenNoise, Mode, Parameters, on_patches
from .schedule import Schedule, Slack, Steps
from .solvers import LineSearch, Moving, Penalty, Solver, where
from .space import Activation, FullSpace, Space


@dataclass(frozen=True)
class Procedure:
    """How adversarial models are searched for, whatever the network and the data.

    `learning_rate` scales the solver's direction. `train` runs the network with batch statistics and noise, `record_after`
    records the prediction one step later than the losses beside it (both published). With `stop` a member rests once a
    feasible model has all it wants. In the space `head`, pixels and regions keep the bound on `fit_points` points drawn for
    each step (0: all); pixels in another tail on `fit_patches` patches. `compute` is the type of weights and activations
    inside a pass, `precision` that of matrix products.
    """

    space: Space = FullSpace()
    loss: Loss = cross_entropy
    solver: Solver | LineSearch = Penalty()
    schedule: Schedule = Steps()
    slack: Slack = Slack()
    learning_rate: float = 1e-3
    train: bool = False
    record_after: bool = False
    stop: bool = False
    fit_points: int = 2048
    fit_patches: int = 4
    compute: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["highest", "high", "default"] = "highest"


class Setup(NamedTuple):
    """What is fixed at compile time.

    With `patches` the fit batch is one of patches, whose logits are those of their middles, and so is a target's own image
    if it is an `inner` one; a `border` one is padded like the whole image. `shape` is that of the image without its padding.
    """

    network: Any
    space: Space
    loss: Loss
    solver: Any
    train: bool
    record_after: bool
    stop: bool
    half: bool
    shape: tuple[int, ...]
    patches: Literal["", "inner", "border"] = ""

    @staticmethod
    def of(network: Any, procedure: Procedure, shape: tuple[int, ...]) -> "Setup":
        """The choices of a procedure that change the computation rather than its numbers."""
        p = procedure
        return Setup(network, p.space, p.loss, p.solver, p.train, p.record_after, p.stop, p.compute == "bfloat16", tuple(shape))


class Frozen(NamedTuple):
    """What all members of a case share: weights, prepared image, prepared fit batches and their bounds."""

    params: Parameters
    stats: Parameters
    image: Activation  # [1 *space f]
    fit: Activation  # [k b *space f]
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
    """What a member carries from step to step; `done` says for an early stop whether it rests."""

    z: Moving
    solver: Any
    stats: Parameters
    done: Any = ()


class Record(NamedTuple):
    """What one step reports, in nats; see types.Trajectory."""

    probs: Float[Array, "p c"]
    objective: Float[Array, ""]
    fit_loss: Float[Array, ""]
    bound: Float[Array, ""]
    penalty: Float[Array, ""]
    reference_loss: Float[Array, ""]


def _passes(setup: Setup, inputs: StepInputs) -> tuple[Mode, Mode, Mode]:
    """Modes of the fit pass, the image pass and the recording pass."""
    if not setup.train:
        return EVAL, EVAL, EVAL
    if inputs.noise is None:
        return (Mode(batch_statistics=True),) * 3
    if isinstance(inputs.noise, tuple):
        fit, image, record = (Mode(True, GivenNoise(masks)) for masks in inputs.noise)
        return fit, image, record
    keys = jax.random.split(inputs.noise, 3)
    fit, image, record = (Mode(True, DrawnNoise(keys[i])) for i in range(3))
    return fit, image, record


def begin(setup: Setup, frozen: Frozen) -> State:
    """The state before the first step: the reference model."""
    z = setup.space.start(setup.network, frozen.params, frozen.image)
    return State(z, setup.solver.init(z), frozen.stats, done=jnp.zeros((), bool) if setup.stop else ())


def _at_points(setup: Setup, logits: Float[Array, "1 *padded c"], points: Int[Array | np.ndarray, " p"]) -> Float[Array, "p c"]:
    image = logits[(0, *(slice(n) for n in setup.shape))].reshape(-1, logits.shape[-1])
    if points.shape[0] == math.prod(setup.shape) > 1:
        return image  # a target of all pixels lists them in order; a gather would only cost time
    return image[points]


def _run(
    setup: Setup, z: Moving, stats: Parameters, frozen: Frozen, activation: Activation, mode: Mode
) -> tuple[Array, Parameters]:
    """One pass under `z`; in bfloat16, where asked, between float32 weights and float32 logits."""
    if not setup.half:
        return setup.space.logits(setup.network, z, frozen.params, stats, activation, mode)
    half = partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x)
    logits, after = setup.space.logits(setup.network, half(z), half(frozen.params), half(stats), half(activation), mode)
    return logits.astype(jnp.float32), jax.tree.map(lambda x, old: x.astype(old.dtype), after, stats)


def _image(frozen: Frozen, target: Target) -> Activation:
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
    if alike and not setup.patches and not setup.train:
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
    bound, reference = frozen.bound[inputs.batch], frozen.reference_loss[inputs.batch]
    fit_logits, logits, stats = _logits(setup, z, stats, frozen, target, inputs)
    if fit_logits is not None:
        fit_loss = setup.loss.mean(fit_logits, frozen.fit_labels[inputs.batch])
    else:
        fit_loss = reference if inputs.fit_loss is None else inputs.fit_loss
    penalty = setup.solver.penalty(fit_loss - bound, inputs.coefficient)
    logits = _at_points(setup, logits, target.points)
    objective = setup.loss.at_points(logits, target.labels, target.weights)
    return objective + penalty, (Record(jax.nn.softmax(logits), objective, fit_loss, bound, penalty, reference), stats)


def may_skip_fit(setup: Setup) -> bool:
    """Whether the fit batch has no part in a step from weights that keep the bound.

    The solver must say so, and the image's pass must not depend on it either, as it does in train mode through running
    statistics.
    """
    return setup.space.constrained and not setup.patches and not setup.train and setup.solver.spares_fit


def fit_loss_of(setup: Setup, frozen: Frozen, state: State, inputs: StepInputs) -> Float[Array, ""]:
    """The fit loss at the state's weights in eval mode, in nats a pixel."""
    batch = jax.tree.map(lambda x: x[inputs.batch], frozen.fit)
    logits, _ = _run(setup, state.z, state.stats, frozen, batch, EVAL)
    return setup.loss.mean(logits, frozen.fit_labels[inputs.batch])


def measure(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> Record:
    """Prediction and losses at the state's weights, without a step."""
    return _losses(setup, state.z, state.stats, frozen, target, inputs)[1][0]


def step(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> tuple[State, Record]:
    """One step of the solver, and the record of it.

    The losses in the record are those before the step. So is the prediction, or, where the procedure records `after`,
    that of the moved weights in a pass of its own (published).
    """
    gradient, (record, stats) = jax.grad(_losses, argnums=1, has_aux=True)(setup, state.z, state.stats, frozen, target, inputs)
    feasible = record.fit_loss <= record.bound
    z, solver = setup.solver.step(state.z, state.solver, gradient, rate=inputs.learning_rate, feasible=feasible)
    done = state.done
    if setup.stop:
        has_all = jnp.all((jnp.argmax(record.probs, -1) == target.labels) | (target.weights == 0))
        done = done | (feasible & has_all)
        z, solver = where(done, (state.z, state.solver), (z, solver))
    if setup.record_after:
        mode = _passes(setup, inputs)[2]
        logits, stats = _run(setup, z, stats, frozen, _image(frozen, target), mode)
        record = record._replace(probs=jax.nn.softmax(_at_points(setup, logits, target.points)))
    return State(z, solver, stats, done), record
