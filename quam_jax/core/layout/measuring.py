"""Which way to run is the fastest on this very device, network and shape: candidates are timed for a few steps, where that pays.

The rule of choose.py comes first and stays, unless another way that keeps the memory budget is faster by more than measurements
differ. Timing costs some steps and, where a way is a program of its own, a compilation; it is done only where the searches to
come take many times as long. What was chosen is kept by device, versions, network and shape, if somebody keeps it
(`compilation.keep_choices`), and taken the next time without timing. No number but rounding depends on any of it, and no bit on a
CPU.
"""

import contextlib
import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from ..compilation import kept_choices
from .choose import Layout

PAYS = 20  # times what timing costs that the searches to come must take
TIE = 0.05  # part by which another way must be faster than the rule
FEW = 6  # steps that are timed, twice: once to warm up
UNROLLED = 4  # members at most in one unrolled program: what it takes to compile grows with them


class Candidate(NamedTuple):
    """A way to run: how members and steps go together, and whether weight gradients are products of shifted copies."""

    layout: Layout
    products: bool = False

    @property
    def name(self) -> str:
        """In words, as it is kept."""
        chunk = self.layout.chunk or "all"
        form = ", weight gradients as products" if self.products else ""
        return f"members {self.layout.members}, steps {self.layout.steps}, {chunk} at a time{form}"

    @property
    def programs(self) -> tuple[Any, ...]:
        """What tells its programs from those of others: one by one, every member runs the same."""
        chunk = 1 if self.layout.members == "loop" else self.layout.chunk
        return self.layout.members, self.layout.steps, chunk, self.products


class Choice(NamedTuple):
    """What was chosen, `how` (rule, measured or kept), and the seconds of a step of a member by all that were timed."""

    candidate: Candidate
    how: str
    seconds: dict[str, float]

    def told(self) -> dict[str, Any]:
        """As run.json says it."""
        return {"layout": self.candidate.name, "layout_by": self.how, "seconds_a_step": self.seconds}


_SEARCHES: ContextVar[int] = ContextVar("searches", default=1)


@contextlib.contextmanager
def like_searches(count: int) -> Iterator[None]:
    """Inside, so many searches of a kind are to be expected: measuring pays for many of them together."""
    token = _SEARCHES.set(count)
    try:
        yield
    finally:
        _SEARCHES.reset(token)


def candidates(asked: Layout, rule: Layout, *, members: int, backend: str | None = None) -> list[Candidate]:
    """What may be timed, the rule first; what was asked for by hand stays.

    On a CPU mapped, unrolled and scanned programs are known to be slower, and take minutes to compile, so that only members in
    flight are left: no more than the rule has, so that no more memory is taken, and of the same program.
    """
    if (backend or jax.default_backend()) == "cpu":
        chunks = [rule.chunk, 1] if rule.members == "loop" and not asked.chunk and asked.members == "auto" else [rule.chunk]
        return [Candidate(replace(rule, chunk=chunk)) for chunk in dict.fromkeys(chunks)]
    found = [Candidate(rule)]
    ways: list[tuple[Any, Any, int]] = [
        ("vmap", "scan", 0),
        ("loop", "loop", 2),
        ("loop", "loop", 1),
        ("vmap", "loop", 0),
        ("unroll", "scan", UNROLLED),
        ("vmap", "scan", -(-members // 4)),
    ]
    for together, steps, chunk in ways:
        if asked.members not in ("auto", together) or asked.steps not in ("auto", steps):
            continue
        size = min(asked.chunk or chunk, members)
        devices = rule.devices if together == "vmap" else 1
        layout = replace(rule, members=together, steps=steps, chunk=size, devices=devices)
        found += [Candidate(layout, products) for products in ((False, True) if together == "vmap" else (False,))]
    return list(dict.fromkeys(found))


def key_of(*what: Any) -> str:
    """What a choice depends on, as a key: the device, the versions, and what is given; addresses in memory do not count."""
    device = jax.local_devices()[0]
    text = repr((device.platform, device.device_kind, jax.local_device_count(), jax.__version__, jax.lib.__version__, *what))
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()


def choose(
    ways: Sequence[Candidate],
    time_of: Callable[[Candidate], float],
    *,
    key: str,
    work: float,
    probe: float,
    compile_rule: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """The fastest of the candidates, of which the first is the rule's.

    `time_of` gives the seconds of a step of a member, infinite for a way that does not fit; `work` are steps of members of one
    search, `probe` those that timing the rule takes. `compile_rule` is called in front of it: what the rule needs has to be
    compiled anyway, and tells how long another way will take that is a program of its own.
    """
    rule, known = ways[0], {way.name: way for way in ways}
    kept = kept_choices()
    stored = kept.find(key) if kept is not None and len(ways) > 1 else None
    if stored is not None and stored["name"] in known:
        return Choice(known[stored["name"]], "kept", stored["seconds"])
    work *= _SEARCHES.get()
    if len(ways) == 1 or work < PAYS * probe:
        return Choice(rule, "rule", {})
    seconds: dict[str, float] = {}
    start = clock()
    compile_rule()
    begun = clock()
    again, anew = 0.0, begun - start  # what timing takes of the same programs, and of others
    for way in ways:
        start, same = clock(), way.programs == rule.programs
        if seconds and PAYS * (start - begun + (again if same else anew)) > work * seconds[rule.name]:
            continue  # what is to come would be over before it was timed
        seconds[way.name] = time_of(way)
        took = clock() - start
        if way == rule:
            again, anew = took, anew + took
        anew = max(anew, took)
    if len(seconds) == 1:
        return Choice(rule, "rule", seconds)  # not kept: another time there may be more to come
    best = min(seconds, key=lambda name: seconds[name])
    if best != rule.name and math.isfinite(seconds[rule.name]):  # once more beside each other: other programs may have disturbed
        pairs = [(seconds[best], seconds[rule.name]), (time_of(known[best]), time_of(rule))]
        if not all(other < (1 - TIE) * own for other, own in pairs):
            best = rule.name
    seconds = {name: value for name, value in seconds.items() if math.isfinite(value)}
    if kept is not None:
        kept.keep(key, best, seconds)
    return Choice(known[best], "measured", seconds)
