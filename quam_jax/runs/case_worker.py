"""A worker of a run on another machine: it loads and compiles once, and then does the cases that it is dealt."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..cluster.lock import read_token
from ..cluster.places import find_folder, go_to
from ..cluster.versions import versions
from ..process import kept_file, start_jax
from . import folder as run_folder
from .request import RunRequest


class Order(NamedTuple):
    """What a worker is made of: the request, the folder that its paths start from, and what its share of the cases may be."""

    request: RunRequest
    where: Path
    workers: int


class Greeting(NamedTuple):
    """What a worker says of itself: machine, name in the ledger, what it runs, what identifies the run, run.json, and a note."""

    host: str
    name: str
    versions: dict[str, str]
    digest: str
    parts: dict[str, str]
    info: dict[str, Any]
    said: str


class CaseWorker:
    """One worker; ValueError, with its machine, for what it cannot load."""

    def __init__(self, order: Order) -> None:
        self.request, self.workers = order.request, order.workers
        self.host = socket.gethostname()
        go_to(order.where, paths_of(order.request))
        start_jax()
        from ..core.compilation import keep_choices
        from ..data.choices import Choices
        from .preparing import prepare
        from .work import Work

        keep_choices(Choices(kept_file("choices.json")))
        prepared = prepare(self.request)
        own = prepared.quantifier.own_fit
        self.token = ""
        self.work_of = Work(prepared.lanes, self.request, prepared.digest, still=self._still, others=True)
        self.greeting = Greeting(
            self.host,
            self.work_of.name,
            versions(),
            prepared.digest,
            prepared.parts,
            prepared.info,
            f"note: {own.warning}" if own.findings else str(own),
        )

    def enter(self, word: Any) -> None:
        """Look for the run folder, by what its driver has written there; ValueError where it is not seen."""
        find_folder(self.request.out, str(word))
        self.token = str(word)

    def work(self, tasks: Iterator[str], tell: Callable[[str | None, Any], None]) -> None:
        """Do the cases of a stream; every event is told, the last one of a case with its name.

        OSError, with this machine and the place, where it cannot write; the case is then not done.
        """
        from .ledger import ENDED
        from .work import NoRoom

        notes: dict[str, str] = {}
        total = len(self.work_of.cases)

        def heard(event: Any) -> None:
            ended = event["event"] in ENDED
            tell(event["case"] if ended else None, (event, notes.pop(event["case"], "") if ended else ""))

        try:
            self.work_of.do(tasks, expected=-(-total // self.workers), heard=heard, noted=notes.__setitem__)
        except NoRoom as error:
            raise OSError(f"{self.host}: {error}") from None
        except OSError as error:
            told = run_folder.output_error(self.request.out, error)
            raise OSError(f"{self.host}: {told.strerror or told}") from None

    def _still(self) -> bool:
        return read_token(self.request.out) == self.token


def paths_of(request: RunRequest) -> list[Path]:
    """The files and folders that a request names."""
    named = (request.model, request.images, request.out, request.fit_images, request.fit_masks, request.masks)
    return [path for path in named if isinstance(path, Path)]
