"""Wins, ties and losses of searches against the other methods: by study, and of all studies at a glance.

A difference counts as a win or a loss where its Holm-corrected p (Wilcoxon, cases paired) is below 0.05 and its bootstrap
interval leaves out 0, as a tie otherwise. A tie is no proof of equality: the interval says how large a difference may be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .evidence_names import LABELS, QUESTIONS, Question, label
from .record import markdown_table
from .study_plans import STUDIES

SEARCHES = ("quam", "quam_thorough", "quam_fast", "quam_blur", "quam_tuned", "tta_quam_ranks")
GLANCE = {
    "methods": ("softmax", "temperature", "tta", "ensemble", "mc_dropout", "laplace", "evidential", "prob_unet"),
    "controls": (
        "boundary",
        "blur",
        "blurred_mask",
        "random_directions",
        "tta_ensemble",
        "tta_blur",
        "random_views",
        "random_views_pooled",
        "quam_no_search",
    ),
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
                lost = ", ".join(LABELS.get(m, m).strip("*") for m, word in words.items() if word == "loss")
                counts = " / ".join(str(list(words.values()).count(word)) for word in ("win", "tie", "loss"))
                cells.append((counts + (f" ({lost})" if lost else "")) if words else "–")
        lines.append([STUDIES[name].title, *cells])
    return markdown_table(
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
            [label(method, result), *(verdict_cell(found.get(method), question) for question, found in columns.items())]
            for method in methods
        ]
        parts.append(
            f"{label(search, result)} minus the others, with 95 % intervals:\n\n"
            + markdown_table(["", *(question.title for question in columns)], lines)
        )
    return "\n\n".join(parts)


def verdict_cell(test: Mapping[str, Any] | None, question: Question) -> str:
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
