"""How a benchmark reports: a printed table, a JSON file with hardware, versions, command and date, and tables of documents."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def hardware() -> dict[str, Any]:
    """The machine a figure belongs to: processor, cores and accelerator."""
    import jax

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor,
        "cores": cores,
        "backend": jax.default_backend(),
        "accelerators": [d.device_kind for d in jax.devices() if d.platform != "cpu"],
    }


def versions() -> dict[str, str]:
    """Versions of what a figure depends on."""
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "optax", "numpy", "torch"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _without_machine(option: str, argument: str) -> str:
    """An argument, with what its option is called (out: FOLDER) for a path of this machine."""
    if not Path(argument).is_absolute():
        return argument
    name = option.removeprefix("--").upper() if option.startswith("--") else "PATH"
    return "FOLDER" if name == "OUT" else name


def command_and_date() -> dict[str, str]:
    """How this program was called, and the day."""
    named = [_without_machine(before, argument) for before, argument in zip(sys.argv, sys.argv[1:], strict=False)]
    command = " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *named])
    return {"command": command, "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")}


def write_result(name: str, rows: list[dict[str, Any]], *, shown: int = 0, **extra: Any) -> Path:
    """Print the rows (or the last `shown`) and write results/NAME.json; a figure that does not exist (NaN) becomes null."""
    rows = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    for row in rows[-shown:]:
        sys.stdout.write("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()) + "\n")
    result = {
        "rows": rows,
        **extra,
        "device": hardware(),
        "versions": versions(),
        **command_and_date(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table of a document."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def put(file: str, name: str, body: str) -> None:
    """Write a text between its marks in a file of the repository; ValueError unless the file has them once."""
    pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
    marked = f"<!-- {name} -->\n{body}\n<!-- /{name} -->"
    text, count = re.subn(pattern, lambda _: marked, (ROOT / file).read_text(), flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{file}: expected one place for {name}, got {count}")
    (ROOT / file).write_text(text)
