"""`quam-jax benchmark methods`: every method on the same networks and the same cases, as tables and pictures."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import PATH, names_of, progress_bars, say, start_jax
from .engine import engine_options, find_engine
from .mask_options import mask_options

if TYPE_CHECKING:
    from ..studies.request import StudyRequest


def study_options(command: Any) -> Any:
    """Options that `benchmark methods` and `tune` share: the networks and the parts of the data."""
    command = mask_options(command)
    for option in reversed(
        [
            click.option(
                "--model",
                "models",
                required=True,
                multiple=True,
                help="A trained network; give it several times, or once with {seed} in it and --seeds.",
            ),
            click.option(
                "--seeds",
                default="0",
                show_default=True,
                help="Seeds of what is random, a list such as 0,1,2; the n-th network takes the n-th (or the last).",
            ),
            click.option("--validation", required=True, help="LAYOUT:ROOT of the cases that settings are chosen on."),
            click.option("--fit", required=True, help="LAYOUT:ROOT of cases that an adversarial model must still explain."),
            click.option("--train", help="LAYOUT:ROOT of the training cases, to check that no other part shares any."),
            click.option("--patient", help="Regular expression that finds the patient in a case name; parts may not share one."),
            click.option("--inject-dropout", type=float, help="Rate of dropout in front of the head, for networks without any."),
            click.option(
                "--trained",
                "trained",
                multiple=True,
                help="NAME=MODEL: the network of a method that has one of its own kind, such as evidential; may hold {seed}.",
            ),
            click.option("--methods", "methods", help="Methods to run, a list; default: all that these networks can serve."),
            click.option(
                "--score", default="total/pcc", show_default=True, help="The figure that tuning maximises on validation."
            ),
            click.option(
                "--limit-validation", default=0, show_default=True, help="Validation cases used, evenly spread; 0: all."
            ),
        ]
    ):
        command = option(command)
    return command


def study_request(*, seeds: str, methods: str | None, **options: Any) -> "StudyRequest":
    """The request that these options make."""
    from ..studies.request import StudyRequest

    return StudyRequest(seeds=parse_seeds(seeds), methods=names_of(methods), **options)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2` as numbers; ValueError for anything else."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0:
        raise ValueError(f"--seeds: expected whole numbers >= 0 such as 0,1,2, got {text!r}")
    return numbers


@click.command(
    "methods",
    epilog="Example: quam-jax benchmark methods --dataset folders:test --validation folders:val --fit "
    "folders:fit --model nets/net_{seed} --seeds 0,1,2 --inject-dropout 0.3 --out table/",
)
@click.option(
    "--dataset",
    required=True,
    help="LAYOUT:ROOT[,key=value] of the test cases: folders, refuge, qubiq, drive, stare, chase, lidc_crops, nnunet or bids.",
)
@study_options
@click.option("--config", "configs", multiple=True, help="NAME=FILE: a further row, the search with the settings of a YAML file.")
@click.option("--shift", "shifts", multiple=True, help="Also under a shift KIND:STRENGTH; noise, blur, contrast, brightness.")
@click.option("--shift-methods", help="Methods that also run under the shifts, a list; default: all.")
@click.option("--limit", default=0, show_default=True, help="Test cases used, evenly spread; 0: all.")
@click.option("--baseline", default="softmax", show_default=True, help="What every method is compared with, case by case.")
@engine_options
@click.option("--out", required=True, type=PATH, help="Folder of the study; an interrupted study goes on there.")
@click.pass_context
def methods(
    context: click.Context,
    dataset: str,
    configs: tuple[str, ...],
    shifts: tuple[str, ...],
    shift_methods: str | None,
    limit: int,
    baseline: str,
    out: Path,
    **options: Any,
) -> int:
    """Every method on the same networks and cases: tables, curves and pictures.

    Settings are chosen on the validation cases alone, for every method that has any; test cases are only measured.
    """
    engine = find_engine(options)
    start_jax()
    from ..studies.benchmark import benchmark_methods
    from ..studies.on_ray import benchmark_on_ray
    from ..studies.request import BenchmarkRequest

    request = BenchmarkRequest(
        study_request(**options),
        dataset,
        out,
        configs={name: file for name, _, file in (text.partition("=") for text in configs)},
        shifts=shifts,
        shift_methods=names_of(shift_methods),
        limit=limit,
        baseline=baseline,
        command=shlex.join(["quam-jax", *sys.argv[1:]]),
    )
    words = {"tuning": "settings on cases to score", "cases": "methods on cases to measure"}
    with progress_bars(quiet=context.obj["quiet"], words=words) as update:
        if engine is None:
            result = benchmark_methods(request, progress=update)
        else:
            result = benchmark_on_ray(request, engine, progress=update)
    click.echo(result.text)
    for note in result.notes:
        say(context, f"note: {note}")
    for where, reason in list(result.failed.items())[:10]:
        say(context, f"failed: {where}: {reason}")
    return 1 if result.failed else 0
