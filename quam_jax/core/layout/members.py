"""Many members of a case, a chunk at a time, in the fastest way that the memory takes."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

from ..progress import CHOSEN, SEARCHING, tell
from ..schedule import StepPlan
from ..setup import Frozen, Record, Setup, Target
from ..solvers import Moving
from .choose import Layout
from .chunk import Chunk, Job
from .fitting import Plan, plan_search, setups_for, thriftier
from .programs import forget_programs, shapes_of

_PLANS: dict[Hashable, Plan] = {}  # by kind of search: what was chosen in this process


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
    on_kept: Callable[[Job, Moving], None] | None = None,
) -> Record:
    """The records `[members s ...]` of all jobs in order.

    A mapped chunk that is not full repeats its last job, so that all chunks share one compilation. `targets_of` lays out the
    targets of some jobs along a leading axis, `draw` gives the noise of a job in a step, `operations` are those of a pass over
    the image. `on_kept` is called for every job with the weights that are kept of it. ValueError where no way of running fits
    the memory; where memory runs out in spite of the plan, the search goes on in a thriftier way.
    """
    setup = setup._replace(keep=on_kept is not None)
    mapped = layout.members == "vmap"

    def chunk_of(tried: Setup, part: list[Job]) -> Chunk:
        return Chunk(tried, frozen, targets_of(part), part, steps, rate, layout, draw)

    kind = (setup, shapes_of((frozen, targets_of(jobs[:1]))), layout, len(jobs), len(steps.batch))
    plan = _PLANS.get(kind)
    if plan is None:
        plan = plan_search(
            setup,
            frozen,
            layout,
            operations=operations,
            members=len(jobs),
            records=len(jobs) * chunk_of(setup, jobs[:1]).recorded(),
            measure=lambda tried, count: chunk_of(tried, jobs[:count]).memory(),
            complete=lambda tried, count: chunk_of(tried, jobs[:count]).complete(),
            forget=forget_programs,
        )
        _PLANS[kind] = plan
        tell(CHOSEN, note=str(plan))
    parts: list[Record] = []
    start = 0
    while start < len(jobs):
        tell(SEARCHING, "chunk", start // plan.way.chunk + 1, -(-len(jobs) // plan.way.chunk))
        part = jobs[start : start + plan.way.chunk]
        count = len(part)
        if mapped:
            part = part + part[-1:] * (plan.way.chunk - count)
        try:
            record, kept = chunk_of(plan.way.setup, part).run()
            parts.append(jax.tree.map(lambda leaf, n=count: leaf[:n], record))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            plan = _PLANS[kind] = thriftier(plan, setups_for(setup, frozen, layout, operations=operations, mapped=mapped), error)
            tell(CHOSEN, note=str(plan))
            continue
        if on_kept is not None:
            for job, z in zip(part[:count], kept, strict=False):
                on_kept(job, z)
        start += count
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
