"""One step of the search for one adversarial model: objective, constraint, gradient, record. How many run together is layout's.

For a target (points P with wanted labels y) the search minimises A(z) + penalty(L(z) - bound), where A is the loss at the
target's points, L the loss on a fit batch, and bound = L_ref + slack. What a solver makes of its gradient is the solver's.
Everything a step needs beyond its state comes in as arrays (`StepInputs`), so that schedules, fit batches, learning rate and
slack are data and one compiled step serves them all.
"""

from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .network import EVAL, Parameters, on_patches
from .passes import at_points, pass_modes, run_pass, with_fit
from .setup import Frozen, Kept, Record, Setup, State, StepInputs, Target
from .solvers import Moving, where
from .space import Activation


def begin(setup: Setup, frozen: Frozen) -> State:
    """The state before the first step: the reference model."""
    z = setup.space.start(setup.network, frozen.params, frozen.image)
    done = jnp.zeros((), bool) if setup.stop else ()
    kept = Kept(z, jnp.asarray(jnp.inf, jnp.float32), jnp.asarray(setup.record_after)) if setup.keep else ()
    return State(z, setup.solver.init(z), frozen.stats, done, kept)


def _image(frozen: Frozen, target: Target) -> Activation:
    return frozen.image if target.image is None else target.image


def _logits(
    setup: Setup, z: Moving, stats: Parameters, frozen: Frozen, target: Target, inputs: StepInputs
) -> tuple[Array | None, Array, Parameters]:
    """Logits of the fit batch (None where they are not asked for) and of the image, and the statistics after."""
    run = partial(run_pass, setup, z, frozen=frozen)
    fit_mode, image_mode, _ = pass_modes(setup, inputs)
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
    logits = at_points(setup, logits, target.points)
    objective = setup.loss.at_points(logits, target.labels, target.weights)
    return objective + penalty, (Record(jax.nn.softmax(logits), objective, fit_loss, bound, penalty, reference), stats)


def measure(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> Record:
    """Prediction and losses at the state's weights, without a step."""
    inputs = with_fit(setup, frozen, state, inputs, gradient=False)
    return _losses(setup, state.z, state.stats, frozen, target, inputs)[1][0]


def step(setup: Setup, frozen: Frozen, target: Target, state: State, inputs: StepInputs) -> tuple[State, Record]:
    """One step of the solver, and the record of it.

    The losses in the record are those before the step. So is the prediction, or, where the procedure records `after`,
    that of the moved weights in a pass of its own (published).
    """
    inputs = with_fit(setup, frozen, state, inputs, gradient=True)
    gradient, (record, stats) = jax.grad(_losses, argnums=1, has_aux=True)(setup, state.z, state.stats, frozen, target, inputs)
    if inputs.fit_gradient is not None:  # the penalty is a function of the fit loss alone
        slope = jax.grad(setup.solver.penalty)(record.fit_loss - record.bound, inputs.coefficient)
        gradient = jax.tree.map(lambda own, fit: own + slope * fit, gradient, inputs.fit_gradient)
    feasible = record.fit_loss <= record.bound
    z, solver = setup.solver.step(state.z, state.solver, gradient, rate=inputs.learning_rate, feasible=feasible)
    done = state.done
    if setup.stop:
        has_all = jnp.all((jnp.argmax(record.probs, -1) == target.labels) | (target.weights == 0))
        done = done | (feasible & has_all)
        z, solver = where(done, (state.z, state.solver), (z, solver))
    if setup.record_after:
        mode = pass_modes(setup, inputs)[2]
        logits, stats = run_pass(setup, z, stats, frozen, _image(frozen, target), mode)
        record = record._replace(probs=jax.nn.softmax(at_points(setup, logits, target.points)))
    kept = _kept(state.kept, z if setup.record_after else state.z, record) if setup.keep else ()
    return State(z, solver, stats, done, kept), record


def _kept(kept: Kept, z: Moving, record: Record) -> Kept:
    finite = jnp.isfinite(record.objective) & jnp.isfinite(record.fit_loss) & jnp.all(jnp.isfinite(record.probs))
    better = kept.begun & finite & (record.fit_loss <= record.bound) & (record.objective < kept.objective)
    best, objective = where(better, (z, record.objective), (kept.z, kept.objective))
    return Kept(best, objective, jnp.ones((), bool))


def kept_weights(state: State, last: Record | None) -> Moving:
    """What is kept of a search that has ended; `last` is the record of its last weights where that is not in the state yet.

    Where no weights kept the bound these are the last.
    """
    kept = state.kept if last is None else _kept(state.kept, state.z, last)
    return where(jnp.isfinite(kept.objective), kept.z, state.z)
