"""A run is killed, starved and damaged: afterwards its output is byte for byte that of a run that nothing happened to.

Claims: after `kill -9` at 30 random moments, of a process and of one of two, and a rerun, every file but those that tell times
(run.json, timing.csv, report.html) equals that of an undisturbed run. A full disk and a damaged file cost nothing but the
rerun. Over the demo data the device waits for files at most 5 % of the time, over many small cases memory stays flat, and
resuming and auditing cost less than 3 % of a run. `python -m benchmarks.faults` (minutes; --kills, --cases, --only) writes
benchmarks/results/faults.json.
"""

import argparse
import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .record import RESULTS, write_result

TIMES = ("run.json", "timing.csv", "report.html")  # what may differ between two runs of the same
CASES = 12
MAIN = "from quam_jax.cli import main; main()"


def build(root: Path, *, cases: int = CASES, size: tuple[int, int] = (21, 26), masks: bool = True) -> list[str]:
    """Data for a run of `cases` small pictures below `root`; returns the options that name it."""
    from PIL import Image

    from tests.small_run import picture, prepare_folders, write_cases

    names = [f"case{number}" for number in range(cases)]
    prepare_folders(root)
    test = root / "many"
    if masks:
        write_cases(test, names)
    else:
        (test / "images").mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(picture(number, size)).save(test / "images" / f"{name}.png")
    options = {"model": root / "model", "images": test / "images", "fit-images": root / "fit" / "images",
               "fit-masks": root / "fit" / "masks", **({"masks": test / "masks"} if masks else {})}
    return [part for name, path in options.items() for part in (f"--{name}", str(path))]


