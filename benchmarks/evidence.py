"""What the committed studies say, as tables and sentences of docs/evidence.md, all computed from the results.

A difference counts as a win or a loss where its Holm-corrected p (Wilcoxon, cases paired) is below 0.05 and its bootstrap
interval leaves out 0, as a tie otherwise. A tie is no proof of equality: the interval says how large a difference may be.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quam_jax.config import Config

LABELS = {
    "softmax": "softmax",
    "temperature": "temperature scaling",
    "tta": "TTA",
    "ensemble": "ensemble of 3",
    "mc_dropout": "MC dropout",
    "laplace": "Laplace, last layer",
    "evidential": "evidential network",
    "prob_unet": "Probabilistic U-Net",
    "quam": "**QUAM-SM, default**",
    "quam_tuned": "**QUAM-SM, tuned**",
    "quam_published": "QUAM-SM, published",
    "quam_regions": "QUAM-SM, regions",
    "quam_pixels": "QUAM-SM, pixels",
    "boundary": "*boundary band*",
    "blur": "*blurred probability*",
    "blurred_mask": "*blurred mask*",
    "random_directions": "*random directions*",
    "quam_no_search": "*default, no search*",
    "quam_published_no_search": "*published, no search*",
    "tta_quam_ranks": "**TTA + QUAM-SM, ranks**",
    "tta_random_ranks": "*TTA + random directions, ranks*",
    "raters_halves": "*other half of the raters*",
}


class Question(NamedTuple):
    """What searches are held against other methods in: a figure, under which condition, and whether more of it is better."""

    figure: str
    condition: str
    title: str
    sign: int = 1
    scale: float = 1.0


QUESTIONS = (
    Question("total/pcc", "none", "agreement with rater entropy (PCC)"),
    Question("total/partial_pcc_distance", "none", "the same beyond the contour"),
    Question("total/auroc_image", "none", "wrong pixels (AUROC)"),
    Question("total/auroc_image", "shifted", "wrong pixels, shifts (AUROC)"),
    Question("epistemic/auroc_image", "shifted", "the same by the epistemic map"),
    Question("total/aurc_image", "shifted", "AURC x 1000, shifts (lower is better)", -1, 1000.0),
)
SEARCHES = ("quam", "quam_tuned", "tta_quam_ranks")
STUDIES = {
    "crisp_over": "Rendered LIDC, crisp: over-confident networks",
    "crisp_cal": "Rendered LIDC, crisp: networks of all raters",
    "soft_cal": "Rendered LIDC, soft: calibrated networks",
    "bubil": "BU-BIL: real cells, eight masks",
    "bubil_cal": "BU-BIL: networks of all raters",
    "crops": "LIDC crops: real CT, networks trained on rendered pictures",
    "crops_over": "LIDC crops: over-confident networks",
}
PICTURES = {
    "strip": "strip",
    "curves": "Reliability and risk-coverage curves",
    "tuning": "Scores on validation cases, by setting",
}
SHRINKING = {"shrinking_crisp": "More training data"}


def default_settings() -> dict[str, float]:
    """What the tuned search chooses from, as the default has it."""
    config = Config()
    return {"radius": config.targets.radius, "learning_rate": config.search.learning_rate, "slack": config.search.slack}


def label(method: str, result: Mapping[str, Any]) -> str:
    """The name of a row; a default that has changed since the study ran is named by its settings."""
    ran_with = result.get("default", default_settings())
    if method == "quam" and ran_with != default_settings():
        return f"QUAM-SM, {_settings(ran_with)}"
    return LABELS.get(method, method)


def studies(results: Path) -> str:
    """The sections of all studies that are in the folder of results."""
    sections = []
    for name, title in STUDIES.items():
        result = _read(results / f"methods_{name}.json")
        if result:
            there = [
                (kind, text)
                for kind, text in PICTURES.items()
                if (results.parent.parent / f"docs/pictures/methods_{name}_{kind}.png").exists()
            ]
            pictures = "".join(
                f"\n\n{'!' if kind == 'strip' else ''}[{text}](pictures/methods_{name}_{kind}.png)" for kind, text in there
            )
            sections.append(f"## {title}\n\n{main_table(result)}{pictures}\n\n{verdicts(result)}\n\n{chosen(result)}")
    found = {name: result for name in STUDIES if (result := _read(results / f"methods_{name}.json"))}
    if found:
        sections.insert(0, f"## At a glance\n\n{glance(found)}")
        sections.append(f"## Choice of the default\n\n{choice(list(found.values()))}")
    for name, title in SHRINKING.items():
        result = _read(results / f"{name}.json")
        if result:
            sections.append(f"## {title}\n\n{shrinking_table(result)}")
    return "\n\n".join(sections)


def chosen(result: Mapping[str, Any]) -> str:
    """What validation chose for the search, network by network, and what the default had there."""
    lines = []
    for name, rows in result["tuning"].items():
        network, _, method = name.rpartition(" ")
        if method == "quam_tuned":
            best = max((r for r in rows if r["score"] is not None), key=lambda r: r["score"], default=None)
            if best:
                default = next((r for r in rows if r["settings"] == default_settings() and r["score"] is not None), None)
                scores = [f"{row['score']:.3f} ± {row['standard_error']:.3f}" if row else "–" for row in (best, default)]
                lines.append([network, _settings(best["settings"]), *scores, str(best["cases"])])
    return "Chosen for the tuned search on validation cases (total PCC ± standard error over cases):\n\n" + markdown(
        ["network", "chosen", "its score", "the default's", "cases"], lines
    )


def choice(studies: Sequence[Mapping[str, Any]]) -> str:
    """How far every setting of the search's grid stays behind each network's best one on its validation cases."""
    scores: dict[str, dict[str, float]] = {}
    for name, rows in (pair for result in studies for pair in result["tuning"].items()):
        if name.endswith(" quam_tuned"):
            scores[name] = {_settings(row["settings"]): row["score"] for row in rows if row["score"] is not None}
    networks = [table for table in scores.values() if table]
    shared = [text for text in networks[0] if all(text in table for table in networks)] if networks else []
    lines = []
    for text in shared:
        behind = [max(table.values()) - table[text] for table in networks]
        title = f"{text} (the default)" if text == _settings(default_settings()) else text
        lines.append([title, f"{sum(behind) / len(behind):.3f}", f"{max(behind):.3f}", str(sum(b == 0 for b in behind))])
    text = (
        f"Total PCC on validation cases, over the {len(networks)} networks of the studies: how far one setting for all stays "
        "behind the best setting of each network.\n\n"
    )
    return text + markdown(["setting", "mean distance", "largest", "best of so many"], lines)


def _settings(settings: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


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
        + markdown(header, lines)
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
    "quam_tuned",
    "quam_published",
    "tta_quam_ranks",
    "boundary",
    "blur",
    "random_directions",
    "quam_no_search",
)


def short_table(result: Mapping[str, Any]) -> str:
    """The rows and columns that a first page has room for, with what the search gains or loses beside each.

    That is the default one, or the tuned one where the default has changed since the study ran.
    """
    held = "quam" if result.get("default", default_settings()) == default_settings() else "quam_tuned"
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
            _verdict(None if ranks and question is agreement else found.get(method), question) if method != held else "–"
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
        markdown(
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


GLANCE = {
    "methods": ("softmax", "temperature", "tta", "ensemble", "mc_dropout", "laplace", "evidential", "prob_unet"),
    "controls": ("boundary", "blur", "blurred_mask", "random_directions", "quam_no_search"),
}


def glance(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a study: how often the default search wins, ties and loses, and to whom it loses."""
    asked = (QUESTIONS[0], QUESTIONS[2], QUESTIONS[3])
    lines = []
    for name, result in found.items():
        cells = []
        for question in asked:
            row = next((r for r in result["rows"] if r["method"] == "quam" and r["condition"] == question.condition), {})
            tests = row.get("search_against", {}).get(question.figure, {})
            for members in GLANCE.values():
                words = {
                    m: verdict(tests[m], question.sign) for m in members if m in tests and tests[m]["difference"] is not None
                }
                lost = ", ".join(LABELS[m].strip("*") for m, word in words.items() if word == "loss")
                counts = " / ".join(str(list(words.values()).count(word)) for word in ("win", "tie", "loss"))
                cells.append((counts + (f" ({lost})" if lost else "")) if words else "–")
        lines.append([STUDIES[name], *cells])
    return markdown(
        ["default search: wins / ties / losses (to)", *(f"{question.title}, {kind}" for question in asked for kind in GLANCE)],
        lines,
    )


