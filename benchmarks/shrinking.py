"""Does epistemic uncertainty shrink with more training data? Studies of networks trained on nested parts, side by side.

`python -m benchmarks.shrinking --study 25=STUDY25 --study 50=STUDY50 --study 100=STUDY100 --name NAME` reads methods.json of
studies on the same test cases and methods, whose networks saw 25, 50 and 100 % of the training cases, and writes
benchmarks/results/shrinking_NAME.json: the mean epistemic map of every method, and the Dice of the networks.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .record import write_result

FIGURE = "epistemic/mean"


def rows_of(studies: dict[float, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method and share; `shrinks` is whether the mean falls from every share to the next larger one."""
    shares = sorted(studies)
    summaries = {share: studies[share]["summaries"]["none"]["methods"] for share in shares}
    methods = [m for m in summaries[shares[0]] if all(_mean(summaries[s].get(m)) is not None for s in shares)]
    rows = []
    for method in methods:
        means = [_mean(summaries[share][method]) or 0.0 for share in shares]
        for share, mean in zip(shares, means, strict=True):
            column, softmax = summaries[share][method]["figures"][FIGURE], summaries[share]["softmax"]["figures"]
            rows.append(
                {
                    "method": method,
                    "share": share,
                    "mean": mean,
                    "low": column["low"],
                    "high": column["high"],
                    "sd_networks": column["sd_networks"],
                    "dice": softmax["dice_mean"]["mean"],
                    "shrinks": all(later < earlier for earlier, later in zip(means, means[1:], strict=False)),
                }
            )
    return rows


def _mean(about: dict[str, Any] | None) -> float | None:
    return None if about is None else about["figures"][FIGURE]["mean"]


def publish(folders: Mapping[float, Path], name: str, *, recipe: str = "") -> None:
    """Write the result of studies by the share of training cases; ValueError where their test cases differ."""
    studies = {share: json.loads((folder / "methods.json").read_text()) for share, folder in folders.items()}
    cases = {tuple(sorted(study["test_cases"].items())) for study in studies.values()}
    if len(cases) > 1:
        raise ValueError("--study: expected studies of the same test cases, got others")
    write_result(
        f"shrinking_{name}",
        rows_of(studies),
        study_commands=[s["command"] for s in studies.values()],
        recipe=recipe,
        cases=len(next(iter(cases))),
        networks={share: study["networks"] for share, study in studies.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", action="append", required=True, metavar="SHARE=FOLDER")
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    parts = dict(text.split("=", 1) for text in options.study)
    publish({float(share): Path(folder) for share, folder in parts.items()}, options.name)


if __name__ == "__main__":
    main()
