"""What is seen of work under way: a bar on a terminal, plain lines elsewhere, both on stderr.

A list (cases, settings to try) has a total from the start; a line says how each of its entries ended, and one which phase is
under way where it lasts. Lines are rate limited: thousands of quick cases leave some of them, among these always the last.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..report.durations import about

CASES = "cases"  # the list whose lines need no name
TICK = 0.25  # seconds between two looks
LASTS = 5.0  # seconds after which a phase is worth a line
COMPILES = 1.0  # and a compilation is worth being named
SELDOM = 10.0  # seconds between two lines about phases, at least
STILL = 60.0  # seconds after which a phase that goes on without news is named again
QUICK = 1.0  # seconds of a list that needs no line
WINDOW = 20  # entries whose time says how long the rest takes
OFTEN, RARE, LINES = 2.0, 10.0, 50  # seconds between two lines about entries; more, the longer it goes on


class Shown(NamedTuple):
    """The phase that is shown: in words, how many seconds it lasts, and the part of its case that lies behind it."""

    text: str
    lasted: float
    compiling: bool
    share: float


def joined(*parts: str) -> str:
    """What there is of them, from the general to the special."""
    return ": ".join(part for part in parts if part)


@dataclass
class Entries:
    """How much of a list is done, since when; `given` of it took no time, and says nothing about the rest."""

    total: int
    began: float
    done: int = 0
    given: int = 0
    said: float = -float("inf")
    waiting: str = ""  # a line that was held back
    ended: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))  # when how many had ended

    def left(self, now: float) -> str:
        """How long the rest takes if it goes on like this, in words; of the first entry only a bound is known."""
        worked, rest = self.done - self.given, self.total - self.done
        if worked <= 0 or rest <= 0:
            return ""
        self.ended.append((now, worked))
        then, before = self.ended[0]
        if worked == before:  # much of the first one's time may be compilation
            return f"at most {about((now - self.began) * rest / worked)} left"
        return f"about {about((now - then) * rest / (worked - before))} left"


@runtime_checkable
class View(Protocol):
    """Where it is shown."""

    def say(self, text: str) -> None: ...
    def begin(self, stage: str, entries: Entries) -> None: ...
    def entry(self, stage: str, entries: Entries, text: str) -> None: ...
    def look(self, shown: Shown | None) -> None: ...
    def flush(self, entries: Entries) -> None: ...


class Lines:
    """Plain lines for a log."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.write, self.clock = write, clock
        self.told, self.last, self.begun = -float("inf"), "", False

    def say(self, text: str) -> None:
        """A line of its own."""
        self.begun = True
        self.write(text)

    def begin(self, stage: str, entries: Entries) -> None:
        """A list is seen by its entries; from now on phases may be."""
        self.begun = True

    def entry(self, stage: str, entries: Entries, text: str) -> None:
        """A line about an entry, unless there were many just now; the last one always."""
        now = self.clock()
        between = min(RARE, max(OFTEN, (now - entries.began) / LINES))
        entries.waiting = text
        if entries.done == entries.total or now - entries.said >= between:
            self.flush(entries)

    def flush(self, entries: Entries) -> None:
        """Write what was held back, unless the list is too young to be worth a line."""
        if entries.waiting and self.clock() - entries.began >= QUICK:
            entries.said = self.clock()
            self.write(entries.waiting)
            entries.waiting = ""

    def look(self, shown: Shown | None) -> None:
        """A line about the phase under way where it lasts."""
        worth = SELDOM if not self.begun else COMPILES if shown is not None and shown.compiling else LASTS
        if shown is None or shown.lasted < worth:
            return
        since = self.clock() - self.told
        if since < (SELDOM if shown.text != self.last else STILL):
            return
        again = f" (for {about(shown.lasted)} now)" if shown.text == self.last else ""
        self.told, self.last = self.clock(), shown.text
        self.write(shown.text + again)


