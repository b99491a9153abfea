"""`quam-jax tune`: settings for your own network, chosen on validation cases, with the curve that justified them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .common import PATH, progress_bar, say, start_jax
from .engine import engine_options, find_engine
from .methods import study_options, study_request

KINDS: dict[str, Callable[[str], Any]] = {"radius": int, "learning_rate": float, "slack": float, "steps": int, "weighting": str}


@click.command(
    epilog="Example: quam-jax tune --model net/ --validation folders:val --fit folders:train --slack 0.2,1 "
    "--learning-rate 1e-4,1e-3 --out tuned/"
)
@study_options
@click.option("--radius", help="Radii to try, a list such as 1,2; any of these lists replaces the built-in grid of the search.")
@click.option("--learning-rate", help="Learning rates to try.")
@click.option("--slack", help="Slacks to try, as fractions of the reference loss.")
@click.option("--steps", help="Numbers of steps to try.")
@click.option("--weighting", help="Weightings to try: all, last, best, softmax, mis.")
@engine_options
@click.option("--out", required=True, type=PATH, help="Folder for tuned.yaml, tuning.csv, tuning.json and tuning.png.")
@click.pass_context
def tune(context: click.Context, out: Path, **options: Any) -> None:
    """Choose radius, learning rate, slack, steps and weighting on validation cases, and the settings of the other methods too.

    With several networks a setting's score is the mean over them. `quam-jax run --config OUT/tuned.yaml` uses the result.
    """
    engine = find_engine(options)
    start_jax()
    from ..studies.on_ray import tune_on_ray
    from ..studies.request import TuneRequest
    from ..studies.tuning import tune_study

    given = {name: options.pop(name) for name in KINDS}
    grid = {name: parse_values(name, text) for name, text in given.items() if text}
    with progress_bar("tuning", quiet=context.obj["quiet"], words="settings on cases to score") as update:
        request = TuneRequest(study_request(**options), out, grid)
        result = tune_study(request, progress=update) if engine is None else tune_on_ray(request, engine, progress=update)
    for note in result.notes:
        say(context, f"note: {note}")
    for name, row in result.chosen.items():
        shown = f"{options['score']} {row['score']:.4f} (untuned {result.curves[name][0]['score']:.4f})"
        click.echo(f"{name}: {json.dumps(row['settings'])}  {shown}")


def parse_values(name: str, text: str) -> tuple[Any, ...]:
    """The values to try of one setting; ValueError for one of the wrong kind."""
    try:
        return tuple(KINDS[name](part.strip()) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--{name.replace('_', '-')}: expected a list of numbers, got {text!r}") from None
