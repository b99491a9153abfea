"""The picture and the table of docs/tutorials/review-list.md."""

from pathlib import Path
from typing import Any

import numpy as np

from .ranking_figures import BUDGET
from .record import markdown_table


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
    rows = []
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
        rows.append([row["data"], words[row["error"]], order, found, area, gain])
    counts = ", ".join(f"{name} {n} ({v})" for name, n, v in result["counts"])
    return markdown_table(header, rows) + f"\n\n`{result['command']}`, test cases (validation cases): {counts}; {result['date']}."
