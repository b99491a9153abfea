"""A whole run, read top to bottom: load the model and the fit data once, share the cases out, search them, merge the results.

A bad case is recorded with its reason and the others go on. A run that was interrupted goes on where it stopped, because a
case counts as done when its JSON carries the digest of everything its numbers depend on and its files are as they were
written. Any number of processes may run the same request into the same folder: each takes the cases that nobody has taken,
and whoever is last merges (runs/workers.py). The parts of a run are in `runs`.
"""

import datetime
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from ..config import to_dict
from ..config.sizes import bytes_in
from ..core.progress import ENDED, EXPECTED, IDLE, SAID, about_case, is_heard, phases, tell
from ..data.colour_tables import write_colour_tables
from ..data.datasets import Case
from ..data.figures import Figures
from ..data.records import digest, digest_arrays, plain, read_json
from ..memory import budget, require_room
from ..version import __version__
from . import folder as run_folder
from .announcement import announce, describe, describe_memory, first_announced
from .cases import Loaded, Searched, read_case, search_cases
from .expectation import Forecast
from .guaranteeing import known_of, require_same
from .merge import merge, read_ending, read_result
from .quantifier import Quantifier, find_quantifier, models_digest
from .request import RunRequest, RunResult
from .settling import name_of, settle
from .stages import Failed, Passed, Times, run_stages
from .workers import FINAL, SessionOver, Worker, others_at_work

TURNS = 4  # batches of cases that a lane gets at least: so that reading and writing overlap, and all lanes get their part
POLL = 0.2  # seconds between two looks at what the others do, at least
LOOK = 30.0  # seconds between two looks at how many cases the others have ended
Progress = Callable[[str, int, int], None]


def run(request: RunRequest, *, progress: Progress = lambda *_: None, figures: Figures | None = None) -> RunResult:
    """Quantify every case of a folder and write the run folder (names in docs/files.md).

    `progress(text, done, total)` is called before each case and once at the end. Who listens (core/progress.py) is told the
    phases and the end of every case; with `figures` also, in front of the first, what to expect, by them or a probe, and they
    take up what cases took. Raises ValueError, before anything is written, for a model, fit data, settings or folders that cannot
    be used, and if every case failed; OSError, with what to do about it, where the output folder cannot be written to.
    """
    began = datetime.datetime.now(datetime.UTC)
    asked = bytes_in(request.config.execution.memory)
    budget(asked)  # before anything is there
    tell("loading the model")
    models = request.load()
    require_room(sum(4 * model.parameter_count for model in models), asked)
    model_digest = models_digest(models, request.model_name)
    quantifier = find_quantifier(models, request)
    own = quantifier.own_fit
    if request.strict and own.findings:
        raise ValueError(f"{request.fit_images}: {own.warning}; nothing was written (--strict)")
    settings = to_dict(request.config.without_layout())
    if request.calibration is not None:
        about = known_of(
            model=model_digest,
            config=to_dict(request.config),
            preprocessing=quantifier.preparation,
            fit=quantifier.known.hashes,
        )
        require_same(request.calibration, plain(about))
    fit = (quantifier.known.hashes, digest_arrays({"labels": quantifier.known.labels}))
    run_digest = digest(__version__, model_digest, settings, *fit, quantifier.preparation)
    fresh = not request.out.exists()
    run_folder.claim(
        request.out, run_digest, overwrite=request.overwrite, busy=others_at_work(request.out, patience=request.sharing.patience)
    )
    tell(SAID, note=f"note: {own.warning}" if own.findings else str(own))
    lanes = _lanes(quantifier, request)
    forecast = Forecast(quantifier, request, figures)
    if is_heard() and figures is not None:
        known = forecast.expect(lanes=len(lanes))
        tell(EXPECTED, number=known.done, total=known.cases, note=str(known))
    tell(IDLE)
    info = describe(quantifier, request, run_digest=run_digest, model_digest=model_digest, began=began, lanes=len(lanes))
    try:
        return _share(quantifier, request, run_digest, lanes=lanes, info=info, fresh=fresh, progress=progress, forecast=forecast)
    except OSError as error:
        raise run_folder.output_error(request.out, error) from error


def _share(
    quantifier: Quantifier,
    request: RunRequest,
    run_digest: str,
    *,
    lanes: list[Quantifier],
    info: dict[str, Any],
    fresh: bool,
    progress: Progress,
    forecast: Forecast,
) -> RunResult:
    """Take part in the run until all of its cases are done, by whomever, and the results are merged."""
    out, names = request.out, [case.name for case in quantifier.cases]
    cases = {case.name: case for case in quantifier.cases}
    times = Times()
    while True:
        with Worker(out, patience=request.sharing.patience) as worker:
            try:
                announce(out, info, alone=not worker.others())
                while True:
                    _work(worker, cases, lanes, request, run_digest, times=times, progress=progress, forecast=forecast)
                    ended = _wait(worker, names)
                    if ended is None:
                        continue
                    progress("", len(names), len(names))
                    if worker.claim(FINAL):
                        ending = read_ending(worker.journals(), ended, out, present=[worker.name, *worker.others()])
                        if len(ending.failed) == len(names):
                            _remove(worker, fresh=fresh)
                            raise _all_failed(ending.failed)
                        write_colour_tables(out, quantifier.shared.coding.label_names)
                        merge(out, names, ending, {**info, **first_announced(out)})
                        worker.close_session()
                        return read_result(out, names)
                    time.sleep(POLL)
            except SessionOver:
                # somebody merged the results, or removed a run that came to nothing
                stored = read_json(out / "run.json")
                if stored.get("status") == "finished" and stored.get("digest") == run_digest:
                    return read_result(out, names)
                if stored.get("digest", run_digest) != run_digest:
                    raise ValueError(f"{out}: another run has replaced this one") from None
                if not stored:
                    raise ValueError(
                        f"{out}: all cases failed, and another process of this run has removed its folder; that process tells why"
                    ) from None


