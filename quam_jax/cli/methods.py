"""`quam-jax benchmark methods`: every method on the same networks and the same cases, as tables and pictures."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from .common import PATH, progress_bar, say, start_jax

STRIP = {
    ("softmax", "total"): "softmax",
    ("tta", "total"): "TTA",
    ("ensemble", "total"): "ensemble",
    ("blur", "total"): "blurred (control)",
    ("quam", "total"): "QUAM-SM total",
    ("quam", "epistemic"): "QUAM-SM epistemic",
}  # columns of the overview picture, where these methods ran


def study_options(command: Any) -> Any:
    """Options that `benchmark methods` and `tune` share: the networks and the parts of the data."""
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
            click.option(
                "--train", "trained_on", help="LAYOUT:ROOT of the training cases, to check that no other part shares any."
            ),
            click.option("--patient", help="Regular expression that finds the patient in a case name; parts may not share one."),
            click.option("--inject-dropout", type=float, help="Rate of dropout in front of the head, for networks without any."),
            click.option(
                "--trained",
                "kinds",
                multiple=True,
                help="NAME=MODEL: the network of a method that has one of its own kind, such as evidential; may hold {seed}.",
            ),
            click.option("--methods", "chosen", help="Methods to run, a list; default: all that these networks can serve."),
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


def prepare_study(
    *,
    models: tuple[str, ...],
    seeds: str,
    validation: str,
    fit: str,
    trained_on: str | None,
    patient: str | None,
    inject_dropout: float | None,
    chosen: str | None,
    limit_validation: int,
    dataset: str | None,
    limit: int,
    configs: tuple[str, ...] = (),
    kinds: tuple[str, ...] = (),
) -> tuple[list[Any], dict[str, Any], list[Any], list[Any]]:
    """Networks, methods, validation and test cases, after the check that no two parts overlap."""
    from ..baselines.mc_dropout import dropout_layers
    from ..config import load_config
    from ..models.loading import load_model
    from ..models.preprocessing import preprocessing_of
    from ..studies.cases import parse_dataset, read_cases
    from ..studies.methods import Subject, methods
    from ..studies.splits import check_disjoint
    from ..studies.study import Network, model_digest

    numbers = parse_seeds(seeds)
    paths = [models[0].format(seed=n) for n in numbers] if len(models) == 1 and "{seed}" in models[0] else list(models)
    loaded = [load_model(path) for path in paths]
    preprocessing, classes = preprocessing_of(loaded[0]), loaded[0].network.classes
    for path, model in zip(paths, loaded, strict=True):
        if preprocessing_of(model) != preprocessing or model.network.classes != classes:
            raise ValueError(f"{path}: expected the classes and the preprocessing of {paths[0]}")
    parts = {}
    for name, text, most in (
        ("fit", fit, 0),
        ("validation", validation, limit_validation),
        ("test", dataset, limit),
        ("train", trained_on, 0),
    ):
        if text:
            least = 2 if name in ("validation", "test") else 1
            found = spread(parse_dataset(text), most)
            parts[name] = read_cases(found, preprocessing=preprocessing, classes=classes, patient=patient, least_raters=least)
    check_disjoint({name: [case.identity for case in cases] for name, cases in parts.items()})
    table = methods(inject_dropout=inject_dropout, configs={n: load_config(p) for n, _, p in (c.partition("=") for c in configs)})
    others = dict(text.split("=", 1) for text in kinds if "=" in text)
    if len(others) < len(kinds) or any(n not in table or not table[n].trained for n in others):
        known = ", ".join(n for n, method in table.items() if method.trained)
        raise ValueError(f"--trained: expected NAME=MODEL with one of {known}, got {', '.join(kinds)}")
    names = [n.strip() for n in chosen.split(",")] if chosen else list(table)
    unknown = [n for n in names if n not in table]
    if unknown:
        raise ValueError(f"methods: expected some of {', '.join(table)}, got {unknown[0]!r}")
    if not chosen:  # what these networks cannot serve is left out only where nobody asked for it
        if len(loaded) < 2:
            names.remove("ensemble")
        if inject_dropout is None and any(dropout_layers(m.network) == 0 for m in loaded):
            names.remove("mc_dropout")
        names = [n for n in names if not table[n].trained or n in others]
    for name in names:
        if table[name].trained and name not in others:
            raise ValueError(f"--trained: expected {name}=MODEL for the method {name}, got none")
        missing = [part for part in table[name].parts if part not in names]
        if missing:
            raise ValueError(f"methods: expected {', '.join(table[name].parts)} beside {name}, got no {missing[0]}")
    networks = []
    for place, (path, model) in enumerate(zip(paths, loaded, strict=True)):
        seed = numbers[min(place, len(numbers) - 1)]
        trained = {name: load_model(path.format(seed=seed)) for name, path in others.items()}
        subject = Subject(model, parts["fit"], parts["validation"], loaded, trained, seed, {})
        networks.append(Network(Path(path).name, subject, model_digest(model)))
    if len({n.name for n in networks}) < len(networks):
        networks = [n._replace(name=f"{n.name}#{place}") for place, n in enumerate(networks)]
    return networks, {n: table[n] for n in names}, parts["validation"], parts.get("test", [])


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` as numbers."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise ValueError(f"--seeds: expected whole numbers >= 0 such as 0,1,2, got {text!r}")
    return numbers


def spread(cases: list[Any], most: int) -> list[Any]:
    """At most so many cases, evenly spread over the list; 0: all."""
    if not most or most >= len(cases):
        return cases
    return [cases[n * len(cases) // most] for n in range(most)]


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
@click.option("--out", required=True, type=PATH, help="Folder of the study; an interrupted study goes on there.")
@click.pass_context
def methods(
    context: click.Context,
    dataset: str,
    shifts: tuple[str, ...],
    shift_methods: str | None,
    baseline: str,
    score: str,
    out: Path,
    **options: Any,
) -> int:
    """Every method on the same networks and cases: tables, curves and pictures.

    Settings are chosen on the validation cases alone, for every method that has any; test cases are only measured.
    """
    start_jax()
    import numpy as np

    from ..config import Config
    from ..data.records import write_json, write_table
    from ..studies import figures, tables
    from ..studies.shifts import parse_shift
    from ..studies.study import run_study
    from ..studies.tuning import best, tune

    for shift in shifts:
        parse_shift(shift)
    networks, chosen, validation, cases = prepare_study(dataset=dataset, **options)
    if baseline not in chosen:
        raise ValueError(f"--baseline: expected one of {', '.join(chosen)}, got {baseline!r}")
    shifted = [n.strip() for n in shift_methods.split(",")] if shift_methods else list(chosen)
    unknown = [n for n in shifted if n not in chosen]
    if unknown or (shifts and baseline not in shifted):
        raise ValueError(f"--shift-methods: expected some of {', '.join(chosen)}, {baseline} among them, got {shift_methods!r}")
    out.mkdir(parents=True, exist_ok=True)
    conditions, classes = ("none", *shifts), networks[0].subject.model.network.classes
    settings, tuned = {}, {}
    with progress_bar("tuning", quiet=context.obj["quiet"]) as update:
        for network in networks:
            for name, method in chosen.items():
                rows = (
                    tune(network, method, validation, score=score, out=out, progress=update)
                    if len(method.grid) > 1
                    else [{"settings": dict(method.grid[0])}]
                )
                settings[network.name, name] = best(rows, score=score)["settings"] if len(rows) > 1 else rows[0]["settings"]
                if len(rows) > 1:
                    tuned[f"{network.name} {name}"] = rows
            for name, method in chosen.items():
                if method.parts:
                    settings[network.name, name] = {part: settings[network.name, part] for part in method.parts}
    with progress_bar("cases", quiet=context.obj["quiet"]) as update:
        cells, failed = run_study(
            networks, chosen, settings, cases, conditions=conditions, shifted_methods=shifted, out=out, progress=update
        )
    if not cells:
        raise ValueError(next(iter(failed.values())))
    summaries = {
        c: tables.summarise_methods(cells, condition=c, baseline=baseline)
        for c in conditions
        if any(cell.condition == c for cell in cells)
    }
    if len(shifts) > 1:
        summaries["shifted"] = tables.summarise_methods(tables.pool_shifts(cells), condition="shifted", baseline=baseline)
    shown = {
        name: "; ".join(dict.fromkeys(json.dumps(settings[n.name, name]) for n in networks if settings[n.name, name]))
        for name in chosen
    }
    start = Config()
    about = {
        "command": shlex.join(["quam-jax", *sys.argv[1:]]),
        "dataset": dataset,
        "failed": failed,
        "tuning_score": score,
        "networks": {n.name: n.digest for n in networks},
        "test_cases": {c.identity.name: c.identity.sha256 for c in cases},
        "validation_cases": [c.identity.name for c in validation],
        "fit_cases": [c.identity.name for c in networks[0].subject.fit_cases],
        "default": {
            n: getattr(s, n) for s, n in ((start.targets, "radius"), (start.search, "learning_rate"), (start.search, "slack"))
        },
        "settings": {f"{network} {name}": values for (network, name), values in settings.items()},
        "tuning": tuned,
    }
    write_json(out / "methods.json", {**about, "summaries": summaries})
    write_table(out / "methods.csv", tables.long_rows(cells))
    text = "\n".join(tables.markdown(summary, shown) for summary in summaries.values())
    (out / "methods.md").write_text(text)
    (out / "methods.tex").write_text(tables.latex(summaries[conditions[0]]))
    for condition in [c for c in summaries if c != "shifted"]:
        figures.draw_curves(cells, out / f"curves-{condition.replace(':', '-')}.png", condition=condition)
    kept: dict[str, dict[str, np.ndarray]] = {}
    strips: dict[str, dict[str, np.ndarray]] = {}
    for name in chosen:
        for case in cases:
            path = out / "maps" / name / f"{case.identity.name}.npz"
            if path.exists():
                with np.load(path) as stored:
                    kept.setdefault(case.identity.name, {})[name] = stored["total"]
                    for kind in ("total", "epistemic"):
                        if (name, kind) in STRIP and kind in stored:
                            strips.setdefault(case.identity.name, {})[STRIP[name, kind]] = stored[kind]
    if kept:
        figures.draw_strips(cases, strips, out / "strips.png", classes=classes)
        figures.draw_scatter(kept, cases, out / "scatter.png", classes=classes)
    for case in cases:
        if case.identity.name in kept:
            figures.draw_strip(case, kept[case.identity.name], out / f"strip-{case.identity.name}.png", classes=classes)
    if tuned:
        figures.draw_tuning({n: r for n, r in tuned.items() if n.startswith(networks[0].name)}, out / "tuning.png", score=score)
    click.echo(text)
    for where, reason in list(failed.items())[:10]:
        say(context, f"failed: {where}: {reason}")
    return 1 if failed else 0
