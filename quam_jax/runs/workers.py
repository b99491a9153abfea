"""Several processes in one run folder: who works on which case, who is alive, and what everybody did.

A worker is a process. It owns a journal, `.workers/NAME.jsonl`, to which it alone appends a line for everything it did; the
journal's time of change is its sign of life. It owns a case when it created the case's claim, an empty-handed race that the
file system decides (O_EXCL). Claims are numbered: where the owner of the last one is dead, whoever creates the next number
takes the case over, so that no claim is ever removed or replaced while the run is on. The last worker to see all cases done
merges the results and removes `.workers` as a whole.

Nothing but the shared folder is needed: no ports, no clocks that agree (ages are differences of times that the folder's own
file system gave), no part numbers.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from .folder import STAGING, WORKERS

BEAT = 2.0  # seconds between two signs of life
SELDOM = 20  # looking at all claims takes at most this part of the time
FINAL = ".final"  # the claim on merging; no case has such a name


class SessionOver(Exception):
    """The folder of the workers is gone: somebody has merged the results."""


class Identity(NamedTuple):
    """Which process a worker is; processes of one machine and PID namespace can be asked for directly."""

    machine: str
    pid: int
    born: str

    @staticmethod
    def own() -> "Identity":
        """That of this process."""
        return Identity(_machine(), os.getpid(), _born(os.getpid()))

    def is_gone(self) -> bool:
        """Whether the process is known to have ended: it ran here, and does not any more."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) != self.born