class Bars:
    """A bar for each list on a terminal, the later ones in place of the earlier."""

    def __init__(self, progress: Any) -> None:
        self.progress, self.tasks = progress, dict[str, Any]()
        self.phase = progress.add_task("", total=None, text="")
        self.now: tuple[str, Entries] | None = None

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, stage: str, entries: Entries) -> None:
        """Show the bar of a list in place of those before it."""
        if stage not in self.tasks:
            self.progress.update(self.phase, visible=False)
            for earlier in self.tasks.values():
                self.progress.update(earlier, visible=False)
            self.tasks[stage] = self.progress.add_task(stage, total=entries.total, text="")
        self.now = (stage, entries)
        self.progress.update(self.tasks[stage], total=entries.total, completed=entries.done)

    def entry(self, stage: str, entries: Entries, text: str) -> None:
        """Move the bar of a list."""
        self.begin(stage, entries)
        self.progress.update(self.tasks[stage], text=text)

    def flush(self, entries: Entries) -> None:
        """A bar holds nothing back."""

    def look(self, shown: Shown | None) -> None:
        """Show the phase, and move the bar by the part of a case that is done."""
        if self.now is None:
            self.progress.update(self.phase, text="" if shown is None else shown.text)
            return
        stage, entries = self.now
        if shown is not None:
            part = min(shown.share, entries.total - entries.done)
            self.progress.update(self.tasks[stage], completed=entries.done + part, text=shown.text)


@runtime_checkable
class Phases(Protocol):
    """Who knows what is under way."""

    def shown(self) -> Shown | None: ...
    def forget(self) -> None: ...


def rich_progress() -> Any:
    """Bars of rich on stderr: a list and how much of it is done, time passed and left, what is under way.

    As long as no list is known there is no bar, only what is under way.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Counted(ProgressColumn):
        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self.column = column

        def render(self, task: Task) -> Any:
            return Text("") if task.total is None else self.column.render(task)

    return Progress(
        TextColumn("{task.description}", markup=False),
        Counted(BarColumn(bar_width=20)),
        Counted(MofNCompleteColumn()),
        TimeElapsedColumn(),
        Counted(TimeRemainingColumn()),
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(stderr=True),
        transient=True,
    )


class Display:
    """Has lists and phases shown by a view, from any thread; `phases` knows the phase under way.

    `words` says of the lists that are announced what their entries are.
    """

    def __init__(
        self, view: View, *, words: Mapping[str, str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.view, self.words, self.clock = view, dict(words or {}), clock
        self.phases: Phases | None = None
        self.lists: dict[str, Entries] = {}
        self.lock, self.said_once = threading.RLock(), False
        self._stop = threading.Event()

    def expect(self, text: str, stage: str, total: int) -> None:
        """Say what is to come, a list of so many entries."""
        with self.lock:
            if text:
                self.view.say(text)
            self.view.begin(stage, self._entries(stage, total))

    def say(self, text: str) -> None:
        """A line of its own."""
        with self.lock:
            self.view.say(text)

    def say_once(self, text: str) -> None:
        """A line of its own, the first one only: later ones are about other sizes."""
        with self.lock:
            if not self.said_once:
                self.view.say(text)
            self.said_once = True

    def update(self, stage: str, name: str, done: int, total: int, *, note: str = "", given: bool = False) -> None:
        """`done` of the `total` entries of a list have ended, `name` just now; it was `given` where that took no time.

        Without a name the list only begins.
        """
        with self.lock:
            entries = self._entries(stage, total)
            entries.done, entries.given = done, entries.given + given
            if not name:
                if stage in self.words:
                    self.view.say(f"{stage}: {total:,} {self.words.pop(stage)}")
                self.view.begin(stage, entries)
                return
            if self.phases is not None:
                self.phases.forget()
            prefix = "" if stage == CASES else f"{stage} "
            text = ", ".join(part for part in (joined(name, note), entries.left(self.clock())) if part)
            self.view.entry(stage, entries, f"{prefix}[{done:,}/{total:,}] {text}")

    def _entries(self, stage: str, total: int) -> Entries:
        entries = self.lists.setdefault(stage, Entries(total, self.clock()))
        entries.total = total
        return entries

    def look(self) -> None:
        """Show the phase that is under way now."""
        with self.lock:
            self.view.look(None if self.phases is None else self.phases.shown())

    def watch(self) -> None:
        """Look again and again until `close`, or until nobody can be told any more."""
        with contextlib.suppress(OSError, ValueError):
            while not self._stop.wait(TICK):
                self.look()

    def close(self) -> None:
        """Show what was held back, and look no more."""
        self._stop.set()
        with self.lock:
            for entries in self.lists.values():
                self.view.flush(entries)
