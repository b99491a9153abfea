"""Studies on many machines: workers fill the folder with scores of settings and with cells, and the study then finds them there.

So the tables are those of one process, whoever computed what, and a task that fails is told by the study itself.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cluster.crew import Wanted
from ..cluster.places import go_to
from ..cluster.tasks import Order, TaskJob, share
from ..data.records import digest
from ..process import start_jax
from .benchmark import BenchmarkResult, benchmark_methods, plan_benchmark
from .preparation import StudyParts
from .request import BenchmarkRequest, TuneRequest
from .tuning import TuneResult, plan_tuning, score_setting, tune_study

HERE = "quam_jax.studies.on_ray"


def tune_on_ray(request: TuneRequest, wanted: Wanted, *, progress: Callable[[str, int, int], None]) -> TuneResult:
    """What `tune_study` does, with the settings of a grid as tasks."""
    share(wanted, f"{HERE}:make_settings", Order(request, Path.cwd()), out=request.out, progress=progress)
    return tune_study(request)


def benchmark_on_ray(
    request: BenchmarkRequest, wanted: Wanted, *, progress: Callable[[str, str, int, int], None]
) -> BenchmarkResult:
    """What `benchmark_methods` does: first the settings to choose from as tasks, then every method on every case."""
    order = Order(request, Path.cwd())
    for stage, make in (("tuning", "make_settings"), ("cases", "make_cells")):
        share(wanted, f"{HERE}:{make}", order, out=request.out, progress=functools.partial(progress, stage))
    return benchmark_methods(request)


def make_settings(order: Order) -> TaskJob:
    """Every setting of every grid as a task, by network, method and place."""
    request = _begin(order)
    if isinstance(request, TuneRequest):
        parts, methods = plan_tuning(request)
    else:
        plan = plan_benchmark(request)
        parts, methods = plan.parts, {name: method for name, method in plan.parts.methods.items() if len(method.grid) > 1}
    tasks = {
        f"{network.name} {name} {place}": functools.partial(
            _tried,
            functools.partial(
                score_setting, network, method, place, parts.validation, score=request.study.score, out=request.out
            ),
        )
        for network in parts.networks
        for name, method in methods.items()
        for place in range(len(method.grid))
    }
    return TaskJob(tasks, _about(parts), out=request.out)


def make_cells(order: Order) -> TaskJob:
    """Every method on every case and condition as a task; the settings have been scored."""
    plan = plan_benchmark(_begin(order))
    tasks = {
        "/".join(planned.where[:4]): functools.partial(_tried, planned.call)
        for planned in plan.cells(plan.choose())
        if planned.call is not None
    }
    return TaskJob(tasks, _about(plan.parts), out=plan.request.out)


def _begin(order: Order) -> Any:
    go_to(order.where, [Path(model) for model in order.request.study.models])
    start_jax()
    return order.request


def _about(parts: StudyParts) -> dict[str, str]:
    return {
        "networks": digest([network.digest for network in parts.networks]),
        "cases": digest([case.digest for case in (*parts.validation, *parts.test)]),
        "fit cases": digest([case.digest for case in parts.networks[0].subject.fit_cases]),
    }


def _tried(call: Callable[[], Any]) -> bool:
    """Whether a task left its result; why not, the study says when it comes to it."""
    try:
        call()
    except (ValueError, RuntimeError):
        return False
    return True
