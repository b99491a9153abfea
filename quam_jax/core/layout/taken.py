"""What the members of a chunk take: the bytes of their records, and of their compiled programs while they run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..passes import no_parts
from ..step import begin, measure
from ..viewing import view
from .chunk import Chunk
from .programs import (
    States,
    Wanted,
    add_fit_part,
    add_member_views,
    begin_group,
    copied,
    fit_loss_of_member,
    mean_of_member_views,
    measure_group,
    memory_of,
    run_steps,
    size_of,
    step_group,
    view_group,
)
from .records import Gathered


def members_memory(chunk: Chunk) -> int:
    """Bytes that the members of this chunk take while they run, by their compiled programs, beside the records."""
    group = chunk.groups[0]
    states, chosen = begin_group(chunk.setup, chunk.frozen, len(group), chunk.mapped), chunk.targets_of(group)
    held = 2 * size_of(states)  # before and after a step
    if chunk.layout.steps != "loop":
        arguments = (chunk.setup, chunk.frozen, chosen, states, chunk.sequence(group), chunk.advance)
        return held + memory_of(run_steps.lower(*arguments, chunk.layout.steps == "scan"))
    now, part = chunk.inputs(group, 0), 0
    if chunk.in_parts:
        sums = no_parts(states[0].z, gradient=True)
        part = memory_of(add_fit_part.lower(chunk.setup, chunk.frozen, states[0], now[0].batch, jnp.asarray(0), sums))
        held += 2 * size_of(sums)
        now = (now[0]._replace(fit_loss=sums[0], fit_gradient=sums[1]),)
    step_itself = memory_of(step_group.lower(chunk.setup, chunk.frozen, chosen, states, now, chunk.advance))
    return len(chunk.groups) * (held + max(part, step_itself, _views_memory(chunk, chosen, states)))


def _views_memory(chunk: Chunk, chosen: Wanted, states: States) -> int:
    """What the views of a group take beside its states."""
    if not chunk.setup.views:
        return 0
    if chunk.layout.members != "loop":
        return memory_of(view_group.lower(chunk.setup, chunk.frozen, chosen, states, jnp.asarray(0)))
    state, target = states[0], chosen[0]
    sums = chunk.empty_sums(target)
    arguments = (chunk.setup, chunk.frozen, target, state.z, state.stats, jnp.asarray(0), sums)
    return memory_of(add_member_views.lower(*arguments)) + 2 * size_of(sums) + size_of((state.z, state.stats))


def compile_rest(chunk: Chunk, into: Gathered) -> int:
    """Compile what else these members run; the bytes that they take while that runs, beside the records."""
    group = chunk.groups[0]
    states, chosen = begin_group(chunk.setup, chunk.frozen, len(group), chunk.mapped), chunk.targets_of(group)
    known, programs = jnp.zeros(()), []
    if chunk.layout.members == "loop":
        first, state = chunk.inputs(group, 0)[0], states[0]
        if chunk.in_parts:
            sums = no_parts(state.z, gradient=False)
            programs.append(add_fit_part.lower(chunk.setup, chunk.frozen, state, first.batch, jnp.asarray(0), sums))
        elif chunk.lazy:
            programs.append(fit_loss_of_member.lower(chunk.setup, chunk.frozen, state, first))
        if chunk.lazy and not chunk.in_parts:
            spared = (first._replace(fit_loss=known),)
            programs.append(step_group.lower(chunk.setup, chunk.frozen, chosen, states, spared, chunk.advance))
    if chunk.measured:
        last = chunk.inputs(group, len(chunk.steps.batch))
        if chunk.in_parts:
            last = (last[0]._replace(fit_loss=known),)
        programs.append(measure_group.lower(chunk.setup, chunk.frozen, chosen, states, last, chunk.advance))
    if chunk.setup.views and chunk.layout.members == "loop":
        state = states[0]
        programs.append(mean_of_member_views.lower(chunk.setup, chunk.frozen, chosen[0], chunk.empty_sums(chosen[0])))
        programs.append(copied.lower((state.z, state.stats)))
    if chunk.layout.steps == "loop":
        programs += into.programs(*_record_shapes(chunk), mapped=len(group) if chunk.mapped else 0)
    taken = max(map(memory_of, programs), default=0)
    return len(chunk.groups) * (2 * size_of(states) + taken)


def records_memory(chunk: Chunk) -> int:
    """Bytes of the records of one member."""
    return size_of(_record_shapes(chunk)) * len(chunk.steps.batch)


def _record_shapes(chunk: Chunk) -> tuple[Any, Any]:
    """The shapes of one record, and of what its model says through views."""
    states = jax.eval_shape(functools.partial(begin, chunk.setup), chunk.frozen)
    target = jax.tree.map(lambda x: x[0], chunk.targets)
    inputs = chunk.shared_inputs(0)._replace(noise=chunk.draw(chunk.jobs[0], 0))
    record = jax.eval_shape(functools.partial(measure, chunk.setup), chunk.frozen, target, states, inputs)
    viewed = jax.eval_shape(functools.partial(view, chunk.setup), chunk.frozen, target, states) if chunk.setup.views else None
    return record, viewed
