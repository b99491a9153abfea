"""What the committed studies say, as tables and sentences of docs/evidence.md, all computed from the results.

A difference counts as a win or a loss where its Holm-corrected p (Wilcoxon, cases paired) is below 0.05 and its bootstrap
interval leaves out 0, as a tie otherwise. A tie is no proof of equality: the interval says how large a difference may be.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABELS = {"softmax": "softmax", "temperature": "temperature scaling", "tta": "TTA", "ensemble": "ensemble of 3",
          "mc_dropout": "MC dropout", "laplace": "Laplace, last layer", "evidential": "evidential network",
          "prob_unet": "Probabilistic U-Net", "quam": "**QUAM-SM, default**", "quam_tuned": "**QUAM-SM, tuned**",
          "quam_published": "QUAM-SM, published", "quam_regions": "QUAM-SM, regions", "quam_pixels": "QUAM-SM, pixels",
          "boundary": "*boundary band*", "blur": "*blurred probability*", "blurred_mask": "*blurred mask*",
          "random_directions": "*random directions*", "quam_no_search": "*default, no search*",
          "quam_published_no_search": "*published, no search*", "tta_quam_ranks": "**TTA + QUAM-SM, ranks**",
          "tta_random_ranks": "*TTA + random directions, ranks*", "raters_halves": "*other half of the raters*"}
QUESTIONS = (("total/pcc", "none", "agreement with rater entropy (PCC)", 1),
             ("total/partial_pcc_distance", "none", "agreement beyond the contour (partial PCC)", 1),
             ("total/auroc_image", "none", "wrong pixels, in distribution (AUROC)", 1),
             ("total/auroc_image", "shifted", "wrong pixels, under shift (AUROC)", 1),
             ("total/aurc_image", "shifted", "accepting certain pixels, under shift (AURC, lower is better)", -1))


STUDIES = {
    "crisp_over": "Rendered LIDC, crisp: over-confident networks", "crisp_cal": "Rendered LIDC, crisp: networks of all raters",
    "soft_cal": "Rendered LIDC, soft: calibrated networks", "soft_over": "Rendered LIDC, soft: networks of the majority",
    "bubil": "BU-BIL: real cells, eight masks", "crops": "LIDC crops: real CT, networks trained on rendered pictures"}
SHRINKING = {"shrinking_crisp": "More training data"}


def studies(results: Path) -> str:
    """The sections of all studies that are in the folder of results."""
    sections = []
    for name, title in STUDIES.items():
        result = _read(results / f"methods_{name}.json")
        if result:
            pictures = "".join(f"\n\n![{kind}](pictures/methods_{name}_{kind}.png)" for kind in ("strip",)
                               if (results.parent.parent / f"docs/pictures/methods_{name}_{kind}.png").exists())
            sections.append(f"## {title}\n\n{main_table(result)}{pictures}\n\n{verdicts(result)}\n\n{chosen(result)}")
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
                text = ", ".join(f"{k} {v:g}" for k, v in best["settings"].items())
                lines.append([network, text, f"{best['score']:.3f} ± {best['standard_error']:.3f}",
                              f"{rows[0]['score']:.3f} ± {rows[0]['standard_error']:.3f}", str(best["cases"])])
    return "Chosen for the tuned search on validation cases (total PCC ± standard error over cases):\n\n" + markdown(
        ["network", "chosen", "its score", "the default's", "cases"], lines)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def main_table(result: Mapping[str, Any]) -> str:
    """One row a method: agreement, errors in distribution and under all shifts, calibration, ranking of cases, cost."""
    rows = {c: {r["method"]: r for r in result["rows"] if r["condition"] == c} for c in ("none", "shifted")}
    header = ["method", "total PCC [95 %]", "aleatoric", "epistemic", "half the raters", "beyond contour", "AUROC of errors",
              "AUROC, shifts [95 %]", "AURC x 1000, shifts", "NLL", "case ranking [95 %]", "passes", "s"]
    lines = []
    for method, row in rows["none"].items():
        moved = rows["shifted"].get(method, {})
        ranking = {k.removeprefix("total"): v for k, v in row["case_spearman"].items() if k.startswith("total")}
        lines.append([LABELS.get(method, method), _interval(row, "total/pcc"), _figure(row.get("aleatoric/pcc")),
                      _figure(row.get("epistemic/pcc")), _figure(row.get("total/pcc_halves")),
                      _figure(row.get("total/partial_pcc_distance")), _figure(row.get("total/auroc_image")),
                      _interval(moved, "total/auroc_image"), _figure(moved.get("total/aurc_image"), scale=1000, digits=2),
                      _figure(row.get("nll_raters")), _triple(ranking.get(""), ranking.get("_low"), ranking.get("_high")),
                      _passes(row), _seconds(row)])
    note = f"{result['note']}\n\n" if result.get("note") else ""
    return note + markdown(header, lines) + (f"\n\n{result['rows'][0]['cases']} test cases, {len(result['networks'])} networks. "
                                             f"`{result['study_command']}`, {result['date']}.")


SHORT = ("softmax", "temperature", "tta", "ensemble", "mc_dropout", "laplace", "quam", "quam_tuned", "quam_published",
         "tta_quam_ranks", "blur", "random_directions")


def short_table(result: Mapping[str, Any]) -> str:
    """The rows and columns that a first page has room for."""
    rows = {c: {r["method"]: r for r in result["rows"] if r["condition"] == c} for c in ("none", "shifted")}
    lines = [[LABELS[m], _interval(rows["none"][m], "total/pcc"), _figure(rows["none"][m].get("epistemic/pcc")),
              _figure(rows["none"][m].get("total/auroc_image")), _interval(rows["shifted"].get(m, {}), "total/auroc_image"),
              _seconds(rows["none"][m])] for m in SHORT if m in rows["none"]]
    header = ["method", "PCC with rater entropy [95 %]", "its epistemic part", "AUROC of errors", "the same, shifts [95 %]", "s"]
    return markdown(header, lines) + (f"\n\n{result['rows'][0]['cases']} test cases, {len(result['networks'])} networks; "
                                      f"*italics* are controls. {result['date']}.")


def verdicts(result: Mapping[str, Any], searches: Sequence[str] = ("quam", "quam_tuned", "tta_quam_ranks")) -> str:
    """Where each search wins, ties and loses, with the differences (search minus other) and their intervals."""
    lines = []
    for figure, condition, question, sign in QUESTIONS:
        for search in searches:
            if search.endswith("_ranks") and "pcc" in figure:
                continue  # ranks are spread evenly over the image: only their order counts
            row = next((r for r in result["rows"] if r["method"] == search and r["condition"] == condition), {})
            found = row.get("search_against", {}).get(figure, {})
            groups: dict[str, list[str]] = {"wins": [], "ties": [], "loses": []}
            for method, test in found.items():
                ordered = "pcc" in figure and method.endswith("_ranks")
                if test["difference"] is not None and method not in ("raters_halves", *searches) and not ordered:
                    groups[verdict(test, sign)].append(f"{_plain(method)} {_difference(test)}")
            if any(groups.values()):
                lines.append([question, _plain(search), *("; ".join(group) or "–" for group in groups.values())])
    return markdown(["question", "search", "wins against", "ties with", "loses to"], lines)


def verdict(test: Mapping[str, Any], sign: int) -> str:
    """`wins`, `ties` or `loses` for a paired comparison; sign -1 where lower is better."""
    p, low, high = test["p_holm"], test["low"], test["high"]
    if p is None or low is None or p >= 0.05 or low <= 0 <= high:
        return "ties"
    return "wins" if sign * test["difference"] > 0 else "loses"


def shrinking_table(result: Mapping[str, Any]) -> str:
    """Mean epistemic uncertainty over the share of training data."""
    shares = list(dict.fromkeys(row["share"] for row in result["rows"]))
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    table = {(r["method"], r["share"]): r for r in result["rows"]}
    lines = [[LABELS.get(m, m), *(_triple(*(None if r.get(k) is None else 1000 * r[k] for k in ("mean", "low", "high")))
                                  for r in (table.get((m, s), {}) for s in shares)),
              "yes" if table[m, shares[-1]].get("shrinks") else "no"] for m in methods]
    return markdown(["epistemic, nats x 1000", *(f"{s} % of the training cases" for s in shares), "shrinks throughout"],
                    lines) + f"\n\n`{result['command']}`, {result['date']}."


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _plain(method: str) -> str:
    return LABELS.get(method, method).replace("*", "")


def _difference(test: Mapping[str, Any]) -> str:
    return f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]" if test["low"] is not None else \
        f"{test['difference']:+.3f}"


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
