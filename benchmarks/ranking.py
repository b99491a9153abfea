"""Is the review list worth following? Error that is left when the first cases of an order are labelled by the raters' majority.

`python -m benchmarks.ranking --data NAME=MODEL,FOLDER --cache FOLDER` takes folders of benchmarks.rendered (fit, validation,
test). The error of a case is its number of pixels whose label is not the majority's: what labelling the case corrects. On the
validation cases every criterion of ranking.py is tried with a few search settings; the best order goes to the test cases once,
beside the entropy of the softmax, the size of the prediction, the error itself and random orders. Intervals resample cases.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_result

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "ranking.png"
PAGE = Path(__file__).parent.parent / "docs" / "tutorials" / "review-list.md"
BUDGET = 0.2  # share of the cases that is labelled
SEARCHED = ("epistemic", "aleatoric", "total", "changed", "relative")  # criteria that a search gives
ORDERS = ("softmax", "size", *SEARCHED, "epistemic,softmax", "epistemic,relative", "total,changed")
SETTINGS: dict[str, dict[str, Any]] = {
    "mask, full": {},
    "mask, last_block": {"space": "last_block", "learning_rate": 1e-3, "steps": 10},
    "mask, head": {"space": "head", "learning_rate": 3e-2, "steps": 10},
    "pixel, head": {"target": "pixel", "space": "head", "members": 1, "steps": 20, "learning_rate": 3e-2},
}
SLACK = 0.2  # relative; what the learning rates above were chosen with
RESAMPLES, RANDOM_ORDERS = 2000, 2000


def measure_cases(model_path: Path, part: Path, fit: Path, *, setting: str, cache: Path) -> list[dict[str, Any]]:
    """Criteria and errors of every case of a part under one setting, each case kept in `cache`."""

    from quam_jax.case.audit import models_held
    from quam_jax.case.quantify import quantify_images
    from quam_jax.case.shared import whole_image_model
    from quam_jax.config import Config, change, to_dict
    from quam_jax.data.preprocess import Preprocessing
    from quam_jax.data.records import digest, read_json, write_json
    from quam_jax.evaluation.reference_maps import consensus, rater_mean
    from quam_jax.models.loading import load_model
    from quam_jax.results.ranking import case_criteria
    from quam_jax.studies.cases import case_fit_data, parse_dataset, read_cases
    from quam_jax.studies.study import model_digest

    model = load_model(model_path)
    config = change(Config(), {"slack": SLACK, **SETTINGS[setting]})
    known = Preprocessing.from_dict(model.manifest["preprocessing"])
    fit_cases = read_cases(parse_dataset(f"folders:{fit}"), preprocessing=known, classes=2)
    fit_cases = [fit_cases[i] for i in np.linspace(0, len(fit_cases) - 1, config.fit.fit_cases).round().astype(int)]
    shared = None  # until a case needs it
    inputs = digest(model_digest(model), to_dict(config), [case.digest for case in fit_cases])
    cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in read_cases(parse_dataset(f"folders:{part}"), preprocessing=known, classes=2, least_raters=2):
        path = cache / f"{hashlib.sha256((inputs + case.digest).encode()).hexdigest()[:24]}.json"
        row = read_json(path)
        if not row:
            shared = shared or whole_image_model(model, case_fit_data(model, fit_cases), config.search)
            start = time.process_time()
            (found,) = quantify_images(shared, [case.image], config=config)
            truth = consensus(rater_mean(case.raters, classes=2))
            arrays = {**found.maps, "segmentation": found.segmentation, "adversarial": found.adversarial}
            both, sizes = ((found.segmentation > 0) & (truth > 0)).sum(), (found.segmentation > 0).sum() + (truth > 0).sum()
            held, searched = models_held(found.audit)
            row = {
                "case": case.identity.name,
                "wrong": int((found.segmentation != truth).sum()),
                "missed_dice": float(1 - 2 * both / sizes) if sizes else 0.0,
                "seconds": time.process_time() - start,
                "held": held,
                "searched": searched,
                "criteria": case_criteria(arrays),
            }
            write_json(path, row)
        rows.append(row)
    return rows


def curve_of(rows: Sequence[dict[str, Any]], by: str, *, error: str) -> np.ndarray:
    """The retention curve of an order; `oracle` orders by the error itself."""
    from quam_jax.results.ranking import order_by, retention_curve

    errors = np.array([row[error] for row in rows], float)
    order = np.argsort(-errors, kind="stable") if by == "oracle" else order_by(criteria_of(rows), by.split(","))[0]
    return retention_curve(errors, order)


def criteria_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The criteria of the rows, NaN where the file has null."""
    return [{n: float("nan") if v is None else v for n, v in row["criteria"].items()} for row in rows]