class Worker:
    """This process as one of those that share a run folder; a context that ends with the process's part in it."""

    def __init__(self, out: Path, *, patience: float) -> None:
        self.out, self.patience = out, patience
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60].lstrip(".-") or "host"
        self.name = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        self.folder = out / WORKERS
        self.claims = self.folder / "claims"
        self.journal = self.folder / f"{self.name}.jsonl"
        self._generation: dict[str, int] = {}
        self._owner: dict[tuple[str, int], str] = {}
        self._journals: dict[str, _Journal] = {}
        self._mine: set[str] = set()
        self._alive: dict[str, bool] = {}
        self._looked = self._cost = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> "Worker":
        self.claims.mkdir(parents=True, exist_ok=True)
        self.write("start", time=time.time(), **Identity.own()._asdict())
        for folder in self._staged():
            if not self.is_alive(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
        self._pulse = threading.Thread(target=self._beat, daemon=True, name="sign of life")
        self._pulse.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        with contextlib.suppress(OSError, SessionOver):
            self.write("left", why="" if error is None else type(error).__name__)
        shutil.rmtree(self.out / STAGING / self.name, ignore_errors=True)

    def write(self, event: str, **values: Any) -> None:
        """Append a line to the journal; SessionOver where the folder of the workers is gone."""
        line = (json.dumps({"event": event, **values}) + "\n").encode()
        try:
            with self._lock:
                file = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                try:
                    os.write(file, line)
                finally:
                    os.close(file)
        except FileNotFoundError:
            raise SessionOver from None

    def claim(self, case: str) -> bool:
        """Whether this worker owns the case from now on: it was free, or its owner is dead. SessionOver if all is over."""
        number = self._generation.get(case, -1)
        if number >= 0 and self._is_taken(case, number):
            return False
        path = self.claims / f"{case}.{number + 1}"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            self._generation[case] = number + 1
            if time.monotonic() - self._looked > SELDOM * self._cost:
                self.refresh()
            return False
        except FileNotFoundError:
            raise SessionOver from None
        try:
            os.write(file, self.name.encode())
        finally:
            os.close(file)
        self._generation[case] = number + 1
        self._owner[case, number + 1] = self.name
        self._mine.add(case)
        return True

    def owns(self, case: str) -> bool:
        """Whether nobody has taken the case over, for instance because this process stood still for too long."""
        return case in self._mine and self.claims.is_dir() and not (self.claims / f"{case}.{self._generation[case] + 1}").exists()

    def refresh(self) -> None:
        """Look at the claims and journals of the others anew. SessionOver if all is over."""
        began = time.monotonic()
        self._alive.clear()
        try:
            with os.scandir(self.claims) as entries:
                for entry in entries:
                    case, _, number = entry.name.rpartition(".")
                    if case and number.isdecimal():
                        self._generation[case] = max(self._generation.get(case, -1), int(number))
            for path in self.folder.glob("*.jsonl"):
                self._journals.setdefault(path.stem, _Journal(path)).read()
        except FileNotFoundError:
            raise SessionOver from None
        self._looked = time.monotonic()
        self._cost = self._looked - began

    def owner(self, case: str) -> str:
        """The worker that created the last claim of a case, "" while that worker is only just writing its name."""
        number = self._generation[case]
        known = self._owner.get((case, number), "")
        if not known:
            try:
                known = (self.claims / f"{case}.{number}").read_text()
            except OSError:
                known = ""
            if known:
                self._owner[case, number] = known
            elif _age(self.claims / f"{case}.{number}", self.journal) > self.patience:
                return "nobody"  # it died between creating the claim and writing its name
        return known

    def is_alive(self, name: str) -> bool:
        """Whether a worker, when last looked at, had given a sign of life within the patience and was not known to be gone."""
        if name in (self.name, ""):
            return True
        if name not in self._alive:
            path = self.folder / f"{name}.jsonl"
            journal = self._journals.setdefault(name, _Journal(path))
            journal.read()
            gone = journal.left or (journal.identity is not None and journal.identity.is_gone())
            self._alive[name] = not gone and _age(path, self.journal) <= self.patience
        return self._alive[name]

    def outcome(self, case: str) -> dict[str, Any] | None:
        """The journal line that ended a case under its present owner, None while it is open or its owner died with it."""
        if self._generation.get(case, -1) < 0:
            return None
        name = self.owner(case)
        journal = self._journals.get(name)
        found = journal.ended.get(case) if journal is not None else None
        return found if found is not None and self.is_alive(name) else None

    def is_free(self, case: str) -> bool:
        """Whether nobody who is alive owns the case, as far as this worker knows."""
        number = self._generation.get(case, -1)
        return number < 0 or not self._is_taken(case, number)

    def deal(self, names: Sequence[str], *, first: int = 0) -> Iterator[str]:
        """The cases that this worker gets, one at a time, in order from `first`; ends when none is left to claim.

        Others are noticed on the way: who meets a case that is taken looks at all claims again.
        """
        for position in range(len(names)):
            name = names[(first + position) % len(names)]
            if name not in self._mine and self.claim(name):
                yield name

    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """The lines of every journal in the folder, by worker."""
        self.refresh()
        return {name: journal.lines for name, journal in sorted(self._journals.items())}

    def ended_elsewhere(self) -> int:
        """How many cases other workers have ended, as last looked at."""
        return sum(len(journal.ended) for name, journal in list(self._journals.items()) if name != self.name)

    def others(self) -> list[str]:
        """The other workers that are alive."""
        self.refresh()
        return [name for name in self._journals if name != self.name and self.is_alive(name)]

    def close_session(self) -> None:
        """Remove claims and journals of everybody, at once for all who look."""
        self._stop.set()
        gone = self.out / f"{WORKERS}-{self.name}"
        os.rename(self.folder, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _is_taken(self, case: str, number: int) -> bool:
        owner = self.owner(case)
        if self.is_alive(owner):
            return True
        # over a network the claim of a new worker may be seen before its journal
        unseen = not (self.folder / f"{owner}.jsonl").exists()
        return unseen and _age(self.claims / f"{case}.{number}", self.journal) <= self.patience

    def _staged(self) -> list[Path]:
        folder = self.out / STAGING
        return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []

    def _beat(self) -> None:
        while not self._stop.wait(min(BEAT, self.patience / 5)):
            with contextlib.suppress(OSError):
                os.utime(self.journal)


class _Journal:
    """What a worker wrote so far; read on from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self.ended: dict[str, dict[str, Any]] = {}
        self.identity: Identity | None = None
        self.left = False
        self._offset = 0

    def read(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for text in whole.splitlines():
            try:
                line = json.loads(text)
                event = line["event"]
                if event in ("done", "kept", "failed"):
                    self.ended[line["case"]] = line
                elif event == "start":
                    self.identity = Identity(str(line.get("machine", "")), int(line.get("pid", 0)), str(line.get("born", "")))
                elif event == "left":
                    self.left = True
            except (ValueError, KeyError, TypeError):
                continue  # half a line of a process that was killed, glued to nothing
            self.lines.append(line)


def others_at_work(out: Path, *, patience: float) -> bool:
    """Whether any process is at work in a run folder now."""
    paths = list((out / WORKERS).glob("*.jsonl"))
    for path in paths:
        journal = _Journal(path)
        journal.read()
        gone = journal.left or (journal.identity is not None and journal.identity.is_gone())
        if not gone and time.time() - path.stat().st_mtime <= patience:
            return True
    return False


def _age(path: Path, clock: Path) -> float:
    """Seconds by which `path` was changed before `clock`; endless where it does not exist, 0 where nobody can tell."""
    try:
        changed = path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    except OSError:
        return 0.0
    try:
        return clock.stat().st_mtime - changed
    except OSError:
        return 0.0


def _machine() -> str:
    """This boot of this machine and its PID namespace; "" where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When a process of this machine began, in ticks since boot; "" where there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
