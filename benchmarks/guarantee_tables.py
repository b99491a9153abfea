"""The tables of docs/guarantees.md from the committed result."""

from collections.abc import Callable
from typing import Any

from .record import markdown_table

DATA = {"lidc_ct": "nodules on CT", "bubil": "cells"}
STATEMENTS = {
    "zone": "wrong pixels outside the review zone",
    "outer:class 1": "structure outside its outer mask",
    "inner:class 1": "prediction that is false inside its inner mask",
    "volume:class 1": "volume outside its interval",
    "dice": "Dice below its bound",
}


def coverage_table(result: dict[str, Any]) -> str:
    """A row a statement: what was missed, and what the theory and chance allow."""
    rows = []
    for row in result["rows"]:
        if row["statement"] == "none":
            rows.append([DATA[row["data"]], f"{row['alpha']:g}", f"takes {row['takes']} cases", "–", "–", "–"])
            continue
        looked = row.get("looked_at")
        rows.append(
            [
                f"{DATA[row['data']]}, {row['cases']} calibrate",
                f"{row['alpha']:g}",
                STATEMENTS[row["statement"]],
                f"{row['missed']:.3f}",
                f"{row['allowed']:.3f}" + ("" if row["holds"] else " (missed)"),
                "–" if looked is None else f"{looked:.1%}",
            ]
        )
    header = ["cases", "alpha", "statement", "missed", "allowed", "share of the image at the threshold or above"]
    return markdown_table(header, rows) + f"\n\n{result['splits']:,} splits; `{result['command']}`, {result['date']}."


def zones_table(result: dict[str, Any]) -> str:
    """What one looks at with each map, a column a data set and level."""
    found: dict[str, dict[tuple[str, float], float]] = {}
    for row in result["zones"]:
        found.setdefault(row["map"], {})[row["data"], row["alpha"]] = row["looked_at"]
    columns = list(dict.fromkeys((row["data"], row["alpha"]) for row in result["zones"]))
    rows = [
        [f"`{name}`", *("–" if column not in values else f"{values[column]:.1%}" for column in columns)]
        for name, values in found.items()
    ]
    header = ["map", *(f"{DATA[data]}, alpha {alpha:g}" for data, alpha in columns)]
    times = result["times"]["lidc_ct"]
    return markdown_table(header, rows) + (
        f"\n\nMean share of the image in the review zone of cases that were not calibrated on, over 100 splits. Calibrating on "
        f"{times['cases']} cases of 128 x 128 took {times['calibrate_seconds']:.1f} s; a guarantee adds "
        f"{1e3 * times['guarantee_seconds']:.0f} ms to a case that takes {times['case_seconds']:.2f} s. `{result['command']}`, "
        f"{result['date']}."
    )


TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "guarantee coverage": ("docs/guarantees.md", "guarantees", coverage_table),
    "guarantee zones": ("docs/guarantees.md", "guarantees", zones_table),
}
