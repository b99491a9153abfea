"""What runs cost beside their searches: waiting devices, bookkeeping, memory over very many cases. Parts of `benchmarks.faults`.

Bookkeeping is timed where it happens: the functions that hash, keep the ledger, publish, verify and audit are replaced by ones
that look at the clock before and after, in whichever thread they are called; calls inside calls count once.
"""

import contextlib
import csv
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .processes import build

BOOKKEEPING = {
    "digest": ("quam_jax.runs.preparing.models_digest", "quam_jax.data.records.digest", "quam_jax.data.records.digest_arrays"),
    "verify": ("quam_jax.runs.folder.verify",),
    "publish": ("quam_jax.runs.folder.publish",),
    "ledger": ("quam_jax.runs.ledger.Ledger.hear",),
    "audit": ("quam_jax.case.patches.audit_members", "quam_jax.runs.cases.models_held", "quam_jax.runs.cases.audit_rows"),
}


@contextlib.contextmanager
def bookkeeping() -> Iterator[dict[str, float]]:
    """Seconds that each kind of bookkeeping takes inside the block."""
    from pkgutil import resolve_name

    spent = dict.fromkeys(BOOKKEEPING, 0.0)
    inside, lock = threading.local(), threading.Lock()

    def timed(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **settings: Any) -> Any:
            if getattr(inside, "at", False):
                return call(*arguments, **settings)
            inside.at, start = True, time.perf_counter()
            try:
                return call(*arguments, **settings)
            finally:
                inside.at = False
                with lock:
                    spent[kind] += time.perf_counter() - start

        return measured

    with contextlib.ExitStack() as stack:
        for kind, names in BOOKKEEPING.items():
            for name in names:
                stack.enter_context(patch(name, timed(kind, resolve_name(name))))
        yield spent


def demo(root: Path) -> Iterator[dict[str, Any]]:
    """The demo data once to compile, then for the figures: how long the device waits, and what bookkeeping costs in the run and
    in a rerun that finds everything finished."""
    import quam_jax
    from quam_jax.cli.common import start_jax
    from quam_jax.runs.request import RunRequest
    from quam_jax.runs.run import run

    start_jax()
    data = Path(quam_jax.__file__).parent / "demo_data"

    def request(name: str) -> RunRequest:
        return RunRequest(
            model=data / "model" / "att_unet.pth",
            arch="att_unet",
            images=data / "images",
            masks=data / "masks",
            out=root / name,
            fit_images=data / "fit_images",
            fit_masks=data / "fit_masks",
        )

    run(request("cold"))
    with bookkeeping() as spent:
        began = time.perf_counter()
        run(request("warm"))
        whole = time.perf_counter() - began
    out = root / "warm"
    info = json.loads((out / "run.json").read_text())
    with (out / "timing.csv").open(newline="") as file:
        timing = list(csv.DictReader(file))
    yield {
        "what": "demo data, compiled",
        "seconds": whole,
        **info["throughput"],
        **{f"{part}_seconds": sum(float(t[part]) for t in timing) for part in ("read", "search", "write")},
    }
    yield {
        "what": "bookkeeping during the run",
        "run_seconds": whole,
        "seconds": sum(spent.values()),
        "share": sum(spent.values()) / whole,
        **{f"{kind}_seconds": value for kind, value in spent.items()},
    }
    before = {path: path.read_bytes() for path in out.glob("*.json") if path.name != "run.json"}
    with bookkeeping() as spent:
        run(request("warm"))
    kept = all(path.read_bytes() == content for path, content in before.items())
    yield {
        "what": "bookkeeping of a rerun that finds all done",
        "run_seconds": whole,
        "seconds": sum(spent.values()),
        "share": sum(spent.values()) / whole,
        "nothing_changed": kept,
        **{f"{kind}_seconds": value for kind, value in spent.items()},
    }


def many(root: Path, *, cases: int, size: tuple[int, int] = (32, 32)) -> dict[str, Any]:
    """Many small cases in one process: cases a second, and memory along the way, from after the first hundred on."""
    from quam_jax.cli.common import start_jax
    from quam_jax.config import Config, SearchConfig
    from quam_jax.runs.request import RunRequest
    from quam_jax.runs.run import run
    from tests.tiny import tiny_network

    start_jax()
    build(root, cases=cases, size=size, masks=False)
    memory: list[tuple[int, float]] = []

    def look(text: str, done: int, total: int) -> None:
        if done < total and done >= (memory[-1][0] if memory else 0) + 50:
            memory.append((done, resident()))

    out = root / "out"
    start = time.perf_counter()
    with tiny_network():
        run(
            RunRequest(
                model=root / "model",
                images=root / "many" / "images",
                out=out,
                fit_images=root / "fit" / "images",
                fit_masks=root / "fit" / "masks",
                config=Config(search=SearchConfig(steps=1)),
            ),
            progress=look,
        )
    seconds = time.perf_counter() - start
    settled = [megabytes for done, megabytes in memory if done >= 100]
    info = json.loads((out / "run.json").read_text())
    with (out / "timing.csv").open(newline="") as file:
        timing = list(csv.DictReader(file))
    return {
        "what": "many small cases",
        "size": list(size),
        "seconds": seconds,
        **info["throughput"],
        **{f"{part}_milliseconds": 1e3 * sum(float(t[part]) for t in timing) / cases for part in ("read", "search", "write")},
        "megabytes_after_100": settled[0],
        "megabytes_at_the_end": settled[-1],
        "megabytes_most": max(settled),
        "memory": [[done, round(megabytes, 1)] for done, megabytes in memory[:: max(1, len(memory) // 40)]],
    }


def resident() -> float:
    """Megabytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
