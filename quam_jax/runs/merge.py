"""The end of a run: from the cases' own files and the ledger to results.csv, summary.json, timing.csv and the report.

Doing it again gives the same files: results.csv and summary.json hold nothing that depends on
when, where or by how many the cases were done. What does stands in timing.csv and run.json.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.progress import tell
from ..data.notes import gathered
from ..data.records import mapping, read_json, write_json, write_table
from ..evaluation.statistics import summarise
from ..report.first_look import short_rows
from ..report.html import review, write_report
from . import folder as run_folder
from .ledger import FIGURES, TIMING, Ledger, read_timing
from .request import RunResult

REVIEW = "review.csv"  # the short form of results.csv, in review order
REPORTED = 2000  # cases of a page that a browser still opens; a larger run gets none unasked


def merge(out: Path, names: Sequence[str], ledger: Ledger, info: dict[str, Any]) -> None:
    """Write everything that is about the whole run. OSError where that is not possible; then it can be done again."""
    tell("merging")
    rows, notes = read_rows(out, names, ledger.failed)
    done = write_scores(out, rows)
    timing = {**read_timing(out / "timing.csv"), **ledger.timing}
    known = [timing[name] for name in names if name in timing]
    write_table(out / "timing.csv", [{column: line.get(column, "") for column in TIMING} for line in known])
    info = info | {"run_notes": info.get("notes", [])}
    notes = [*info["run_notes"], *gathered(notes, names)]
    notes += [f"{name}: done again, because {why}" for name, why in ledger.redone.items() if name not in ledger.failed]
    seconds = ledger.ended - ledger.began
    info = info | {
        "status": "finished",
        "failed": ledger.failed,
        "redone": ledger.redone,
        "notes": notes,
        "seconds": seconds,
        "workers": ledger.workers,
        "memory": peak_of(ledger),
        "throughput": throughput(ledger, done, members=info["config"]["search"]["members"], seconds=seconds),
    }
    if len(names) > REPORTED:
        asked = "`quam-jax report` makes the one, `quam-jax rank` an order, all the same"
        info["notes"] = [*notes, f"report.html and {REVIEW} were not made of {len(names):,} cases; {asked}"]
        for name in ("report.html", REVIEW):
            (out / name).unlink(missing_ok=True)
    write_json(out / "run.json", info)
    if len(names) <= REPORTED:
        tell("writing the report")
        write_pages(out)
    run_folder.clean(out)


def write_pages(out: Path) -> None:
    """Write what people look at first: the cases in review order, review.csv, and report.html."""
    seen = review(out)
    write_table(out / REVIEW, short_rows(seen))
    write_report(out, seen=seen)


def write_scores(out: Path, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Write results.csv and summary.json of the rows of all cases; returns those that are done."""
    done = [row for row in rows if row["status"] == "ok"]
    write_table(out / "results.csv", rows)
    columns = summarise([{k: v for k, v in row.items() if isinstance(v, float)} for row in done])
    write_json(out / "summary.json", {"columns": columns, "cases": len(done), "failed": len(rows) - len(done)})
    return done


def peak_of(ledger: Ledger) -> dict[str, Any]:
    """What the worker that took the most tells of its memory."""
    told = [worker["memory"] for worker in ledger.workers.values() if "memory" in worker]
    return max(told, key=lambda memory: memory["peak"], default={})


def throughput(ledger: Ledger, rows: Sequence[Mapping[str, Any]], *, members: int, seconds: float) -> dict[str, Any]:
    """Cases, targets and adversarial models a second of wall time, start and compilation included, and how the devices fared.

    Only what the workers of the ledger did counts. A target has `members` models; patches and folds have
    targets of their own. The shares are those of the lanes' time (one lane a device) from a process's first case on: at work in a
    search, waiting for the files of the next case, waiting until results are written.
    """
    workers, seconds = list(ledger.workers.values()), max(seconds, 1e-9)
    cases = {name for name, line in ledger.timing.items() if line.get("worker") in ledger.workers}
    models = sum(int(row["members"]) for row in rows if row["case"] in cases)
    parts = {name: sum(worker.get(name, 0.0) for worker in workers) for name in FIGURES}
    total = sum(parts.values()) or math.nan
    fresh = sum(worker["done"] for worker in workers)
    return {
        "cases": fresh,
        "cases_a_second": fresh / seconds,
        "targets_a_second": models / members / seconds,
        "models_a_second": models / seconds,
        "device_busy": parts["worked"] / total,
        "device_waits_for_input": parts["starved"] / total,
        "device_waits_for_output": parts["blocked"] / total,
    }


def read_rows(out: Path, names: Sequence[str], failed: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The row of every case as its JSON has it (null is NaN), and the notes of all."""
    rows, notes = [], []
    for name in names:
        record = {} if name in failed else read_json(out / f"{name}.json")
        row = record.get("row")
        row = row if isinstance(row, dict) and row.get("case") == name else {"case": name, "status": "failed"}
        rows.append({k: math.nan if v is None else v for k, v in row.items()})
        for own in (record.get("notes"), record.get("mask_notes"), mapping(record, "guarantee").get("notes")):
            notes += own if isinstance(own, list) else []
    return rows, notes


def read_result(out: Path, names: Sequence[str]) -> RunResult:
    """What came of a finished run, from its folder."""
    info = read_json(out / "run.json")
    told, notes = info.get("failed"), info.get("notes")
    failed = {name: str(told[name]) for name in names if name in told} if isinstance(told, dict) else {}
    rows, _ = read_rows(out, names, failed)
    unused = [str(file) for file in info.get("unused") or ()]
    timing = read_timing(out / "timing.csv")
    rows = [row | ({"seconds": float(timing[row["case"]]["seconds"])} if row["case"] in timing else {}) for row in rows]
    return RunResult(
        rows, failed, notes if isinstance(notes, list) else [], read_json(out / "summary.json"), out / "report.html", unused
    )
