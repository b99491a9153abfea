"""The pages of an evaluation and of a ranking: the answer in a sentence, then the tables that stand in their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.files import write_atomic
from ..evaluation.review import CASE_CRITERIA, REGION_CRITERIA
from ..report.table_page import Section, table_page
from ..report.tables import (
    NONE,
    dice_column,
    is_agreement,
    map_order,
    method_table,
    metric_label,
    metric_order,
    prediction_metrics,
    show,
    show_interval,
)

MOST_ROWS = 200  # of a table of cases; the file has them all
SIZE = "Sizes are in pixels, or mm² and mm³ where images have a spacing."
UNITS = "HD and volume errors are in mm and mm³ (mm²) where images have a spacing, else in pixels."
DECIDING = "pcc"  # agreement is told by it, where raters differ; else the first figure that there is


def write_evaluation(
    path: Path, rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str], summary: Mapping[str, Any], notes: Sequence[str]
) -> Path:
    """evaluation.html: which map agrees best with the raters, or finds errors best, all maps, the prediction, and every case."""
    metrics = metric_order(summary)
    deciding = DECIDING if DECIDING in metrics else metrics[0] if metrics else ""
    maps = map_order(summary)
    columns = [f"{name}/{deciding}" for name in maps]
    dice = dice_column(summary)
    head, table = method_table({"columns": summary}, metrics=metrics)
    own = [[metric_label(name), show_interval(summary[name])] for name in prediction_metrics(summary)]
    cases = [[str(row["case"]), *(show(row.get(c)) for c in ([dice] if dice else []) + columns)] for row in rows[:MOST_ROWS]]
    sections = [
        Section(
            "Maps side by side", head, table, "Means over cases with bootstrap 95 % intervals; docs/metrics.md defines them."
        ),
        Section(
            "Cases",
            ("case", *(["Dice"] if dice else []), *(f"{metric_label(deciding)} {name}" for name in maps)),
            cases,
            _rest(len(rows), "evaluation.csv"),
        ),
        Section("The prediction", ("figure", "mean [95 % interval]"), own, UNITS),
    ]
    if failed:
        sections.append(Section("Cases that could not be evaluated", ("case", "why"), [list(item) for item in failed.items()]))
    heading = f"{len(rows)} case{'' if len(rows) == 1 else 's'} scored" + _best(summary, maps, deciding)
    write_atomic(path, table_page(kicker="Evaluation of maps", heading=heading, sections=sections, notes=notes).encode())
    return path


def _best(summary: Mapping[str, Any], maps: Sequence[str], metric: str) -> str:
    """The map of the highest agreement, and what the control has; a tie where its interval reaches the other's mean."""
    known = {name: summary[f"{name}/{metric}"] for name in maps if show(summary.get(f"{name}/{metric}", {}).get("mean")) != NONE}
    if not known:
        return "."
    best = max(known, key=lambda name: known[name]["mean"])
    does = "agrees best with the raters" if is_agreement(metric) else "finds best what the prediction gets wrong"
    said = f": {best} {does} ({metric_label(metric)} {show(known[best]['mean'], 2)})"
    rest = {name: column for name, column in known.items() if name != best}
    if not rest:
        return said + "."
    second = max(rest, key=lambda name: rest[name]["mean"])
    tie = known[best]["low"] <= rest[second]["mean"]
    return f"{said}, {'not told apart from' if tie else 'before'} {second} ({show(rest[second]['mean'], 2)})."


def write_ranking(path: Path, review: Any, settings: Mapping[str, Any]) -> Path:
    """ranking.html: which cases are suggested, the order with its criteria, and the regions."""
    suggested = [row["case"] for row in review.cases if row["suggested"] == "yes"]
    criteria, own = list(settings["by"]), list(settings["regions_by"])
    cases = [[row["case"], str(row["rank"]), show(row["score"]), *(show(row[c]) for c in criteria)] for row in review.cases]
    regions = [
        [f"{row['case']}, {row['label'] or NONE}", str(row["rank"]), row["at"], str(row["pixels"]), *(show(row[c]) for c in own)]
        for row in review.regions
    ]
    names = ", ".join(suggested[:5]) + (f" and {len(suggested) - 5} more" if len(suggested) > 5 else "")
    sections = [
        Section("Cases, the most worthwhile first", ("case", "rank", "score", *criteria), cases[:MOST_ROWS],
                f"Ordered by {_meaning(criteria, CASE_CRITERIA)}. {SIZE} " + _rest(len(cases), "cases.csv")),
        Section("Regions of all cases", ("case and label", "rank", "peak at", "pixels", *own), regions[:MOST_ROWS],
                f"Ordered by {_meaning(own, REGION_CRITERIA)}. {SIZE} A label is that of CASE_desc-review_dseg; a peak is "
                "at row, column of a picture, at voxel i, j, k of a volume. " + _rest(len(regions), "regions.csv")),
    ]  # fmt: skip
    if review.left_out:
        sections.append(Section("Left out", ("case", "why"), [list(item) for item in review.left_out.items()]))
    heading = f"Look first at {names}." if suggested else "No case is suggested."
    write_atomic(path, table_page(kicker="Ranking of a run", heading=heading, sections=sections).encode())
    return path


def _meaning(names: Sequence[str], criteria: Mapping[str, str]) -> str:
    """Criteria with what they are."""
    return "; ".join(f"{name}: {criteria[name]}" for name in names)


def _rest(count: int, file: str) -> str:
    return f"The first {MOST_ROWS} of {count}; {file} has all of them." if count > MOST_ROWS else ""
