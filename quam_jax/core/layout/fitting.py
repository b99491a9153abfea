"""What of a search runs at once so that it keeps within the memory, read off the compiled programs before the first step.

Ways to run are tried from the fastest to the thriftiest: how many members are in flight, the fit batch together with the image
or in parts, blocks remembered or recomputed. The first one whose programs' own figures fit is taken, and where memory runs out
in spite of it, the next one. All of them give the same numbers, but for rounding.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import jax

from ..fit import largest_divisor
from ..passes import may_split_fit
from ..setup import Frozen, Setup
from .choose import FILLS, Budget, Layout, budget_of
from .measuring import Choice

LATER = 3 * 2**26  # bytes of what is compiled later, small programs, and of what operations take beside their program's arrays
PROBE = 8  # mapped members that are compiled to see how much memory one takes
JOINT = 2 * FILLS  # operations of a pass over fit batch and image up to which they go through in one program
CPU_ROOM = 2**30  # bytes of the members in flight on a CPU for which there is no budget
COPIES = 2  # of the recorded predictions, while they are handed out by image and decomposed


@dataclass(frozen=True)
class Way:
    """One way to run a search: how its programs are compiled, and how many members are in flight."""

    setup: Setup
    chunk: int

    def next(self, setups: list[Setup]) -> "Way | None":
        """A thriftier way, None where there is none: fewer members in flight, then the next of the setups."""
        if self.chunk > 1:
            return replace(self, chunk=self.chunk // 2)
        at = setups.index(self.setup) + 1
        return Way(setups[at], 1) if at < len(setups) else None


@dataclass(frozen=True)
class Plan:
    """The way that was chosen, the bytes that it is expected to take in all, and the budget that it keeps to; `choice` says how
    its layout was found."""

    way: Way
    members: int
    mapped: bool
    fit_cases: int
    predicted: int
    budget: Budget | None
    layout: Layout
    choice: Choice | None = None

    def __str__(self) -> str:
        """One line for people."""
        setup, chunk = self.way.setup, self.way.chunk
        fit = f"{setup.micro} of {self.fit_cases} fit cases at once" if setup.micro else f"{self.fit_cases} fit cases at once"
        together = "mapped" if self.mapped else "side by side"
        flying = f"{chunk} of {self.members} members {together}"
        blocks = "blocks recomputed" if setup.recompute else "nothing recomputed"
        return f"{flying}, {fit}, {blocks}: about {in_words(self.predicted)}{_limit(self.budget)}"


def setups_for(setup: Setup, frozen: Frozen, layout: Layout, *, operations: float = 0, mapped: bool) -> list[Setup]:
    """The ways to compile a search, a pass over whose image takes so many operations, from the fastest to the thriftiest.

    Parts of a fit batch are as large as the image, and not so small that they leave cores idle. Where members are mapped, as on
    accelerators, the fit batch is split only for want of memory: one program fills the device.
    """
    ways = _fit_ways(setup, frozen, layout, operations, mapped)
    return [*ways, ways[-1]._replace(views_at_once=1)] if setup.views_at_once > 1 else ways


def views_at_once(setup: Setup, operations: float) -> int:
    """How many views go through the network in one pass: as many as fill some cores."""
    count = setup.looked
    if not count:
        return 1
    return largest_divisor(count, int(max(1.0, FILLS / operations))) if operations else count


def _fit_ways(setup: Setup, frozen: Frozen, layout: Layout, operations: float, mapped: bool) -> list[Setup]:
    recompute = {"auto": (False, True), "always": (True,), "never": (False,)}[layout.recompute]
    if not may_split_fit(setup):
        return [setup._replace(recompute=again) for again in recompute]
    cases, *side = frozen.fit_labels.shape[1:]
    alike = max(math.prod(x.shape[1:-1]) for x in jax.tree.leaves(frozen.image)) / math.prod(side)  # cases, to the image
    joint = not layout.micro and (mapped or (cases / alike + 1) * operations <= JOINT)
    part = alike * max(1.0, FILLS / operations) if operations and not joint else alike
    sizes = [*([0] if joint else []), largest_divisor(cases, layout.micro or int(part))]
    return [setup._replace(micro=size, recompute=again) for again in recompute for size in sizes]


def plan_search(
    setup: Setup,
    frozen: Frozen,
    layout: Layout,
    *,
    operations: float = 0,
    members: int,
    records: int,
    measure: Callable[[Setup, int], int],
    complete: Callable[[Setup, int], int] = lambda setup, members: 0,
    forget: Callable[[], None] = lambda: None,
) -> Plan:
    """The fastest way whose programs fit; `measure(setup, members)` gives the bytes that members in flight take.

    `operations` are those of a pass over the image, `records` the bytes of all recorded predictions. `complete(setup, members)`
    compiles the smaller programs of a way that fits, and gives what they take: compiled later, they would come on top of what was
    planned. `forget` lets go of what was compiled for setups that do not fit. ValueError, with the bytes that it would take and
    what to change, where no way fits.
    """
    mapped, budget = layout.members == "vmap", budget_of(layout)
    tried, chunk, taken, base = setup, 1, 0, 0
    for tried in setups_for(setup, frozen, layout, operations=operations, mapped=mapped):
        for chunk in _chunks(layout, members):
            taken = measure(tried, chunk)
            budget = budget and _now(budget)  # with what was compiled, which stays there
            base = records + (0 if budget is None else budget.base)
            room = CPU_ROOM if budget is None else budget.total - base
            if mapped and not layout.chunk and chunk < members:
                each = max(1, taken // chunk)
                chunk = _even(members, max(1, room // each) * layout.devices)
                taken = each * -(-chunk // layout.devices)
            taken = max(taken, (COPIES - 1) * records)  # that come when the members are gone
            if taken <= room and budget is not None and budget.now is not None:
                taken = max(taken, complete(tried, chunk))
                now = _now(budget)
                budget, base, room = now, records + now.base, now.total - now.base - records
            if taken <= room:
                return Plan(Way(tried, chunk), members, mapped, frozen.fit_labels.shape[1], base + taken, budget, layout)
        forget()
    needed = base + taken
    if budget is None:
        return Plan(Way(tried, chunk), members, mapped, frozen.fit_labels.shape[1], needed, budget, layout)
    size = " x ".join(map(str, setup.shape))
    raise ValueError(
        f"memory: a search of an image of {size} takes about {in_words(needed)}, one member at a time with blocks recomputed; "
        f"expected at most{_limit(budget).removeprefix(' of')}; raise --memory, search in patches (--patch-size), or move less "
        "(--space last_block or head)"
    )


def _now(budget: Budget) -> Budget:
    """The budget with the bytes that are held now for its base."""
    if budget.now is None:
        return budget
    held, total = budget.now()
    return budget._replace(base=held + LATER, total=max(total, budget.total))


def _limit(budget: Budget | None) -> str:
    if budget is None:
        return ""
    return f" of {in_words(budget.total)}{'' if budget.asked else ' (a share of what is free)'}"


def in_words(size: float) -> str:
    """Bytes as people read them, such as 1.2 GB."""
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if abs(size) >= 1000**power:
            return f"{size / 1000**power:.3g} {unit}"
    return f"{size:.0f} B"


def _chunks(layout: Layout, members: int) -> Iterator[int]:
    """Members in flight that are measured, from the most on."""
    if layout.members == "vmap":
        yield layout.chunk or min(members, PROBE)
        if not layout.chunk and min(members, PROBE) > 1:
            yield 1
        return
    chunk = min(layout.chunk, members)
    while chunk > 1:
        yield chunk
        chunk //= 2
    yield 1


def _even(members: int, chunk: int) -> int:
    """Chunks of equal size."""
    return -(-members // -(-members // chunk))


def thriftier(plan: Plan, setups: list[Setup], error: Exception) -> Plan:
    """The plan after memory ran out under this one; the error itself where there is no thriftier one."""
    way = plan.way.next(setups) if plan.way.setup in setups else None
    if way is None:
        raise error
    after = replace(plan, way=way)
    warnings.warn(f"memory ran out in spite of the plan ({plan}); going on with {after}", RuntimeWarning, stacklevel=2)
    return after
