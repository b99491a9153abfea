"""How long compiling took inside a stretch of work: the first case of a size pays for all that follow, and it is not its time."""

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax

_STAGES = tuple(f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile"))


class Compiled:
    """When JAX was compiling, in this thread and in those that carry its context: tracing, lowering and compiling."""

    def __init__(self) -> None:
        self._stretches: list[tuple[float, float]] = []

    def add(self, seconds: float) -> None:
        """A stage that took so long has just ended."""
        now = time.perf_counter()
        self._stretches.append((now - seconds, now))  # one step, so that threads need no lock

    @property
    def seconds(self) -> float:
        """How long some stage was under way: a trace holds others inside, and threads compile at the same time."""
        total, reached = 0.0, -math.inf
        for begin, end in sorted(self._stretches):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total


_COMPILED: ContextVar[Compiled | None] = ContextVar("compiled", default=None)


@contextlib.contextmanager
def compiling() -> Iterator[Compiled]:
    """Count the seconds of compiling inside."""
    _hear()
    counted = Compiled()
    token = _COMPILED.set(counted)
    try:
        yield counted
    finally:
        _COMPILED.reset(token)


@functools.cache
def _hear() -> None:
    """Have JAX tell of compilations, once in a process: it calls in the thread that compiles."""

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        counted = _COMPILED.get()
        if counted is not None and event in _STAGES:
            counted.add(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)
