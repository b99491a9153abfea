"""Weak scaling: as many cases more as there are processes or devices more; efficiency is the time of one over the time of many.

Claim: none beyond what is printed. Simulated devices and processes of one machine share its cores (their number stands in the
result), so that with C cores no efficiency above C / count can be had from work that keeps one core busy: beside the wall time
stands the processor time, whose ratio tells what sharing itself costs. Seconds are counted from the first case to the end of the
merge; imports and compilation lie before. `python -m benchmarks.weak_scaling` writes benchmarks/results/weak_scaling.json.
"""

import argparse
import json
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

from .parts import Parts
from .processes import build, finish, start

KINDS = ("processes", "simulated devices")
SIZE = (64, 64)


def measure(options: list[str], out: Path, *, processes: int, devices: int) -> dict[str, Any]:
    """Wall and processor seconds of one run, shared by processes or by simulated devices of one."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} if devices > 1 else {}
    started = [start(options, out, "--steps", "6", environment=flags) for _ in range(processes)]
    ended = [finish(process) for process in started]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(code for code, _ in ended):
        raise RuntimeError(f"a run ended with {ended}")
    info = json.loads((out / "run.json").read_text())
    return {
        "seconds": info["seconds"],
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "done": [worker["done"] for worker in info["workers"].values()],
        **info["throughput"],
    }


def scale(root: Path, kind: str, counts: list[int], *, cases: int) -> Any:
    """One row a count: the run of `cases` times as many cases, after a short one that fills the compilation cache."""
    first: dict[str, Any] = {}
    for count in counts:
        shared = {"processes": count if kind == "processes" else 1, "devices": 1 if kind == "processes" else count}
        few = build(root / f"few {count}", cases=2 * count, size=SIZE, masks=False)
        measure(few, root / f"warm {count}", **shared)
        options = build(root / f"all {count}", cases=cases * count, size=SIZE, masks=False)
        row = measure(options, root / f"out {count}", **shared)
        first = first or row
        yield {
            "kind": kind,
            "count": count,
            "efficiency": first["seconds"] / row["seconds"],
            "processor_efficiency": count * first["processor_seconds"] / row["processor_seconds"],
            **row,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300, help="cases a process or device")
    parser.add_argument("--most", type=int, default=4, help="processes and devices, doubled up to this many")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    chosen = parser.parse_args()
    results = Parts("weak_scaling")
    for kind in chosen.only:
        results.begin(kind)
        with tempfile.TemporaryDirectory() as folder:
            counts = [n for n in (1, 2, 4, 8) if n <= chosen.most]
            results.add(kind, scale(Path(folder), kind, counts, cases=chosen.cases))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    results.write(note=f"processes and simulated devices of one machine share its {cores} cores", size=list(SIZE))


if __name__ == "__main__":
    main()
