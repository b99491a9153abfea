"""Who owns a case: one process each, the dead give theirs up, a network share's delays and half-written files mislead nobody."""

import collections
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from quam_jax.runs.workers import FINAL, Identity, SessionOver, Worker, others_at_work

NAMES = [f"case{n}" for n in range(40)]


def dead_identity() -> Identity:
    """That of a process which ended just now."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    pid = child.pid
    child.wait()
    return Identity.own()._replace(pid=pid, born="1")


def leave_behind(out: Path, name: str, cases: list[str], *, identity: Identity, age: float = 0.0) -> None:
    """What a killed worker leaves: a journal that ends in half a line, and claims."""
    journal = out / ".workers" / f"{name}.jsonl"
    (out / ".workers" / "claims").mkdir(parents=True, exist_ok=True)
    lines = [{"event": "start", "time": 0.0, **identity._asdict()}, *({"event": "done", "case": case} for case in cases[1:])]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "do')
    for case in cases:
        (out / ".workers" / "claims" / f"{case}.0").write_text(name)
    if age:
        os.utime(journal, (time.time() - age,) * 2)


def test_every_case_goes_to_one_of_many(tmp_path: Path) -> None:
    got: dict[str, list[str]] = collections.defaultdict(list)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(tmp_path, patience=60)) for _ in range(6)]
        ready = threading.Barrier(6)

        def take(worker: Worker, first: int) -> None:
            ready.wait()
            for name in worker.deal(NAMES, first=first):
                got[worker.name].append(name)

        threads = [threading.Thread(target=take, args=(w, 7 * k if k < 3 else 0)) for k, w in enumerate(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(name for names in got.values() for name in names) == sorted(NAMES)
        for worker in workers:
            for name in got[worker.name]:
                assert worker.owns(name) and worker.outcome(name) is None
                worker.write("done", case=name)
        for worker in workers:
            worker.refresh()
            assert all(worker.outcome(name) == {"event": "done", "case": name} for name in NAMES)
            assert sorted(worker.others()) == sorted(w.name for w in workers if w is not worker)


@pytest.mark.parametrize("how", ["ended", "silent", "left", "without a journal", "without a name"])
def test_cases_of_the_dead_are_taken_over_by_one(tmp_path: Path, how: str) -> None:
    identity = dead_identity() if how == "ended" else Identity("another machine", 1, "1")
    leave_behind(tmp_path, "gone", NAMES[:5], identity=identity, age=100.0 if how == "silent" else 0.0)
    journal = tmp_path / ".workers" / "gone.jsonl"
    old = (time.time() - 100,) * 2
    if how == "left":
        journal.write_text(journal.read_text() + '\n{"event": "left"}\n')
    if how == "without a journal":
        journal.unlink()
    for name in NAMES[:5]:
        claim = tmp_path / ".workers" / "claims" / f"{name}.0"
        if how == "without a name":
            claim.write_text("")
        os.utime(claim, old)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(tmp_path, patience=30)) for _ in range(4)]
        for worker in workers:
            worker.refresh()
            assert worker.outcome(NAMES[1]) is None, "the dead may have left damaged files: their cases are looked at again"
        owners = [worker for worker in workers if worker.claim(NAMES[0])]
        assert len(owners) == 1 and owners[0].owns(NAMES[0])
        assert (tmp_path / ".workers" / "claims" / f"{NAMES[0]}.1").read_text() == owners[0].name


@pytest.mark.parametrize("how", ["alive elsewhere", "new journal not seen yet", "name not written yet"])
def test_cases_of_the_living_are_left_alone(tmp_path: Path, how: str) -> None:
    leave_behind(tmp_path, "there", NAMES[:5], identity=Identity("another machine", 1, "1"), age=5.0)
    if how == "new journal not seen yet":
        (tmp_path / ".workers" / "there.jsonl").unlink()
    if how == "name not written yet":
        (tmp_path / ".workers" / "claims" / f"{NAMES[0]}.0").write_text("")
    with Worker(tmp_path, patience=30) as worker:
        worker.refresh()
        assert not worker.claim(NAMES[0]) and not worker.is_free(NAMES[0]) and not worker.owns(NAMES[0])
        assert worker.claim(NAMES[7])


def test_who_stood_still_for_too_long_owns_nothing_any_more(tmp_path: Path) -> None:
    with Worker(tmp_path, patience=30) as slow, Worker(tmp_path, patience=30) as other:
        assert slow.claim("a") and slow.owns("a")
        (tmp_path / ".workers" / "claims" / "a.1").write_text(other.name)
        assert not slow.owns("a")


def test_the_end_is_seen_by_all(tmp_path: Path) -> None:
    with Worker(tmp_path, patience=30) as first, Worker(tmp_path, patience=30) as second:
        assert first.claim(FINAL) and not second.claim(FINAL)
        first.close_session()
        assert not list(tmp_path.glob(".workers*"))
        for step in (lambda: second.claim("a"), second.refresh, lambda: second.write("done", case="a")):
            with pytest.raises(SessionOver):
                step()
        assert not second.owns("a")
    assert not list(tmp_path.iterdir())


def test_others_at_work_are_seen_from_outside(tmp_path: Path) -> None:
    assert not others_at_work(tmp_path, patience=30)
    leave_behind(tmp_path, "gone", NAMES[:1], identity=dead_identity())
    assert not others_at_work(tmp_path, patience=30)
    with Worker(tmp_path, patience=30):
        assert others_at_work(tmp_path, patience=30)
    assert not others_at_work(tmp_path, patience=30)


def test_a_worker_gives_signs_of_life(tmp_path: Path) -> None:
    with Worker(tmp_path, patience=1.0) as worker:
        os.utime(worker.journal, (0, 0))
        for _ in range(100):
            if worker.journal.stat().st_mtime > 0:
                break
            time.sleep(0.1)
        assert time.time() - worker.journal.stat().st_mtime < 60
