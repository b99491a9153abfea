"""`quam-jax tune`: settings for your own network, chosen on validation cases, with the curve that justified them."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import click

from .common import PATH, progress_bar, start_jax
from .methods import prepare_study, study_options


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
@click.option("--out", required=True, type=PATH, help="Folder for tuned.yaml, tuning.csv, tuning.json and tuning.png.")
@click.pass_context
def tune(
    context: click.Context,
    score: str,
    out: Path,
    radius: str | None,
    learning_rate: str | None,
    slack: str | None,
    steps: str | None,
    weighting: str | None,
    **options: Any,
) -> None:
    """Choose radius, learning rate, slack, steps and weighting on validation cases, and the settings of the other methods too.

    With several networks a setting's score is the mean over them. `quam-jax run --config OUT/tuned.yaml` uses the result.
    """
    start_jax()
    import numpy as np

    from ..config import Config, change, dump_config
    from ..data.records import write_json, write_table
    from ..studies import figures
    from ..studies.tuning import best
    from ..studies.tuning import tune as tune_method

    networks, chosen, validation, _ = prepare_study(dataset=None, limit=0, **options)
    given = {"radius": radius, "learning_rate": learning_rate, "slack": slack, "steps": steps, "weighting": weighting}
    grid = search_grid({name: text for name, text in given.items() if text})
    if grid and "quam_tuned" in chosen:
        chosen["quam_tuned"] = dataclasses.replace(chosen["quam_tuned"], grid=grid)
    tunable = {name: method for name, method in chosen.items() if len(method.grid) > 1}
    if not tunable:
        raise ValueError(f"--methods: expected one with something to choose, got {', '.join(chosen)}")
    tables: dict[str, list[dict[str, Any]]] = {}
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar("tuning", quiet=context.obj["quiet"]) as update:
        for name, method in tunable.items():
            runs = [tune_method(network, method, validation, score=score, out=out, progress=update) for network in networks]
            tables[name] = [
                {
                    **rows[0],
                    "score": float(np.mean([r["score"] for r in rows])),
                    "standard_error": float(np.mean([r["standard_error"] for r in rows])),
                }
                for rows in zip(*runs, strict=True)
            ]
    unknown = [name for name, rows in tables.items() if all(np.isnan(row["score"]) for row in rows)]
    if unknown:
        raise ValueError(f"tune: {unknown[0]}: expected the figure {score} of some validation case, got none")
    chosen_settings = {name: best(rows, score=score) for name, rows in tables.items()}
    if "quam_tuned" in tables:
        (out / "tuned.yaml").write_text(dump_config(change(Config(), chosen_settings["quam_tuned"]["settings"])))
    write_table(
        out / "tuning.csv",
        [{"method": name, **row, "settings": json.dumps(row["settings"])} for name, rows in tables.items() for row in rows],
    )
    about = {
        "score": score,
        "validation_cases": [c.identity.name for c in validation],
        "networks": {n.name: n.digest for n in networks},
        "chosen": chosen_settings,
    }
    write_json(out / "tuning.json", {**about, "curves": tables})
    figures.draw_tuning(tables, out / "tuning.png", score=score)
    for name, row in chosen_settings.items():
        click.echo(f"{name}: {json.dumps(row['settings'])}  {score} {row['score']:.4f} (untuned {tables[name][0]['score']:.4f})")


def search_grid(lists: dict[str, str]) -> tuple[dict[str, Any], ...]:
    """Every combination of the given lists, as settings of the search; ValueError for a value of the wrong kind."""
    kinds = {"radius": int, "learning_rate": float, "slack": float, "steps": int, "weighting": str}
    values = {}
    for name, text in lists.items():
        try:
            values[name] = [kinds[name](part.strip()) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"--{name.replace('_', '-')}: expected a list of numbers, got {text!r}") from None
    return tuple(dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())) if values else ()
