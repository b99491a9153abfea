"""What came of a case is published or given up, and told in events; errors of the case itself too."""

import datetime
import time
from collections.abc import Callable
from typing import NamedTuple

from ..core.progress import GIVEN
from ..report.durations import about
from . import folder as run_folder
from .cases import Loaded, Searched, settle_again, settle_case
from .ledger import Event
from .quantifier import Quantifier
from .request import RunRequest
from .stages import Failed, Passed

FAULTS = (ValueError, RuntimeError, MemoryError)  # of a case, such as numbers that the format of its maps cannot hold


class Replaced(OSError):
    """The run folder is no longer that of this run: somebody has begun anew."""


class Settled(NamedTuple):
    """The events that a case ended with, and what came of it in words."""

    note: str
    events: tuple[Event, ...]


class Settling:
    """How one worker ends cases; `still` says whether the folder is still this run's."""

    def __init__(
        self, quantifier: Quantifier, request: RunRequest, run_digest: str, worker: str, still: Callable[[], bool]
    ) -> None:
        self.quantifier, self.request, self.digest, self.worker, self.still = quantifier, request, run_digest, worker, still

    def settle(self, found: Searched | Passed | Failed) -> Settled:
        """Publish what came of a case; OSError where the folder cannot be written to."""
        out, name = self.request.out, name_of(found)
        if isinstance(found, Passed):
            return self._settle_finished(found.value)
        if isinstance(found, Failed):
            return self._give_up(name, found.reason)
        loaded = found.loaded
        start = time.perf_counter()
        try:
            folder = run_folder.staging_folder(out, name, worker=self.worker)
            record = settle_case(found, self.quantifier, self.request, self.digest, folder)
        except FAULTS as error:
            return self._give_up(name, str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
        self._require_ours()
        run_folder.publish(out, name, record, worker=self.worker)
        write = time.perf_counter() - start
        seconds = loaded.seconds + found.seconds + write
        done = {
            "event": "done",
            "case": name,
            "seconds": round(seconds, 3),
            "read": round(loaded.seconds, 3),
            "search": round(found.seconds, 3),
            "write": round(write, 3),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        again = [{"event": "redo", "case": name, "why": loaded.why}] if loaded.why else []
        return Settled(about(seconds), (*again, done))

    def _settle_finished(self, loaded: Loaded) -> Settled:
        """Score a case again whose masks, or whose guarantee, are others than those of its files; its maps stay."""
        out, name = self.request.out, loaded.case.name
        try:
            folder = run_folder.staging_folder(out, name, worker=self.worker)
            record, stages = settle_again(loaded, self.quantifier, self.request, folder)
        except FAULTS as error:
            run_folder.discard(out, name, worker=self.worker)
            return _failed(name, str(error))
        self._require_ours()
        if stages:
            run_folder.amend(out, name, record, stages, worker=self.worker)
        run_folder.discard(out, name, worker=self.worker)
        if loaded.fault:
            return _failed(name, loaded.fault)
        note = "scored again" if "score_files" in stages else "guarantee applied" if stages else GIVEN
        return Settled(note, ({"event": "kept", "case": name},))

    def _give_up(self, name: str, reason: str) -> Settled:
        run_folder.discard(self.request.out, name, worker=self.worker)
        self._require_ours()
        run_folder.remove_case(self.request.out, name)  # an older result would contradict the table
        return _failed(name, reason)

    def _require_ours(self) -> None:
        if not self.still():
            raise Replaced(f"{self.request.out}: another process has taken this run over; nothing more is written here")


def name_of(found: Searched | Passed | Failed) -> str:
    """The name of the case that this came of."""
    if isinstance(found, Searched):
        return found.loaded.case.name
    item = found.value if isinstance(found, Passed) else found.item
    return item.case.name if isinstance(item, Loaded) else item.name


def _failed(name: str, reason: str) -> Settled:
    return Settled(f"failed: {reason}", ({"event": "failed", "case": name, "reason": reason},))
