"""Workers by Ray: one actor an accelerator, or a given number of CPUs, on every machine of a cluster.

Ray core and not Ray Data: a worker here has a stream of its own that it reads ahead of, batches and writes behind, and writes its
results itself, so that nothing but names and a few numbers passes between machines; a data set of blocks would add an object
store, and a scheduler of its own, around results that are files.

A cluster of this process's own lives on this machine, listens on the loopback interface alone, and ends with it. Ray trusts
everybody who reaches its ports and has its token.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .dealing import Lost
from .station import Station

EXTRA = "quam_jax[ray]"
LOOK = 5.0  # seconds between two looks at the nodes
REACH = 5.0  # seconds in which an address has to answer
STORE = 80 * 2**20  # bytes of Ray's object store on this machine, about the least that it takes
CARRIED = ("JAX_", "XLA_", "OMP_", "TF_", "NVIDIA_", "PYTHON")  # environment variables that workers get


class Wanted(NamedTuple):
    """Which cluster, and how many workers of how many CPUs; "" is a cluster of one's own, None as many as there is room for."""

    address: str = ""
    workers: int | None = None
    cpus: int | None = None
    dashboard: bool = False


@contextlib.contextmanager
def open_crew(wanted: Wanted, make: str, arguments: Any) -> Iterator["RayCrew"]:
    """Workers at `make(arguments)`; ValueError without Ray, or where no cluster is at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not wanted.address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on every system: no cluster, so that Ray keeps to the loopback
    try:
        import ray
    except ImportError:
        raise ValueError(f"--engine ray: expected the package ray, which is not installed; pip install '{EXTRA}'") from None
    dashboard = ""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
    try:
        if wanted.address:
            _require_answer(wanted.address)
            ray.init(wanted.address, **quiet)
        else:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            cpus = max(cores, (wanted.workers or 1) * (wanted.cpus or 1))
            own: dict[str, Any] = {"include_dashboard": wanted.dashboard, "object_store_memory": STORE, "num_cpus": cpus}
            context = ray.init("local", **own, **quiet)
            dashboard = str(context.dashboard_url or "")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())[:200]
        where = f"--address {wanted.address}: no Ray cluster could be joined there" if wanted.address else "Ray did not start"
        raise ValueError(f"{where} ({reason})") from error
    crew = RayCrew(ray, wanted, make, arguments)
    crew.dashboard = dashboard
    try:
        yield crew
    finally:
        crew.close()
        ray.shutdown()


def _require_answer(address: str) -> None:
    """ValueError where nothing listens at an address: Ray itself would wait for minutes."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or address.startswith("ray://"):
        raise ValueError("expected auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), REACH).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"{error}; start one with: ray start --head") from None


class Needs(NamedTuple):
    """The resources of one worker."""

    cpus: float
    gpus: float
    others: Mapping[str, float]

    def places(self, node: Mapping[str, float]) -> int:
        """How many workers a machine has room for."""
        each = {"CPU": self.cpus, "GPU": self.gpus, **self.others}
        return min(int(node.get(name, 0) / amount) for name, amount in each.items() if amount > 0)


def find_needs(nodes: list[Mapping[str, float]], wanted: Wanted) -> Needs:
    """An accelerator a worker where there are any (of TPUs all of a machine, which start only together), else CPUs."""
    tpus = [node["TPU"] for node in nodes if node.get("TPU", 0) >= 1]
    accelerated = [node for node in nodes if node.get("GPU", 0) >= 1 or node.get("TPU", 0) >= 1]
    if accelerated:
        cpus = float(wanted.cpus or min(1.0, min(node.get("CPU", 0.0) for node in accelerated)))
        return Needs(cpus, 0.0, {"TPU": min(tpus)}) if tpus else Needs(cpus, 1.0, {})
    cores = [node.get("CPU", 0.0) for node in nodes if node.get("CPU", 0) >= 1] or [1.0]
    if wanted.cpus is not None:
        return Needs(float(wanted.cpus), 0.0, {})
    each = int(min(cores))
    if wanted.workers is not None:
        while each > 1 and sum(int(n // each) for n in cores) < wanted.workers:
            each -= 1
    return Needs(float(each), 0.0, {})


class RayCrew:
    """The workers of one cluster, each an actor with a station; those that die are asked for anew."""

    def __init__(self, ray: Any, wanted: Wanted, make: str, arguments: Any) -> None:
        self.ray, self.wanted, self.make, self.arguments = ray, wanted, make, arguments
        self.actors: dict[str, Any] = {}
        self.refs: dict[str, Any] = {}
        self.count = self.dismissed = 0
        self.dashboard = ""  # where it is, if this process started one
        self.looked = float("-inf")
        self.nodes: list[Mapping[str, float]] = []
        self._look()
        self.needs = find_needs(self.nodes, wanted)
        self.looked = float("-inf")

    def room(self) -> int:
        """How many workers have a place now, of those that are wanted."""
        places = sum(self.needs.places(node) for node in self.nodes) - self.dismissed
        return max(1, places if self.wanted.workers is None else min(places, self.wanted.workers))

    def grow(self) -> list[str]:
        """Ask for as many workers as are wanted, or as there is room for."""
        if time.monotonic() - self.looked < LOOK:
            return []
        self._look()
        target = self.room() if self.wanted.workers is None else self.wanted.workers - self.dismissed
        names = []
        while len(self.actors) < target:
            self.count += 1
            name = f"worker {self.count}"
            environment = {k: v for k, v in os.environ.items() if k.startswith(CARRIED)}
            needs = self.needs
            options = self.ray.remote(Station).options(
                num_cpus=needs.cpus, num_gpus=needs.gpus, resources=dict(needs.others), runtime_env={"env_vars": environment}
            )
            self.actors[name] = options.remote(self.make, self.arguments)
            names.append(name)
        return names

    def ask(self, worker: str, what: str, *arguments: Any) -> None:
        """Call a method of a worker's station."""
        self.refs[worker] = getattr(self.actors[worker], what).remote(*arguments)

    def answers(self, seconds: float) -> list[tuple[str, Any]]:
        """What workers have answered, waiting for some answer at most so long."""
        asked = {ref: name for name, ref in self.refs.items()}
        if not asked:
            time.sleep(min(seconds, 0.1))
            return []
        self.ray.wait(list(asked), timeout=seconds)
        ready, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=0)
        return [(asked[ref], self._answer(asked[ref], ref)) for ref in ready]

    def _answer(self, name: str, ref: Any) -> Any:
        del self.refs[name]
        errors = self.ray.exceptions
        try:
            return self.ray.get(ref)
        except errors.RayTaskError as error:
            return error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error.cause))
        except errors.RuntimeEnvSetupError as error:
            return ValueError(f"{name}: Ray could not start a worker ({' '.join(str(error).split())[:200]})")
        except errors.RayError as error:
            why = " ".join(str(error).split())
            self._remove(name)
            self.looked = float("-inf")
            return Lost(why[:200])

    def dismiss(self, worker: str) -> None:
        """Do without a worker, and ask for none in its place."""
        self._remove(worker)
        self.dismissed += 1

    def close(self) -> None:
        """End all workers."""
        for name in list(self.actors):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self.refs.pop(name, None)
        actor = self.actors.pop(name, None)
        if actor is not None:
            with contextlib.suppress(Exception):  # it is dead, or the cluster is
                self.ray.kill(actor)

    def _look(self) -> None:
        self.nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.looked = time.monotonic()
