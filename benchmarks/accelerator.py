"""One command that measures everything on the accelerator at hand, in order of worth, within some minutes.

`python -m benchmarks.accelerator --minutes 8` sets up nothing by hand. Every row runs in a process of its own; the file of
results (benchmarks/results/accelerator_KIND.json) is replaced as a whole as soon as a part of a row is known, so that whoever is
cut off loses nothing. A row that will not fit the time left is skipped and named; one that crashes, runs out of memory or out of
time is recorded with what it had measured by then, and the next goes on; `--resume` measures what a file lacks. The PyTorch side
runs in the first Python found whose PyTorch runs on this device and was built for the same CUDA; without one its parts are left
out, by name. `--small` tries all of it with tiny sizes, on any machine; its figures tell nothing of speed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .accelerator_row import ROWS
from .record import RESULTS, ROOT, command_and_date

POLL = 0.2  # seconds between two looks at what a row has measured
ROW = [sys.executable, "-m", "benchmarks.accelerator_row"]
RESERVE = 3.0  # seconds that a row needs at least
PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/conda/bin/python", "/opt/venv/bin/python")
ASK = "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available()]))"


class Results:
    """The file of results: always whole, whenever it is looked at."""

    def __init__(self, path: Path, **about: Any) -> None:
        self.path, self.content = path, {**about, "rows": []}
        self.write()

    def add(self, **row: Any) -> dict[str, Any]:
        """A row that begins or that is skipped."""
        self.content["rows"].append(row)
        self.write()
        return row

    def write(self) -> None:
        """Replace the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        beside.write_text(json.dumps(self.content, indent=1) + "\n")
        beside.replace(self.path)


def find_torch(device: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """A Python whose PyTorch runs on this device, or why there is none, and what is said of it."""
    if device["backend"] not in ("cpu", "gpu"):
        why = f"no PyTorch for {device['backend']}"
        return "", why, {"left_out": why}
    seen = []
    for python in dict.fromkeys([sys.executable, shutil.which("python3") or "", shutil.which("python") or "", *PYTHONS]):
        if not python or not Path(python).exists():
            continue
        asked = subprocess.run([python, "-c", ASK], capture_output=True, text=True, cwd=ROOT)
        if asked.returncode:
            continue
        version, cuda, available = json.loads(asked.stdout.splitlines()[-1])
        alike = available and cuda and int(cuda.split(".")[0]) == device["cuda"]
        if device["backend"] == "cpu" or alike:
            return python, "", {"version": version, "cuda": cuda}
        seen.append(f"{version} for CUDA {cuda}, {'which runs' if available else 'which does not run'} here")
    wanted = "" if device["backend"] == "cpu" else f" for CUDA {device['cuda']}"
    why = f"no PyTorch{wanted} found" + (f" (found {'; '.join(seen)})" if seen else "")
    return "", why, {"left_out": why}


def run_row(name: str, extra: list[str], row: dict[str, Any], results: Results, *, deadline: float, folder: Path) -> None:
    """Run a row until the deadline, and take up its parts as they come."""
    file, errors = folder / f"{name}.jsonl", folder / f"{name}.txt"
    file.touch()
    begin, taken = time.monotonic(), 0
    command = [*ROW, name, str(file), *extra]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch needs room beside us
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # what one row compiled, others need not
    }
    flags = [os.environ.get("XLA_FLAGS", "")]
    if "--small" in extra:  # most of its time is the compiler's, and its figures tell nothing of speed
        flags.append("--xla_backend_optimization_level=0")
    if name == "equality-devices":  # simulated ones where there is no accelerator
        flags.append("--xla_force_host_platform_device_count=8")
    environment["XLA_FLAGS"] = " ".join(flags).strip()
    with (
        errors.open("w") as said,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said) as process,
    ):
        running = True
        while running:
            running = process.poll() is None
            lines = file.read_text().split("\n")[:-1]
            if len(lines) > taken:
                row["parts"] += [json.loads(line) for line in lines[taken:]]
                taken = len(lines)
                results.write()
            if running and time.monotonic() > deadline:
                process.kill()
                row["cut_off"] = f"after {time.monotonic() - begin:.0f} s, for want of time"
            if running:
                time.sleep(POLL)
    row["took"] = round(time.monotonic() - begin, 1)
    if process.returncode and "cut_off" not in row:
        last = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()][-1:]
        row["failed"] = f"code {process.returncode}: {_without_paths(last[0]) if last else 'nothing said'}"[:400]
    results.write()


def _without_paths(text: str) -> str:
    return re.sub(r"(?<![\w.])/[^\s'\":,)]+", "PATH", text)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="that all rows may take together; 8, with --small 3")
    parser.add_argument("--small", action="store_true", help="try it with tiny sizes")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the file has, and measure the others")
    parser.add_argument("--only", default="", help="names of rows, with commas")
    parser.add_argument("--out", type=Path, help="the file of results")
    options = parser.parse_args(arguments)
    names = [name for name in options.only.split(",") if name] or list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"--only: expected some of {', '.join(ROWS)}, got {', '.join(unknown)}")
    minutes = (3.0 if options.small else 8.0) if options.minutes is None else options.minutes
    if not minutes > 0:
        parser.error(f"--minutes: expected more than 0, got {minutes}")
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        probe: dict[str, Any] = {"parts": []}
        silent = Results(folder / "device.json")
        run_row("device", [], probe, silent, deadline=deadline, folder=folder)
        if not probe["parts"]:
            parser.exit(1, f"no device: {probe.get('failed') or probe.get('cut_off')}\n")
        device = probe["parts"][0]
        versions = device.pop("versions")
        python, why, torch = find_torch(device)
        kind = re.sub(r"[^a-z0-9]+", "_", device["kind"].lower()).strip("_")
        out = options.out or RESULTS / f"accelerator_{kind}{'_small' if options.small else ''}.json"
        about = {"small": options.small, "minutes": minutes, "device": device, "versions": versions, "torch": torch}
        done = _done(out, options.small) if options.resume else []
        results = Results(out, **about, **command_and_date())
        for row in done:
            results.add(**row)
        names = [name for name in names if name not in [row["name"] for row in done]]
        extra = [*(["--small"] if options.small else []), *(["--torch", python] if python else ["--without-torch", why])]
        for name in names:
            expected, left = ROWS[name].small if options.small else ROWS[name].expected, deadline - time.monotonic()
            if left < max(RESERVE, expected):
                row = results.add(
                    name=name, what=ROWS[name].what, skipped=f"takes about {expected:.0f} s, {max(0, left):.0f} s left"
                )
            else:
                row = results.add(name=name, what=ROWS[name].what, parts=[])
                run_row(name, extra, row, results, deadline=deadline, folder=folder)
            sys.stdout.write(f"{name}: {_told(row)}\n")
            sys.stdout.flush()
        results.content["finished"] = True
        results.write()


def _done(path: Path, small: bool) -> list[dict[str, Any]]:
    """The rows of a file that were measured to their end at these sizes."""
    stored = json.loads(path.read_text()) if path.is_file() else {}
    if stored.get("small") != small:
        return []
    return [row for row in stored["rows"] if "took" in row and not {"failed", "cut_off"} & row.keys()]


def _told(row: dict[str, Any]) -> str:
    """What came of a row, in a line."""
    for kind in ("skipped", "failed", "cut_off"):
        if kind in row:
            return f"{kind.replace('_', ' ')}: {row[kind]}"
    return f"{len(row['parts'])} parts in {row['took']:.0f} s"


if __name__ == "__main__":
    main()
