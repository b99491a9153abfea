"""Through how many of its views must each model look? Quality and time on validation cases, the same searches otherwise.

`python -m benchmarks.view_share --out FOLDER [--cases 24]` takes what `benchmarks.studies lidc_ct` left in FOLDER and
writes benchmarks/results/view_share.json. No test case is looked at.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import quam_jax
from quam_jax.case.fit import fit_of_cases
from quam_jax.case.quantify import quantify_images
from quam_jax.case.shared import find_directions, whole_image_model
from quam_jax.config import Config, FitConfig, change
from quam_jax.data.spread import evenly_spread
from quam_jax.evaluation.evaluate import evaluate
from quam_jax.evaluation.statistics import summarise_column
from quam_jax.studies.cases import StudyCase, parse_dataset, read_cases
from quam_jax.studies.shifts import shifted

from .record import markdown_table, write_result
from .study_plans import SEEDS

EACH = (10, 5, 2, 1)  # of ten views of a square image; the first is what the others are compared with
CONDITIONS = ("none", "noise:2", "blur:2")
FIGURES = {"auroc": "total/auroc_image", "aurc": "total/aurc_image", "pcc": "total/pcc"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of benchmarks.studies")
    parser.add_argument("--cases", type=int, default=24)
    options = parser.parse_args()
    measured = [row for seed in SEEDS for row in measure(options.out, seed, options.cases)]
    rows = [summed(measured, each) for each in EACH]
    conditions = {"networks": len(SEEDS), "cases": options.cases, "conditions": CONDITIONS}
    write_result("view_share", rows, shown=len(rows), **conditions)


def measure(folder: Path, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """A row a condition, case and number of views."""
    model = quam_jax.load_model(folder / "nets" / f"lidc_ct-{seed}")
    parts = {name: cases_of(folder, name, model) for name in ("fit", "validation")}
    some = [parts["validation"][n] for n in evenly_spread(len(parts["validation"]), count)]
    start = Config()
    shared = find_directions(whole_image_model(model, fit_of_cases(model, parts["fit"], FitConfig()), start.search), start)
    for condition in CONDITIONS:
        for number, case in enumerate(some):
            image = shifted(case.image, condition, seed=number)
            for each in EACH:
                began = time.process_time()
                (maps,) = quantify_images(shared, [image], config=change(start, {"views_each": each}))
                seconds = time.process_time() - began
                found = evaluate({"total": maps.total}, case.raters, segmentation=maps.segmentation, classes=2)
                figures = {name: float(found.get(column, np.nan)) for name, column in FIGURES.items()}
                yield {"each": each, "condition": condition, "case": case.identity.name, "seconds": seconds, **figures}


def cases_of(folder: Path, part: str, model: quam_jax.SegmentationModel) -> list[StudyCase]:
    """The cases of a part, prepared for a network."""
    cases = parse_dataset(f"folders:{folder / 'real' / 'lidc_ct' / part}")
    return read_cases(cases, preprocessing=quam_jax.preprocessing_of(model), classes=2)


def summed(measured: list[dict[str, Any]], each: int) -> dict[str, Any]:
    """Means, and the paired difference from looking through all views, by case, with 95 % bootstrap intervals over cases."""
    row: dict[str, Any] = {"each": each, "seconds": float(np.median([r["seconds"] for r in measured if r["each"] == each]))}
    for figure in FIGURES:
        by_case: dict[str, list[float]] = {}
        mine, all_views = ([r for r in measured if r["each"] == n] for n in (each, EACH[0]))
        for own, other in zip(mine, all_views, strict=True):
            by_case.setdefault(own["case"], []).append(own[figure] - other[figure])
        differences = [float(np.nanmean(values)) for values in by_case.values() if not np.isnan(values).all()]
        summary = summarise_column(np.array(differences))
        row |= {figure: float(np.nanmean([r[figure] for r in mine])), f"{figure}_less": summary.mean}
        row |= {f"{figure}_low": summary.low, f"{figure}_high": summary.high}
    return row


def table(result: dict[str, Any]) -> str:
    """A row a number of views."""
    rows = [
        [
            f"{r['each']} of {EACH[0]}",
            f"{r['seconds']:.2f}",
            *(f"{r[f'{f}_less']:+.1e} [{r[f'{f}_low']:+.1e}, {r[f'{f}_high']:+.1e}]" if r["each"] != EACH[0] else f"{r[f]:.3g}"
              for f in FIGURES),
        ]
        for r in result["rows"]
    ]  # fmt: skip
    text = markdown_table(["views a model", "processor s", "AUROC of errors", "AURC", "PCC"], rows)
    of = f"{result['cases']} validation cases, {result['networks']} networks, without a shift, with noise and with blur"
    return f"{text}\n\n{of}; below the first row differences from it. `{result['command']}`, {result['date']}."


if __name__ == "__main__":
    main()
