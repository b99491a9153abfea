"""What came of a case is published or given up, and written into the journal of its worker."""

import datetime
import time
from pathlib import Path

from ..core.progress import GIVEN
from ..report.durations import about
from . import folder as run_folder
from .cases import Loaded, Searched, settle_again, settle_case
from .quantifier import Quantifier
from .request import RunRequest
from .stages import Failed, Passed
from .workers import Worker


def settle(
    worker: Worker, found: Searched | Passed | Failed, quantifier: Quantifier, request: RunRequest, run_digest: str
) -> str:
    """Publish what came of a case, and write it into the journal, errors of the case itself too; returns it in words."""
    out, name = request.out, name_of(found)
    if isinstance(found, Passed):
        return _settle_finished(worker, found.value, quantifier, request)
    if isinstance(found, Failed):
        return _give_up(worker, out, name, found.reason)
    loaded = found.loaded
    start = time.perf_counter()
    try:
        folder = run_folder.staging_folder(out, name, worker=worker.name)
        record = settle_case(found, quantifier, request, run_digest, folder)
    except (ValueError, RuntimeError, MemoryError) as error:  # also numbers that the format of the image's maps cannot hold
        return _give_up(worker, out, name, str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
    if not worker.owns(name):  # this process stood still, and another has taken the case over
        run_folder.discard(out, name, worker=worker.name)
        return "taken over by another process"
    if loaded.why:
        worker.write("redo", case=name, why=loaded.why)
    run_folder.publish(out, name, record, worker=worker.name)
    write = time.perf_counter() - start
    seconds = loaded.seconds + found.seconds + write
    worker.write(
        "done",
        case=name,
        seconds=round(seconds, 3),
        read=round(loaded.seconds, 3),
        search=round(found.seconds, 3),
        write=round(write, 3),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return about(seconds)


def _settle_finished(worker: Worker, loaded: Loaded, quantifier: Quantifier, request: RunRequest) -> str:
    """Score a case again whose masks, or whose guarantee, are others than those of its files; its maps stay."""
    out, name = request.out, loaded.case.name
    try:
        folder = run_folder.staging_folder(out, name, worker=worker.name)
        record, stages = settle_again(loaded, quantifier, request, folder)
    except (ValueError, RuntimeError, MemoryError) as error:
        run_folder.discard(out, name, worker=worker.name)
        worker.write("failed", case=name, reason=str(error))
        return f"failed: {error}"
    if stages and worker.owns(name):
        run_folder.amend(out, name, record, stages, worker=worker.name)
    run_folder.discard(out, name, worker=worker.name)
    if loaded.fault:
        worker.write("failed", case=name, reason=loaded.fault)
        return f"failed: {loaded.fault}"
    worker.write("kept", case=name)
    return "scored again" if "score_files" in stages else "guarantee applied" if stages else GIVEN


def name_of(found: Searched | Passed | Failed) -> str:
    """The name of the case that this came of."""
    if isinstance(found, Searched):
        return found.loaded.case.name
    item = found.value if isinstance(found, Passed) else found.item
    return item.case.name if isinstance(item, Loaded) else item.name


def _give_up(worker: Worker, out: Path, name: str, reason: str) -> str:
    run_folder.discard(out, name, worker=worker.name)
    if worker.owns(name):
        run_folder.remove_case(out, name)  # an older result would contradict the table
        worker.write("failed", case=name, reason=reason)
    return f"failed: {reason}"
