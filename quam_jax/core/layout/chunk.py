"""A chunk of members of a case through the steps of step.py: mapped, unrolled or one by one; scanned, unrolled or in a loop.

On a CPU a convolution inside a scan or with mapped weights is many times slower than in a plain compiled step, so members
and steps are dispatched from Python there; on accelerators they are mapped and scanned. All ways give the same numbers.

One by one, the members in flight take their steps in a thread each, and a member that keeps the bound is spared the gradient
of its fit loss, which is 0 there: its fit loss is computed first (at the given weights it is known), and where it is below the
bound only the image takes part in the step. After a step that broke the bound the next one runs whole at once. A fit batch in
parts runs one part after the other, each a program of its own. What a member does depends on its own steps alone.

Where models look at the image through views, a member one by one is spared those of weights that break the bound.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compilation import side_by_side
from ..passes import may_skip_fit, no_parts, part_starts
from ..progress import SEARCHING, tell
from ..schedule import StepPlan
from ..setup import Frozen, Setup, State, StepInputs, Target
from ..solvers import Moving
from ..viewing import first_view, no_views, view_starts
from .choose import Layout
from .programs import (
    States,
    Wanted,
    add_fit_part,
    add_member_views,
    begin_group,
    broken,
    copied,
    fit_loss_of_member,
    keep_mapped,
    keep_one,
    map_members,
    mean_of_member_views,
    measure_group,
    run_steps,
    shapes_of,
    shared_out,
    stack,
    step_group,
    unroll_members,
    view_group,
)
from .records import Gathered

Job = tuple[int, ...]  # what tells a member apart: image, target and member
_COMPILED: set[Hashable] = set()  # kinds of groups that have run in this process


@dataclass(frozen=True)
class Chunk:
    """Members that run together; `targets` has one row a job, `draw` gives the noise of a job in a step."""

    setup: Setup
    frozen: Frozen
    targets: Target
    jobs: list[Job]
    steps: StepPlan
    rate: float
    layout: Layout
    draw: Callable[[Job, int], Any]

    @property
    def mapped(self) -> bool:
        """Whether the members are one program with a leading axis."""
        return self.layout.members == "vmap"

    @property
    def measured(self) -> bool:
        """Whether one more evaluation gives the last iterate its record."""
        return not self.setup.record_after

    @property
    def groups(self) -> list[list[int]]:
        """The members of every program."""
        count = len(self.jobs)
        return [[i] for i in range(count)] if self.layout.members == "loop" else [list(range(count))]

    @property
    def advance(self) -> Callable[..., Any]:
        """How a function of one member becomes one of a group."""
        return map_members if self.mapped else unroll_members

    def inputs(self, group: list[int], s: int) -> Any:
        """The inputs of a step; those after the last are of the evaluation of the last iterate."""
        shared, last = self.shared_inputs(s), min(s, len(self.steps.batch) - 1)
        noise = [self.draw(self.jobs[i], last) for i in group]
        return shared._replace(noise=stack(noise)) if self.mapped else tuple(shared._replace(noise=masks) for masks in noise)

    def sequence(self, group: list[int]) -> Any:
        """The inputs of all steps, with a leading axis: put on the device at once, since every transfer keeps it waiting."""
        total = len(self.steps.batch)
        coefficient, rate = jnp.asarray(self.steps.coefficient, jnp.float32), jnp.asarray(np.full(total, self.rate, np.float32))
        shared = StepInputs(jnp.asarray(self.steps.batch), coefficient, rate, None)
        noise = [stack([self.draw(self.jobs[i], s) for s in range(total)]) for i in group]
        if self.mapped:
            return shared._replace(noise=jax.tree.map(lambda *masks: jnp.stack(masks, 1), *noise))
        return tuple(shared._replace(noise=masks) for masks in noise)

    def shared_inputs(self, s: int) -> StepInputs:
        """What all members have in common."""
        total, steps = len(self.steps.batch), self.steps
        batch = steps.batch[s] if s < total else (steps.batch[-1] + 1) % self.frozen.bound.shape[0]
        coefficient = jnp.asarray(steps.coefficient[min(s, total - 1)], jnp.float32)
        return StepInputs(jnp.asarray(batch), coefficient, jnp.asarray(self.rate, jnp.float32), None)

    def targets_of(self, group: list[int]) -> Wanted:
        """The targets of a group."""
        if self.mapped:
            return shared_out(self.targets, self.layout.devices)
        return tuple(jax.tree.map(lambda x, i=i: x[i], self.targets) for i in group)

    def run(self, into: Gathered, row: int = 0) -> list[Moving]:
        """Write the records from `row` on; the weights that are kept of every member, where the setup keeps them."""
        states: list[States] = [begin_group(self.setup, self.frozen, len(group), self.mapped) for group in self.groups]
        chosen = [self.targets_of(group) for group in self.groups]
        ends: list[Any] = [None for _ in self.groups]  # the records of the last weights
        if self.layout.steps == "loop":
            lazy = self.lazy

            def run_group(g: int) -> None:
                states[g], ends[g] = self._loop(g, chosen[g], states[g], into, row + self.groups[g][0], lazy=lazy)

            kind = (self.setup, len(self.groups[0]), self.layout, shapes_of((self.frozen, self.targets)))
            for _ in side_by_side(run_group, range(len(self.groups)), compiled=kind in _COMPILED):
                _COMPILED.add(kind)
        else:
            for g, group in enumerate(self.groups):
                states[g], (records, viewings) = run_steps(
                    self.setup,
                    self.frozen,
                    chosen[g],
                    states[g],
                    self.sequence(group),
                    self.advance,
                    self.layout.steps == "scan",
                )
                ends[g] = self._measure_last(g, chosen[g], states[g]) if self.measured else None
                into.put_all(row + group[0], records, viewings, ends[g])
        return [z for state, end in zip(states, ends, strict=True) for z in self._kept(state, end)]

    def _loop(self, g: int, chosen: Wanted, states: States, into: Gathered, row: int, *, lazy: bool) -> tuple[States, Any]:
        """The steps of a group from Python, and the evaluation after them; the states and, of that, the records."""
        bounds, references = np.asarray(self.frozen.bound), np.asarray(self.frozen.reference_loss)
        alone = self.layout.members == "loop"  # a member by itself may be spared its views
        first = 1 if self.measured else 0  # the record of that step is the first that is kept
        record: Any = None
        for s in range(len(self.steps.batch)):
            tell(SEARCHING, "step", s + 1, len(self.steps.batch))
            now, batch, known = self.inputs(self.groups[g], s), self.steps.batch[s], None
            if lazy and s == 0:
                known = references[batch]  # the first step starts at the given weights
            elif lazy and not broken(record[0]):
                known = self._fit_loss(states[0], now[0])
            keeps = known is not None and float(known) <= bounds[batch]
            if keeps:
                # in parts the gradient that is 0 is handed in: one step is compiled in place of two
                nothing = no_parts(states[0].z, gradient=self.in_parts)[1]
                now = (now[0]._replace(fit_loss=known, fit_gradient=nothing),)
            elif self.in_parts:
                now = (self._with_parts(states[0], now[0], gradient=True),)
            due, before, viewings = bool(self.setup.views) and self.measured and s > 0, None, None
            if due and (not alone or self.setup.view_all or keeps):
                viewings = self._view(chosen, states, s - first)
            elif due:
                before = copied((states[0].z, states[0].stats))  # whether they keep the bound is known after the step
            states, record = step_group(self.setup, self.frozen, chosen, states, now, self.advance)
            if before is not None and not broken(record[0]):
                viewings = self._view_one(chosen, before[0], before[1], s - first)
            if self.setup.views and not self.measured:
                viewings = self._view_unless_broken(chosen, states, record, s)
            if s >= first:
                into.put(row, s - first, record, viewings)
        if not self.measured:
            return states, None
        end = self._measure_last(g, chosen, states)
        last = len(self.steps.batch) - 1
        into.put(row, last, end, self._view_unless_broken(chosen, states, end, last) if self.setup.views else None)
        return states, end

    def _view_unless_broken(self, chosen: Wanted, states: States, record: Any, s: int) -> Any:
        spared = self.layout.members == "loop" and not self.setup.view_all and broken(record[0])
        return None if spared else self._view(chosen, states, s)

    def _view(self, chosen: Wanted, states: States, s: int) -> Any:
        """What the models of a group say through views, in their record s."""
        if self.layout.members != "loop":
            return view_group(self.setup, self.frozen, chosen, states, jnp.asarray(s))
        return self._view_one(chosen, states[0].z, states[0].stats, s)

    def _view_one(self, chosen: Any, z: Moving, stats: Any, s: int) -> Any:
        """What one model says, some views a program; no gradient is taken, so that more fit at once than in a step."""
        target, sums, first = chosen[0], self.empty_sums(chosen[0]), first_view(self.setup, s)
        for start in view_starts(self.setup):
            sums = add_member_views(self.setup, self.frozen, target, z, stats, jnp.asarray(first + start), sums)
        return (mean_of_member_views(self.setup, self.frozen, target, sums),)

    def empty_sums(self, target: Any) -> Any:
        """The sums over views of a member before the first of them."""
        viewed = self.frozen.viewed if target.viewed is None else target.viewed
        return no_views(target.points.shape[0], viewed.given.shape[-1])

    @property
    def lazy(self) -> bool:
        """Whether a member that keeps the bound is spared the gradient of its fit loss."""
        return self.layout.steps == "loop" and self.layout.members == "loop" and may_skip_fit(self.setup)

    @property
    def in_parts(self) -> bool:
        """Whether the parts of a fit batch are programs of their own; mapped members take them inside the step."""
        return self.setup.micro > 0 and self.layout.members == "loop"

    def _fit_loss(self, state: State, inputs: StepInputs) -> Float[Array, ""]:
        if self.in_parts:
            return self._with_parts(state, inputs, gradient=False).fit_loss
        return fit_loss_of_member(self.setup, self.frozen, state, inputs)

    def _with_parts(self, state: State, inputs: StepInputs, *, gradient: bool) -> StepInputs:
        """The inputs with the fit loss, and its gradient where asked, summed over the parts of the batch."""
        sums = no_parts(state.z, gradient=gradient)
        for start in part_starts(self.setup, self.frozen):
            sums = add_fit_part(self.setup, self.frozen, state, inputs.batch, jnp.asarray(start), sums)
        return inputs._replace(fit_loss=sums[0], fit_gradient=sums[1])

    def _measure_last(self, g: int, chosen: Wanted, states: States) -> Any:
        """The records of the weights after the last step."""
        now = self.inputs(self.groups[g], len(self.steps.batch))
        if self.in_parts:
            now = (self._with_parts(states[0], now[0], gradient=False),)  # type: ignore[arg-type]  # one member
        return measure_group(self.setup, self.frozen, chosen, states, now, self.advance)

    def _kept(self, states: States, record: Any) -> list[Moving]:
        """The weights that are kept of the members of a group, whose last record is measured or None."""
        if not self.setup.keep:
            return []
        if self.mapped:
            kept = keep_mapped(states, record)
            return [jax.tree.map(lambda x, i=i: x[i], kept) for i in range(len(self.jobs))]
        return [keep_one(state, None if record is None else record[i]) for i, state in enumerate(states)]  # type: ignore[arg-type]
