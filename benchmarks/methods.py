"""A finished study as a committed result: benchmarks/results/methods_NAME.json and methods_NAME.md.

`quam-jax benchmark methods ... --out STUDY`, then `python -m benchmarks.methods --study STUDY --name NAME`. Every number is
copied from STUDY/methods.json, which names networks, cases (by SHA-256), settings and the command.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from .record import RESULTS, write_result


def rows_of(study: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a method and condition: the mean of every figure, and the interval of the total's correlation."""
    rows = []
    for condition, summary in study["summaries"].items():
        for method, about in summary["methods"].items():
            figures = {name: column["mean"] for name, column in about["figures"].items()}
            total = about["figures"]["total/pcc"]
            rows.append({"condition": condition, "method": method, "cases": about["cases"], **figures,
                         "total/pcc_low": total["low"], "total/pcc_high": total["high"],
                         "total/pcc_sd_networks": total["sd_networks"], "case_spearman_total": about["case_spearman"]["total"],
                         "against_baseline": about.get("against_baseline", {})})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--note", default="", help="what a reader must know about these data")
    options = parser.parse_args()
    study = json.loads((options.study / "methods.json").read_text())
    kept = ("dataset", "networks", "settings", "tuning_score", "tuning", "test_cases", "validation_cases", "fit_cases", "failed")
    write_result(f"methods_{options.name}", rows_of(study), study_command=study["command"], note=options.note,
                 **{name: study[name] for name in kept})
    text = (options.study / "methods.md").read_text()
    note = f"{options.note}\n\n" if options.note else ""
    (RESULTS / f"methods_{options.name}.md").write_text(f"{note}`{study['command']}`\n\n{text}")


if __name__ == "__main__":
    main()
