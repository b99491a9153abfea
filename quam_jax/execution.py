"""How a search runs on this hardware: which members go together, how steps follow each other, how much at a time.

search.py writes one step of one member; only this file knows that there are many. A plan has two parts: members are
mapped (`vmap`), unrolled inside one compiled step (`unroll`) or dispatched one by one (`loop`), and steps are a `scan`,
`unroll`ed, or dispatched from Python (`loop`). All plans give the same numbers. On CPU a convolution inside a scan or with
mapped weights is many times slower than in a plain step, so `auto` loops there; on accelerators it maps and scans.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from .compilation import jit
from .config import ExecutionConfig, SearchConfig
from .model import Network, Parameters, SegmentationModel, pad_to_multiple
from .search import (
    Frozen,
    Procedure,
    Record,
    Setup,
    State,
    StepInputs,
    StepPlan,
    Target,
    begin,
    measure,
    plan_steps,
    slack_bound,
    step,
)
from .space import Space, parse_space
from .types import FitData, Targets, Trajectory


class Plan(NamedTuple):
    """How members and steps are laid out, and how many members are in flight."""

    members: str
    steps: str
    chunk: int


class Prepared(NamedTuple):
    """What every case of a run shares: the model, what moves, the fit batches in front of it, and the step plan."""

    model: SegmentationModel
    config: SearchConfig
    space: Space
    fit: Any
    fit_labels: Array
    reference_loss: Array
    bound: Array
    steps: StepPlan


def choose_plan(execution: ExecutionConfig, *, members: int, backend: str | None = None) -> Plan:
    """The plan for a backend; fields that are not `auto` are kept."""
    cpu = (backend or jax.default_backend()) == "cpu"
    member_plan = execution.member_plan if execution.member_plan != "auto" else ("loop" if cpu else "vmap")
    step_plan = execution.step_plan if execution.step_plan != "auto" else ("loop" if cpu else "scan")
    chunk = execution.chunk or (2 if cpu else 16)
    return Plan(member_plan, step_plan, min(chunk, members))


@jit(static_argnames=("network", "space"))
def _activations(network: Network, space: Space, params: Parameters, stats: Parameters, images: Array) -> Array:
    return space.prepare(network, params, stats, images)


def prepare(model: SegmentationModel, fit: FitData, config: SearchConfig) -> Prepared:
    """Lay out the steps and run the frozen part of the network over the fit batches, once for all cases.

    ValueError if the space does not exist in the network, or there are too few fit batches for the plan.
    """
    space = parse_space(config.space, model.network)
    images = pad_to_multiple(fit.images, model.network, leading=2)
    if images.shape[2:-1] != fit.labels.shape[2:]:
        raise ValueError(f"fit data: expected sides that the network can take, got {fit.labels.shape[2:]} (use fit_data)")
    activations = [_activations(model.network, space, model.params, model.stats, batch) for batch in images]
    return Prepared(model, config, space, _stack(activations), fit.labels, fit.reference_loss,
                    slack_bound(fit.reference_loss, config), plan_steps(config, images.shape[0]))


def search(model: SegmentationModel, image: Float[Array, "*space i"], fit: FitData, *, targets: Targets,
           config: SearchConfig, key: Key[Array, ""], execution: ExecutionConfig | None = None) -> Trajectory:
    """Search adversarial models for every target of one image.

    Returns the recorded steps, one axis of `steps`; the iterates exclude the reference itself. With many images, call
    `prepare` once and `search_prepared` for each. Raises ValueError as `prepare` does.
    """
    return search_prepared(prepare(model, fit, config), image, targets, key=key, execution=execution)


def search_prepared(prepared: Prepared, image: Float[Array, "*space i"], targets: Targets, *, key: Key[Array, ""],
                    execution: ExecutionConfig | None = None, noise: Any = None) -> Trajectory:
    """`search` with the shared part already prepared.

    `noise` replaces drawn dropout masks by recorded ones: for the fit, image and recording pass a tuple with one array
    `[t m s b channels]` a dropout layer.
    """
    model, config = prepared.model, prepared.config
    execution = execution or ExecutionConfig()
    with jax.default_matmul_precision(execution.precision):
        padded = pad_to_multiple(jnp.asarray(image, image.dtype)[None], model.network, leading=1)
        frozen = Frozen(model.params, model.stats,
                        _activations(model.network, prepared.space, model.params, model.stats, padded),
                        prepared.fit, prepared.fit_labels, prepared.reference_loss, prepared.bound)
        setup = Setup(model.network, prepared.space, Procedure.of(config), tuple(image.shape[:-1]))
        jobs = list(itertools.product(range(targets.points.shape[0]), range(targets.labels.shape[1])))
        plan = choose_plan(execution, members=len(jobs))
        if noise is None and setup.procedure.train:
            def draw(t: int, m: int, s: int) -> Any:
                return functools.reduce(jax.random.fold_in, (t, m, s), key)
        else:
            def draw(t: int, m: int, s: int) -> Any:
                return jax.tree.map(lambda masks: masks[t, m, s], noise)
        records = list(_run(setup, frozen, targets, jobs, prepared, plan=plan, draw=draw))
    shape = (targets.points.shape[0], targets.labels.shape[1])
    return Trajectory(*(jnp.stack(leaves).reshape(*shape, *leaves[0].shape)
                        for leaves in zip(*records, strict=True)))


def _run(setup: Setup, frozen: Frozen, targets: Targets, jobs: list[tuple[int, int]], prepared: Prepared, *,
         plan: Plan, draw: Callable[[int, int, int], Any]) -> Iterator[Record]:
    """The records `[s ...]` of all jobs in order, a chunk at a time; the chunk halves when memory runs out."""
    start, chunk = 0, plan.chunk
    while start < len(jobs):
        part = jobs[start:start + chunk]
        try:
            yield from _run_chunk(setup, frozen, targets, part, prepared, plan=plan, draw=draw)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or chunk == 1:
                raise
            chunk = chunk // 2
            continue
        start += len(part)


def _run_chunk(setup: Setup, frozen: Frozen, targets: Targets, jobs: list[tuple[int, int]], prepared: Prepared, *,
               plan: Plan, draw: Callable[[int, int, int], Any]) -> list[Record]:
    steps = prepared.steps
    total = len(steps.batch)
    measured = not setup.procedure.record_after  # then one more evaluation gives the last iterate its record
    job_targets = [Target(targets.points[t], targets.labels[t, m], targets.weights[t]) for t, m in jobs]

    def inputs(job: tuple[int, int], s: int) -> StepInputs:
        batch = steps.batch[s] if s < total else (steps.batch[-1] + 1) % len(prepared.reference_loss)
        return StepInputs(jnp.asarray(batch), jnp.asarray(steps.coefficient[min(s, total - 1)], jnp.float32),
                          jnp.asarray(prepared.config.learning_rate, jnp.float32), draw(*job, min(s, total - 1)))

    groups = [list(range(len(jobs)))] if plan.members != "loop" else [[i] for i in range(len(jobs))]
    advance = _mapped if plan.members == "vmap" else _unrolled
    states: list[Any] = []
    stacked: list[Any] = []
    for group in groups:
        chosen = tuple(job_targets[i] for i in group)
        states.append(_begin(setup, frozen, len(group), advance is _mapped))
        stacked.append(_stack(chosen) if advance is _mapped else chosen)

    def group_inputs(group: list[int], s: int) -> Any:
        rows = tuple(inputs(jobs[i], s) for i in group)
        return _stack(rows) if advance is _mapped else rows

    recorded: list[list[Any]] = [[] for _ in groups]
    if plan.steps == "loop":
        for s in range(total):
            for g, group in enumerate(groups):
                states[g], record = _step(setup, frozen, stacked[g], states[g], group_inputs(group, s), advance)
                recorded[g].append(record)
    else:
        for g, group in enumerate(groups):
            sequence = _stack([group_inputs(group, s) for s in range(total)])
            states[g], records = _steps(setup, frozen, stacked[g], states[g], sequence, advance, plan.steps == "scan")
            recorded[g] = [jax.tree.map(lambda x, s=s: x[s], records) for s in range(total)]
    if measured:
        for g, group in enumerate(groups):
            recorded[g].append(_measure(setup, frozen, stacked[g], states[g], group_inputs(group, total), advance))
    first = 1 if measured else 0
    results: list[Record] = []
    for g, group in enumerate(groups):
        for i in range(len(group)):
            rows = [jax.tree.map(lambda x, i=i: x[i], r) if advance is _mapped else r[i] for r in recorded[g][first:]]
            results.append(_stack(rows))
    return results


def _stack(rows: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _mapped(function: Callable[..., Any], setup: Setup, frozen: Frozen, *batched: Any) -> Any:
    return jax.vmap(functools.partial(function, setup, frozen))(*batched)


def _unrolled(function: Callable[..., Any], setup: Setup, frozen: Frozen, *batched: Any) -> Any:
    results = [function(setup, frozen, *rows) for rows in zip(*batched, strict=True)]
    return tuple(zip(*results, strict=True)) if function is step else tuple(results)


@jit(static_argnames=("setup", "count", "mapped"))
def _begin(setup: Setup, frozen: Frozen, count: int, mapped: bool) -> Any:
    state = begin(setup, frozen)
    if mapped:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), state)
    return (state,) * count


@jit(static_argnames=("setup", "advance"), donate_argnames="states")
def _step(setup: Setup, frozen: Frozen, targets: Any, states: Any, inputs: Any, advance: Any) -> tuple[State, Record]:
    return advance(step, setup, frozen, targets, states, inputs)


@jit(static_argnames=("setup", "advance", "scanned"), donate_argnames="states")
def _steps(setup: Setup, frozen: Frozen, targets: Any, states: Any, inputs: Any, advance: Any,
           scanned: bool) -> tuple[State, Record]:
    def one(carry: Any, row: Any) -> tuple[Any, Any]:
        return advance(step, setup, frozen, targets, carry, row)

    if scanned:
        return jax.lax.scan(one, states, inputs)
    records = []
    for s in range(jax.tree.leaves(inputs)[0].shape[0]):
        states, record = one(states, jax.tree.map(lambda x, s=s: x[s], inputs))
        records.append(record)
    return states, _stack(records)


@jit(static_argnames=("setup", "advance"))
def _measure(setup: Setup, frozen: Frozen, targets: Any, states: Any, inputs: Any, advance: Any) -> Record:
    return advance(measure, setup, frozen, targets, states, inputs)


def backend_name() -> str:
    """The backend that a search runs on, with its device kind: for reports."""
    device = jax.devices()[0]
    return f"{device.platform} ({device.device_kind})" if device.platform != "cpu" else "cpu"
