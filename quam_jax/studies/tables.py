"""From cells to tables: the mean over networks of every case, then over cases with intervals and paired tests.

The case is the unit of every interval and test, since networks that saw the same cases are no independent observations;
how far networks differ stands beside it as the standard deviation of their means.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from ..evaluation.review_zone import Remembered, review_shares
from ..evaluation.statistics import compare, summarise_column
from .study import Cell

AGREEMENT = ("r2_pearson", "pcc", "sdice_product_minmax")
KINDS = ("epistemic", "aleatoric", "total")
PUBLISHED = tuple(f"{kind}/{figure}" for kind in KINDS for figure in AGREEMENT)
FURTHER = (
    "total/pcc_halves",
    "total/partial_pcc_distance",
    "total/pcc_band",
    "total/auroc_image",
    "epistemic/auroc_image",
    "total/aurc_image",
    "total/review_share",
    "epistemic/mean",
    "ece_soft",
    "nll_raters",
    "ged_v",
    "dice_mean",
    "forward",
    "backward",
    "seconds",
)
TESTED = (
    "total/pcc",
    "aleatoric/pcc",
    "epistemic/pcc",
    "total/partial_pcc_distance",
    "total/auroc_image",
    "epistemic/auroc_image",
    "total/aurc_image",
    "nll_raters",
    "ged_v",
)
SEARCHES = ("quam", "quam_tuned", "tta_quam_ranks")  # compared with every other row
NAMES = {
    "r2_pearson": "R²",
    "pcc": "PCC",
    "sdice_product_minmax": "SDice",
    "pcc_halves": "PCC with half the raters",
    "partial_pcc_distance": "PCC beyond the contour",
    "pcc_band": "PCC in the band",
    "auroc_image": "AUROC of errors",
    "aurc_image": "AURC",
    "review_share": "review zone",
    "mean": "mean (nats)",
    "ece_soft": "ECE",
    "nll_raters": "NLL",
    "ged_v": "GED²",
    "dice_mean": "Dice",
    "forward": "forward",
    "backward": "backward",
    "seconds": "processor seconds",
}


def case_means(cells: Sequence[Cell], *, condition: str) -> dict[str, dict[str, dict[str, float]]]:
    """method -> case -> figure, averaged over the networks that have it (NaN where none has)."""
    gathered: dict[str, dict[str, dict[str, list[float]]]] = {}
    for cell in cells:
        if cell.condition == condition:
            figures = gathered.setdefault(cell.method, {}).setdefault(cell.case, {})
            for name, value in cell.figures.items():
                figures.setdefault(name, []).append(value)
    return {
        method: {case: {name: _mean(values) for name, values in figures.items()} for case, figures in table.items()}
        for method, table in gathered.items()
    }


def summarise_methods(
    cells: Sequence[Cell], *, condition: str = "none", baseline: str = "softmax", figures: Sequence[str] = (*PUBLISHED, *FURTHER)
) -> dict[str, Any]:
    """Everything a table needs: per method and figure the mean, interval, counts, spread over networks, and paired tests.

    A comparison is a method minus the baseline over the cases that both have; Holm's correction covers all methods of one
    figure. `search_against` compares the searches with every method in the same way: search minus method. `case_spearman` is
    the rank correlation over cases of the map's mass over the predicted area with 1 - Dice, with its bootstrap interval.
    ValueError where the baseline is not among the methods.
    """
    table = case_means(cells, condition=condition)
    if baseline not in table:
        raise ValueError(f"baseline: expected one of {', '.join(table) or 'the methods that ran'}, got {baseline!r}")
    cases = sorted({case for rows in table.values() for case in rows})
    summary: dict[str, Any] = {}
    for method, rows in table.items():
        columns: dict[str, Any] = {}
        for figure in figures:
            values = _column(rows, cases, figure)
            networks = _network_means(cells, method, condition, figure)
            spread = float(np.std(networks, ddof=1)) if len(networks) > 1 else float("nan")
            columns[figure] = summarise_column(values)._asdict() | {"sd_networks": spread}
        summary[method] = {"figures": columns, "cases": len(rows), "case_spearman": case_ranking(rows)}
    for figure in TESTED:
        columns = {method: _column(rows, cases, figure) for method, rows in table.items()}
        reference = baseline if not np.isnan(columns[baseline]).all() else ""
        if reference:
            for method, comparison in compare(columns, baseline=reference).items():
                summary[method].setdefault("against_baseline", {})[figure] = comparison._asdict()
        for search in SEARCHES:
            if search in columns and not np.isnan(columns[search]).all():
                for method, comparison in compare(columns, baseline=search).items():
                    turned = comparison._asdict() | {
                        "difference": -comparison.difference,
                        "low": -comparison.high,
                        "high": -comparison.low,
                    }
                    summary[search].setdefault("search_against", {}).setdefault(figure, {})[method] = turned
    return {
        "condition": condition,
        "baseline": baseline,
        "cases": len(cases),
        "networks": sorted({cell.network for cell in cells}),
        "methods": summary,
    }


def with_review_shares(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with the share of the image that one must look at, by the total map and the other cases of the same row."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, cell in enumerate(cells):
        if "review_wrong" in cell.curves:
            groups.setdefault((cell.network, cell.method, cell.condition), []).append(place)
    found = list(cells)
    for places in groups.values():
        known = [Remembered(*(np.array(cells[p].curves[name]) for name in ("review_wrong", "review_levels"))) for p in places]
        for place, share in zip(places, review_shares(known), strict=True):
            found[place] = found[place]._replace(figures={**found[place].figures, "total/review_share": share})
    return found


def pool_shifts(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of every condition but `none` as one condition `shifted`, for the methods that ran under all of them."""
    conditions = {cell.condition for cell in cells} - {"none"}
    ran: dict[str, set[str]] = {}
    for cell in cells:
        ran.setdefault(cell.method, set()).add(cell.condition)
    return [cell._replace(condition="shifted") for cell in cells if cell.condition != "none" and ran[cell.method] >= conditions]