def start(options: list[str], out: Path, *more: str, environment: dict[str, str] | None = None,
          prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """Begin `quam-jax run` in a process of its own."""
    command = [sys.executable, "-c", MAIN, "-q", "run", *options, "--out", str(out), "--steps", "2", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare,
                            env={**os.environ, **(environment or {})}, cwd=Path(__file__).parent.parent)


def finish(process: subprocess.Popen[str], *, seconds: float = 600) -> tuple[int, str]:
    """Wait for a process; its exit code and what it said about errors."""
    _, error = process.communicate(timeout=seconds)
    return process.returncode, error


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a finished run, hidden ones too, but those that tell times."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.name not in TIMES}


def difference(out: Path, expected: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, too many or different."""
    found = contents(out)
    return sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))


def kill_later(processes: list[subprocess.Popen[str]], victim: int, seconds: float) -> bool:
    """Kill one process after some seconds; False if it ended before."""
    try:
        processes[victim].wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        processes[victim].send_signal(signal.SIGKILL)
        processes[victim].communicate()
        return True


def kills(options: list[str], root: Path, expected: dict[str, bytes], *, count: int, length: float) -> list[dict[str, Any]]:
    """Kill a run `count` times at random moments of its length, each time into a new folder; half of them of two processes."""
    rng, rows = random.Random(0), []
    for number in range(count):
        pair, out = number % 2 == 1, root / f"killed{number}"
        processes = [start(options, out) for _ in range(2 if pair else 1)]
        moment = rng.uniform(0.1, 1.0) * length * (1.5 if pair else 1.0)
        hit = kill_later(processes, 0, moment)
        before = len(list(out.glob("*.json"))) - 1 if out.exists() else 0
        codes = [finish(process)[0] for process in processes[1:]]
        survivor = difference(out, expected) if pair and hit else []
        code, error = finish(start(options, out))
        rows.append({"what": "kill -9 of one of two processes" if pair else "kill -9", "second": round(moment, 2), "hit": hit,
                     "cases_before": max(0, before), "exit_codes": [*codes, code], "message": error.strip(),
                     "survivor_differs": len(survivor), "files_that_differ": len(difference(out, expected))})
    return rows


def full_disk(options: list[str], root: Path, expected: dict[str, bytes]) -> list[dict[str, Any]]:
    """Run into a file system of 1 MB (where one can be mounted) and with a limit on the size of files; then go on with room."""
    rows = []
    small = root / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if mounted:
        try:
            code, error = finish(start(options, small / "out"))
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            again, _ = finish(start(options, small / "out"))
            rows.append({"what": "disk full (tmpfs of 300 kB)", "exit_codes": [code, again], "message": error.strip()[-300:],
                         "files_that_differ": len(difference(small / "out", expected))})
        finally:
            subprocess.run(["umount", str(small)], check=True)
    out = root / "limited"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    code, error = finish(start(options, out, prepare=limit, environment={"JAX_ENABLE_COMPILATION_CACHE": "false"}))
    again, _ = finish(start(options, out))
    rows.append({"what": "files limited to 4000 bytes", "exit_codes": [code, again], "message": error.strip()[-300:],
                 "files_that_differ": len(difference(out, expected))})
    return rows


def damage(options: list[str], out: Path, expected: dict[str, bytes]) -> list[dict[str, Any]]:
    """Flip, cut and remove every kind of file of a finished run, one at a time."""
    rows, rng = [], random.Random(1)
    kinds = {"flipped": lambda raw, place: raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1:],
             "cut": lambda raw, place: raw[:place], "removed": None}
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
        rows.append({"what": f"files {kind}", "files": len(victims), "exit_codes": [code], "done_again": len(info["redone"]),
                     "message": "; ".join(info["redone"].values()), "files_that_differ": len(difference(out, expected))})
    for name in victims:  # one at a time: each is noticed by itself
        path = out / name
        raw = bytearray(expected[name])
        raw[rng.randrange(len(raw))] ^= 1
        path.write_bytes(bytes(raw))
        from quam_jax.run_folder import verify

        record, why = verify(out, "case1", json.loads(expected["case1.json"])["digest"])
        rows.append({"what": "one bit flipped", "file": name, "noticed": record is None, "message": why})
        path.write_bytes(expected[name])
    return rows


def throughput(root: Path) -> list[dict[str, Any]]:
    """The demo data twice over compiled functions: busy fraction of the device; and what a rerun that finds all done costs."""
    rows = []
    for attempt in ("first", "second, compiled"):
        out = root / f"demo_{attempt[:5]}"
        code = subprocess.run([sys.executable, "-c", MAIN, "-q", "demo", "--out", str(out)], capture_output=True).returncode
        info = json.loads((out / "run.json").read_text())
        with (out / "timing.csv").open(newline="") as file:
            timing = list(csv.DictReader(file))
        rows.append({"what": f"demo, {attempt}", "exit_codes": [code], "seconds": info["seconds"], **info["throughput"],
                     "read": sum(float(t["read"]) for t in timing), "search": sum(float(t["search"]) for t in timing)})
    rows.append(overhead(root, out))
    return rows


def overhead(root: Path, out: Path) -> dict[str, Any]:
    """What claims, journals, digests and the check of finished files cost on the demo data, against the searches."""
    import quam_jax
    from quam_jax.cli.common import start_jax
    from quam_jax.pipeline import RunRequest, run
    from quam_jax.run_folder import verify

    start_jax()
    data = Path(quam_jax.__file__).parent / "demo_data"
    request = RunRequest(model=root / f"{out.name}_model", images=data / "images", masks=data / "masks", out=out,
                         fit_images=data / "fit_images", fit_masks=data / "fit_masks")
    run(request)  # everything is there: reads, checks and merges, searches nothing
    names = json.loads((out / "run.json").read_text())["cases"]
    digests = [json.loads((out / f"{name}.json").read_text())["digest"] for name in names]
    start = time.perf_counter()
    sound = [verify(out, name, digest)[0] is not None for name, digest in zip(names, digests, strict=True)]
    checked = time.perf_counter() - start
    from quam_jax.run_folder import publish, staging_folder
    from quam_jax.runs.workers import Worker

    spent = 0.0
    with Worker(root / "empty", patience=60) as worker:
        for name in names:
            record = json.loads((out / f"{name}.json").read_text())
            folder = staging_folder(root / "empty", name, worker=worker.name)
            for file in record["files"]:
                (folder / file).write_bytes((out / file).read_bytes())
            start = time.perf_counter()
            worker.claim(name)
            worker.owns(name)
            publish(root / "empty", name, record, worker=worker.name)
            worker.write("done", case=name, seconds=1.0)
            spent += time.perf_counter() - start
    with (out / "timing.csv").open(newline="") as file:
        searched = sum(float(t["seconds"]) for t in csv.DictReader(file))
    return {"what": "resume and audit on the demo data", "cases": len(names), "all_sound": all(sound), "run_seconds": searched,
            "check_seconds": checked, "claim_digest_publish_seconds": spent, "share_of_run": (checked + spent) / searched}


def many(root: Path, *, cases: int) -> dict[str, Any]:
    """Many small cases in one process: memory along the way, from after the first hundred on."""
    from quam_jax.cli.common import start_jax
    from quam_jax.config import Config, SearchConfig
    from quam_jax.pipeline import RunRequest, run

    start_jax()
    build(root, cases=cases, size=(16, 16), masks=False)
    memory: list[tuple[int, float]] = []

    def look(text: str, done: int, total: int) -> None:
        if done % 50 == 0 and 0 < done < total:
            memory.append((done, resident()))

    out = root / "out"
    start = time.perf_counter()
    run(RunRequest(model=root / "model", images=root / "many" / "images", out=out, fit_images=root / "fit" / "images",
                   fit_masks=root / "fit" / "masks", config=Config(search=SearchConfig(steps=1))), progress=look)
    settled = [megabytes for done, megabytes in memory if done >= 100]
    info = json.loads((out / "run.json").read_text())
    return {"what": "many small cases", "seconds": time.perf_counter() - start, **info["throughput"],
            "megabytes_after_100": settled[0], "megabytes_at_the_end": settled[-1], "megabytes_most": max(settled),
            "memory": [[done, round(megabytes, 1)] for done, megabytes in memory[::max(1, len(memory) // 40)]]}


def resident() -> float:
    """Megabytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--cases", type=int, default=10_000, help="small cases of the memory test")
    parser.add_argument("--only", nargs="*", choices=("kills", "disk", "throughput", "many"),
                        help="parts to measure; the rows of the others are kept from the last result")
    chosen = parser.parse_args()
    wanted = set(chosen.only or ("kills", "disk", "throughput", "many"))
    stored = RESULTS / "faults.json"
    rows = [] if not (chosen.only and stored.exists()) else [
        row for row in json.loads(stored.read_text())["rows"] if row["part"] not in wanted]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if wanted & {"kills", "disk"}:
            options = build(root / "data")
            finish(start(options, root / "warm"))  # fills the compilation cache
            began = time.perf_counter()
            finish(start(options, root / "calm"))
            length = time.perf_counter() - began
            expected = contents(root / "calm")
            if "kills" in wanted:
                rows += [{"part": "kills", **row} for row in kills(options, root, expected, count=chosen.kills, length=length)]
            if "disk" in wanted:
                rows += [{"part": "disk", **row} for row in full_disk(options, root, expected)]
                rows += [{"part": "disk", **row} for row in damage(options, root / "calm", expected)]
        if "throughput" in wanted:
            rows += [{"part": "throughput", **row} for row in throughput(root)]
        if "many" in wanted:
            rows.append({"part": "many", **many(root / "thousands", cases=chosen.cases)})
    write_result("faults", rows)


if __name__ == "__main__":
    main()
