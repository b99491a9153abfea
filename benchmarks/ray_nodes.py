"""A Ray cluster of several nodes on this machine, each of which can be killed as a whole; and the workers of a run on it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 90.0  # seconds in which a node has to be there
# of every process of such a cluster: Ray makes a token of its own for this user, which only this mode reads
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
COMMAND = "from ray.scripts.scripts import main; main()"


class Nodes:
    """Nodes by name, the first of them the head."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        """Where the head listens."""
        return f"{own_address()}:{self.port}"

    def start(self, name: str, *, cpus: int = 1) -> None:
        """Start a node, the head where there is none, and wait until it is part of the cluster."""
        how = [f"--address={self.address}"] if self.started else ["--head", f"--port={self.port}", "--include-dashboard=false"]
        size = [f"--num-cpus={cpus}", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats", "--block"]
        self.started[name] = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "start", *how, *size],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT},
        )
        began = time.monotonic()
        while not self._is_there():
            if time.monotonic() - began > PATIENCE or self.started[name].poll() is not None:
                raise RuntimeError(f"node {name}: expected Ray to start, got {self.started[name].poll()}")
            time.sleep(0.2)

    def kill(self, name: str) -> None:
        """End a node with everything that runs on it, at once."""
        process = self.started.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pid in offspring(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def _is_there(self) -> bool:
        try:
            socket.create_connection((own_address(), self.port), 1.0).close()
        except OSError:
            return False
        return all(any("raylet" in name for name in _names(process.pid)) for process in self.started.values())


@contextlib.contextmanager
def cluster(*names: str) -> Iterator[Nodes]:
    """A cluster of nodes with one CPU each, which ends with the block."""
    nodes = Nodes()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nodes have sessions of their own, and would stay
    try:
        for name in names:
            nodes.start(name)
        yield nodes
    finally:
        for name in reversed(list(nodes.started)):
            nodes.kill(name)
        signal.signal(signal.SIGTERM, before)


def own_address() -> str:
    """The address of this machine as Ray finds it."""
    from ray.util import get_node_ip_address

    return get_node_ip_address()


def workers_at(out: Path) -> list[int]:
    """The process numbers of the workers that have begun to write into a run folder, and are alive."""
    found = [int(folder.name.rsplit("-", 2)[1]) for folder in (out / ".staging").glob("*-*-*")]
    return [pid for pid in found if Path(f"/proc/{pid}").exists()]


def offspring(pid: int) -> list[int]:
    """The processes that came of one, and of its session, by what the system tells."""
    parents: dict[int, int] = {}
    sessions: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)], sessions[int(stat.parent.name)] = int(fields[1]), int(fields[3])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted((found | {child for child, session in sessions.items() if session == pid}) - {pid})


def _names(pid: int) -> list[str]:
    names = []
    for child in offspring(pid):
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{child}/comm").read_text().strip())
    return names
