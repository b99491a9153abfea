"""A run by workers on many machines: this process deals names, keeps the ledger, and puts the results together.

It loads no model and starts no accelerator. The first worker that has loaded says which cases there are; all are compared with it
before their first case. Workers write the results themselves, as the embedded process does, so that the files are the same, and a
case whose worker died on the way is simply done again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..cluster.crew import Wanted, open_crew
from ..cluster.dealing import Dealer, Refused
from ..cluster.station import Told
from ..cluster.versions import require_same
from ..core.progress import ENDED, IDLE, SAID, about_case, tell
from . import folder as run_folder
from .announcement import announce
from .case_worker import Greeting, Order
from .ending import finish
from .ledger import ENDED as ENDINGS
from .ledger import Ledger
from .request import RunRequest, RunResult

WORKER = "quam_jax.runs.case_worker:CaseWorker"


def run_on_ray(request: RunRequest, wanted: Wanted, *, progress: Callable[[str, int, int], None] = lambda *_: None) -> RunResult:
    """What `run.run` does, by the workers of a Ray cluster.

    Raises as it does; ValueError also without Ray, without a cluster at the address, where the versions, the model or the data
    differ between workers, and where a worker does not see the folder of the run.
    """
    tell("starting workers")
    order = Order(request, Path.cwd(), wanted.workers or 1)
    with open_crew(wanted, WORKER, order) as crew, ExitStack() as stack:
        if crew.dashboard:
            tell(SAID, note=f"dashboard: http://{crew.dashboard}")
        driver = _Driver(request, stack, progress)
        dealer = Dealer(
            crew,
            welcome=driver.welcome,
            tasks=lambda: driver.names,
            heard=driver.heard,
            given_up=driver.given_up,
            refused=lambda worker, why: tell(SAID, note=f"note: one worker less: {why}"),
            waits=driver.waits,
        )
        dealer.deal()
        with driver.writing():
            return driver.finish()


class _Driver:
    """What the driver knows: the first greeting, its hold on the folder, and the ledger."""

    def __init__(self, request: RunRequest, stack: ExitStack, progress: Callable[[str, int, int], None]) -> None:
        self.request, self.stack, self.progress = request, stack, progress
        self.first: Greeting | None = None
        self.claim = run_folder.Claim(False, "")
        self.names: list[str] = []
        self.info: dict[str, Any] = {}
        self.ledger = Ledger()
        self.workers: dict[str, str] = {}  # as they are called in the ledger
        self.began = time.monotonic()
        self.told = ""

    def welcome(self, worker: str, greeting: Greeting) -> str:
        """Compare a worker with this process and with the first one; the token of the folder, by which it is to be found."""
        require_same(greeting.versions, greeting.host)
        if self.first is None:
            self._begin(greeting)
        elif greeting.digest != self.first.digest or greeting.parts != self.first.parts:
            parts = [name for name, value in self.first.parts.items() if greeting.parts.get(name) != value]
            raise Refused(
                f"{greeting.host}: expected the same {', '.join(parts)} as on {self.first.host}, got others; "
                "every machine has to see the same files"
            )
        self.workers[worker] = greeting.name
        return self.claim.token

    def _begin(self, greeting: Greeting) -> None:
        out, self.first = self.request.out, greeting
        claimed = run_folder.claimed(out, greeting.digest, overwrite=self.request.overwrite)
        self.claim = self.stack.enter_context(claimed)
        with self.writing():
            self.info = announce(out, greeting.info, alone=True)
        self.names = [str(name) for name in greeting.info["cases"]]
        self.ledger, self.began = Ledger(), time.monotonic()
        tell(SAID, note=greeting.said)
        tell(IDLE)

    def heard(self, worker: str, told: Told) -> None:
        """An event of a worker."""
        event, note = told.value
        self.ledger.hear(self.workers[worker], event)
        if event["event"] in ENDINGS:
            with about_case(event["case"]):
                tell(ENDED, number=len(self.ledger.known), total=len(self.names), note=note)

    def given_up(self, name: str, why: str) -> None:
        """A case that kills its workers."""
        run_folder.remove_case(self.request.out, name)
        self.ledger.hear("driver", {"event": "failed", "case": name, "reason": why})
        with about_case(name):
            tell(ENDED, number=len(self.ledger.known), total=len(self.names), note=f"failed: {why}")

    def waits(self, workers: int) -> None:
        """Tell how many are at work, and how fast they are."""
        if not workers:
            tell("waiting for workers")
            return
        done, seconds = len(self.ledger.known), time.monotonic() - self.began
        text = f"{workers} worker{'s' if workers > 1 else ''}" + (f", {done / seconds:.3g} cases/s" if done else "")
        if text != self.told:
            self.told = text
            self.progress(text, done, len(self.names))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Errors of the run folder say what to do about them."""
        try:
            yield
        except OSError as error:
            raise run_folder.output_error(self.request.out, error) from error

    def finish(self) -> RunResult:
        """Put the results together."""
        self.progress("", len(self.names), len(self.names))
        return finish(self.request.out, self.names, self.ledger, self.info, fresh=self.claim.fresh)
