"""What a large run will take, from a short measured probe: seconds, memory and price.

The probe is the run itself on a few of the cases and, where a search has many steps, with few of them. Passes over the same
cases tell the parts apart: the first compiles, the second does not; two more take more steps, and the second of those is
measured, since the number of steps is a shape of its own to the compiler. So a run of N cases on D devices in P processes takes

    start + compile x sizes + ceil(N / D) x (case + step x steps) + merge_once + N x merge

with every term measured but N, D, P and the price. What an earlier run left in the compilation cache is not compiled by the
probe, nor what the probe leaves there by the run. Reading and writing overlap with the search as they do in a run; a process
whose reading or writing is slower than its share of the devices is bound by that instead.
"""

import csv
import dataclasses
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ..config import Config
from ..config.build import build_layout
from ..core.layout.choose import Layout, backend_name, choose_layout
from ..core.progress import EXPECTED, counted, tell
from ..data.figures import Figures
from ..data.records import read_json, write_json
from ..data.spread import evenly_spread
from ..data.volumes import read_channels
from ..report.html import write_report
from .expectation import Forecast
from .merge import REPORTED
from .quantifier import find_quantifier
from .request import RunRequest
from .run import run
from .work import TURNS

FEW_STEPS = (2, 4)  # of the short passes, where a search has more than the second of them


class Clock(NamedTuple):
    """Wall seconds and processor seconds of this process."""

    wall: float
    processor: float

    @staticmethod
    def now() -> "Clock":
        """Both clocks."""
        return Clock(time.monotonic(), time.process_time())

    def __sub__(self, other: Any) -> "Clock":
        return Clock(self.wall - other.wall, self.processor - other.processor)

    def scaled(self, factor: float) -> "Clock":
        """Both times a factor."""
        return Clock(self.wall * factor, self.processor * factor)

    def positive(self) -> "Clock":
        """No less than 0: what the noise of a short measurement takes below."""
        return Clock(max(0.0, self.wall), max(0.0, self.processor))

    def plus(self, *others: "Clock") -> "Clock":
        """Sums."""
        return Clock(self.wall + sum(o.wall for o in others), self.processor + sum(o.processor for o in others))


class Probe(NamedTuple):
    """What was measured: seconds once a process (`start`), once an image size (`compile`), a case, a step of a case, and of
    merging a case; the slowest of reading and writing a case on one thread; bytes of memory; adversarial models a case."""

    start: Clock
    compile: Clock
    case: Clock
    step: Clock
    merge_once: Clock
    merge: Clock
    thread: float
    memory: int
    models: float
    cases: int
    sizes: int
    lanes: int
    plan: Layout


class Estimate(NamedTuple):
    """A prediction: wall seconds from start to report, processor seconds of all processes, bytes of the device or process,
    bytes on disk, device hours, and their price (None without one)."""

    seconds: float
    processor_seconds: float
    memory: int
    disk: int
    device_hours: float
    price: float | None


class Planned(NamedTuple):
    """A large run foreseen: what was measured, the prediction, and the layout in words."""

    measured: Probe
    estimate: Estimate
    layout: str

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        probe = {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in self.measured._asdict().items()}
        return {"probe": probe, "estimate": self.estimate._asdict(), "layout": self.layout}


class Sizes(NamedTuple):
    """Bytes on disk: of the files of a case with its rows in the tables, of the report without cases, and of a case in it."""

    case: int
    page: int = 0
    page_case: int = 0


class _Pass(NamedTuple):
    first: Clock  # when the first case began
    last: Clock  # when the last result was written
    end: Clock
    bytes: Sizes
    models: int
    sizes: int
    thread: float

    @property
    def searching(self) -> Clock:
        """From the first case to the last result."""
        return self.last - self.first


def plan_run(
    request: RunRequest,
    *,
    cases: int,
    devices: int = 1,
    workers: int = 1,
    price: float | None = None,
    probe_cases: int = 4,
    imports: float = 0.0,
    figures: Figures | None = None,
) -> Planned:
    """Measure a request on `probe_cases` of its images and predict it for `cases` (see `probe` and `predict_run`).

    What a case took is kept in `figures`, for the run to come.
    """
    measured, sizes = probe(request, cases=probe_cases, imports=imports, figures=figures)
    estimate = predict_run(measured, sizes, request.config, cases=cases, devices=devices, workers=workers, price=price)
    return Planned(measured, estimate, describe_plan(measured))


def time_a_case(measured: Probe, config: Config) -> Clock:
    """What one case takes with all steps of its search."""
    return measured.case.plus(measured.step.scaled(config.search.steps if not config.search.epochs else 0))


