"""Tables of one study: all figures of all methods, the few of a first page, and uncertainty over training data."""

from collections.abc import Mapping
from typing import Any

from .evidence_names import LABELS, QUESTIONS, default_settings, label, ran_with
from .evidence_verdicts import verdict_cell
from .record import markdown_table


def main_table(result: Mapping[str, Any]) -> str:
    """One row a method: agreement, errors in distribution and under all shifts, calibration, ranking of cases, cost."""
    rows = {c: {r["method"]: r for r in result["rows"] if r["condition"] == c} for c in ("none", "shifted")}
    header = [
        "method",
        "total PCC [95 %]",
        "aleatoric",
        "epistemic",
        "half the raters",
        "beyond contour",
        "AUROC of errors",
        "AUROC, shifts [95 %]",
        "by the epistemic map",
        "AURC x 1000, shifts",
        "NLL",
        "case ranking [95 %]",
        "passes",
        "s",
    ]
    lines = []
    for method, row in rows["none"].items():
        moved = rows["shifted"].get(method, {})
        ranking = {k.removeprefix("total"): v for k, v in row["case_spearman"].items() if k.startswith("total")}
        lines.append(
            [
                label(method, result),
                _interval(row, "total/pcc"),
                _figure(row.get("aleatoric/pcc")),
                _figure(row.get("epistemic/pcc")),
                _figure(row.get("total/pcc_halves")),
                _figure(row.get("total/partial_pcc_distance")),
                _figure(row.get("total/auroc_image")),
                _interval(moved, "total/auroc_image"),
                _figure(moved.get("epistemic/auroc_image")),
                _figure(moved.get("total/aurc_image"), scale=1000, digits=2),
                _figure(row.get("nll_raters")),
                _triple(ranking.get(""), ranking.get("_low"), ranking.get("_high")),
                _passes(row),
                _seconds(row),
            ]
        )
    note = f"{result['note']}\n\n" if result.get("note") else ""
    return (
        note
        + markdown_table(header, lines)
        + (
            f"\n\n{result['rows'][0]['cases']} test cases, {len(result['networks'])} networks. "
            f"`{_recipe(result)}`, {result['date']}."
        )
    )


SHORT = (
    "softmax",
    "temperature",
    "tta",
    "ensemble",
    "mc_dropout",
    "laplace",
    "evidential",
    "prob_unet",
    "quam",
    "quam_thorough",
    "quam_fast",
    "quam_blur",
    "quam_plain",
    "quam_tuned",
    "quam_published",
    "tta_quam_ranks",
    "boundary",
    "blur",
    "random_directions",
    "tta_ensemble",
    "tta_blur",
    "random_views_pooled",
    "quam_no_search",
)


HEADLINE = ("softmax", "tta", "ensemble", "quam", "quam_fast", "blur", "tta_blur", "quam_no_search")


def headline_table(result: Mapping[str, Any]) -> str:
    """Eight rows of one study: what a first page has room for."""
    rows = {c: {r["method"]: r for r in result["rows"] if r["condition"] == c} for c in ("none", "shifted")}
    lines = [
        [
            label(method, result),
            _interval(rows["none"][method], "total/pcc"),
            _interval(rows["shifted"].get(method, {}), "total/auroc_image"),
            _seconds(rows["none"][method]),
        ]
        for method in HEADLINE
        if method in rows["none"]
    ]
    return (
        markdown_table(["method", "PCC with rater entropy [95 %]", "AUROC of errors, shifts [95 %]", "s"], lines)
        + f"\n\n{result['rows'][0]['cases']} test cases, {len(result['networks'])} networks; *italics* are controls. "
        + f"{result['date']}."
    )


def short_table(result: Mapping[str, Any]) -> str:
    """The rows and columns that a first page has room for, with what the search gains or loses beside each.

    That is the default one, or the tuned one where the default has changed since the study ran.
    """
    held = "quam" if ran_with(result) == default_settings() else "quam_tuned"
    rows = {c: {r["method"]: r for r in result["rows"] if r["condition"] == c} for c in ("none", "shifted")}
    agreement, shifted = QUESTIONS[0], QUESTIONS[3]
    tests = [
        rows[question.condition].get(held, {}).get("search_against", {}).get(question.figure, {})
        for question in (agreement, shifted)
    ]
    lines = []
    for method in (m for m in SHORT if m in rows["none"]):
        row, moved = rows["none"][method], rows["shifted"].get(method, {})
        ranks = method.endswith("_ranks")  # only their order says anything
        beside = [
            verdict_cell(None if ranks and question is agreement else found.get(method), question) if method != held else "–"
            for question, found in zip((agreement, shifted), tests, strict=True)
        ]
        lines.append(
            [
                label(method, result),
                "–" if ranks else _interval(row, "total/pcc"),
                beside[0],
                _interval(moved, "total/auroc_image"),
                beside[1],
                _seconds(row),
            ]
        )
    search = label(held, result).replace("*", "").removeprefix("QUAM-SM, ")
    text = (
        f"\n\n{result['rows'][0]['cases']} test cases, {len(result['networks'])} networks; *italics* are controls. Paired "
        f"differences of the {search} search from each method with 95 % intervals: a win or loss where Holm's p < 0.05, "
        f"else a tie. {result['date']}."
    )
    return (
        markdown_table(
            [
                "method",
                "PCC with rater entropy [95 %]",
                f"{search} minus it",
                "AUROC of errors, shifts [95 %]",
                f"{search} minus it",
                "s",
            ],
            lines,
        )
        + text
    )


def shrinking_table(result: Mapping[str, Any]) -> str:
    """Mean epistemic uncertainty over the share of training data."""
    shares = list(dict.fromkeys(row["share"] for row in result["rows"]))
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    table = {(r["method"], r["share"]): r for r in result["rows"]}
    lines = [
        [
            LABELS.get(m, m),
            *(
                _triple(*(None if r.get(k) is None else 1000 * r[k] for k in ("mean", "low", "high")))
                for r in (table.get((m, s), {}) for s in shares)
            ),
            "yes" if table[m, shares[-1]].get("shrinks") else "no",
        ]
        for m in methods
    ]
    return (
        markdown_table(
            ["epistemic, nats x 1000", *(f"{s:.0f} % of the training cases" for s in shares), "shrinks throughout"], lines
        )
        + f"\n\n`{_recipe(result)}`, {result['date']}."
    )


def _recipe(result: Mapping[str, Any]) -> str:
    return str(result.get("recipe") or result.get("study_command") or result["command"])


def _figure(value: float | None, *, scale: float = 1.0, digits: int = 3) -> str:
    return "–" if value is None else f"{scale * value:.{digits}f}"


def _triple(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _interval(row: Mapping[str, Any], figure: str) -> str:
    return _triple(row.get(figure), row.get(f"{figure}_low"), row.get(f"{figure}_high"))


def _seconds(row: Mapping[str, Any]) -> str:
    return "–" if row["method"].endswith("_ranks") else _figure(row.get("seconds"), digits=2)  # its parts are computed before


def _passes(row: Mapping[str, Any]) -> str:
    forward, backward = row.get("forward"), row.get("backward")
    if forward is None:
        return "–"
    return f"{forward:.0f}" + (f" + {backward:.0f} back" if backward else "")