def figures(rows: Sequence[dict[str, Any]], by: str, *, error: str) -> dict[str, float]:
    """Share of the error found in the budget, and the area under the curve, up to the budget and in all."""
    from quam_jax.results.ranking import retention_area

    curve = curve_of(rows, by, error=error)
    places = np.linspace(0, 1, len(curve))
    return {
        "found": 1 - float(np.interp(BUDGET, places, curve)),
        "area_budget": retention_area(curve, up_to=BUDGET),
        "area": retention_area(curve),
    }


def random_figures(rows: Sequence[dict[str, Any]], *, error: str) -> dict[str, float]:
    """Mean and the middle 95 % of random orders."""
    from quam_jax.results.ranking import retention_area, retention_curve

    rng, errors = np.random.default_rng(0), np.array([row[error] for row in rows], float)
    curves = [retention_curve(errors, rng.permutation(len(errors))) for _ in range(RANDOM_ORDERS)]
    found = [1 - np.interp(BUDGET, np.linspace(0, 1, len(c)), c) for c in curves]
    areas = [retention_area(c, up_to=BUDGET) for c in curves]
    low, high = np.quantile(found, [0.025, 0.975])
    return {
        "found": float(np.mean(found)),
        "found_low": float(low),
        "found_high": float(high),
        "area_budget": float(np.mean(areas)),
        "area": float(np.mean([retention_area(c) for c in curves])),
    }


def bootstrap(
    tables: dict[str, Sequence[dict[str, Any]]], orders: dict[str, tuple[str, str]], *, error: str, base: str
) -> dict[str, dict[str, float]]:
    """Intervals of the figures of every order, and of its difference from `base`; one resample serves all orders."""
    count, rng = len(next(iter(tables.values()))), np.random.default_rng(1)
    draws: dict[str, list[list[float]]] = {name: [] for name in orders}
    for _ in range(RESAMPLES):
        picked = rng.integers(0, count, count)
        for name, (setting, by) in orders.items():
            some = figures([tables[setting][i] for i in picked], by, error=error)
            draws[name].append([some["found"], some["area_budget"]])
    values = {name: np.array(v) for name, v in draws.items()}
    found = {}
    for name, drawn in values.items():
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        less, more = np.nanquantile(drawn - values[base], [0.025, 0.975], axis=0)
        found[name] = {
            "found_low": low[0],
            "found_high": high[0],
            "area_budget_low": low[1],
            "area_budget_high": high[1],
            "found_gain_low": less[0],
            "found_gain_high": more[0],
            "area_gain_low": less[1],
            "area_gain_high": more[1],
        }
    return {name: {k: float(v) for k, v in row.items()} for name, row in found.items()}


