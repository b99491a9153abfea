"""What a computation tells of itself while it runs: its phase and how far it is, to whoever listens.

Nobody listens by default, and telling costs a fraction of a microsecond then. A listener belongs to the context that installed
it (`listening`); threads hear of it when they run in a copy of that context (`carried`). What is told changes no number.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax

# what is counted inside a case, the outermost first: who is told of one forgets the others behind it
UNITS = ("case", "slice", "patch", "fold", "chunk", "fit image", "step")
SEARCHING = "searching"
IDLE = ""  # nothing is under way any more
COMPILING, COMPILED = "compiling", "compiled"  # between two tellings of a phase, which goes on behind them
GIVEN = "there from before"  # the note of a case that needed no work
CHOSEN = "chosen"  # its note says what runs at once, in front of the first search of a kind
SAID = "said"  # its note is a line for people, at once
EXPECTED, ENDED = "expected", "ended"  # of a whole list of cases: `number` of `total` have ended

_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # JAX tells it in front of a compilation,
_COMPILED = "/jax/core/compile/backend_compile_duration"  # and this one behind


class Event(NamedTuple):
    """A phase begins or goes on: the `number`-th `unit` of `total` is under way (0: it is not counted), of which `case`.

    `note` is a text for people: what came of a case that has ended, or what is expected.
    """

    phase: str
    unit: str = ""
    number: int = 0
    total: int = 0
    case: str = ""
    note: str = ""


Listener = Callable[[Event], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)
_CASE: ContextVar[str] = ContextVar("case", default="")


def tell(phase: str, unit: str = "", number: int = 0, total: int = 0, *, note: str = "") -> None:
    """Tell the listener of this context, if there is one, which phase is under way and how far it is (from 1)."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(Event(phase, unit, number, total, _CASE.get(), note))


def is_heard() -> bool:
    """Whether anybody listens: what is only worked out to be told can be left out else."""
    return _LISTENER.get() is not None


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with everything that is told inside, from any thread that carries this context; compilations too."""
    _hear_compilations()
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextlib.contextmanager
def about_case(name: str) -> Iterator[None]:
    """What is told inside is told of this case."""
    token = _CASE.set(name)
    try:
        yield
    finally:
        _CASE.reset(token)


@contextlib.contextmanager
def phases() -> Iterator[None]:
    """What is told of phases inside ends with it."""
    try:
        yield
    finally:
        tell(IDLE)


@contextlib.contextmanager
def counted(*, done: int, total: int) -> Iterator[None]:
    """Cases that end inside are told of as more of `total`, after `done` of them."""
    listener = _LISTENER.get()
    if listener is None:
        yield
        return
    with listening(lambda e: listener(e._replace(number=done + e.number, total=total) if e.phase == ENDED else e)):
        yield


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, to be called once in another thread, in a copy of the present context."""
    return functools.partial(contextvars.copy_context().run, function)


@functools.cache
def _hear_compilations() -> None:
    """Have JAX tell of compilations, once in a process: it calls in the thread that compiles."""

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if event == _LOWERED:
            tell(COMPILING)
        elif event == _COMPILED:
            tell(COMPILED)

    jax.monitoring.register_event_duration_secs_listener(heard)
