"""Who gets which task: fed as fast as each worker takes them, dealt anew where one dies, given up where it kills its workers.

A worker is asked one thing at a time. It gets a task when it waits for one, and of quick tasks about a second of them ahead, so
that nothing piles up anywhere. A task in the hands of a worker that died goes to the front; from its second death on it is dealt
alone, and only a task whose workers died with nothing else in their hands is given up. A worker that cannot go on (OSError:
its disk is full) leaves, its tasks go to the others, and the error of the last one ends the deal. Knows nothing of Ray.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from .station import Answer, Told

GATHER = 20.0  # seconds that the first task waits for workers that are there but still load
AHEAD = 1.0  # seconds of quick tasks in a worker's queue
MOST = 500  # tasks in it
ALONE = 2  # deaths from which a task is dealt alone
DEATHS = 3  # that a task meets alone before it is given up
LAST = 10.0  # seconds that workers get for their last words
STARTS = 3  # workers that die one after the other before any of them has begun


class Lost(NamedTuple):
    """A worker died, and how."""

    why: str


class Refused(Exception):
    """A worker that cannot take part, and why."""


@runtime_checkable
class Crew(Protocol):
    """The workers that there are, and those that are yet to come."""

    def grow(self) -> list[str]:
        """The names of workers that were newly asked for."""

    def room(self) -> int:
        """How many of them have a place now."""

    def ask(self, worker: str, what: str, *arguments: Any) -> None:
        """Call a method of the worker's station; the last one has answered."""

    def answers(self, seconds: float) -> list[tuple[str, Any]]:
        """What workers have answered: values, Lost, or an exception that the station raised."""

    def dismiss(self, worker: str) -> None:
        """Do without a worker, and ask for none in its place."""


class _Seat:
    """A worker as the dealer sees it."""

    def __init__(self) -> None:
        self.state = "loading"  # then entering, then at work
        self.hands: dict[str, None] = {}  # tasks in order
        self.alone = False
        self.idle, self.closed, self.asked = True, True, True
        self.begun = time.monotonic()
        self.ended, self.waiting = 0, -1

    def room(self) -> int:
        """How many tasks it should get now: as many as it does in about a second, less those in its queue; one if it waits."""
        rate = self.ended / max(1e-3, time.monotonic() - self.begun)
        return max(min(MOST, int(rate * AHEAD)) - max(0, self.waiting), int(self.idle or self.waiting < 0))


