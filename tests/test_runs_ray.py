"""Runs, studies and evaluations by workers of Ray: the files are those of one process, whatever dies; what does not fit is told.

What needs Ray itself is long (a cluster takes ten seconds to start), and skipped where Ray is not installed; kills at many random
moments, of nodes and drivers too, are `python -m benchmarks.faults`. The rest stands without Ray.
"""

import csv
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import build, contents, difference, finish, start
from quam_jax.cluster import crew, places
from quam_jax.cluster.crew import Wanted
from quam_jax.cluster.dealing import Refused
from quam_jax.cluster.lock import hold, read_token
from quam_jax.cluster.versions import versions
from quam_jax.config import Config, SearchConfig
from quam_jax.runs.case_worker import CaseWorker, Greeting, Order
from quam_jax.runs.on_ray import _Driver, run_on_ray
from quam_jax.runs.request import RunRequest
from tests.command_line import call
from tests.tiny import NO_VIEWS

CASES = 8


@pytest.fixture
def ray() -> Any:
    """Ray, or a skip where it is not installed."""
    return pytest.importorskip("ray", reason="needs the extra `ray`")


def request_to(out: Path) -> RunRequest:
    return RunRequest(Path("net"), Path("images"), out, Path("fit"), Path("masks"))


def greeting(**changes: Any) -> Greeting:
    parts = {"model": "m", "settings": "s", "images": "i"}
    info = {"cases": ["a", "b"], "digest": "d", "status": "running"}
    return Greeting("here", "here-1-a", versions(), "d", parts, info, "")._replace(**changes)