def draw(panels: dict[str, dict[str, np.ndarray]], bands: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Retention curves, one panel a data set, with the budget marked and the middle 95 % of random orders shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 4.2), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    styles = {"random": ("0.55", "--"), "oracle": ("0.2", ":"), "softmax": ("#0072b2", "-"), "size": ("#009e73", "-.")}
    for axis, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, curve in curves.items():
            places = 100 * np.linspace(0, 1, len(curve))
            colour, line = next((s for key, s in styles.items() if name.startswith(key)), ("#d55e00", "-"))
            axis.plot(places, 100 * curve, color=colour, linestyle=line, linewidth=1.8, label=name)
        low, high = bands[title]
        axis.fill_between(100 * np.linspace(0, 1, len(low)), 100 * low, 100 * high, color="0.5", alpha=0.15, linewidth=0)
        axis.axvline(100 * BUDGET, color="0.8", linewidth=1, zorder=0)
        axis.set(xlabel="cases labelled (%)", ylabel="wrong pixels left (%)", xlim=(0, 100), ylim=(0, 100), title=title)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def random_band(rows: Sequence[dict[str, Any]], *, error: str) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of random orders, place by place."""
    from quam_jax.results.ranking import retention_curve

    rng, errors = np.random.default_rng(0), np.array([row[error] for row in rows], float)
    low, high = np.quantile(
        [retention_curve(errors, rng.permutation(len(errors))) for _ in range(RANDOM_ORDERS)], [0.025, 0.975], axis=0
    )
    return low, high


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
    name: str, model: Path, data: Path, tried: Sequence[dict[str, Any]], *, cache: Path
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
            **{order: (best["setting"], order) for order in ("epistemic", "softmax", "size", "oracle")},
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


def table(result: dict[str, Any]) -> str:
    """The test rows as a Markdown table."""
    header = [
        "data",
        "error",
        "order",
        "found in the first 20 % [95 %]",
        "area up to 20 % [95 %]",
        "area less that of softmax [95 %]",
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    words = {"wrong": "wrong pixels", "missed_dice": "1 - Dice"}
    for row in result["rows"]:
        order = (
            row["order"]
            if row["order"] in ("random", "oracle")
            else f"`{row['by']}`" + (f", {row['setting']}: best on validation" if row["order"] == "best on validation" else "")
        )
        found, area, gain = f"{row['found']:.3f}", f"{row['area_budget']:.3f}", ""
        if row.get("found_low") is not None:
            found += f" [{row['found_low']:.3f}, {row['found_high']:.3f}]"
        if row.get("area_budget_low") is not None:
            area += f" [{row['area_budget_low']:.3f}, {row['area_budget_high']:.3f}]"
            gain = f"[{row['area_gain_low']:+.3f}, {row['area_gain_high']:+.3f}]" if row["order"] != "softmax" else "–"
        lines.append(f"| {row['data']} | {words[row['error']]} | {order} | {found} | {area} | {gain} |")
    counts = ", ".join(f"{name} {n} ({v})" for name, n, v in result["counts"])
    return "\n".join(lines) + f"\n\n`{result['command']}`, test cases (validation cases): {counts}; {result['date']}."


def write_table(result: dict[str, Any]) -> None:
    """Replace the table of the page."""
    text, count = re.subn(
        r"<!-- ranking table -->.*?<!-- /ranking table -->",
        lambda _: f"<!-- ranking table -->\n{table(result)}\n<!-- /ranking table -->",
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{PAGE}: expected one place for the ranking table, got {count}")
    PAGE.write_text(text)


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
    parser.add_argument("--validation-only", action="store_true", help="stop before the test cases are touched")
    options = parser.parse_args()
    from quam_jax.cli.process import keep_freed_memory

    keep_freed_memory()
    settings = [s.strip() for s in options.settings.split(";")]
    sets = {name: [Path(p) for p in rest.split(",")] for name, _, rest in (text.partition("=") for text in options.data)}
    tried = {name: try_on_validation(*paths, settings=settings, cache=options.cache) for name, paths in sets.items()}
    if options.validation_only:
        return
    results = {name: measure_test(name, *paths, tried[name], cache=options.cache) for name, paths in sets.items()}
    path = write_result(
        "ranking",
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
        PICTURE,
    )
    write_table(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
