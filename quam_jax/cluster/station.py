"""A worker from inside: it loads once, then works through a stream of tasks in a thread while the dealer feeds and listens.

Knows neither Ray nor what a task is.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from pkgutil import resolve_name
from typing import Any, NamedTuple, Protocol, runtime_checkable

WAIT = 2.0  # seconds after which a step answers, whatever has happened
_END = object()


class Told(NamedTuple):
    """What came of a task, which has ended with it; or, without a task, what is said on the way."""

    task: str | None
    value: Any


class Answer(NamedTuple):
    """What a step has to tell; how many tasks lie in the queue, less than none where the thread waits for one; and whether the
    thread has come to the end of a stream."""

    told: list[Told]
    waiting: int
    idle: bool


@runtime_checkable
class Job(Protocol):
    """What is made of the arguments once, and then works."""

    @property
    def greeting(self) -> Any:
        """What the dealer has to know before the first task."""

    def enter(self, word: Any) -> None:
        """The dealer's answer to the greeting; ValueError where this worker cannot take part."""

    def work(self, tasks: Iterator[str], tell: Callable[[str | None, Any], None]) -> None:
        """Do every task of a stream; `tell(task, value)` ends one."""


class Station:
    """One worker: `make` is the name, `module:function`, of what makes the job of the arguments."""

    def __init__(self, make: str, arguments: Any) -> None:
        self._make, self._arguments = make, arguments
        self._job: Job | None = None
        self._tasks: queue.Queue[Any] = queue.Queue()
        self._changed = threading.Condition()
        self._told: list[Told] = []
        self._error: BaseException | None = None
        self._hungry = False
        self._thread: threading.Thread | None = None

    def begin(self) -> Any:
        """Make the job; its greeting."""
        self._job = resolve_name(self._make)(self._arguments)
        return self._made.greeting

    def enter(self, word: Any) -> None:
        """Pass the dealer's word on."""
        self._made.enter(word)

    @property
    def _made(self) -> Job:
        if self._job is None:
            raise RuntimeError("a worker that has not begun")
        return self._job

    def step(self, tasks: list[str], last: bool) -> Answer:
        """Take more tasks, the `last` ones of this stream or not, and tell what has happened; the job's error is raised.

        Answers as soon as something has ended or the thread waits for more; at the latest after WAIT seconds.
        """
        for task in tasks:
            self._tasks.put(task)
        if tasks:
            with self._changed:
                self._hungry = False
        if last:
            self._tasks.put(_END)
        if tasks and self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._told or self._hungry or self._thread is None, WAIT)
            told, self._told = self._told, []
            if self._error is not None and not told:  # what ended before it has its own answer
                raise self._error
            idle = self._thread is None and self._error is None
            return Answer(told, -1 if self._hungry else self._tasks.qsize(), idle)

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            self._made.work(self._stream(), self._tell)
        except BaseException as caught:  # raised by the next step
            error = caught
        with self._changed:
            self._thread, self._error = None, error
            self._changed.notify_all()

    def _stream(self) -> Iterator[str]:
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                with self._changed:
                    self._hungry = self._tasks.empty()
                    self._changed.notify_all()
                task = self._tasks.get()
            if task is _END:
                return
            yield task

    def _tell(self, task: str | None, value: Any) -> None:
        with self._changed:
            self._told.append(Told(task, value))
            self._changed.notify_all()
