"""Weak scaling: as many cases more as there are processes or devices more; efficiency is the time of one over the time of many.

Claim: none beyond what is printed. Simulated devices and processes of one machine share its cores (their number stands in the
result), so that with C cores no efficiency above C / D can be had from work that keeps them busy: beside the wall time stands the
processor time, whose ratio tells what sharing itself costs. `python -m benchmarks.weak_scaling` writes
benchmarks/results/weak_scaling.json.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from .faults import build, finish, start
from .record import write_result


def measure(options: list[str], out: Path, *, processes: int, devices: int) -> dict[str, Any]:
    """Wall and processor seconds of one run, shared by processes or by simulated devices of one."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} if devices > 1 else {}
    started = [start(options, out, environment=flags) for _ in range(processes)]
    codes = [finish(process)[0] for process in started]
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(codes):
        raise RuntimeError(f"a run ended with the codes {codes}")
    info = json.loads((out / "run.json").read_text())
    return {"seconds": wall, "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "search_seconds": info["seconds"], "done": [worker["done"] for worker in info["workers"].values()],
            "device_waits": info["throughput"]["device_waits_for_input"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=40, help="cases a process or device")
    parser.add_argument("--most", type=int, default=4, help="processes and devices, doubled up to this many")
    chosen = parser.parse_args()
    counts = [n for n in (1, 2, 4, 8) if n <= chosen.most]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind in ("processes", "simulated devices"):
            first: dict[str, Any] = {}
            for count in counts:
                options = build(root / f"{kind} {count}", cases=chosen.cases * count, masks=False)
                shared = {"processes": count if kind == "processes" else 1, "devices": 1 if kind == "processes" else count}
                measure(options, root / f"warm {kind} {count}", **shared)  # fills the compilation cache
                row = measure(options, root / f"out {kind} {count}", **shared)
                first = first or row
                rows.append({"kind": kind, "count": count, "cases": chosen.cases * count, **row,
                             "efficiency": first["seconds"] / row["seconds"],
                             "processor_efficiency": count * first["processor_seconds"] / row["processor_seconds"]})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    write_result("weak_scaling", rows, note=f"processes and simulated devices of one machine share its {cores} cores")


if __name__ == "__main__":
    main()
