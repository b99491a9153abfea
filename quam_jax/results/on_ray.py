"""Evaluations on many machines, a case a task: rows of maps against raters, and a run scored where it is by other masks."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..cluster.crew import Wanted
from ..cluster.places import go_to
from ..cluster.tasks import Order, TaskJob, share
from ..data.mask_settings import MaskSettings
from ..data.records import digest
from .evaluate_files import EvaluateRequest, EvaluateResult, Evaluation, evaluate_files
from .run_cases import read_run_cases
from .score_run import score_case, score_run

HERE = "quam_jax.results.on_ray"
Progress = Callable[[str, int, int], None]


class Scores(NamedTuple):
    """A run to be scored by some masks."""

    run: Path
    masks: Path | None
    settings: MaskSettings


def evaluate_on_ray(request: EvaluateRequest, wanted: Wanted, *, progress: Progress) -> EvaluateResult:
    """What `evaluate_files` does; the rows come from the workers."""
    values = share(wanted, f"{HERE}:make_rows", Order(request, Path.cwd()), progress=progress)
    return evaluate_files(request, known=values)


def score_on_ray(run: Path, masks: Path | None, settings: MaskSettings, wanted: Wanted, *, progress: Progress) -> EvaluateResult:
    """What `score_run` does, which then finds every case scored."""
    if not run.is_dir():
        raise ValueError(f"{run}: expected the folder of a run, got nothing by that name")
    share(wanted, f"{HERE}:make_scores", Order(Scores(run, masks, settings), Path.cwd()), out=run, progress=progress)
    return score_run(run, masks, settings)


def make_rows(order: Order) -> TaskJob:
    """Every case of an evaluation as a task."""
    request: EvaluateRequest = order.request
    paths = (request.run, request.segmentation, request.masks, *(Path(text.partition("=")[2]) for text in request.maps))
    go_to(order.where, [path for path in paths if path is not None])
    evaluation = Evaluation(request)
    tasks = {item.name: functools.partial(evaluation.evaluate, item) for item in evaluation.items}
    return TaskJob(
        tasks, {"maps": digest([(item.name, sorted(map(str, item.raters.values()))) for item in evaluation.items])}, out=None
    )


def make_scores(order: Order) -> TaskJob:
    """Every case of a run as a task."""
    scores: Scores = order.request
    go_to(order.where, [path for path in (scores.run, scores.masks) if path is not None])
    found = read_run_cases(*scores)

    def try_to_score(name: str) -> bool:
        try:
            score_case(found, name, found.drawn(name))
        except (ValueError, OSError):
            return False  # the run itself says why, when it comes to it
        return True

    tasks = {name: functools.partial(try_to_score, name) for name in found.records}
    return TaskJob(tasks, {"run": digest(found.info.get("digest")), "masks": digest(found.masks.to_dict())}, out=scores.run)
