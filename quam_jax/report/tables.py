"""Tables as rows of text: the overview of a run, the maps side by side, and plain aligned columns.

Cells are strings, so that the command line, the page and a log show the same figures. A dash stands for a
value that is missing or not a number.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from .folder import number

KNOWN_MAPS = ("total", "aleatoric", "epistemic", "softmax", "boundary")
HEADLINE = ("pcc", "r2_pearson", "sdice_product_minmax")
CONTROLS = {"boundary"}
DICE = ("dice", "dice_consensus", "dice_raters")
PLAIN = (
    "case",
    "status",
    "seconds",
    "members",
    "held",
    "moved",
    "look",
    "reason",
    "note",
)  # columns of results.csv that are no metric
NONE = "–"

_NAMES = {
    "ace": "ACE",
    "adaptive_ece": "adaptive ECE",
    "classwise_ece": "class-wise ECE",
    "ap": "average precision",
    "auroc": "AUROC",
    "aurc": "AURC",
    "augrc": "AUGRC",
    "brier": "Brier",
    "dice": "Dice",
    "e_aurc": "E-AURC",
    "ece": "ECE",
    "ged": "GED²",
    "hd": "HD",
    "hd95": "HD95",
    "hm_iou": "HM-IoU",
    "iou": "IoU",
    "mce": "MCE",
    "mean": "mean in nats",
    "n_raters": "number of raters",
    "ncc": "NCC",
    "nll": "NLL",
    "nsd": "NSD",
    "partial_pcc": "partial PCC",
    "partial_spearman": "partial Spearman",
    "pavpu": "PAvPU",
    "pcc": "PCC",
    "qu_brats": "QU-BraTS",
    "qubiq": "QUBIQ",
    "r2_cod": "R² (determination)",
    "r2_pearson": "R² (Pearson)",
    "relative_volume_error": "relative volume error",
    "sdice_product": "soft Dice, product",
    "sdice_product_minmax": "soft Dice",
    "sdice_squared": "soft Dice, squares",
    "sdice_threshold": "soft Dice, thresholds",
    "spearman": "Spearman",
    "volume_crps_curvas": "volume CRPS (CURVAS)",
    "volume_error": "volume error",
}


def metric_label(name: str) -> str:
    """The readable name of a metric: its longest known beginning, then the rest as qualifiers."""
    words = name.split("_")
    for length in range(len(words), 0, -1):
        known = _NAMES.get("_".join(words[:length]))
        if known:
            return ", ".join([known, *words[length:]])
    return " ".join(words)


def prediction_metrics(columns: Iterable[str]) -> list[str]:
    """The columns that judge the prediction itself and not a map, Dice first."""
    own = [c for c in columns if "/" not in c and c not in PLAIN]
    dice = [c for c in DICE if c in own]
    return dice + [c for c in own if c not in dice]


def dice_column(columns: Iterable[str]) -> str | None:
    """The column of the prediction's Dice: `dice`, else against the consensus or the mean over raters."""
    present = set(columns)
    return next((c for c in DICE if c in present), None)


def split_column(column: str) -> tuple[str, str]:
    """(map, metric) of a column such as `total/pcc`; the map is empty for a metric of the prediction."""
    name, slash, metric = column.partition("/")
    return (name, metric) if slash else ("", column)


def map_order(columns: Iterable[str]) -> list[str]:
    """The maps with columns: total, aleatoric, epistemic, softmax, boundary, then others as they come."""
    present = list(dict.fromkeys(split_column(c)[0] for c in columns if "/" in c))
    return [m for m in KNOWN_MAPS if m in present] + [m for m in present if m not in KNOWN_MAPS]


def metric_order(columns: Iterable[str]) -> list[str]:
    """The metrics of maps: the headline ones first, then the others as they come."""
    present = list(dict.fromkeys(split_column(c)[1] for c in columns if "/" in c))
    return [m for m in HEADLINE if m in present] + [m for m in present if m not in HEADLINE]


def headline_metrics(columns: Iterable[str]) -> list[str]:
    """PCC, R2 and one soft Dice, as far as the run has them; without any of them the first three metrics."""
    ordered = metric_order(columns)
    chosen = [m for m in ordered if m in HEADLINE]
    if not any(m.startswith("sdice") for m in chosen):
        chosen += [m for m in ordered if m.startswith("sdice")][:1]
    return chosen or ordered[:3]


def is_agreement(metric: str) -> bool:
    """Whether a metric compares a map with the raters, and larger is better."""
    return metric in HEADLINE or metric.startswith("sdice")


