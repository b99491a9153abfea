"""A run in one process, read top to bottom: load model and fit data once, search every case, put the results together.

A bad case is recorded with its reason and the others go on. A run that was interrupted goes on where it stopped, because a
case counts as done when its JSON carries the digest of everything its numbers depend on and its files are as they were
written. One process is at work in a folder, or one a part of the cases (runs/part.py); several workers are Ray's business
(runs/on_ray.py). The pieces of a run are in `runs`.
"""

import time
from collections.abc import Callable

from ..cluster.lock import PARTS
from ..core.progress import ENDED, EXPECTED, IDLE, SAID, is_heard, tell
from ..data.figures import Figures
from . import folder as run_folder
from .announcement import announce
from .ending import finish, part_result
from .expectation import Forecast
from .ledger import ENDED as ENDINGS
from .ledger import Event, Ledger
from .preparing import Prepared, prepare
from .request import RunRequest, RunResult
from .work import Work

Progress = Callable[[str, int, int], None]


def run(request: RunRequest, *, progress: Progress = lambda *_: None, figures: Figures | None = None) -> RunResult:
    """Quantify every case of a folder and write the run folder (names in docs/files.md).

    `progress(text, done, total)` is called before each case and once at the end. Who listens (core/progress.py) is told the
    phases and the end of every case; with `figures` also, in front of the first, what to expect, by them or a probe, and they
    take up what cases took. Raises ValueError, before anything is written, for a model, fit data, settings or folders that cannot
    be used, where another process is at work in the folder, and if every case failed; OSError, with what to do about it, where
    the output folder cannot be written to.
    """
    prepared = prepare(request)
    part = "" if request.part is None else request.part.file
    with run_folder.claimed(request.out, prepared.digest, overwrite=request.overwrite, part=part) as claim:
        own = prepared.quantifier.own_fit
        tell(SAID, note=f"note: {own.warning}" if own.findings else str(own))
        forecast = Forecast(prepared.quantifier, request, figures)
        if is_heard() and figures is not None:
            known = forecast.expect(lanes=len(prepared.lanes))
            tell(EXPECTED, number=known.done, total=known.cases, note=str(known))
        tell(IDLE)
        try:
            info = announce(request.out, prepared.info, alone=request.part is None)
            ledger = _work(prepared, request, progress=progress, forecast=forecast)
            names = [case.name for case in prepared.quantifier.cases]
            progress("", len(ledger.known), len(ledger.known))
            if request.part is not None:
                return part_result(request.out, request.part.deal(names), ledger, info)
            return finish(request.out, names, ledger, info, fresh=claim.fresh)
        except OSError as error:
            raise run_folder.output_error(request.out, error) from error


def _work(prepared: Prepared, request: RunRequest, *, progress: Progress, forecast: Forecast) -> Ledger:
    """Do all cases, or those of a part."""
    work, ledger, part = Work(prepared.lanes, request, prepared.digest), Ledger(), request.part
    own = request.out / PARTS / f"{part.file if part is not None else ''}.json"
    names = list(work.cases) if part is None else part.deal(list(work.cases))
    began = time.monotonic()

    notes: dict[str, str] = {}

    def heard(event: Event) -> None:
        ledger.hear(work.name, event)
        if event["event"] in ENDINGS:
            tell(ENDED, number=len(ledger.known), total=len(names), note=notes.pop(event["case"]))

    def begins(name: str) -> None:
        done, seconds = len(ledger.known), time.monotonic() - began
        busy = min(1.0, work.times.worked / seconds / len(prepared.lanes))
        progress(f"{name} ({done / seconds:.3g} cases/s, device {busy:.0%})" if done else name, done, len(names))

    try:
        work.do(iter(names), expected=len(names), heard=heard, noted=notes.__setitem__, begins=begins, forecast=forecast)
    finally:
        if part is not None:
            ledger.add_known(own)
            ledger.write(own)
    return ledger