# what does not fit, without Ray


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"expected the package ray, .*pip install 'quam_jax\[ray\]'"):
        run_on_ray(request_to(tmp_path / "run"), Wanted())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nowhere", "expected auto or HOST:PORT"),
        ("localhost:1", "refused"),
        ("ray://localhost:10001", "expected auto or HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(address: str, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=words):
        crew._require_answer(address)
    assert time.monotonic() - began < crew.REACH


def test_another_version_or_model_is_refused_before_the_folder_is_touched(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with ExitStack() as stack:
        driver = _Driver(request_to(out), stack, lambda *_: None)
        with pytest.raises(
            Refused, match=r"there: expected jaxlib .*, as where this command runs, got 0\.0\.1; install the same"
        ):
            driver.welcome("w1", greeting(host="there", versions={**versions(), "jaxlib": "0.0.1"}))
        assert not out.exists()
        assert driver.welcome("w1", greeting()) == read_token(out) != ""
        other = greeting(host="there", digest="e", parts={"model": "other", "settings": "s", "images": "i"})
        with pytest.raises(Refused, match="there: expected the same model as on here, got others"):
            driver.welcome("w2", other)
        with pytest.raises(ValueError, match="another process is at work in it"), hold(out):
            pass
    assert read_token(out) == ""


def test_a_folder_that_a_node_does_not_see_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SEEN", 0.3)
    with hold(tmp_path) as token:
        places.find_folder(tmp_path, token)
        with pytest.raises(ValueError, match="got another folder by that name; share it"):
            places.find_folder(tmp_path, "other")
    with pytest.raises(ValueError, match="expected the folder where this command writes, got nothing by that name"):
        places.find_folder(tmp_path / "none", token)
    with pytest.raises(ValueError, match="expected the folder from which images starts"):
        places.go_to(tmp_path / "none", [Path("images")])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "2"), "--workers: expected --engine ray beside it"),
        (("--engine", "ray", "--part", "1/2"), "--part: expected no --engine beside it"),
        (("--part", "3/2"), "--part: expected K/N with K from 1 to N, such as 3/16, got '3/2'"),
        (("--engine", "ray", "--address", "auto", "--dashboard"), "--dashboard: expected no --address beside it"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [part for name in ("model", "images", "fit-images", "fit-masks", "out") for part in (f"--{name}", tmp_path / name)]
    code, _, error = call(monkeypatch, capsys, "run", *paths, *options)
    assert code == 2 and words in error and len(error.splitlines()) == 1


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return build(tmp_path_factory.mktemp("data"), cases=CASES, known=True)


def test_a_worker_that_cannot_write_ends_with_the_place_and_its_case_is_not_done(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("case_worker.start_jax", "work.describe_memory"):
        monkeypatch.setattr(f"quam_jax.runs.{name}", lambda *_: None)
    monkeypatch.setattr("quam_jax.core.compilation.keep_choices", lambda _: None)
    paths = {name[2:].replace("-", "_"): Path(value) for name, value in zip(options[::2], options[1::2], strict=True)}
    out, config = tmp_path / "run", Config(search=SearchConfig(steps=1), samples=NO_VIEWS)
    worker = CaseWorker(Order(RunRequest(out=out, config=config, **paths), Path.cwd(), 1))
    out.mkdir()

    def full(place: str, words: str) -> str:
        def write(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, words)

        told: list[str | None] = []
        with monkeypatch.context() as patched:
            patched.setattr(place, write)
            with pytest.raises(OSError) as caught:
                worker.work(iter(["case1", "case2"]), lambda task, value: told.append(task))
        assert told == [] and not list(out.glob("case*"))
        return str(caught.value)

    with hold(out) as token:
        worker.enter(token)
        said = full("quam_jax.runs.folder.publish", "No space left on device")
        assert said.startswith(f"{worker.host}: {out}: no space left to write to; free some, and the same command goes on")
        said = full("quam_jax.runs.work.search_cases", "/scratch: no room for 9 bytes of maps; set TMPDIR to a larger disk")
        assert said == f"{worker.host}: /scratch: no room for 9 bytes of maps; set TMPDIR to a larger disk"
        told: list[str | None] = []
        worker.work(iter(["case1", "case2"]), lambda task, value: told.append(task))
        assert told == ["case1", "case2", None]


# with Ray


@pytest.fixture(scope="module")
def calm(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one process."""
    out = tmp_path_factory.mktemp("calm") / "run"
    assert finish(start(options, out)) == (0, "")
    return contents(out)


@pytest.mark.long
def test_two_workers_write_what_one_process_writes(options: list[str], calm: dict[str, bytes], tmp_path: Path, ray: Any) -> None:
    out = tmp_path / "run"
    assert finish(start(options, out, "--engine", "ray", "--workers", "2")) == (0, "")
    assert difference(out, calm) == []
    workers = json.loads((out / "run.json").read_text())["workers"]
    assert sum(worker["done"] for worker in workers.values()) == CASES and all(w["done"] for w in workers.values())
    assert Counter(row["case"] for row in csv.DictReader((out / "timing.csv").open())) == Counter(
        f"case{n}" for n in range(CASES)
    )
    (out / "case1_seg.png").unlink()
    assert finish(start(options, out, "--engine", "ray", "--workers", "1")) == (0, "")
    assert difference(out, calm) == []
    info = json.loads((out / "run.json").read_text())
    assert info["redone"] == {"case1": "case1_seg.png is missing"} and info["throughput"]["cases"] == 1


@pytest.mark.long
def test_a_killed_worker_and_a_killed_driver_cost_nothing(
    options: list[str], calm: dict[str, bytes], tmp_path: Path, ray: Any
) -> None:
    from benchmarks.ray_nodes import workers_at

    out = tmp_path / "run"
    process = start(options, out, "--engine", "ray", "--workers", "2")
    while not (pids := workers_at(out)) and process.poll() is None:
        time.sleep(0.005)
    os.kill(pids[0], signal.SIGKILL)
    code, error = finish(process)
    assert code == 0, error
    assert difference(out, calm) == []
    shutil.rmtree(out)
    process = start(options, out, "--engine", "ray", "--workers", "2")
    while len(list(out.glob("case*.json"))) < 2 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    finish(process)
    code, error = finish(start(options, out, "--engine", "ray", "--workers", "2"))
    assert code == 0, error
    assert difference(out, calm) == []


@pytest.mark.long
def test_a_model_that_cannot_be_read_and_a_missing_cluster_are_one_line(options: list[str], tmp_path: Path, ray: Any) -> None:
    out = tmp_path / "run"
    wrong = ["--model", str(tmp_path / "none"), *options[2:]]
    code, error = finish(start(wrong, out, "--engine", "ray", "--workers", "1"))
    assert code == 2 and "expected a model folder or a weight file" in error and len(error.splitlines()) == 1
    code, error = finish(start(options, out, "--engine", "ray", "--address", "localhost:1"))
    assert code == 2 and "--address localhost:1: no Ray cluster could be joined there" in error and len(error.splitlines()) == 1
    assert not out.exists()


@pytest.mark.long
def test_an_evaluation_and_a_tuning_by_workers_have_the_same_tables(
    options: list[str],
    calm: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ray: Any,
) -> None:
    run = tmp_path / "run"
    for name, content in calm.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    given = dict(zip(options[::2], options[1::2], strict=True))
    evaluate = ("-q", "evaluate", run, "--masks", given["--masks"], "--out")
    for kind in ("images", "masks"):
        (tmp_path / "validation" / kind).mkdir(parents=True)
        for path in Path(given[f"--{kind}"]).glob("case6*"):  # none of the fit images
            shutil.copy(path, tmp_path / "validation" / kind)
    fit = Path(given["--fit-images"]).parent
    tune = (
        "-q",
        "tune",
        "--model",
        given["--model"],
        "--validation",
        f"folders:{tmp_path / 'validation'}",
        "--fit",
        f"folders:{fit}",
    )
    tune = (*tune, "--methods", "quam_tuned", "--slack", "0.2,1", "--steps", 2, "--out")
    for name, more in (("alone", ()), ("shared", ("--engine", "ray", "--workers", 2))):
        assert call(monkeypatch, capsys, *evaluate, tmp_path / f"rows {name}", *more)[0] == 0
        assert call(monkeypatch, capsys, *tune, tmp_path / f"settings {name}", *more)[0] == 0

    def table(path: Path) -> list[dict[str, str]]:
        with path.open(newline="") as file:
            return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]

    for what, file in (("rows", "evaluation.csv"), ("settings", "tuning.csv")):
        alone, shared = (table(tmp_path / f"{what} {name}" / file) for name in ("alone", "shared"))
        assert alone == shared and len(alone) > 1
