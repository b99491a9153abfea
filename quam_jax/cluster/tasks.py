"""Work of named tasks that know nothing of each other, done by workers: settings to score, methods on cases, maps to evaluate."""

import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .crew import Wanted, open_crew
from .dealing import Dealer, Refused
from .lock import hold
from .places import find_folder
from .station import Told
from .versions import require_same, versions

Progress = Callable[[str, int, int], None]


class Order(NamedTuple):
    """What a worker of tasks is made of: the request, and the folder that its paths start from."""

    request: Any
    where: Path


class Greeting(NamedTuple):
    """What a worker says of itself: its machine, what it runs, what its tasks depend on by name, and the names of all tasks."""

    host: str
    versions: dict[str, str]
    about: dict[str, str]
    tasks: list[str]


class TaskJob:
    """A worker of named tasks, each a call without arguments; `about` are digests of what they depend on, by name.

    `out` is the folder that they write to, where they do.
    """

    def __init__(self, tasks: Mapping[str, Callable[[], Any]], about: Mapping[str, str], *, out: Path | None) -> None:
        self.tasks, self.out = tasks, out
        self.greeting = Greeting(socket.gethostname(), versions(), dict(about), list(tasks))

    def enter(self, word: Any) -> None:
        """Look for the folder; ValueError where it is not seen."""
        if self.out is not None:
            find_folder(self.out, str(word))

    def work(self, tasks: Iterator[str], tell: Callable[[str | None, Any], None]) -> None:
        """Do every task of a stream."""
        for task in tasks:
            tell(task, self.tasks[task]())


def share(
    wanted: Wanted, make: str, arguments: Any, *, out: Path | None = None, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """The value of every task of the workers at `make(arguments)`, in order; one that killed its workers has none.

    `progress(name, done, total)` is called first with nothing done and after each task. Raises what a task raised; ValueError as
    `open_crew`, and where machines differ or do not see `out`.
    """
    if out is None:
        return _share(wanted, make, arguments, "", progress)
    out.mkdir(parents=True, exist_ok=True)
    with hold(out) as token:
        return _share(wanted, make, arguments, token, progress)


def _share(wanted: Wanted, make: str, arguments: Any, token: str, progress: Progress) -> dict[str, Any]:
    first: list[Greeting] = []
    values: dict[str, Any] = {}
    lost: set[str] = set()

    def welcome(worker: str, greeting: Greeting) -> str:
        require_same(greeting.versions, greeting.host)
        if not first:
            first.append(greeting)
            progress("", 0, len(greeting.tasks))
        elif (greeting.about, greeting.tasks) != (first[0].about, first[0].tasks):
            parts = [name for name, value in first[0].about.items() if greeting.about.get(name) != value] or ["tasks"]
            raise Refused(f"{greeting.host}: expected the same {', '.join(parts)} as on {first[0].host}, got others")
        return token

    def heard(worker: str, told: Told) -> None:
        if told.task is not None:
            values[told.task] = told.value
            progress(told.task, len(values) + len(lost), len(first[0].tasks))

    with open_crew(wanted, make, arguments) as crew:
        Dealer(crew, welcome=welcome, tasks=lambda: first[0].tasks, heard=heard, given_up=lambda task, why: lost.add(task)).deal()
    return {task: values[task] for task in first[0].tasks if task in values}
