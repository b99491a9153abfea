"""What one process does in a run: cases from a stream go through reading, search and writing, and it tells what came of each."""

import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence

import jax

from ..core.progress import about_case, phases, tell
from ..data.datasets import Case
from .announcement import describe_memory
from .cases import Loaded, Searched, read_case, search_cases
from .expectation import Forecast
from .ledger import FIGURES, Event
from .quantifier import Quantifier
from .request import RunRequest
from .settling import Settled, Settling, name_of
from .stages import Failed, Passed, Times, run_stages

TURNS = 4  # batches of cases that a lane gets at least: so that reading and writing overlap, and all lanes get their part


class NoRoom(OSError):
    """A disk of this machine is full, where another worker may do what this one could not."""


class Work:
    """The part of one process in a run: what it needs, its name, and how its devices fared so far.

    `still` says whether the folder is still this run's; without it nothing is published. Among `others` a case fails for what is
    wrong with the case alone.
    """

    def __init__(
        self,
        lanes: Sequence[Quantifier],
        request: RunRequest,
        run_digest: str,
        *,
        still: Callable[[], bool] = lambda: True,
        others: bool = False,
    ) -> None:
        self.lanes, self.request, self.others = lanes, request, others
        self.cases: dict[str, Case] = {case.name: case for case in lanes[0].cases}
        self.times = Times()
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60].lstrip(".-") or "host"
        self.name = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        self.settling = Settling(lanes[0], request, run_digest, self.name, still)
        self.digest = run_digest

    def do(
        self,
        names: Iterator[str],
        *,
        expected: int,
        heard: Callable[[Event], None],
        noted: Callable[[str, str], None] = lambda *_: None,
        begins: Callable[[str], None] = lambda *_: None,
        forecast: Forecast | None = None,
    ) -> None:
        """Do every case of a stream, of which `expected` or more are to come; each event goes to `heard`.

        `begins(name)` is called in front of a search; `noted(name, note)`, with what came of a case in words, in front of the
        event that ends it, in a thread of its own. Raises NoRoom.
        """
        quantifier = self.lanes[0]
        forecast = forecast or Forecast(quantifier, self.request, None)

        def read(case: Case) -> Loaded | Passed:
            with about_case(case.name), phases():
                tell("reading")
                loaded = read_case(case, quantifier, self.request, self.digest)
            return Passed(loaded) if loaded.done is not None else loaded

        def lane(of: Quantifier) -> Callable[[list[Loaded]], list[Searched]]:
            def search(loaded: list[Loaded]) -> list[Searched]:
                first = loaded[0].case.name if len(loaded) == 1 else f"{loaded[0].case.name} and {len(loaded) - 1} more"
                begins(first)
                with about_case(first), phases():
                    found = search_cases(loaded, of)
                for one in found:
                    forecast.took(one.loaded.prepared.shape[:-1], one.seconds)
                return found

            return search

        def size(loaded: Loaded) -> float:
            return max(quantifier.share(loaded.prepared), TURNS * len(self.lanes) / max(1, expected))

        def write(found: Searched | Passed | Failed) -> None:
            if self.others and isinstance(found, Failed) and found.full:
                raise NoRoom(found.reason)
            with about_case(name_of(found)), phases():
                settled: Settled = self.settling.settle(found)
                noted(name_of(found), settled.note)
                for event in settled.events:
                    heard(event)

        dealt = (self.cases[name] for name in names)
        searches = [lane(of) for of in self.lanes]
        try:
            run_stages(
                dealt,
                read=read,
                lanes=searches,
                write=write,
                size=size,
                stall=self.request.stall,
                alone=bool(self.request.config.execution.memory),  # a budget is for search and writing together
                times=self.times,
            )
        finally:
            forecast.keep()
        figures = {name: getattr(self.times, name) for name in (*FIGURES, "first", "wall")}
        heard({"event": "figures", "lanes": len(self.lanes), **figures, "memory": describe_memory(self.request.config)})


def find_lanes(quantifier: Quantifier, request: RunRequest) -> list[Quantifier]:
    """One quantifier a device where cases are dealt out to devices, else the one there is, whose members share the devices.

    The members of a mask target are few, so that several devices take a case each; pixels and regions fill all devices with one.
    """
    devices = jax.local_devices()[: request.config.execution.devices or None]
    count = min(len(devices), len(quantifier.cases))
    if count < 2 or request.config.targets.target != "mask":
        return [quantifier]
    return [quantifier.on_device(device) for device in devices[:count]]