def case_ranking(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Does a case's uncertainty rank its Dice? Spearman of each map's mass over the predicted area with 1 - Dice.

    `KIND_low` and `KIND_high` are the 95 % percentile bootstrap over cases (2000 resamples, fixed seed).
    """
    found = {}
    for kind in KINDS:
        pairs = np.array(
            [(row.get(f"{kind}/sum_over_foreground", np.nan), 1 - row.get("dice_consensus", np.nan)) for row in rows.values()]
        )
        pairs = pairs[~np.isnan(pairs).any(1)]
        varied = len(pairs) > 2 and np.ptp(pairs, axis=0).min() > 0
        found[kind] = _spearman(pairs) if varied else float("nan")
        found[f"{kind}_low"] = found[f"{kind}_high"] = float("nan")
        if varied:
            order = np.lexsort(pairs.T)
            drawn = np.random.default_rng(0).integers(0, len(pairs), (2000, len(pairs)))
            resampled = [_spearman(pairs[order][chosen]) for chosen in drawn]
            found[f"{kind}_low"], found[f"{kind}_high"] = (float(q) for q in np.nanquantile(resampled, [0.025, 0.975]))
    return found


def _spearman(pairs: Float[np.ndarray, "n 2"]) -> float:
    first, second = (stats.rankdata(column) for column in pairs.T)
    spread = first.std() * second.std()
    return float(np.mean((first - first.mean()) * (second - second.mean())) / spread) if spread else float("nan")


def long_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a cell, for a CSV file."""
    return [{"network": c.network, "method": c.method, "condition": c.condition, "case": c.case, **c.figures} for c in cells]


class Table(NamedTuple):
    """A title, and rows of text of which the first cell names the method."""

    title: str
    head: list[str]
    rows: list[list[str]]


def caption(summary: Mapping[str, Any]) -> str:
    """What the figures of a condition are means of, and what stands beside them."""
    return (
        f"{summary['cases']} cases, {len(summary['networks'])} networks, condition `{summary['condition']}`. Mean over cases "
        "of the mean over networks; [95 % bootstrap interval over cases]; * differs from "
        f"`{summary['baseline']}` with Holm-corrected p < 0.05 (Wilcoxon)."
    )


def laid_out(summary: Mapping[str, Any], settings: Mapping[str, str]) -> list[Table]:
    """The published layout (epistemic, aleatoric, total x R², PCC, soft Dice) and a second table of everything else."""
    methods = summary["methods"]
    published = [
        [name, *(_cell(row, figure, interval=figure.endswith("/pcc")) for figure in PUBLISHED)] for name, row in methods.items()
    ]
    further = [
        [name, *(_cell(row, figure) for figure in FURTHER), _ranking(row["case_spearman"]), settings.get(name, "")]
        for name, row in methods.items()
    ]
    return [
        Table("Agreement with the raters", ["method", *(f"{kind} {NAMES[f]}" for kind in KINDS for f in AGREEMENT)], published),
        Table("Errors, calibration, cost", ["method", *map(_title, FURTHER), "case ranking (total)", "settings"], further),
    ]


def markdown(summary: Mapping[str, Any], settings: Mapping[str, str]) -> str:
    """Both tables of a condition."""
    return "\n\n".join([caption(summary), *(_markdown(table.head, table.rows) for table in laid_out(summary, settings))]) + "\n"


def latex(summary: Mapping[str, Any]) -> str:
    """The published layout as a LaTeX table body (booktabs)."""
    lines = [
        r"\begin{tabular}{l" + "ccc" * len(KINDS) + "}",
        r"\toprule",
        " & " + " & ".join(rf"\multicolumn{{3}}{{c}}{{{kind.capitalize()}}}" for kind in KINDS) + r" \\",
        "Method" + r" & $R^2$ & PCC & SDice" * len(KINDS) + r" \\",
        r"\midrule",
    ]
    for name, row in summary["methods"].items():
        cells = " & ".join(_number(row["figures"][figure]["mean"]) for figure in PUBLISHED)
        lines.append(name.replace("_", r"\_") + " & " + cells + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(row: Mapping[str, Any], figure: str, *, interval: bool = False) -> str:
    column = row["figures"][figure]
    text = _number(column["mean"])
    if interval and not np.isnan(column["low"]):
        text += f" [{column['low']:.3f}, {column['high']:.3f}]"
    tested = row.get("against_baseline", {}).get(figure)
    if tested and tested["p_holm"] < 0.05:
        text += " *"
    if column["n"] and column["n_nan"]:
        text += f" ({column['n_nan']} missing)"
    return text


def _number(value: float) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _ranking(row: Mapping[str, float]) -> str:
    if np.isnan(row["total"]):
        return "-"
    return f"{row['total']:.3f} [{row['total_low']:.3f}, {row['total_high']:.3f}]"


def _title(figure: str) -> str:
    kind, _, name = figure.rpartition("/")
    return f"{kind} {NAMES[name]}".strip() if kind != "total" else NAMES[name]


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _column(rows: Mapping[str, Mapping[str, float]], cases: Sequence[str], figure: str) -> Float[np.ndarray, " n"]:
    return np.array([rows.get(case, {}).get(figure, np.nan) for case in cases], np.float64)


def _network_means(cells: Sequence[Cell], method: str, condition: str, figure: str) -> list[float]:
    values: dict[str, list[float]] = {}
    for cell in cells:
        if cell.method == method and cell.condition == condition:
            values.setdefault(cell.network, []).append(cell.figures.get(figure, np.nan))
    means = [_mean(column) for column in values.values()]
    return [m for m in means if not np.isnan(m)]


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")
