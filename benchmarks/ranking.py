"""Is the review list worth following? Error that is left when the first cases of an order are labelled by the raters' majority.

`python -m benchmarks.ranking --data NAME=MODEL,FOLDER --cache FOLDER` takes folders of benchmarks.rendered (fit, validation,
test). The error of a case is its number of pixels whose label is not the majority's: what labelling the case corrects. On the
validation cases every criterion of ranking.py is tried with a few search settings; the best order goes to the test cases once,
beside the entropy of the softmax, the size of the prediction, the error itself and random orders. Intervals resample cases.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .ranking_figures import BUDGET, bootstrap, curve_of, figures, random_band, random_figures
from .ranking_page import draw, table
from .record import ROOT, put, write_result

SEARCHED = ("epistemic", "aleatoric", "total", "changed", "relative", "pairwise")  # criteria that a search gives
ORDERS = ("softmax", "size", *SEARCHED, "epistemic,softmax", "epistemic,relative", "epistemic,pairwise", "total,changed")
SETTINGS: dict[str, dict[str, Any]] = {
    "mask, full": {},
    "mask, last_block": {"space": "last_block", "learning_rate": 1e-3, "steps": 10},
    "mask, head": {"space": "head", "learning_rate": 3e-2, "steps": 10},
    "pixel, head": {"target": "pixel", "space": "head", "members": 1, "steps": 20, "learning_rate": 3e-2},
}
SLACK = 0.2  # relative; what the learning rates above were chosen with


def measure_cases(model_path: Path, part: Path, fit: Path, *, setting: str, cache: Path) -> list[dict[str, Any]]:
    """Criteria and errors of every case of a part under one setting, each case kept in `cache`."""
    from quam_jax.case.audit import models_held
    from quam_jax.case.fit import fit_of_cases
    from quam_jax.case.quantify import quantify_images
    from quam_jax.case.shared import whole_image_model
    from quam_jax.config import Config, change, to_dict
    from quam_jax.data.preprocess import Preprocessing
    from quam_jax.data.records import digest, read_json, write_json
    from quam_jax.data.spread import evenly_spread
    from quam_jax.evaluation.overlap import dice
    from quam_jax.evaluation.reference_maps import consensus
    from quam_jax.evaluation.review import case_criteria
    from quam_jax.models.description import model_digest
    from quam_jax.models.loading import load_model
    from quam_jax.studies.cases import parse_dataset, read_cases

    model = load_model(model_path)
    config = change(Config(), {"slack": SLACK, **SETTINGS[setting]})
    known = Preprocessing.from_dict(model.manifest["preprocessing"])
    fit_cases = read_cases(parse_dataset(f"folders:{fit}"), preprocessing=known, classes=2)
    fit_cases = [fit_cases[i] for i in evenly_spread(len(fit_cases), config.fit.fit_cases)]
    shared = None  # until a case needs it
    inputs = digest(model_digest(model), to_dict(config), [case.digest for case in fit_cases])
    cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in read_cases(parse_dataset(f"folders:{part}"), preprocessing=known, classes=2, least_raters=2):
        path = cache / f"{hashlib.sha256((inputs + case.digest).encode()).hexdigest()[:24]}.json"
        row = read_json(path)
        if not row:
            shared = shared or whole_image_model(model, fit_of_cases(model, fit_cases, config.fit), config.search)
            start = time.process_time()
            (found,) = quantify_images(shared, [case.image], config=config)
            truth = consensus(case.raters, classes=2, ties="smallest")
            arrays = {**found.maps, "segmentation": found.segmentation, "adversarial": found.adversarial}
            held, searched = models_held(found.audit)
            row = {
                "case": case.identity.name,
                "wrong": int((found.segmentation != truth).sum()),
                "missed_dice": 1 - dice(found.segmentation > 0, truth > 0, empty=1.0),
                "seconds": time.process_time() - start,
                "held": held,
                "searched": searched,
                "criteria": case_criteria(arrays),
            }
            write_json(path, row)
        rows.append(row)
    return rows


def try_on_validation(model: Path, data: Path, *, settings: Sequence[str], cache: Path) -> list[dict[str, Any]]:
    """Every order under every setting on the validation cases."""
    tried = []
    for setting in settings:
        rows = measure_cases(model, data / "validation", data / "fit", setting=setting, cache=cache)
        seconds = float(np.median([row["seconds"] for row in rows]))
        held = sum(r["held"] for r in rows) / sum(r["searched"] for r in rows)
        for by in ORDERS:
            tried.append(
                {
                    "setting": setting,
                    "by": by,
                    **figures(rows, by, error="wrong"),
                    "area_budget_dice": figures(rows, by, error="missed_dice")["area_budget"],
                    "held": held,
                    "seconds_a_case": seconds,
                    "cases": len(rows),
                }
            )
            sys.stdout.write("  ".join(f"{v:.4f}" if isinstance(v, float) else f"{v!s:18s}" for v in tried[-1].values()) + "\n")
    return tried


def measure_test(
    name: str, model: Path, data: Path, tried: Sequence[dict[str, Any]], *, cache: Path, named: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Rows, curves and the random band of the test cases, with the order and setting that were best on validation."""

    def best_by(figure: str) -> dict[str, Any]:
        return min((row for row in tried if any(s in row["by"] for s in SEARCHED)), key=lambda row: row[figure])

    best = best_by("area_budget")
    base = measure_cases(model, data / "test", data / "fit", setting=best["setting"], cache=cache)
    rows: list[dict[str, Any]] = []
    for error, figure in (("wrong", "area_budget"), ("missed_dice", "area_budget_dice")):
        chosen = best_by(figure)
        tables = {
            best["setting"]: base,
            chosen["setting"]: measure_cases(model, data / "test", data / "fit", setting=chosen["setting"], cache=cache),
        }
        orders = {
            "best on validation": (chosen["setting"], chosen["by"]),
            **{order: (best["setting"], order) for order in (*named, "oracle")},
        }
        shared = {"data": name, "error": error, "cases": len(base)}
        intervals = bootstrap(tables, orders, error=error, base="softmax")
        rows += [
            {
                **shared,
                "order": order,
                "by": by,
                "setting": setting,
                **figures(tables[setting], by, error=error),
                **intervals[order],
            }
            for order, (setting, by) in orders.items()
        ]
        rows.append({**shared, "order": "random", "by": "random", "setting": "", **random_figures(base, error=error)})
    shown = {
        f"{best['by'].replace(',', ' + ')} ({best['setting']})": best["by"],
        "softmax entropy": "softmax",
        "size of the prediction": "size",
        "oracle (the error itself)": "oracle",
    }
    curves = {label: curve_of(base, by, error="wrong") for label, by in shown.items()}
    curves["random"] = np.linspace(1, 0, len(base) + 1)
    return rows, curves, random_band(base, error="wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="NAME=MODEL,FOLDER",
        help="a model folder and a folder with fit, validation and test; may be given several times",
    )
    parser.add_argument("--settings", default=";".join(SETTINGS), help="search settings tried on the validation cases")
    parser.add_argument("--cache", type=Path, required=True, help="folder for finished cases, so that the command can go on")
    parser.add_argument("--orders", default="epistemic;softmax;size", help="orders beside the best one on the test cases")
    parser.add_argument("--name", default="", help="of a result, a table and a picture beside the ones without a name")
    parser.add_argument("--validation-only", action="store_true", help="stop before the test cases are touched")
    options = parser.parse_args()
    from quam_jax.process import keep_freed_memory

    keep_freed_memory()
    settings = [s.strip() for s in options.settings.split(";")]
    sets = {name: [Path(p) for p in rest.split(",")] for name, _, rest in (text.partition("=") for text in options.data)}
    tried = {name: try_on_validation(*paths, settings=settings, cache=options.cache) for name, paths in sets.items()}
    if options.validation_only:
        return
    results = {
        name: measure_test(name, *paths, tried[name], cache=options.cache, named=options.orders.split(";"))
        for name, paths in sets.items()
    }
    own = [options.name] if options.name else []
    path = write_result(
        "_".join(["ranking", *own]),
        [row for rows, _, _ in results.values() for row in rows],
        budget=BUDGET,
        validation=tried,
        settings={name: SETTINGS[name] for name in settings},
        counts=[[name, rows[0]["cases"], tried[name][0]["cases"]] for name, (rows, _, _) in results.items()],
    )
    titles = {name: f"{rows[0]['cases']} test cases, {name}" for name, (rows, _, _) in results.items()}
    draw(
        {titles[n]: curves for n, (_, curves, _) in results.items()},
        {titles[n]: band for n, (_, _, band) in results.items()},
        ROOT / "docs/pictures" / f"{'_'.join(['ranking', *own])}.png",
    )
    put("docs/tutorials/review-list.md", " ".join(["ranking", *own, "table"]), table(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