def show(value: object, digits: int = 3) -> str:
    """A number with fixed digits, in powers of ten where that would hide it; a dash for no finite number."""
    figure = number(value)
    if not math.isfinite(figure):
        return NONE
    if figure != 0 and not 10**-digits <= abs(figure) < 1e5:
        return f"{figure:.{digits - 1}e}"
    return f"{figure:.{digits}f}"


def show_count(value: object) -> str:
    """A whole number without decimals, a dash for what is none."""
    figure = number(value)
    return NONE if not math.isfinite(figure) else f"{figure:,.0f}"


def show_seconds(value: object) -> str:
    """A duration in the units a person would use."""
    figure = number(value)
    if not math.isfinite(figure):
        return NONE
    if figure < 120:
        return f"{figure:.3g} s"
    minutes = round(figure / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def show_interval(column: Mapping[str, object] | None, digits: int = 3) -> str:
    """`mean [low, high]` of a column of summary.json, a dash where it has no mean."""
    if not column or show(column.get("mean")) == NONE:
        return NONE
    low, high = show(column.get("low"), digits), show(column.get("high"), digits)
    mean = show(column.get("mean"), digits)
    return mean if NONE in (low, high) else f"{mean} [{low}, {high}]"


def overview(
    results_rows: Sequence[Mapping[str, object]],
    summary: Mapping[str, object],
    *,
    metrics: Sequence[str] = ("pcc",),
) -> tuple[list[str], list[list[str]]]:
    """A row a case, then the mean and the ends of its interval: Dice and the given metrics of every map.

    `results_rows` are the rows of results.csv, `summary` the content of summary.json. Metrics that no row has
    are left out; a failed case keeps its status and has dashes.
    """
    present = list(dict.fromkeys(name for row in results_rows for name in row))
    wanted = [f"{m}/{metric}" for metric in metrics for m in map_order(present) if f"{m}/{metric}" in present]
    dice = dice_column(present)
    columns = ([dice] if dice else []) + wanted
    header = ["case", "status", "kept the bound", "moved", *(_heading(c) for c in columns)]
    rows = [
        [
            str(row.get("case", "")),
            str(row.get("status", "") or NONE),
            held_of(row),
            moved_of(row),
            *(show(row.get(c)) for c in columns),
        ]
        for row in results_rows
    ]
    stored = summary.get("columns")
    means = [stored.get(c) for c in columns] if isinstance(stored, Mapping) else [None] * len(columns)
    counted = sum(not str(row.get("status", "")).lower().startswith("fail") for row in results_rows)
    rows.append([f"mean of {counted}", "", "", "", *(show((m or {}).get("mean")) for m in means)])
    for end in ("low", "high"):
        bounds = [show((m or {}).get(end)) for m in means]
        if any(bound != NONE for bound in bounds):
            rows.append([f"{end} end", "", "", "", *bounds])
    return header, rows


def method_table(summary: Mapping[str, object], *, metrics: Sequence[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """A row a map and a column a metric: means over the cases with their intervals, from summary.json."""
    stored = summary.get("columns")
    columns: Mapping[str, Mapping[str, object]] = stored if isinstance(stored, Mapping) else {}
    chosen = list(metrics) if metrics is not None else headline_metrics(columns)
    header = ["map", *(metric_label(m) for m in chosen)]
    rows = []
    for name in map_order(columns):
        label = f"{name} (control)" if name in CONTROLS else name
        rows.append([label, *(show_interval(columns.get(f"{name}/{m}")) for m in chosen)])
    return header, rows


def held_of(row: Mapping[str, object]) -> str:
    """How many models kept the bound, of those that were searched, by a row of results.csv."""
    return _of_members(row, "held")


def moved_of(row: Mapping[str, object]) -> str:
    """How many of them kept the bound and moved towards their targets."""
    return _of_members(row, "moved")


def _of_members(row: Mapping[str, object], column: str) -> str:
    count, members = show_count(row.get(column)), show_count(row.get("members"))
    return NONE if NONE in (count, members) else f"{count}/{members}"


def format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text with aligned columns: words to the left, figures to the right.

    Raises ValueError if a row has another number of cells than there are columns.
    """
    for index, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"row {index} of the table: expected {len(columns)} cells, got {len(row)}")
    widths = [max(len(column), *(len(row[i]) for row in rows)) if rows else len(column) for i, column in enumerate(columns)]
    right = [bool(rows) and all(_is_figure(row[i]) for row in rows) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line(columns), "  ".join("-" * w for w in widths), *(line(row) for row in rows)])


def _is_figure(cell: str) -> bool:
    head = cell.split(" ")[0].split("/")[0].replace(",", "")
    return cell in ("", NONE) or math.isfinite(number(head))


def _heading(column: str) -> str:
    name, metric = split_column(column)
    return f"{metric_label(metric)} {name}".strip()