def probe(request: RunRequest, *, cases: int = 4, imports: float = 0.0, figures: Figures | None = None) -> tuple[Probe, Sizes]:
    """Measure a run on `cases` of its images, spread evenly; also the bytes that it leaves on disk.

    `imports` are the processor seconds that a process takes before it can begin. `request.out` is not touched. ValueError as
    for a run.
    """
    begin = Clock.now()
    tell("loading the model")
    quantifier = find_quantifier(request.load(), request)
    found = quantifier.cases
    start = (Clock.now() - begin).plus(Clock(imports, imports))
    lanes = min(jax.local_device_count(), len(found)) if request.config.targets.target == "mask" else 1
    first = quantifier.prepare(read_channels(found[0].files))
    together = max(1, round(1 / quantifier.share(first)))
    count = min(len(found), max(cases, lanes * max(3, TURNS * together)))  # so many that whole batches are searched
    names = tuple(found[i].name for i in evenly_spread(len(found), count))
    search = request.config.search
    short = FEW_STEPS if not search.epochs and search.steps > FEW_STEPS[1] else (search.steps, search.steps)
    length, steps = len(names), [short[0]] * 2 + ([short[1]] * 2 if short[1] > short[0] else [])
    note = f"{length} of {len(found)} cases, measured in {len(steps)} passes of few steps"
    tell(EXPECTED, total=len(steps) * length, note=note)
    measured = []
    for done, some in enumerate(steps):
        with counted(done=done * length, total=len(steps) * length):
            measured.append(_measure(request, names, steps=some))
    cold, warm, longer = measured[0], measured[1], measured[-1]
    step = (longer.searching - warm.searching).positive().scaled(1 / (length * max(1, short[1] - short[0])))
    case = (longer.searching.scaled(1 / length) - step.scaled(short[1])).positive()
    compilation = (cold.searching - warm.searching).positive().scaled(1 / cold.sizes)
    merging = longer.end - longer.last
    once = ((cold.end - cold.last) - (warm.end - warm.last)).positive()
    models = longer.models / length
    found_out = Probe(
        start,
        compilation,
        case,
        step,
        once,
        merging.scaled(1 / length),
        longer.thread,
        _memory(),
        models,
        length,
        cold.sizes,
        lanes,
        choose_layout(build_layout(request.config.execution), members=max(1, round(models))),
    )
    if found_out.sizes == 1:
        Forecast(quantifier, request, figures).measured(
            first.shape[:-1], time_a_case(found_out, request.config).wall * lanes, cases=length
        )
    return found_out, longer.bytes


def predict_run(
    measured: Probe, sizes: Sizes, config: Config, *, cases: int, devices: int = 1, workers: int = 1, price: float | None = None
) -> Estimate:
    """What `cases` cases take on `devices` devices like the probe's, with `workers` workers; `price` is that of a device hour.

    `devices` counts those of all processes together. Images come in `measured.sizes` sizes.
    """
    if not 1 <= workers <= devices or cases < 1:
        raise ValueError(
            f"expected cases >= 1 and devices >= workers >= 1, got {cases} cases, {devices} devices, {workers} workers"
        )
    each = time_a_case(measured, config)
    lane = each.wall * measured.lanes  # seconds that one device spends on a case
    rate = max(lane / devices, measured.thread / workers)
    compiling = measured.compile.scaled(measured.sizes)
    # whoever is last merges, and waits for the slowest
    rounds = -(-cases // devices) * devices
    searching = rate * (rounds if lane / devices >= measured.thread / workers else cases)
    once = measured.start.plus(compiling)
    merging = measured.merge_once.plus(measured.merge.scaled(cases))
    seconds = once.wall + searching + merging.wall
    processor = workers * once.processor + each.processor * cases + merging.processor
    hours = seconds * devices / 3600
    disk = sizes.case * cases + (sizes.page + sizes.page_case * cases if cases <= REPORTED else 0)
    return Estimate(seconds, processor, measured.memory, disk, hours, None if price is None else hours * price)


def describe_plan(measured: Probe) -> str:
    """The layout that would be taken, in words."""
    plan = measured.plan
    chunk = f"{plan.chunk} at a time" if plan.chunk else "as many at a time as the memory takes"
    how = {"vmap": "mapped side by side", "unroll": "unrolled", "loop": "one by one"}[plan.members]
    return (
        f"{measured.models:.4g} adversarial models a case, {how}, {chunk}; steps by {plan.steps}; "
        f"{measured.lanes} {'case' if measured.lanes == 1 else 'cases'} at a time on {backend_name()}"
    )


def _measure(request: RunRequest, names: tuple[str, ...], *, steps: int) -> _Pass:
    search = request.config.search
    config = dataclasses.replace(request.config, search=search if search.epochs else dataclasses.replace(search, steps=steps))
    moments: list[Clock] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "probe"
        run(
            dataclasses.replace(request, out=out, config=config, only=names, overwrite=False),
            progress=lambda *_: moments.append(Clock.now()),
        )
        end = Clock.now()
        records = [read_json(out / f"{name}.json") for name in names]
        records = [record for record in records if record]
        sizes = _sizes(out, len(names))
        with (out / "timing.csv").open(newline="", encoding="utf-8") as file:
            timing = list(csv.DictReader(file))
    thread = max(sum(float(line[part]) for line in timing) / len(timing) for part in ("read", "write"))
    return _Pass(
        moments[0],
        moments[-1],
        end,
        sizes,
        sum(int(r["row"]["members"]) for r in records),
        len({tuple(r["image"]["shape"]) for r in records}),
        thread,
    )


def _sizes(out: Path, cases: int) -> Sizes:
    page = (out / "report.html").stat().st_size
    whole = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:  # the same page without cases
        write_json(Path(folder) / "run.json", read_json(out / "run.json") | {"cases": []})
        empty = min(page, write_report(Path(folder)).stat().st_size)
    return Sizes((whole - page) // cases, empty, (page - empty) // cases)


def _memory() -> int:
    """Most bytes that the device held, or this process where the device is the processor."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if jax.default_backend() != "cpu" and "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
