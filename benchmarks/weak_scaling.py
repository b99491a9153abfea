"""Weak scaling: as many cases more as there are workers or devices more; efficiency is the time of one over the time of many.

Claim: none beyond what is printed. Simulated devices and workers of one machine share its cores (their number stands in the
result), so that with C cores no efficiency above C / count can be had from work that keeps one core busy. Beside the seconds
from the first case to the last stands the share of them in which a worker's device was searching: what it waits for besides is
what dealing, reading and writing cost, whatever else the machine does. `whole` is the command from its start to its end.

With `--before CHECKOUT` of a version in which processes shared a run by claim files, these are measured in the same run.
`python -m benchmarks.weak_scaling` writes benchmarks/results/weak_scaling.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .parts import Parts
from .processes import CHECKOUT, build, finish, start

EMBEDDED, RAY, CLAIMS, DEVICES = "one process, no engine", "Ray workers", "processes by claims", "simulated devices"
KINDS = (EMBEDDED, RAY, CLAIMS, DEVICES)
SIZE = (64, 64)


def measure(options: list[str], out: Path, kind: str, count: int, *, before: Path | None) -> dict[str, Any]:
    """Seconds of one run and what its workers did; `before` is the checkout with claims."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"} if kind == DEVICES and count > 1 else {}
    more = ("--engine", "ray", "--workers", str(count)) if kind == RAY else ()
    checkout = before if kind == CLAIMS and before is not None else CHECKOUT
    began = time.perf_counter()
    processes = count if kind == CLAIMS else 1
    started = [start(options, out, "--steps", "6", *more, environment=flags, checkout=checkout) for _ in range(processes)]
    ended = [finish(process) for process in started]
    whole = time.perf_counter() - began
    if any(code for code, _ in ended):
        raise RuntimeError(f"a run ended with {ended}")
    info = json.loads((out / "run.json").read_text())
    return {
        "seconds": info["seconds"],
        "whole": whole,
        "done": [worker["done"] for worker in info["workers"].values()],
        **info["throughput"],
    }


def scale(root: Path, kind: str, counts: list[int], *, cases: int, before: Path | None) -> Iterator[dict[str, Any]]:
    """One row a count: the run of `cases` times as many cases, after a short one that fills the compilation cache."""
    first: dict[str, Any] = {}
    for count in counts:
        few = build(root / f"few {count}", cases=2 * count, size=SIZE, masks=False, known=True)
        measure(few, root / f"warm {count}", kind, count, before=before)
        options = build(root / f"all {count}", cases=cases * count, size=SIZE, masks=False, known=True)
        row = measure(options, root / f"out {count}", kind, count, before=before)
        first = first or row
        yield {"kind": kind, "count": count, "efficiency": first["seconds"] / row["seconds"], **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300, help="cases a worker or device")
    parser.add_argument("--most", type=int, default=4, help="workers and devices, doubled up to this many")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--before", type=Path, help="checkout of a version in which processes shared a run by claims")
    chosen = parser.parse_args()
    results = Parts("weak_scaling")
    for kind in chosen.only:
        if kind == CLAIMS and chosen.before is None:
            continue
        results.begin(kind)
        with tempfile.TemporaryDirectory() as folder:
            counts = [n for n in (1, 2, 4, 8) if n <= (1 if kind == EMBEDDED else chosen.most)]
            results.add(kind, scale(Path(folder), kind, counts, cases=chosen.cases, before=chosen.before))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    results.write(note=f"workers and simulated devices of one machine share its {cores} cores", size=list(SIZE))


if __name__ == "__main__":
    main()
