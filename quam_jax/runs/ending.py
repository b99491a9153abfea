"""How a run ends: nothing is left of one without a result, else everything that is about the whole of it is written."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cluster.lock import PARTS, hold
from ..data.colour_tables import write_colour_tables
from ..data.records import read_json
from . import folder as run_folder
from .codings import run_coding
from .ledger import Ledger
from .merge import merge, read_result, read_rows
from .request import RunResult

SHOWN = 5  # missing cases that are named


def finish(out: Path, names: Sequence[str], ledger: Ledger, info: dict[str, Any], *, fresh: bool = False) -> RunResult:
    """Write tables and report of a run whose cases have all ended. ValueError, and nothing is left, if every case failed."""
    if len(ledger.failed) == len(names):
        run_folder.remove_run(out)
        if fresh:
            shutil.rmtree(out)
        raise _all_failed(ledger.failed)
    for path in sorted((out / PARTS).glob("*.json")):
        ledger.add_known(path)
    write_colour_tables(out, run_coding(info, where=out / "run.json").label_names)
    merge(out, names, ledger, info)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    return read_result(out, names)


def part_result(out: Path, names: Sequence[str], ledger: Ledger, info: Mapping[str, Any]) -> RunResult:
    """What came of one part of a run, before there is a whole."""
    rows, notes = read_rows(out, names, ledger.failed)
    unused = [str(file) for file in info.get("unused") or ()]
    return RunResult(rows, ledger.failed, [*info.get("notes", ()), *notes], {}, out / "report.html", unused)


def has_parts(out: Path) -> bool:
    """Whether a run was done in parts that nobody has put together yet."""
    return any((out / PARTS).glob("*.json"))


def join(out: Path) -> RunResult:
    """Put the parts of a run together, as if one process had done it; ValueError naming cases that are not there yet."""
    with hold(out):
        info = read_json(out / "run.json")
        listed = info.get("cases")
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        ledger = Ledger()
        for path in sorted((out / PARTS).glob("*.json")):
            ledger.add(path)
        there = {name for name in names if (out / f"{name}.json").is_file()}
        ledger.failed = {name: why for name, why in ledger.failed.items() if name not in there}
        missing = [name for name in names if name not in there and name not in ledger.failed]
        if missing or not names:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            told = f"{len(missing)} of {len(names)} cases are missing: {', '.join(missing[:SHOWN])}{more}"
            done = ", ".join(path.stem.replace("-of-", "/") for path in sorted((out / PARTS).glob("*.json")))
            raise ValueError(f"{out}: {told}; parts that have ended: {done}; run the others, then this again")
        return finish(out, names, ledger, info)


def _all_failed(failed: Mapping[str, str]) -> ValueError:
    name, reason = next(iter(failed.items()))
    return ValueError(reason if len(failed) == 1 else f"all {len(failed)} cases failed; the first, {name}: {reason}")