def _work(
    worker: Worker,
    cases: dict[str, Case],
    lanes: Sequence[Quantifier],
    request: RunRequest,
    run_digest: str,
    *,
    times: Times,
    progress: Progress,
    forecast: Forecast,
) -> None:
    """Do every case that is free, or whose owner is dead."""
    quantifier = lanes[0]
    worker.refresh()
    sharing, names = request.sharing, list(cases)
    begin = len(names) * sharing.index // sharing.hosts
    if sharing.hosts == 1 and worker.others():
        begin = int(worker.name[-6:], 16) % len(names)  # so that processes started by hand seldom meet either
    queue = worker.deal(names, first=begin)
    first = next(queue, None)
    if first is None:
        return
    before = sum(worker.outcome(name) is not None for name in names) if len(names) <= 10_000 else 0
    began, worked, done, elsewhere = time.monotonic(), times.worked, 0, worker.ended_elsewhere()

    def dealt() -> Iterator[Case]:
        yield cases[first]
        looked = time.monotonic()
        for name in queue:
            if is_heard() and time.monotonic() - looked > LOOK:
                worker.refresh()
                looked = time.monotonic()
            yield cases[name]

    def read(case: Case) -> Loaded | Passed:
        with about_case(case.name), phases():
            tell("reading")
            loaded = read_case(case, quantifier, request, run_digest)
        return Passed(loaded) if loaded.done is not None else loaded

    def lane(of: Quantifier) -> Callable[[list[Loaded]], list[Searched]]:
        def search(loaded: list[Loaded]) -> list[Searched]:
            first = loaded[0].case.name if len(loaded) == 1 else f"{loaded[0].case.name} and {len(loaded) - 1} more"
            progress(_text(first, done, time.monotonic() - began, times.worked - worked, len(lanes)), before + done, len(names))
            with about_case(first), phases():
                found = search_cases(loaded, of)
            for one in found:
                forecast.took(one.loaded.prepared.shape[:-1], one.seconds)
            return found

        return search

    def size(loaded: Loaded) -> float:
        return max(quantifier.share(loaded.prepared), TURNS * len(lanes) * sharing.hosts / len(names))

    def write(found: Searched | Passed | Failed) -> None:
        nonlocal done
        with about_case(name_of(found)), phases():
            note = settle(worker, found, quantifier, request, run_digest)
            done += 1
            number = before + done + worker.ended_elsewhere() - elsewhere
            tell(ENDED, number=min(number, len(names)), total=len(names), note=note)

    try:
        run_stages(dealt(), read=read, lanes=[lane(of) for of in lanes], write=write, size=size, stall=sharing.stall, times=times)
    finally:
        forecast.keep()
    worker.write(
        "figures",
        lanes=len(lanes),
        worked=times.worked,
        starved=times.starved,
        blocked=times.blocked,
        first=times.first,
        wall=times.wall,
        memory=describe_memory(request.config),
    )


def _wait(worker: Worker, names: Sequence[str]) -> dict[str, dict[str, Any]] | None:
    """How every case ended, once all have; None as soon as some case can be taken over."""
    while True:
        start = time.monotonic()
        worker.refresh()
        ended: dict[str, dict[str, Any]] = {}
        for name in names:
            outcome = worker.outcome(name)
            if outcome is not None:
                ended[name] = outcome
            elif worker.is_free(name):
                return None
        if len(ended) == len(names):
            return ended
        tell("waiting for other processes", "case", len(ended), len(names))
        time.sleep(max(POLL, 10 * (time.monotonic() - start)))


def _lanes(quantifier: Quantifier, request: RunRequest) -> list[Quantifier]:
    """One quantifier a device where cases are dealt out to devices, else the one there is, whose members share the devices.

    The members of a mask target are few, so that several devices take a case each; pixels and regions fill all devices with one.
    """
    devices = jax.local_devices()[: request.config.execution.devices or None]
    count = min(len(devices), len(quantifier.cases))
    if count < 2 or request.config.targets.target != "mask":
        return [quantifier]
    return [quantifier.on_device(device) for device in devices[:count]]


def _remove(worker: Worker, *, fresh: bool) -> None:
    """Leave nothing of a run without a single result."""
    out = worker.out
    run_folder.remove_run(out)
    worker.close_session()
    if fresh:
        shutil.rmtree(out)


def _all_failed(failed: dict[str, str]) -> ValueError:
    name, reason = next(iter(failed.items()))
    return ValueError(reason if len(failed) == 1 else f"all {len(failed)} cases failed; the first, {name}: {reason}")


def _text(name: str, done: int, seconds: float, worked: float, lanes: int) -> str:
    if not done:
        return name
    return f"{name} ({done / seconds:.3g} cases/s, device {min(1.0, worked / seconds / lanes):.0%})"
