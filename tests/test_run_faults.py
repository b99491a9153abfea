"""Runs that survive: parts, kills, damage, full disks, silent shares; each time the output is that of a calm run.

Processes are real ones. The long version of the kills, with 30 of them, is `python -m benchmarks.faults`.
"""

import csv
import errno
import io
import json
import os
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.processes import build, contents, difference, finish, start
from benchmarks.throughput import many
from quam_jax.cluster.lock import hold
from quam_jax.config import Config, ExecutionConfig, SearchConfig
from quam_jax.runs import folder as run_folder
from quam_jax.runs import quantifier as quantifier_room
from quam_jax.runs.ending import join
from quam_jax.runs.part import Part
from quam_jax.runs.request import RunRequest, RunResult
from quam_jax.runs.run import run
from tests.small_run import picture
from tests.tiny import NO_VIEWS

CASES = [f"case{n}" for n in range(8)]
CONFIG = Config(search=SearchConfig(steps=2, learning_rate=0.01), samples=NO_VIEWS)
SETTINGS = ("--views", "none")  # beside those of benchmarks.processes: the same in words
pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return build(tmp_path_factory.mktemp("data"), cases=len(CASES))


def request_of(options: list[str], out: Path, **changes: Any) -> RunRequest:
    paths = {name[2:].replace("-", "_"): Path(value) for name, value in zip(options[::2], options[1::2], strict=True)}
    return RunRequest(**{**paths, "out": out, "config": CONFIG, **changes})


