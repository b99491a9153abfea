"""A run is killed, starved and damaged: afterwards its output is byte for byte that of a run that nothing happened to.

Claims: after `kill -9` at 30 random moments, of a process and of one of two, and a rerun, every file but those that tell times
(run.json, timing.csv, report.html) equals that of an undisturbed run. A full disk and a damaged file cost nothing but the
rerun. Over the demo data the device waits for files at most 5 % of the time; over 10,000 small cases memory stays flat; claims,
digests, audit, and the check of finished cases cost less than 3 % of a run (throughput.py). `python -m benchmarks.faults`
(about an hour; --only takes parts, --resume goes on where it was interrupted) writes benchmarks/results/faults.json.
"""

import argparse
import json
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .parts import Parts
from .processes import build, contents, difference, finish, start
from .throughput import demo, many

CASES = 24
PARTS = ("kills", "disk", "damage", "demo", "many")


def kills(options: list[str], root: Path, expected: dict[str, bytes], *, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Kill a run at random moments between its first file and its last, each time in a new folder; every second time one of two
    processes. The moment is a number of files and some milliseconds, so that a busy machine does not move it past the end."""
    for number in numbers:
        pair, out, rng = number % 2 == 1, root / f"killed{number}", random.Random(number)
        processes = [start(options, out) for _ in range(2 if pair else 1)]
        files = rng.randrange(sum("/" not in name for name in expected))
        while processes[0].poll() is None and sum(1 for _ in out.glob("*")) < files:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        if processes[0].poll() is None:
            processes[0].send_signal(signal.SIGKILL)
        hit = finish(processes[0])[0] == -signal.SIGKILL
        before = len(list(out.glob("case*.json")))
        codes = [finish(process)[0] for process in processes[1:]]
        survivor = difference(out, expected) if pair and hit else []
        code, error = finish(start(options, out))
        yield {
            "what": "kill -9 of one of two processes" if pair else "kill -9",
            "number": number,
            "files": files,
            "hit": hit,
            "cases_before": before,
            "exit_codes": [*codes, code],
            "message": error.strip(),
            "survivor_differs": len(survivor),
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

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    code, error = finish(start(options, out, prepare=limit, environment={"JAX_ENABLE_COMPILATION_CACHE": "false"}))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--cases", type=int, default=10_000, help="small cases of the memory test")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; the others stay as they are")
    parser.add_argument("--resume", action="store_true", help="go on with the parts of the last result")
    chosen = parser.parse_args()
    results = Parts("faults", resume=chosen.resume)
    known = {part: results.begin(part) for part in chosen.only}
    left = [part for part in chosen.only if part == "kills" or not known[part]]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if {*left} & {"kills", "disk", "damage"}:
            options = build(root / "data", cases=CASES)
            finish(start(options, root / "warm"))  # fills the compilation cache
            code, error = finish(start(options, root / "calm"))
            if code:
                raise RuntimeError(f"the undisturbed run ended with {code}: {error}")
            expected = contents(root / "calm")
            if "kills" in left:
                done = {row["number"] for row in known["kills"]}
                numbers = [number for number in range(chosen.kills) if number not in done]
                results.add("kills", kills(options, root, expected, numbers=numbers))
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
