"""A finished study as a committed result: benchmarks/results/methods_NAME.json, .md, .csv and .tex; pictures for the docs.

`quam-jax benchmark methods ... --out STUDY`, then `python -m benchmarks.methods --study STUDY --name NAME`; the studies of the
documents are published by `python -m benchmarks.studies`. Every number is copied from STUDY/methods.json, which names networks,
cases (by SHA-256), settings and the command; the CSV has a row for every network, method, condition and case.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

from .record import RESULTS, write_result

INTERVALS = (
    "total/pcc",
    "aleatoric/pcc",
    "epistemic/pcc",
    "total/pcc_halves",
    "total/partial_pcc_distance",
    "total/auroc_image",
    "epistemic/auroc_image",
    "total/aurc_image",
    "epistemic/mean",
    "nll_raters",
    "ged_v",
)
DOCS = RESULTS.parent.parent / "docs" / "pictures"
PICTURES = {"strips.png": "strip", "curves-none.png": "curves", "tuning.png": "tuning"}


def rows_of(study: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a method and condition: the mean of every figure, intervals of the main ones, and what it was tested against."""
    rows = []
    for condition, summary in study["summaries"].items():
        for method, about in summary["methods"].items():
            figures: dict[str, Any] = {}
            for name, column in about["figures"].items():
                figures[name] = column["mean"]
                if name in INTERVALS:
                    figures |= {
                        f"{name}_low": column["low"],
                        f"{name}_high": column["high"],
                        f"{name}_sd_networks": column["sd_networks"],
                    }
            rows.append(
                {
                    "condition": condition,
                    "method": method,
                    "cases": about["cases"],
                    **figures,
                    "case_spearman": about["case_spearman"],
                    "against_baseline": about.get("against_baseline", {}),
                    "search_against": about.get("search_against", {}),
                }
            )
    return rows


def publish(folder: Path, name: str, *, note: str = "", recipe: str = "") -> None:
    """Copy a finished study to benchmarks/results and docs/pictures; `recipe` is the command that makes all of it from data."""
    study = json.loads((folder / "methods.json").read_text())
    kept = ("dataset", "networks", "settings", "tuning_score", "tuning", "test_cases", "validation_cases", "fit_cases", "failed")
    write_result(
        f"methods_{name}",
        rows_of(study),
        study_command=study["command"],
        recipe=recipe or study["command"],
        note=note,
        default=study["default"],
        **{key: study[key] for key in kept},
    )
    text = (folder / "methods.md").read_text()
    before = "\n\n".join(part for part in (note, f"`{recipe}`" if recipe else "", f"`{study['command']}`") if part)
    (RESULTS / f"methods_{name}.md").write_text(f"{before}\n\n{text}")
    shutil.copyfile(folder / "methods.tex", RESULTS / f"methods_{name}.tex")
    write_rows(folder / "methods.csv", RESULTS / f"methods_{name}.csv")
    for picture, kind in PICTURES.items():
        if (folder / picture).exists():
            shutil.copyfile(folder / picture, DOCS / f"methods_{name}_{kind}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--note", default="", help="what a reader must know about these data")
    options = parser.parse_args()
    publish(options.study, options.name, note=options.note)


def write_rows(source: Path, target: Path) -> None:
    """The rows of every case with the figures of INTERVALS, the Dice and the cost, to six significant digits."""
    kept = ("network", "method", "condition", "case", *INTERVALS, "dice_consensus", "ece_soft", "seconds")
    with source.open(newline="") as stream, target.open("w", newline="") as out:
        rows = csv.DictReader(stream)
        writer = csv.DictWriter(
            out, [name for name in kept if name in (rows.fieldnames or ())], extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _short(value) for name, value in row.items()})


def _short(text: str) -> str:
    try:
        return f"{float(text):.6g}"
    except ValueError:
        return text


if __name__ == "__main__":
    main()