@pytest.fixture(scope="module")
def calm(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nothing happens to."""
    out = tmp_path_factory.mktemp("calm") / "run"
    result = run(request_of(options, out))
    assert not result.failed and len(result.rows) == len(CASES)
    return contents(out)


@pytest.fixture
def done(options: list[str], calm: dict[str, bytes], tmp_path: Path) -> Path:
    """A finished run to be damaged."""
    out = tmp_path / "run"
    for name, content in calm.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    (out / "run.json").write_text(json.dumps({"digest": json.loads(calm["case0.json"])["run_digest"]}))
    return out


# parts


def test_parts_make_the_whole(options: list[str], calm: dict[str, bytes], tmp_path: Path) -> None:
    """Three parts, two of them at once, one of them again; the whole is that of one process."""
    out = tmp_path / "run"
    processes = [start(options, out, *SETTINGS, "--part", f"{number}/3") for number in (1, 3)]
    assert [finish(process)[0] for process in processes] == [0, 0]
    missing = "case1, case4, case7"
    with pytest.raises(ValueError, match=rf"3 of 8 cases are missing: {missing}; parts that have ended: 1/3, 3/3"):
        join(out)
    assert not (out / "results.csv").exists()
    for number in (2, 1):
        result = run(request_of(options, out, part=Part(number, 3)))
        assert [row["case"] for row in result.rows] == Part(number, 3).deal(CASES)
    assert not join(out).failed
    assert difference(out, calm) == []
    assert Counter(row["case"] for row in csv.DictReader((out / "timing.csv").open())) == Counter(CASES)


def test_a_part_tells_what_failed_in_it(options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    images = shutil.copytree(request_of(options, out).images, tmp_path / "images")
    (images / "case3.png").write_bytes(b"no picture")
    parts = [run(request_of(options, out, images=images, part=Part(number, 2))) for number in (1, 2)]
    assert [list(result.failed) for result in parts] == [[], ["case3"]]
    assert [row["case"] for row in parts[1].rows if row["status"] == "failed"] == ["case3"]
    joined = join(out)
    assert list(joined.failed) == ["case3"] and len(joined.rows) == len(CASES)
    assert not (out / ".parts").exists() and not (out / ".lock").exists()


def test_two_processes_by_mistake_leave_the_run_as_it_is(options: list[str], calm: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "run"

    def again(text: str, finished: int, total: int) -> None:
        for wrong in ({}, {"part": Part(1, 2)}, {"overwrite": True, "config": Config(seed=1)}):
            with pytest.raises(ValueError, match="at work in it; to share the cases of a run: --part K/N, or --engine ray"):
                run(request_of(options, out, **wrong))

    run(request_of(options, out), progress=lambda *told: again(*told) if told[1] == 4 else None)
    assert difference(out, calm) == []


def test_one_process_does_a_part(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with hold(tmp_path / "run", part="1-of-2"):
        run(request_of(options, tmp_path / "run", part=Part(2, 2)))
        with pytest.raises(ValueError, match="another process is at work on part 1/2 of it"):
            run(request_of(options, tmp_path / "run", part=Part(1, 2)))
        with pytest.raises(ValueError, match="another process is at work in it"):
            join(tmp_path / "run")


@pytest.mark.long
def test_cases_are_dealt_out_to_eight_devices(options: list[str], calm: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "run"
    # every device compiles for itself
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    code, error = finish(start(options, out, *SETTINGS, environment={"XLA_FLAGS": flags}))
    assert code == 0, error
    assert json.loads((out / "run.json").read_text())["lanes"] == 8
    assert Counter(row["case"] for row in csv.DictReader((out / "timing.csv").open())) == Counter(CASES)
    maps = [name for name in calm if name.endswith("_uncertainty.npz")]
    assert len(maps) == 3 * len(CASES)
    for name in maps:
        expected = np.load(io.BytesIO(calm[name]))["data"]
        np.testing.assert_allclose(np.load(out / name)["data"], expected, atol=1e-6, rtol=0, err_msg=name)
    assert max(np.load(out / name)["data"].max() for name in maps if "epistemic" in name) > 1e-4


# kills


@pytest.mark.parametrize("share", [0.5, pytest.param(0.9, marks=pytest.mark.long)])
def test_after_a_kill_nothing_is_missing(options: list[str], calm: dict[str, bytes], tmp_path: Path, share: float) -> None:
    """A process is killed once a share of the cases is there, and started again: its lock is nobody's."""
    out = tmp_path / "run"
    process = start(options, out, *SETTINGS)
    while len(list(out.glob("case*.json"))) < share * len(CASES) - 1 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    code, error = finish(start(options, out, *SETTINGS))
    assert code == 0, error
    assert difference(out, calm) == []


# resume


def test_damage_is_noticed_told_and_mended(options: list[str], calm: dict[str, bytes], done: Path) -> None:
    def flip(name: str) -> None:
        raw = bytearray(calm[name])
        raw[len(raw) // 2] ^= 1
        (done / name).write_bytes(bytes(raw))

    flip("case0_desc-total_uncertainty.npz")
    (done / "case1_seg.png").unlink()
    (done / "report_data" / "case2.npz").write_bytes(calm["report_data/case2.npz"][:-7])
    (done / "case3.json").write_bytes(calm["case3.json"].replace(b'"seed": 0', b'"seed": 1'))
    result = run(request_of(options, done))
    redone = json.loads((done / "run.json").read_text())["redone"]
    size = len(calm["report_data/case2.npz"])
    assert redone == {
        "case0": "case0_desc-total_uncertainty.npz is damaged: other bytes than were written",
        "case1": "case1_seg.png is missing",
        "case2": f"report_data/case2.npz is damaged: {size - 7:,} of {size:,} bytes",
        "case3": "case3.json is damaged, or was written by an earlier version",
    }
    assert f"case1: done again, because {redone['case1']}" in result.notes
    assert difference(done, calm) == []


def test_a_changed_image_is_searched_again_and_a_vanished_one_told(
    options: list[str], calm: dict[str, bytes], done: Path, tmp_path: Path
) -> None:
    request = request_of(options, done)
    images = shutil.copytree(request.images, tmp_path / "images")
    Image.fromarray(picture(77)).save(images / "case2.png")
    real = quantifier_room.find_cases

    def then_gone(*arguments: Any, **settings: Any) -> Any:
        cases = real(*arguments, **settings)
        if Path(arguments[0]) == images:
            (images / "case3.png").unlink()
        return cases

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantifier_room, "find_cases", then_gone)
        result = run(request_of(options, done, images=images))
    assert set(result.failed) == {"case3"} and "case3.png: no such file" in result.failed["case3"]
    assert json.loads((done / "run.json").read_text())["redone"] == {
        "case2": "its image, or the model or settings, have changed since"
    }
    assert not list(done.glob("case3*")) and not (done / "report_data" / "case3.npz").exists()
    assert {n for n in difference(done, calm) if n.startswith("case1")} == set()


def test_an_interrupted_process_leaves_its_cases_to_the_next(options: list[str], calm: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "run"

    def interrupt(text: str, finished: int, total: int) -> None:
        if text.startswith("case2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request_of(options, out), progress=interrupt)
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    assert not list((out / ".staging").glob("*/*"))
    run(request_of(options, out))
    assert difference(out, calm) == []


# the folder that is written to


@pytest.mark.parametrize(
    "code, words",
    [
        (errno.ENOSPC, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "cannot be written to"),
        (errno.ESTALE, "a part of it was removed"),
    ],
)
@pytest.mark.parametrize("after", [3, 20])
def test_a_folder_that_fails_is_told_and_nothing_is_harmed(
    options: list[str], calm: dict[str, bytes], tmp_path: Path, code: int, words: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, left, real = tmp_path / "run", [after], os.replace

    def replace(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match=words) as error:
        run(request_of(options, out))
    assert str(out) in str(error.value)
    for record in out.glob("case*.json"):  # whatever says that it is finished is finished
        stored = json.loads(record.read_text())
        assert run_folder.verify(out, stored["case"], stored["digest"])[0] is not None
    monkeypatch.setattr(os, "replace", real)
    run(request_of(options, out))
    assert difference(out, calm) == []


def test_a_share_that_does_not_answer_fails_one_case(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quam_jax.runs import cases as cases_room

    hung, real = threading.Event(), cases_room.read_channels
    monkeypatch.setattr(
        cases_room,
        "read_channels",
        lambda files, **how: (hung.wait(60) if "case1." in files[0].name else None) or real(files, **how),
    )
    result = run(request_of(options, tmp_path / "run", stall=0.5))
    hung.set()
    assert set(result.failed) == {"case1"} and "no answer for 0.5 seconds" in result.failed["case1"]
    assert [row["status"] for row in result.rows] == ["ok", "failed", *["ok"] * (len(CASES) - 2)]


@pytest.mark.parametrize("name", ["report_data", ".staging", ".parts"])
def test_a_link_does_not_lead_out_of_the_folder(options: list[str], tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="expected no link"):
        run(request_of(options, tmp_path / "run"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_record_cannot_have_foreign_files_removed(done: Path, tmp_path: Path) -> None:
    victims = [tmp_path / "mine.txt", done / "case0.json", done / "results.csv"]
    victims[0].write_text("mine")
    names = ["../mine.txt", str(tmp_path / "mine.txt"), "case0.json", "results.csv", "case1_x/../../mine.txt"]
    (done / "case1.json").write_text(json.dumps({"files": {name: {} for name in names}, "outputs": {}}))
    run_folder.remove_case(done, "case1")
    assert all(path.exists() for path in victims) and not (done / "case1.json").exists()


# the same numbers however they are had


def test_the_numbers_depend_on_neither_chunk_nor_order(options: list[str], calm: dict[str, bytes], tmp_path: Path) -> None:
    def maps(out: Path) -> dict[str, np.ndarray]:
        return {path.name: np.load(path)["data"] for path in sorted(out.glob("*.npz"))}

    def go(name: str, **changes: Any) -> RunResult:
        return run(request_of(options, tmp_path / name, **changes))

    for number in (2, 1):
        go("order", part=Part(number, 2))
    join(tmp_path / "order")
    assert difference(tmp_path / "order", calm) == []
    for member_plan, chunk in (("loop", 1), ("vmap", 2)):
        execution = ExecutionConfig(member_plan, chunk=chunk)  # type: ignore[arg-type]
        go(member_plan, config=Config(search=CONFIG.search, samples=NO_VIEWS, execution=execution))
        for name, values in maps(tmp_path / member_plan).items():
            np.testing.assert_allclose(values, np.load(tmp_path / "order" / name)["data"], atol=1e-6, rtol=0, err_msg=name)


@pytest.mark.long
def test_memory_stays_flat_and_throughput_is_told(tmp_path: Path) -> None:
    row = many(tmp_path, cases=300, size=(16, 16))
    assert row["cases"] == 300 and row["cases_a_second"] > 0 and row["targets_a_second"] == pytest.approx(row["cases_a_second"])
    assert 0 < row["device_busy"] <= 1
    parts = ("device_busy", "device_waits_for_input", "device_waits_for_output")
    assert sum(row[part] for part in parts) == pytest.approx(1)
    assert row["megabytes_most"] - row["megabytes_after_100"] < 30, row["memory"]
