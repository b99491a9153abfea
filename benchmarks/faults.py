"""A run is killed, starved and damaged: afterwards its output is byte for byte that of a run that nothing happened to.

Claims: after `kill -9` at 30 random moments, of the only process, and of a worker, a node and the driver of a run by Ray, and a
rerun, every file but those that tell times (run.json, timing.csv, report.html) equals that of an undisturbed run. A full disk
and a damaged file cost nothing but the rerun. Over the demo data the device waits for files at most 5 % of the time; over 10,000
small cases memory stays flat; digests, audit, and the check of finished cases cost less than 3 % of a run (throughput.py).
`python -m benchmarks.faults` (about an hour; --only takes parts, --resume goes on where it was interrupted) writes
benchmarks/results/faults.json.
"""

import argparse
import csv
import itertools
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .parts import Parts
from .processes import build, contents, difference, finish, start
from .ray_nodes import ENVIRONMENT, cluster, workers_at
from .throughput import demo, many

CASES = 24
KILLED = ("kills", "ray kills")
PARTS = ("kills", "ray kills", "disk", "damage", "demo", "many")


def kills(options: list[str], root: Path, expected: dict[str, bytes], *, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Kill a run at random moments between its first file and its last, each time in a new folder. The moment is a number of
    files and some milliseconds, so that a busy machine does not move it past the end."""
    for number in numbers:
        out, rng = root / f"killed{number}", random.Random(number)
        process = start(options, out)
        files = _wait(process, out, rng, expected)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        hit = finish(process)[0] == -signal.SIGKILL
        yield {"what": "kill -9", "number": number, "files": files, "hit": hit, **_rerun(options, out, expected)}


def ray_kills(options: list[str], root: Path, expected: dict[str, bytes], *, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """The same with a run by two workers on two Ray nodes; in turn a worker, a node and the driver is killed. Where the driver
    lives it ends the run by itself; the rerun on the same cluster finds everything there, or what is missing."""
    names = itertools.count(1)
    with cluster("head", "0") as nodes:
        more = ("--engine", "ray", "--address", nodes.address)
        for number in numbers:
            what, out, rng = ("worker", "node", "driver")[number % 3], root / f"ray{number}", random.Random(number)
            process = start(options, out, *more, environment=ENVIRONMENT)
            files = _wait(process, out, rng, expected)
            hit = process.poll() is None
            if hit and what == "driver":
                process.send_signal(signal.SIGKILL)
            elif hit and what == "node":
                nodes.kill(next(name for name in nodes.started if name != "head"))
                nodes.start(str(next(names)))  # another joins
            elif hit:
                hit = bool(pids := workers_at(out))
                for pid in pids[:1]:
                    os.kill(pid, signal.SIGKILL)
            code, error = finish(process)
            survivor = difference(out, expected) if what != "driver" else []
            row = _rerun(options, out, expected, *more)
            yield {
                "what": f"kill -9 of a {what}",
                "number": number,
                "files": files,
                "hit": hit,
                "survivor_exit_code": code,
                "survivor_message": "" if code == 0 else error.strip()[-300:],
                "survivor_differs": len(survivor),
                **row,
            }


def _wait(process: subprocess.Popen[str], out: Path, rng: random.Random, expected: dict[str, bytes]) -> int:
    """Wait for a random moment of a run; how many files it is named by."""
    files = 1 + rng.randrange(sum("/" not in name for name in expected) - 1)
    while process.poll() is None and sum(1 for _ in out.glob("*")) < files:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))
    return files


def _rerun(options: list[str], out: Path, expected: dict[str, bytes], *more: str) -> dict[str, Any]:
    """The same command again: what was there, and what differs then."""
    before = len(list(out.glob("case*.json")))
    code, error = finish(start(options, out, *more, environment=ENVIRONMENT if more else None))
    with (out / "timing.csv").open(newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    return {
        "cases_before": before,
        "exit_codes": [code],
        "message": error.strip()[-300:],
        "twice_in_the_record": len(cases) - len(set(cases)),
        "files_that_differ": len(difference(out, expected)),
    }


def full_disk(options: list[str], root: Path, expected: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """Run into a file system of 300 kB (where one can be mounted) and with a limit on the size of files; then go on with room."""
    small = root / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if mounted:
        try:
            code, error = finish(start(options, small / "out"))
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            again, _ = finish(start(options, small / "out"))
            yield {
                "what": "disk full (tmpfs of 300 kB)",
                "exit_codes": [code, again],
                "message": error.strip()[-300:],
                "files_that_differ": len(difference(small / "out", expected)),
            }
        finally:
            subprocess.run(["umount", str(small)], check=True)
    out = root / "limited"

    code, error = finish(start(options, out, limit=("RLIMIT_FSIZE", 4000), environment={"JAX_ENABLE_COMPILATION_CACHE": "false"}))
    again, _ = finish(start(options, out))
    yield {
        "what": "files limited to 4000 bytes",
        "exit_codes": [code, again],
        "message": error.strip()[-300:],
        "files_that_differ": len(difference(out, expected)),
    }


def damage(options: list[str], out: Path, expected: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """Flip, cut and remove every kind of file of a finished run, one at a time."""
    from quam_jax.runs.folder import verify

    rng = random.Random(1)
    kinds = {
        "flipped": lambda raw, place: raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :],
        "cut": lambda raw, place: raw[:place],
        "removed": None,
    }
    victims = [name for name in expected if name.startswith(("case1_", "case1.")) or name == "report_data/case1.npz"]
    for kind, change in kinds.items():
        for name in victims:
            path = out / name
            if change is None:
                path.unlink()
            else:
                path.write_bytes(change(expected[name], rng.randrange(len(expected[name]))))
        code, _ = finish(start(options, out))
        info = json.loads((out / "run.json").read_text())
        yield {
            "what": f"files {kind}",
            "files": len(victims),
            "exit_codes": [code],
            "done_again": len(info["redone"]),
            "message": "; ".join(info["redone"].values()),
            "files_that_differ": len(difference(out, expected)),
        }
    for name in victims:  # one at a time: each is noticed by itself
        path = out / name
        raw = bytearray(expected[name])
        raw[rng.randrange(len(raw))] ^= 1
        path.write_bytes(bytes(raw))
        record, why = verify(out, "case1", json.loads(expected["case1.json"])["digest"])
        yield {"what": "one bit flipped", "file": name, "noticed": record is None, "message": why}
        path.write_bytes(expected[name])


def _undisturbed(root: Path, *, known: bool) -> tuple[list[str], dict[str, bytes]]:
    """The options of a run, and the files that it has when nothing happens to it."""
    options = build(root / "data", cases=CASES, known=known)
    finish(start(options, root / "warm"))  # fills the compilation cache
    code, error = finish(start(options, root / "calm"))
    if code:
        raise RuntimeError(f"the undisturbed run ended with {code}: {error}")
    return options, contents(root / "calm")


def _open(known: list[dict[str, Any]], count: int) -> list[int]:
    """The numbers that are not measured yet."""
    return [number for number in range(count) if number not in {row["number"] for row in known}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--cases", type=int, default=10_000, help="small cases of the memory test")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; the others stay as they are")
    parser.add_argument("--resume", action="store_true", help="go on with the parts of the last result")
    chosen = parser.parse_args()
    results = Parts("faults", resume=chosen.resume)
    known = {part: results.begin(part) for part in chosen.only}
    left = [part for part in chosen.only if part in KILLED or not known[part]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if "ray kills" in left:  # by a network that workers know
            options, expected = _undisturbed(root / "known", known=True)
            results.add("ray kills", ray_kills(options, root, expected, numbers=_open(known["ray kills"], chosen.kills)))
        if {*left} & {"kills", "disk", "damage"}:
            options, expected = _undisturbed(root, known=False)
            if "kills" in left:
                results.add("kills", kills(options, root, expected, numbers=_open(known["kills"], chosen.kills)))
            if "disk" in left:
                results.add("disk", full_disk(options, root, expected))
            if "damage" in left:
                results.add("damage", damage(options, root / "calm", expected))
        if "demo" in left:
            results.add("demo", demo(root))
        if "many" in left:
            results.add("many", [many(root / "thousands", cases=chosen.cases)])


if __name__ == "__main__":
    main()