class Dealer:
    """Deals tasks to a crew until all have ended.

    `welcome(worker, greeting)` answers what is said to a worker in return, or raises Refused; `tasks()` is called after the
    first one. `heard(worker, told)` gets everything that is told, `given_up(task, why)` each task that kills its workers.
    `waits(workers)` is called now and then with the number of workers that are at work.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        welcome: Callable[[str, Any], Any],
        tasks: Callable[[], Sequence[str]],
        heard: Callable[[str, Told], None],
        given_up: Callable[[str, str], None],
        refused: Callable[[str, str], None] = lambda *_: None,
        waits: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.crew, self.welcome, self.tasks, self.heard, self.given_up = crew, welcome, tasks, heard, given_up
        self.refused, self.waits = refused, waits
        self.seats: dict[str, _Seat] = {}
        self.todo: deque[str] = deque()
        self.shy: deque[str] = deque()  # to be dealt alone
        self.deaths: dict[str, int] = {}
        self.left = -1  # tasks that have not ended; before the first greeting nobody knows
        self.begun = False  # whether any was dealt
        self.failed_starts = 0
        self.gathering: float | None = None  # since when

    def deal(self) -> None:
        """Deal everything; raises what a station raised, and ValueError where workers die while they load."""
        self._grow()
        while self.left:
            self._turn()
            self._grow()
        until = time.monotonic() + LAST
        while any(not seat.idle for seat in self.seats.values()) and time.monotonic() < until:
            self._turn()  # for what workers say of the whole

    def _turn(self) -> None:
        if self._gathered():
            for name, seat in self.seats.items():
                if seat.state == "at work" and not seat.asked:
                    self._feed(name, seat)
        for name, answer in self.crew.answers(1.0):
            self._take(name, answer)
        self.waits(sum(seat.state == "at work" for seat in self.seats.values()))

    def _grow(self) -> None:
        for name in self.crew.grow():
            self.seats[name] = _Seat()
            self.crew.ask(name, "begin")

    def _gathered(self) -> bool:
        """Whether dealing may begin: all that have a place are compared with each other before the first task."""
        if self.gathering is None:
            return False
        ready = sum(seat.state == "at work" for seat in self.seats.values())
        return self.begun or ready >= self.crew.room() or time.monotonic() - self.gathering > GATHER

    def _take(self, name: str, answer: Any) -> None:
        seat = self.seats[name]
        seat.asked = False
        if isinstance(answer, Lost):
            self._lose(name, answer.why)
        elif isinstance(answer, Exception):
            if not self._can_spare_one() or (seat.state == "at work" and not isinstance(answer, OSError)):
                raise answer
            self.todo.extendleft(reversed(seat.hands))
            self._refuse(name, str(answer))
        elif seat.state == "loading":
            self._greet(name, seat, answer)
        elif seat.state == "entering":
            seat.state, seat.begun = "at work", time.monotonic()
            self.failed_starts = 0
        else:
            self._hear(name, seat, answer)

    def _greet(self, name: str, seat: _Seat, greeting: Any) -> None:
        first = self.left < 0
        try:
            word = self.welcome(name, greeting)
        except Refused as error:
            if not self._can_spare_one():  # somebody had better look at it
                raise ValueError(str(error)) from None
            self._refuse(name, str(error))
            return
        if first:
            self.todo.extend(self.tasks())
            self.left = len(self.todo)
            self.gathering = time.monotonic()
        seat.state, seat.asked = "entering", True
        self.crew.ask(name, "enter", word)

    def _can_spare_one(self) -> bool:
        """Whether the deal goes on with one worker less: it has begun, and there are others."""
        return self.begun and len(self.seats) > 1

    def _refuse(self, name: str, why: str) -> None:
        """Go on without a worker that came later and cannot take part, or that cannot go on."""
        del self.seats[name]
        self.crew.dismiss(name)
        self.refused(name, why)

    def _hear(self, name: str, seat: _Seat, answer: Answer) -> None:
        for told in answer.told:
            if told.task is not None and told.task in seat.hands:
                del seat.hands[told.task]
                seat.ended += 1
                self.left -= 1
            self.heard(name, told)
        seat.idle, seat.waiting = answer.idle, answer.waiting
        if answer.idle and seat.hands:
            raise RuntimeError(f"{name}: a worker came to its end without a word on {next(iter(seat.hands))}")
        if answer.idle:
            seat.closed, seat.alone = True, False

    def _feed(self, name: str, seat: _Seat) -> None:
        """Give a worker what it has room for, and ask it what has happened; one that has nothing to do is left alone."""
        tasks: list[str] = []
        last = False
        if seat.idle and not self.todo and self.shy:
            tasks, last, seat.alone = [self.shy.popleft()], True, True
        elif not seat.alone and (seat.idle or not seat.closed):
            room = seat.room()
            while self.todo and len(tasks) < room:
                tasks.append(self.todo.popleft())
            last = not self.todo and bool(tasks or not seat.closed)
        if not tasks and seat.idle:
            return
        if tasks:
            seat.idle = seat.closed = False
            self.begun = True
        seat.closed = seat.closed or last
        seat.hands |= dict.fromkeys(tasks)
        seat.asked = True
        self.crew.ask(name, "step", tasks, last)

    def _lose(self, name: str, why: str) -> None:
        seat = self.seats.pop(name)
        if seat.state != "at work":
            self.failed_starts += 1
            if self.failed_starts >= STARTS:
                raise ValueError(f"{name}: {self.failed_starts} workers died one after the other while they loaded: {why}")
        for task in reversed(seat.hands):
            self.deaths[task] = self.deaths.get(task, 0) + 1
            if seat.alone and self.deaths[task] >= ALONE + DEATHS:
                self.left -= 1
                self.given_up(task, f"its worker died {self.deaths[task]} times, {DEATHS} of them with this case alone ({why})")
            elif self.deaths[task] >= ALONE:
                self.shy.append(task)
            else:
                self.todo.appendleft(task)
