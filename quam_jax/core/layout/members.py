"""Many members of a case through the steps of step.py: mapped, unrolled or one by one; scanned, unrolled or in a loop.

On a CPU a convolution inside a scan or with mapped weights is many times slower than in a plain compiled step, so members
and steps are dispatched from Python there; on accelerators they are mapped and scanned. All ways give the same numbers.

One by one, the members in flight take their steps in a thread each, and a member that keeps the bound is spared the gradient
of its fit loss, which is 0 there: its fit loss is computed first (at the given weights it is known), and where it is below the
bound only the image takes part in the step. After a step that broke the bound the next one runs whole at once. What a member
does depends on its own steps alone.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compilation import jit, side_by_side
from ..schedule import StepPlan
from ..step import Frozen, Record, Setup, State, StepInputs, Target, begin, fit_loss_of, may_skip_fit, measure, step
from .choose import PROBE, Layout, memory_budget

Job = tuple[int, ...]  # what tells a member apart: image, target and member
# of the members of a group: mapped, one along a leading axis; otherwise one a member
Wanted = Target | tuple[Target, ...]
States = State | tuple[State, ...]
Inputs = StepInputs | tuple[StepInputs, ...]
Records = Record | tuple[Record, ...]
_COMPILED: set[Hashable] = set()  # kinds of groups that have run in this process


def run_members(
    setup: Setup,
    frozen: Frozen,
    targets_of: Callable[[list[Job]], Target],
    jobs: list[Job],
    steps: StepPlan,
    *,
    rate: float,
    layout: Layout,
    draw: Callable[[Job, int], Any],
) -> Record:
    """The records `[members s ...]` of all jobs in order, a chunk at a time; the chunk halves when memory runs out.

    A mapped chunk that is not full repeats its last job, so that all chunks share one compilation. `targets_of` lays out the
    targets of some jobs along a leading axis, `draw` gives the noise of a job in a step.
    """
    parts: list[Record] = []
    start, chunk = 0, layout.chunk or _fitting_chunk(setup, frozen, targets_of, jobs, layout=layout, draw=draw)
    while start < len(jobs):
        part = jobs[start : start + chunk]
        count = len(part)
        if layout.members == "vmap":
            part = part + part[-1:] * (chunk - count)
        try:
            record = _run_chunk(setup, frozen, targets_of(part), part, steps, rate=rate, layout=layout, draw=draw)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or chunk == 1:
                raise
            chunk = chunk // 2
            continue
        parts.append(jax.tree.map(lambda leaf, n=count: leaf[:n], record))
        start += count
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _fitting_chunk(
    setup: Setup,
    frozen: Frozen,
    targets_of: Callable[[list[Job]], Target],
    jobs: list[Job],
    *,
    layout: Layout,
    draw: Callable[[Job, int], Any],
) -> int:
    """How many members' temporary arrays the memory takes, by the compiled step of a few, each device with its share."""
    count = min(len(jobs), PROBE)
    if count == len(jobs):
        return count
    inputs = StepInputs(jnp.asarray(0), jnp.float32(0), jnp.float32(0), _stack([draw(job, 0) for job in jobs[:count]]))
    compiled = (
        jax.jit(functools.partial(_mapped, step), static_argnums=0)
        .lower(setup, frozen, targets_of(jobs[:count]), _begin(setup, frozen, count, True), inputs)
        .compile()
    )
    analysis = compiled.memory_analysis()
    each = max(1, (analysis.temp_size_in_bytes + analysis.output_size_in_bytes) // count)  # type: ignore[union-attr]
    chunk = max(1, memory_budget() // each) * layout.devices
    chunks = -(-len(jobs) // chunk)
    return -(-len(jobs) // chunks)  # chunks of equal size


def _run_chunk(
    setup: Setup,
    frozen: Frozen,
    targets: Target,
    jobs: list[Job],
    steps: StepPlan,
    *,
    rate: float,
    layout: Layout,
    draw: Callable[[Job, int], Any],
) -> Record:
    total = len(steps.batch)
    measured = not setup.record_after  # then one more evaluation gives the last iterate its record
    batches = frozen.bound.shape[0]
    moved_by = jnp.asarray(rate, jnp.float32)
    mapped = layout.members == "vmap"
    groups = [list(range(len(jobs)))] if layout.members != "loop" else [[i] for i in range(len(jobs))]
    advance = _mapped if mapped else _unrolled

    def inputs(group: list[int], s: int) -> Any:
        batch = steps.batch[s] if s < total else (steps.batch[-1] + 1) % batches
        last = min(s, total - 1)
        shared = StepInputs(jnp.asarray(batch), jnp.asarray(steps.coefficient[last], jnp.float32), moved_by, None)
        noise = [draw(jobs[i], last) for i in group]
        return shared._replace(noise=_stack(noise)) if mapped else tuple(shared._replace(noise=masks) for masks in noise)

    states: list[States] = []
    chosen: list[Wanted] = []
    for group in groups:
        one_by_one = tuple(jax.tree.map(lambda x, i=i: x[i], targets) for i in group) if not mapped else ()
        chosen.append(_shared_out(targets, layout.devices) if mapped else one_by_one)
        states.append(_begin(setup, frozen, len(group), mapped))
    recorded: list[list[Any]] = [[] for _ in groups]

    def measure_last(g: int) -> None:
        if measured:
            recorded[g].append(_measure(setup, frozen, chosen[g], states[g], inputs(groups[g], total), advance))

    if layout.steps == "loop":
        bounds, references = np.asarray(frozen.bound), np.asarray(frozen.reference_loss)
        lazy = layout.members == "loop" and may_skip_fit(setup)

        def run_group(g: int) -> None:
            for s in range(total):
                now, batch, known = inputs(groups[g], s), steps.batch[s], None
                if lazy and s == 0:
                    known = references[batch]  # the first step starts at the given weights
                elif lazy and not _broken(recorded[g][-1][0]):
                    known = _fit_loss(setup, frozen, states[g][0], now[0])
                if known is not None and float(known) <= bounds[batch]:
                    now = (now[0]._replace(fit_loss=known),)
                states[g], record = _step(setup, frozen, chosen[g], states[g], now, advance)
                recorded[g].append(record)
            measure_last(g)

        kind = (setup, len(groups[0]), layout, _shapes((frozen, targets)))
        for _ in side_by_side(run_group, range(len(groups)), compiled=kind in _COMPILED):
            _COMPILED.add(kind)
    else:
        for g, group in enumerate(groups):
            sequence = _stack([inputs(group, s) for s in range(total)])
            states[g], records = _steps(setup, frozen, chosen[g], states[g], sequence, advance, layout.steps == "scan")
            recorded[g] = [jax.tree.map(lambda x, s=s: x[s], records) for s in range(total)]
            measure_last(g)
    first = 1 if measured else 0
    rows = [
        _rows(tuple(steps[first:])) if mapped else _stack([_stack([r[i] for r in steps[first:]]) for i in range(len(group))])
        for group, steps in zip(groups, recorded, strict=True)
    ]
    return rows[0] if len(rows) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)


def _shapes(tree: Any) -> Hashable:
    return tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


def _broken(record: Record) -> bool:
    return not float(record.fit_loss) <= float(record.bound)


def _shared_out(targets: Target, devices: int) -> Target:
    """The targets of a mapped chunk, split over devices where their number allows; the compiler splits the rest alike."""
    count = targets.labels.shape[0]
    devices = min(devices, count)
    while devices > 1 and count % devices:
        devices -= 1
    if devices <= 1:
        return targets
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:devices]), ("members",))
    return jax.device_put(targets, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members")))


def _stack(rows: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _mapped(
    function: Callable[..., Any], setup: Setup, frozen: Frozen, targets: Target, states: State, inputs: StepInputs
) -> Any:
    one = functools.partial(function, setup, frozen)
    return jax.vmap(one, (0, 0, StepInputs(None, None, None, 0)))(targets, states, inputs)  # type: ignore[arg-type]  # axes


def _unrolled(function: Callable[..., Any], setup: Setup, frozen: Frozen, *batched: Any) -> Any:
    results = [function(setup, frozen, *rows) for rows in zip(*batched, strict=True)]
    return tuple(zip(*results, strict=True)) if function is step else tuple(results)


@jax.jit
def _rows(records: tuple[Record, ...]) -> Record:
    """Records of steps as records `[members s ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *records)


@jit(static_argnames=("setup", "count", "mapped"))
def _begin(setup: Setup, frozen: Frozen, count: int, mapped: bool) -> States:
    state = begin(setup, frozen)
    if mapped:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), state)
    return (state,) * count


@jit(static_argnames="setup")
def _fit_loss(setup: Setup, frozen: Frozen, state: State, inputs: StepInputs) -> Float[Array, ""]:
    return fit_loss_of(setup, frozen, state, inputs)


@jit(static_argnames=("setup", "advance"), donate_argnames="states")
def _step(
    setup: Setup, frozen: Frozen, targets: Wanted, states: States, inputs: Inputs, advance: Callable[..., Any]
) -> tuple[States, Records]:
    return advance(step, setup, frozen, targets, states, inputs)


@jit(static_argnames=("setup", "advance", "scanned"), donate_argnames="states")
def _steps(
    setup: Setup, frozen: Frozen, targets: Wanted, states: States, inputs: Inputs, advance: Callable[..., Any], scanned: bool
) -> tuple[States, Records]:
    def one(carry: States, row: Any) -> tuple[States, Records]:
        return advance(step, setup, frozen, targets, carry, row)

    if scanned:
        return jax.lax.scan(one, states, inputs)
    records = []
    for s in range(jax.tree.leaves(inputs)[0].shape[0]):
        states, record = one(states, jax.tree.map(lambda x, s=s: x[s], inputs))
        records.append(record)
    return states, _stack(records)


@jit(static_argnames=("setup", "advance"))
def _measure(
    setup: Setup, frozen: Frozen, targets: Wanted, states: States, inputs: Inputs, advance: Callable[..., Any]
) -> Records:
    return advance(measure, setup, frozen, targets, states, inputs)
