"""A finished run scored by other masks: its results are written again as `run --masks` would have written them, its maps stay."""

from collections.abc import Callable
from pathlib import Path

from ..cluster.lock import hold
from ..data.mask_settings import MaskSettings
from ..data.notes import gathered
from ..data.records import write_json
from ..evaluation.statistics import summarise
from ..runs import folder as run_folder
from ..runs.merge import REPORTED, read_rows, write_pages, write_scores
from ..runs.scoring import NOBODY, Drawn, is_scored, score
from .evaluate_files import EvaluateResult
from .run_cases import RunCases, read_run_cases

WORKER = "scores"


def score_run(
    run: Path, masks: Path | None, settings: MaskSettings, *, progress: Callable[[str, int, int], None] = lambda *_: None
) -> EvaluateResult:
    """Score every finished case of a run by some masks, its own where there are none, and write its tables and report again.

    A case whose masks cannot be read is recorded with its reason, and has no scores then. ValueError where no case has a mask,
    for a folder that is no run, and while others are at work in it.
    """
    found = read_run_cases(run, masks, settings)
    with hold(run):
        return _score_all(found, run, masks, progress=progress)


def _score_all(found: RunCases, run: Path, masks: Path | None, *, progress: Callable[[str, int, int], None]) -> EvaluateResult:
    if not any(case.raters for case in found.cases.values()):
        raise ValueError(f"{masks or run}: expected masks of the run's cases, got none")
    failed: dict[str, str] = {}
    progress("", 0, len(found.records))
    for done, name in enumerate(found.records, 1):
        try:
            score_case(found, name, found.drawn(name))
        except (ValueError, OSError) as error:
            failed[name] = " ".join(str(error).split())
        progress(name, done, len(found.records))
    if len(failed) == len(found.records):
        raise ValueError(next(iter(failed.values())))
    for name in failed:
        score_case(found, name, NOBODY)  # older scores would contradict the table
    names = [str(name) for name in found.info.get("cases") or found.records]
    before = found.info.get("failed")
    missing = {
        name: str(reason) for name, reason in (before if isinstance(before, dict) else {}).items() if name not in found.records
    }
    rows, notes = read_rows(run, names, {**missing, **failed})
    done_rows = write_scores(run, rows)
    own = found.info.get("run_notes")
    notes = [*dict.fromkeys([*(own if isinstance(own, list) else []), *found.notes]), *gathered(notes, names)]
    coding = {"settings": found.settings.to_dict(), "masks": found.masks.to_dict()}
    told = found.info.get("masks")
    info = {
        **found.info,
        "failed": {**missing, **failed},
        "notes": notes,
        "masks": {**(told if isinstance(told, dict) else {}), **coding},
    }
    write_json(run / "run.json", info)
    if len(names) <= REPORTED:
        write_pages(run)
    run_folder.clean(run)
    scored = [dict(row) for row in done_rows if "dice" in row]
    columns = summarise([{k: v for k, v in row.items() if isinstance(v, float)} for row in scored])
    return EvaluateResult(scored, failed, columns, notes)


def score_case(found: RunCases, name: str, drawn: Drawn) -> None:
    """Write the scores of a case that has others; nothing else of it changes. ValueError as `RunCases.drawn`."""
    record = found.records[name]
    if is_scored(found.folder, record, drawn):
        return
    folder = run_folder.staging_folder(found.folder, name, worker=WORKER)
    record = score(record, found.findings(name), found.coding, drawn, folder)
    run_folder.amend(found.folder, name, record, ("score_files",), worker=WORKER)
