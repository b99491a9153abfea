"""The one command for accelerators: rows that crash, run over or do not fit cost nothing else, and its file is always whole."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import accelerator, accelerator_row, accelerator_tables

DEVICE: dict[str, Any] = {
    "backend": "cpu",
    "kind": "cpu",
    "processor": "Some CPU",
    "cores": 2,
    "cuda": None,
    "driver": None,
    "versions": {"jax": "1"},
}
# a row in place of the real ones: it tells parts, and then ends as its name says
CHILD = f"""
import json, os, sys, time
name, file = sys.argv[1:3]
parts = [{DEVICE!r}] if name == "device" else [{{"part": str(n), "seconds": 1.0 + n}} for n in range(3)]
for part in parts:
    with open(file, "a") as out:
        out.write(json.dumps(part) + "\\n")
    time.sleep(0.05)
if name == "pixels-head":
    sys.stderr.write("before\\nRESOURCE_EXHAUSTED: out of memory in /some/where/x.py\\n")
    sys.exit(1)
if name == "equality":
    os.abort()
if name == "masks-full-16":
    time.sleep(600)
"""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    row = [sys.executable, str(script)]
    monkeypatch.setattr(accelerator, "ROW", row)
    monkeypatch.setattr(accelerator, "RESERVE", 0.2)
    monkeypatch.setattr(accelerator, "POLL", 0.02)
    monkeypatch.setattr(accelerator, "find_torch", lambda device: ("", "none here", {"left_out": "none here"}))
    small = {name: one._replace(expected=0.1, small=0.1) for name, one in accelerator_row.ROWS.items()}
    monkeypatch.setattr(accelerator, "ROWS", small)
    return row


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(out.read_text())["rows"]}


def test_what_ends_a_row_ends_nothing_else(child: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, seen, over = tmp_path / "out.json", [0], threading.Event()

    def look() -> None:
        while not over.is_set():
            if out.exists():
                try:
                    seen.append(sum(len(row.get("parts", [])) for row in json.loads(out.read_text())["rows"]))
                except ValueError:
                    seen.append(-1)  # not whole
            time.sleep(0.005)

    def clock() -> float:
        """The time is over once the file holds all that a row that goes on for long has measured."""
        late = out.exists() and len(rows(out).get("masks-full-16", {}).get("parts", [])) == 3
        return time.monotonic() + 3600 * late

    monkeypatch.setattr(accelerator, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    watch = threading.Thread(target=look)
    watch.start()
    names = "equality,pixels-head,equality-cpu,masks-full-16,masks-full-64"
    accelerator.main(["--minutes", "30", "--out", str(out), "--only", names])
    over.set()
    watch.join()
    monkeypatch.setattr(accelerator, "time", time)
    found = rows(out)
    assert list(found) == names.split(",")
    assert found["equality"]["failed"].startswith(f"code -{signal.SIGABRT.value}:") and len(found["equality"]["parts"]) == 3
    assert found["pixels-head"]["failed"] == "code 1: RESOURCE_EXHAUSTED: out of memory in PATH"
    assert "failed" not in found["equality-cpu"] and [p["part"] for p in found["equality-cpu"]["parts"]] == ["0", "1", "2"]
    assert "for want of time" in found["masks-full-16"]["cut_off"] and len(found["masks-full-16"]["parts"]) == 3
    assert found["masks-full-64"]["skipped"].endswith("s left") and "parts" not in found["masks-full-64"]
    assert len(seen) > 1 and seen == sorted(seen)  # it was always whole, and grew
    content = json.loads(out.read_text())
    assert content["finished"] and content["device"]["processor"] == "Some CPU" and content["versions"] == {"jax": "1"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    before = out.read_text()
    accelerator.main(["--minutes", "1", "--out", str(out), "--only", "equality-cpu,masks-full-64", "--resume"])
    assert list(rows(out)) == ["equality-cpu", "masks-full-64"] and rows(out)["equality-cpu"] == found["equality-cpu"]
    out.write_text(before)
    accelerator.main(["--minutes", "1", "--out", str(out), "--only", "masks-full-64", "--resume", "--small"])
    assert list(rows(out)) == ["masks-full-64"]  # those of other sizes are no part of it


def test_being_cut_off_loses_nothing(child: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code = (
        f"from benchmarks import accelerator as a; a.ROW = {child!r}; a.RESERVE = 0.1; "
        "a.find_torch = lambda d: ('', 'no', {}); "
        f"a.main(['--out', {str(out)!r}, '--only', 'equality-cpu,masks-full-16'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=accelerator.ROOT, env={**os.environ, "PYTHONPATH": "."})
    try:
        end = time.monotonic() + 300
        while time.monotonic() < end and not (out.exists() and len(rows(out).get("masks-full-16", {}).get("parts", [])) == 3):
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    found = rows(out)
    assert len(found["equality-cpu"]["parts"]) == len(found["masks-full-16"]["parts"]) == 3
    assert "finished" not in json.loads(out.read_text())


def test_a_row_ends_with_who_started_it() -> None:
    code = "from benchmarks.accelerator_row import _end_with_parent as end; end()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=accelerator.ROOT) as process:
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=300) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "pixels,equality"], "--only: expected some of equality, .*, got pixels$"),
        (["--minutes", "0"], "--minutes: .* 0.0"),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        accelerator.main(arguments)
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err.strip())


@pytest.mark.parametrize(
    "device, said, python, why",
    [
        ({"backend": "cpu", "cuda": None}, ["2.1", None, False], True, ""),
        ({"backend": "gpu", "cuda": 12}, ["2.1", "12.6", True], True, ""),
        ({"backend": "gpu", "cuda": 13}, ["2.1", "12.6", True], False, "no PyTorch for CUDA 13 found (found 2.1 for CUDA 12.6"),
        ({"backend": "gpu", "cuda": 12}, ["2.1", "12.6", False], False, "which does not run here"),
        ({"backend": "gpu", "cuda": 12}, ["2.1+cpu", None, False], False, "no PyTorch for CUDA 12"),
        ({"backend": "gpu", "cuda": 12}, None, False, "no PyTorch for CUDA 12 found"),
        ({"backend": "tpu", "cuda": None}, ["2.1", "12.6", True], False, "no PyTorch for tpu"),
    ],
)
def test_a_pytorch_of_the_same_cuda_is_found(
    monkeypatch: pytest.MonkeyPatch, device: dict[str, Any], said: list[Any] | None, python: bool, why: str
) -> None:
    done = subprocess.CompletedProcess([], 0 if said else 1, stdout="" if said is None else json.dumps(said) + "\n")
    monkeypatch.setattr(accelerator.subprocess, "run", lambda *_, **__: done)
    found, reason, told = accelerator.find_torch(device)
    assert bool(found) == python and why in reason and ("version" in told) == python


def test_nothing_but_numbers_of_json() -> None:
    assert accelerator_row.finite({"a": float("nan"), "b": [float("inf"), 1.5], "c": "x"}) == {
        "a": None,
        "b": [None, 1.5],
        "c": "x",
    }


def test_what_was_not_measured_says_so() -> None:
    about = {"device": DEVICE, "versions": {"jax": "1"}, "torch": {"left_out": "none"}, "command": "c", "date": "d"}
    gpu = {**DEVICE, "backend": "gpu", "kind": "Some GPU", "driver": "5"}
    parts = [
        {"part": "ours float32", "seconds": 0.25},
        {"part": "PyTorch float32 mapped", "failed": "OutOfMemoryError: much"},
        {"part": "ratio float32", "ratio_best": 2.345, "goal_ratio": 2.0},
    ]
    some = [{"name": "masks-full-16", "parts": parts}, {"name": "equality", "parts": [], "failed": "code 1: x"}]
    rest = [{"name": "pixels-head", "skipped": "takes long"}]
    full = {**about, "device": gpu, "small": False, "rows": [*some, *rest]}
    tried = {**about, "small": True, "rows": some}
    lines = {
        line.split("|")[1].strip(): line for line in accelerator_tables.figures_table([full, tried]).splitlines() if "|" in line
    }
    assert "Some GPU | TPU |" in lines["row"] and "NVIDIA GPU" not in lines["row"]
    assert (
        "2.35 x (goal 2 x)" in lines["`masks-full-16`"] and "mapped: failed (OutOfMemoryError: much)" in lines["`masks-full-16`"]
    )
    assert "| failed: code 1: x | not measured | failed |" in lines["`equality`"]
    assert "| not measured | not measured | not measured |" in lines["`pixels-head`"]
    nobody = accelerator_tables.figures_table([tried])
    assert "NVIDIA GPU | TPU" in nobody and "2.35" not in nobody


@pytest.mark.long
def test_every_row_runs_with_small_sizes(tmp_path: Path) -> None:
    accelerator.main(["--small", "--minutes", "15", "--out", str(tmp_path / "out.json")])
    found = rows(tmp_path / "out.json")
    assert list(found) == list(accelerator_row.ROWS)
    for row in found.values():
        assert row["parts"] and not {"failed", "cut_off", "skipped"} & row.keys(), row
        assert not [part for part in row["parts"] if part.get("failed")], row
