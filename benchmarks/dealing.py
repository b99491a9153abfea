"""What the driver of a run by many workers holds and takes, over very many cases that take no time.

Claim: the driver holds what its record of a case takes, some kilobyte, and nothing else grows; a case costs it less than a
millisecond. Dealer, driver and ledger are those of a run; the workers are stations in this process whose cases end at once.
`python -m benchmarks.dealing` prints the rows and writes benchmarks/results/dealing.json.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from quam_jax.cluster.dealing import Dealer
from quam_jax.cluster.station import Station, Told
from quam_jax.cluster.versions import versions
from quam_jax.process import trim
from quam_jax.runs.case_worker import Greeting
from quam_jax.runs.on_ray import _Driver
from quam_jax.runs.request import RunRequest

from .record import write_result
from .throughput import resident

PARTS = {"model": "m", "settings": "s", "images": "i"}
DONE = {"event": "done", "seconds": 1.234, "read": 0.123, "search": 1.0, "write": 0.111, "finished": "2026-01-01T00:00:00+00:00"}


class Instant:
    """A worker whose cases end at once."""

    def __init__(self, names: list[str]) -> None:
        info = {"cases": names, "digest": "d", "status": "running"}
        self.greeting = Greeting("here", "here-1-a", versions(), "d", PARTS, info, "")

    def enter(self, word: Any) -> None:
        """Nothing to look for."""

    def work(self, tasks: Iterator[str], tell: Callable[[str | None, Any], None]) -> None:
        """End every case."""
        for task in tasks:
            tell(task, ({**DONE, "case": task}, "1 s"))


class Inside:
    """Workers in this process, asked one after the other."""

    def __init__(self, names: list[str], count: int) -> None:
        self.stations = {f"worker {n}": Station("benchmarks.dealing:Instant", names) for n in range(count)}
        self.new, self.asked = list(self.stations), dict[str, tuple[str, tuple[Any, ...]]]()

    def grow(self) -> list[str]:
        """All of them, once."""
        new, self.new = self.new, []
        return new

    def room(self) -> int:
        """How many there are."""
        return len(self.stations)

    def ask(self, worker: str, what: str, *arguments: Any) -> None:
        """Note what is asked."""
        self.asked[worker] = (what, arguments)

    def answers(self, seconds: float) -> list[tuple[str, Any]]:
        """Call what was asked."""
        asked, self.asked = self.asked, {}
        return [(name, getattr(self.stations[name], what)(*arguments)) for name, (what, arguments) in asked.items()]

    def dismiss(self, worker: str) -> None:
        """They never end."""


def deal(out: Path, *, cases: int, workers: int, every: int) -> list[dict[str, Any]]:
    """Deal all cases; megabytes and seconds after every so many."""
    names = [f"case{number:06}" for number in range(cases)]
    rows: list[dict[str, Any]] = []
    request = RunRequest(Path("net"), Path("images"), out, Path("fit"), Path("masks"))
    began = time.perf_counter()

    with ExitStack() as stack:
        driver = _Driver(request, stack, lambda *_: None)

        def heard(worker: str, told: Told) -> None:
            driver.heard(worker, told)
            done = len(driver.ledger.known)
            if done % every == 0:
                seconds = time.perf_counter() - began
                gc.collect()
                trim()
                rows.append({"done": done, "workers": workers, "seconds": seconds, "megabytes": resident()})

        crew = Inside(names, workers)
        Dealer(
            crew, welcome=driver.welcome, tasks=lambda: driver.names, heard=heard, given_up=driver.given_up, waits=driver.waits
        ).deal()
        assert len(driver.ledger.known) == cases
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=4)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        deal(Path(folder) / "warm", cases=1000, workers=chosen.workers, every=1000)
        rows = deal(Path(folder) / "run", cases=chosen.cases, workers=chosen.workers, every=chosen.cases // 10)
    first, last = rows[0], rows[-1]
    between = last["done"] - first["done"]
    write_result(
        "dealing",
        rows,
        shown=len(rows),
        kilobytes_a_case=1e3 * (last["megabytes"] - first["megabytes"]) / between,
        milliseconds_a_case=1e3 * last["seconds"] / last["done"],
    )


if __name__ == "__main__":
    main()
