"""The compiled programs of a search, each for a group of members, and what they take.

A group is mapped, with one row a member along a leading axis, or unrolled: a tuple with one entry a member.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compilation import jit
from ..passes import add_part, fit_loss_of
from ..setup import Frozen, Record, Setup, State, StepInputs, Target
from ..solvers import Moving
from ..step import begin, kept_weights, measure, step
from ..types import ViewMean
from ..viewing import ViewSums, add_views, first_view, mean_of_views, view

Wanted = Target | tuple[Target, ...]
States = State | tuple[State, ...]
Inputs = StepInputs | tuple[StepInputs, ...]
Records = Record | tuple[Record, ...]
Viewings = ViewMean | tuple[ViewMean, ...] | None


def shapes_of(tree: Any) -> Hashable:
    """Shapes and types of a tree of arrays."""
    return tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


def size_of(tree: Any) -> int:
    """Bytes of the arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def memory_of(lowered: Any) -> int:
    """What a program takes while it runs, beside its arguments; compiled here, it is not compiled again when it runs."""
    analysis = lowered.compile().memory_analysis()
    if analysis is None:
        return 0
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes


def forget_programs() -> None:
    """Let go of what was compiled of the steps: what a search cannot use only takes memory."""
    for program in (step_group, add_fit_part, run_steps, view_group, add_member_views):
        program.clear_cache()


def broken(record: Record) -> bool:
    """Whether the weights of a record broke the bound."""
    return not float(record.fit_loss) <= float(record.bound)


def shared_out(targets: Target, devices: int) -> Target:
    """The targets of a mapped chunk, split over devices where their number allows; the compiler splits the rest alike."""
    count = targets.labels.shape[0]
    devices = min(devices, count)
    while devices > 1 and count % devices:
        devices -= 1
    if devices <= 1:
        return targets
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:devices]), ("members",))
    return jax.device_put(targets, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members")))


def stack(rows: Any) -> Any:
    """Several trees as one with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def map_members(
    function: Callable[..., Any], setup: Setup, frozen: Frozen, targets: Target, states: State, inputs: StepInputs
) -> Any:
    one = functools.partial(function, setup, frozen)
    return jax.vmap(one, (0, 0, StepInputs(None, None, None, 0)))(targets, states, inputs)  # type: ignore[arg-type]  # axes


def unroll_members(function: Callable[..., Any], setup: Setup, frozen: Frozen, *batched: Any) -> Any:
    """A function of one member for an unrolled group."""
    results = [function(setup, frozen, *rows) for rows in zip(*batched, strict=True)]
    return tuple(zip(*results, strict=True)) if function is step else tuple(results)


@jit(static_argnames=("setup", "count", "mapped"))
def begin_group(setup: Setup, frozen: Frozen, count: int, mapped: bool) -> States:
    """The states of a group before the first step."""
    state = begin(setup, frozen)
    if mapped:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), state)
    return (state,) * count


@jit(static_argnames="setup", donate_argnames="sums")
def add_fit_part(
    setup: Setup, frozen: Frozen, state: State, batch: Array, start: Array, sums: tuple[Array, Moving | None]
) -> tuple[Array, Moving | None]:
    """One part of the fit batch of a member."""
    return add_part(setup, frozen, state, batch, start, sums)


@jit
def keep_one(state: State, last: Record | None) -> Moving:
    """The weights that are kept of a member."""
    return kept_weights(state, last)


@jit
def keep_mapped(states: State, last: Record | None) -> Moving:
    """The weights that are kept of a mapped group."""
    return jax.vmap(kept_weights)(states, last)


@jit(static_argnames="setup")
def fit_loss_of_member(setup: Setup, frozen: Frozen, state: State, inputs: StepInputs) -> Float[Array, ""]:
    """The fit loss of a member before a step."""
    return fit_loss_of(setup, frozen, state, inputs)


@jit(static_argnames=("setup", "advance"), donate_argnames="states")
def step_group(
    setup: Setup, frozen: Frozen, targets: Wanted, states: States, inputs: Inputs, advance: Callable[..., Any]
) -> tuple[States, Records]:
    """One step of a group."""
    return advance(step, setup, frozen, targets, states, inputs)


@jit(static_argnames=("setup", "advance", "scanned"), donate_argnames="states")
def run_steps(
    setup: Setup, frozen: Frozen, targets: Wanted, states: States, inputs: Inputs, advance: Callable[..., Any], scanned: bool
) -> tuple[States, tuple[Records, Viewings]]:
    """All steps of a group as one program, and what the models after every step say through views."""

    def one(carry: States, row: Any) -> tuple[States, tuple[Records, Viewings]]:
        now, s = row
        moved, records = advance(step, setup, frozen, targets, carry, now)
        return moved, (records, _view(setup, frozen, targets, moved, first_view(setup, s)) if setup.views else None)

    count = jax.tree.leaves(inputs)[0].shape[0]
    if scanned:
        return jax.lax.scan(one, states, (inputs, jnp.arange(count)))
    found = []
    for s in range(count):
        states, both = one(states, (jax.tree.map(lambda x, s=s: x[s], inputs), s))
        found.append(both)
    return states, stack(found)


def _view(setup: Setup, frozen: Frozen, targets: Wanted, states: States, first: Array | int) -> Viewings:
    one: Callable[..., ViewMean] = functools.partial(view, setup, frozen, first=first)
    if isinstance(targets, Target):
        return jax.vmap(one)(targets, states)
    return tuple(one(target, state) for target, state in zip(targets, states, strict=True))


@jit(static_argnames="setup")
def view_group(setup: Setup, frozen: Frozen, targets: Wanted, states: States, record: Array) -> Viewings:
    """What the models of a group say through their views, after the step of this record."""
    return _view(setup, frozen, targets, states, first_view(setup, record))


@jit(static_argnames="setup", donate_argnames="sums")
def add_member_views(
    setup: Setup, frozen: Frozen, target: Target, z: Moving, stats: Any, start: Array, sums: ViewSums
) -> ViewSums:
    """What one model says through some views; all of them together need no number, and no switch."""
    return add_views(setup, frozen, target, z, stats, 0 if setup.views_at_once == len(setup.views) else start, sums)


@jit(static_argnames="setup")
def mean_of_member_views(setup: Setup, frozen: Frozen, target: Target, sums: ViewSums) -> ViewMean:
    """The mean over the views of one model."""
    return mean_of_views(setup, frozen, target, sums)


@jax.jit
def copied(tree: Any) -> Any:
    """Copies that outlive a step which is given the originals to overwrite."""
    return jax.tree.map(jnp.copy, tree)


@jit(static_argnames=("setup", "advance"))
def measure_group(
    setup: Setup, frozen: Frozen, targets: Wanted, states: States, inputs: Inputs, advance: Callable[..., Any]
) -> Records:
    """The evaluation of a group after its last step."""
    return advance(measure, setup, frozen, targets, states, inputs)
