"""What workers tell of the cases of a run, put together: which failed, which were done again and why, times, and figures.

An event is a mapping of plain values with the name of what happened: a case is `done` (with seconds), `kept` (nothing to do),
`failed` (with a reason), or about to be done again (`redo`, with why); `figures` are those of a worker so far.
"""

import csv
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.records import mapping, read_json, write_json

TIMING = ("case", "seconds", "read", "search", "write", "worker", "finished")
ENDED = ("done", "kept", "failed")
FIGURES = ("worked", "starved", "blocked")  # seconds of a worker that are added up
Event = Mapping[str, Any]


class Ledger:
    """Failed cases with reasons, cases done again with reasons, the times of cases, and counts and figures of workers.

    `began` and `ended` are seconds of the clock.
    """

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        self.redone: dict[str, str] = {}
        self.timing: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, dict[str, Any]] = {}
        self.began = self.ended = time.time()
        self.known: set[str] = set()  # cases that have ended

    def hear(self, worker: str, event: Event) -> None:
        """Take up an event."""
        kind = event["event"]
        of = self.workers.setdefault(worker, dict.fromkeys(ENDED, 0))
        self.ended = time.time()
        if kind in ENDED:
            of[kind] += 1
            self.known.add(event["case"])
            self.failed.pop(event["case"], None)
        if kind == "failed":
            self.failed[event["case"]] = str(event["reason"])
        elif kind == "done":
            self.timing[event["case"]] = {**{k: event.get(k, "") for k in TIMING}, "worker": worker}
        elif kind == "redo":
            self.redone[event["case"]] = str(event["why"])
        elif kind == "figures":
            of |= {k: v for k, v in event.items() if k != "event"}

    def write(self, path: Path) -> None:
        """Into a file, for whoever puts parts together."""
        write_json(path, {**vars(self), "known": sorted(self.known)})

    def add(self, path: Path) -> None:
        """Take up what another ledger wrote; what is damaged in it is left out."""
        stored = read_json(path)
        self.failed |= {name: str(why) for name, why in mapping(stored, "failed").items()}
        self.redone |= {name: str(why) for name, why in mapping(stored, "redone").items()}
        self.timing |= {
            n: t for n, t in mapping(stored, "timing").items() if isinstance(t, dict) and _is_number(t.get("seconds"))
        }
        self.workers |= {worker: told for worker, told in mapping(stored, "workers").items() if _is_worker(told)}
        if _is_number(stored.get("began")) and _is_number(stored.get("ended")):
            self.began, self.ended = min(self.began, float(stored["began"])), max(self.ended, float(stored["ended"]))

    def add_known(self, path: Path) -> None:
        """Take up the times that another ledger knows of cases which this one only found done."""
        other = Ledger()
        other.add(path)
        self.timing = {**other.timing, **self.timing}


def read_timing(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of timing.csv that tell a time, by case; times are for information, so that damage leaves none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = {str(row["case"]): dict(row) for row in csv.DictReader(file)}
            return {name: row for name, row in rows.items() if _is_number(row.get("seconds"))}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def _is_worker(told: Any) -> bool:
    """Whether this tells of a worker what is counted of all."""
    if not isinstance(told, dict) or not all(isinstance(told.get(kind), int) for kind in ENDED):
        return False
    figures = all(isinstance(told.get(name, 0.0), int | float) for name in FIGURES)
    return figures and ("memory" not in told or isinstance(mapping(told, "memory").get("peak"), int | float))


def _is_number(text: Any) -> bool:
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError):
        return False
