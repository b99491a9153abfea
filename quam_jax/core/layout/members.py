"""Many members of a case, a chunk at a time, in the fastest way that the memory takes."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import jax

from ..progress import CHOSEN, SEARCHING, listening, tell
from ..schedule import StepPlan
from ..setup import Frozen, Record, Setup, Target
from ..solvers import Moving
from .choose import Layout
from .chunk import Chunk, Job
from .fitting import Plan, plan_search, setups_for, thriftier
from .measuring import FEW, Candidate, Choice, candidates, choose, key_of
from .programs import forget_programs, shapes_of
from .records import Gathered
from .taken import compile_rest, members_memory, records_memory

_PLANS: dict[Hashable, Plan] = {}  # by kind of search: what was chosen in this process
_CHOICES: dict[Hashable, Choice] = {}  # by kind of search: which way to run is the fastest
_CHOOSING = threading.Lock()


def plans_made() -> tuple[Plan, ...]:
    """What was chosen in this process, in order, one a kind of search."""
    return tuple(_PLANS.values())


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
    operations: float = 0,
    asked: Layout | None = None,
    on_kept: Callable[[Job, Moving], None] | None = None,
) -> Record:
    """The records `[members s ...]` of all jobs in order.

    A mapped chunk that is not full repeats its last job, so that all chunks share one compilation. `targets_of` lays out the
    targets of some jobs along a leading axis, `draw` gives the noise of a job in a step, `operations` are those of a pass over
    the image. `layout` is what the rule chose of `asked`; with the latter, what was left free there may be chosen by measurement
    (measuring.py). `on_kept` is called for every job with the weights that are kept of it. ValueError where no way of running
    fits the memory; where memory runs out in spite of the plan, the search goes on in a thriftier way.
    """
    setup = setup._replace(keep=on_kept is not None)

    def chunk_of(tried: Setup, part: list[Job], layout: Layout, steps: StepPlan = steps) -> Chunk:
        return Chunk(tried, frozen, targets_of(part), part, steps, rate, layout, draw)

    def room_for(members: int, steps: StepPlan) -> Gathered:
        return Gathered(members, len(steps.batch), views=bool(setup.views), view_all=setup.view_all)

    made: dict[Candidate, Plan] = {}
    into = room_for(len(jobs), steps)

    def plan_by(way: Candidate) -> Plan:
        if way in made:
            return made[way]
        own, layout = setup._replace(products=way.products), way.layout
        made[way] = plan_search(
            own,
            frozen,
            layout,
            operations=operations,
            members=len(jobs),
            records=len(jobs) * records_memory(chunk_of(own, jobs[:1], layout)),
            measure=lambda tried, count: members_memory(chunk_of(tried, jobs[:count], layout)),
            complete=lambda tried, count: compile_rest(chunk_of(tried, jobs[:count], layout), into),
            forget=forget_programs,
        )
        return made[way]

    def time_of(way: Candidate) -> float:
        try:
            plan = plan_by(way)
            part, few = jobs[: plan.way.chunk], StepPlan(*(values[:FEW] for values in steps))
            start = 0.0
            for _ in range(2):  # the first one compiles what is left
                start, tried = time.perf_counter(), room_for(len(part), few)
                chunk_of(plan.way.setup, part, way.layout, few).run(tried)
                jax.block_until_ready(tried.close())
        except (ValueError, jax.errors.JaxRuntimeError):  # it does not fit, or this device cannot run it
            return math.inf
        return (time.perf_counter() - start) / (len(part) * len(few.batch))

    def ready() -> None:
        with contextlib.suppress(ValueError):  # the rule's way may not fit, and another one may
            plan_by(Candidate(layout))

    shapes = shapes_of((frozen, targets_of(jobs[:1])))
    kind = (setup, shapes, layout, asked, len(jobs), len(steps.batch))
    plan = _PLANS.get(kind)
    if plan is None:
        with _CHOOSING:  # one after the other, lest they disturb each other's times
            choice = _CHOICES.get(kind)
            if choice is None:
                ways = [Candidate(layout)] if asked is None else candidates(asked, layout, members=len(jobs))
                probe = 2 * min(FEW, len(steps.batch)) * (layout.chunk or len(jobs))
                precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
                rule = replace(layout, memory=None)
                key = key_of(setup, shapes, rule, len(jobs), len(steps.batch), precision)
                with listening(lambda event: None):
                    choice = choose(ways, time_of, key=key, work=len(jobs) * len(steps.batch), probe=probe, compile_rule=ready)
                _CHOICES[kind] = choice
        try:
            plan = plan_by(choice.candidate)
        except ValueError:
            if choice.how != "kept":
                raise
            choice = Choice(Candidate(layout), "rule", {})  # it was chosen where there was more memory
            plan = plan_by(choice.candidate)
        predicted = max(tried.predicted for tried in made.values())  # what was timed has taken its memory too
        plan = _PLANS[kind] = replace(plan, predicted=predicted, choice=choice)
        tell(CHOSEN, note=str(plan))
    layout = plan.layout
    mapped = plan.mapped
    start = 0
    while start < len(jobs):
        tell(SEARCHING, "chunk", start // plan.way.chunk + 1, -(-len(jobs) // plan.way.chunk))
        part = jobs[start : start + plan.way.chunk]
        count = len(part)
        if mapped:
            part = part + part[-1:] * (plan.way.chunk - count)
        try:
            kept = chunk_of(plan.way.setup, part, layout).run(into, start)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            own = setup._replace(products=plan.way.setup.products)
            ways_left = setups_for(own, frozen, layout, operations=operations, mapped=mapped)
            plan = _PLANS[kind] = thriftier(plan, ways_left, error)
            tell(CHOSEN, note=str(plan))
            continue
        if on_kept is not None:
            for job, z in zip(part[:count], kept, strict=False):
                on_kept(job, z)
        start += count
    return into.close()