def verdicts(result: Mapping[str, Any], searches: Sequence[str] = SEARCHES) -> str:
    """Where each search wins, ties and loses: a table a search, its difference from every other method with the interval."""
    parts = []
    for search in searches:
        columns = {}
        for question in QUESTIONS:
            row = next((r for r in result["rows"] if r["method"] == search and r["condition"] == question.condition), {})
            ranks = search.endswith("_ranks") and "pcc" in question.figure  # only the order of ranks says anything
            columns[question] = (
                {}
                if ranks
                else {
                    method: test
                    for method, test in row.get("search_against", {}).get(question.figure, {}).items()
                    if test["difference"] is not None
                    and method not in ("raters_halves", search)
                    and not ("pcc" in question.figure and method.endswith("_ranks"))
                }
            )
        columns = {question: found for question, found in columns.items() if found}
        methods = dict.fromkeys(method for found in columns.values() for method in found)
        if not methods:
            continue
        counts = [[verdict(test, question.sign) for test in found.values()] for question, found in columns.items()]
        lines = [["wins / ties / losses", *(" / ".join(str(c.count(word)) for word in ("win", "tie", "loss")) for c in counts)]]
        lines += [
            [label(method, result), *(_verdict(found.get(method), question) for question, found in columns.items())]
            for method in methods
        ]
        parts.append(
            f"{label(search, result)} minus the others, with 95 % intervals:\n\n"
            + markdown(["", *(question.title for question in columns)], lines)
        )
    return "\n\n".join(parts)


def _verdict(test: Mapping[str, Any] | None, question: Question) -> str:
    if test is None:
        return "–"
    word = verdict(test, question.sign)
    digits = 3 if question.scale == 1 else 2
    figures = [f"{question.scale * test[name]:+.{digits}f}" for name in ("difference", "low", "high") if test[name] is not None]
    text = f"{figures[0]} [{figures[1]}, {figures[2]}]" if len(figures) == 3 else figures[0]
    return f"**{word}** {text}" if word == "win" else f"{word} {text}"


def verdict(test: Mapping[str, Any], sign: int) -> str:
    """`win`, `tie` or `loss` of a paired comparison; sign -1 where lower is better."""
    p, low, high = test["p_holm"], test["low"], test["high"]
    if p is None or low is None or p >= 0.05 or low <= 0 <= high:
        return "tie"
    return "win" if sign * test["difference"] > 0 else "loss"


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
        markdown(["epistemic, nats x 1000", *(f"{s:.0f} % of the training cases" for s in shares), "shrinks throughout"], lines)
        + f"\n\n`{_recipe(result)}`, {result['date']}."
    )


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


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
