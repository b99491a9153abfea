"""One self-contained report.html from the files of a run folder, and from nothing else.

The page opens offline: style and script are inline, pictures are data URIs inside inert JSON, and a content policy in its
head forbids the browser every request. A case is decoded when it is opened, so that hundreds of cases open at once. The
page is written case by case to a temporary file that then takes the place of an older report.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from . import figures, plots, tables
from .case_page import TITLES, Scales, build_case, decomposition_of, plain
from .folder import Case, Run, number, read_map, read_run

NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
COLOURS = {"total": "viridis", "epistemic": "magma"}


def write_report(run_folder: Path) -> Path:
    """Write report.html into a run folder and return its path.

    Everything comes from the folder's own files (run.json, results.csv, summary.json, CASE.json, report_data); what is
    missing or damaged is named on the page and the rest is shown. An older report is replaced in one step. Raises
    ValueError if the folder holds neither run.json nor results.csv.
    """
    run = read_run(Path(run_folder))
    scales = survey(run)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals.update(show=tables.show, plain=plain)
    page = environment.get_template("report.html.j2")
    stream = page.stream(cases=_cases(run, scales, environment), **_page_context(run, scales))
    stream.enable_buffering(64)
    target = run.folder / NAME
    temporary = run.folder / f".{NAME}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            for piece in stream:
                file.write(piece)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def survey(run: Run) -> Scales:
    """The scales of the page: ln C for entropies, and the run's largest epistemic value rounded up to two digits."""
    stored = [run.info.get("classes"), *(c.record.get("classes") for c in run.cases)]
    model = run.info.get("model")
    if isinstance(model, Mapping):
        stored.insert(0, model.get("classes"))
    given = [int(number(v)) for v in stored if number(v) >= 2]
    seen, largest, pictured = 2, 0.0, 0
    for case in run.cases:
        epistemic = read_map(case, "epistemic")
        if epistemic is not None and np.isfinite(epistemic).any():
            largest = max(largest, float(np.nanmax(np.where(np.isfinite(epistemic), epistemic, np.nan))))
        pictured += case.arrays is not None
        if not given:
            for name in ("segmentation", "raters"):
                labels = read_map(case, name)
                if labels is not None and labels.size:
                    seen = max(seen, int(labels.max()) + 1)
    classes = max(given) if given else seen
    return Scales(
        classes=classes,
        classes_known=bool(given),
        total=figures.Scale(math.log(classes), COLOURS["total"]),
        epistemic=figures.Scale(round_up(largest) or math.log(classes), COLOURS["epistemic"]),
        largest_epistemic=largest,
        pictured=pictured,
    )


def round_up(value: float) -> float:
    """The next number of two significant digits that is not smaller; 0 for what is not positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.6g}")


def to_json(value: object) -> Markup:
    """JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def join_json(fields: Mapping[str, object], html: Mapping[str, object]) -> Markup:
    """`to_json` of both mappings as one object, shorter for `html`, whose markup is the page's own.

    Of that markup only the sequences that a script element reacts to are written differently.
    """
    text = json.dumps(html, ensure_ascii=True, separators=(",", ":"))
    text = text.replace("</", "<\\/").replace("<!", "\\u003c!").replace("<s", "\\u003cs").replace("<S", "\\u003cS")
    return Markup(str(to_json(fields))[:-1] + "," + text[1:])


def _cases(run: Run, scales: Scales, environment: jinja2.Environment) -> Iterator[dict[str, Any]]:
    template = environment.get_template("case.html.j2")
    for index, case in enumerate(run.cases):
        context = build_case(run, case, scales)
        body = template.render(
            case=context, index=index, last=len(run.cases) - 1, titles=TITLES, scales=scales, limit=40
        )
        fields = {
            "name": case.name,
            "planes": context["planes"],
            "start": context.get("start", []),
            "plots": [{"key": p["key"], "linked": p["linked"], "indices": p["indices"]} for p in context["plots"]],
            "marks": context.get("marks", []),
            "highs": {layer: scales.of(layer).high for layer in TITLES},
        }
        svgs = {p["key"]: [str(svg) for svg in p["svgs"]] for p in context["plots"]}
        yield {
            "index": index,
            "name": case.name,
            "state": _state(case),
            "failed": case.failed,
            "thumb": context.get("thumb"),
            "facts": _summary_line(case, context),
            "json": join_json(fields, {"html": _compact(body), "svgs": svgs}),
        }


def _compact(markup: str) -> str:
    """Markup without the line breaks and indents of its template."""
    return re.sub(r"\s*\n\s*", "\n", markup)


def _page_context(run: Run, scales: Scales) -> dict[str, Any]:
    groups = column_groups(run)
    headline = tables.headline_metrics(run.columns)
    means = _means(run)
    info = run.info
    return {
        "run": run,
        "info": info,
        "title": f"Uncertainty of {_model_name(info)}",
        "status": str(info.get("status", "unknown")),
        "facts": _facts(run),
        "config": _config_rows(info.get("config")),
        "notes": list(run.notes),
        "remarks": [plain(n) for n in info.get("notes") or []] if isinstance(info.get("notes"), list) else [],
        "files": [n for n in ("run.json", "results.csv", "summary.json") if (run.folder / n).is_file()],
        "groups": groups,
        "headline": headline,
        "rows": [_row(index, case, groups) for index, case in enumerate(run.cases)],
        "means": [means.get(column["key"]) for group in groups for column in group["columns"]],
        "has_summary": bool(means),
        "strips": _strips(run, headline, means),
        "table_json": to_json(_table_data(run, headline, means)),
        "metrics": [(m, tables.metric_label(m)) for m in tables.metric_order(run.columns)],
        "scale_json": to_json({c: figures.colour_table(c).tolist() for c in set(COLOURS.values())}),
        "scales": scales,
        "what": decomposition_of(run),
        "published": info.get("setting") == "published",
        "rated": any("/" in c for c in run.columns),
        "failed": sum(c.failed is not None for c in run.cases),
    }


def column_groups(run: Run, metrics: list[str] | None = None) -> list[dict[str, Any]]:
    """The metric columns of the overview table by group: figures of the prediction, then a group a metric of maps."""
    chosen = tables.headline_metrics(run.columns) if metrics is None else metrics
    own = [c for c in run.columns if "/" not in c and c not in tables.PLAIN and _any_number(run, c)]
    if "dice" in own:
        own = ["dice", *(c for c in own if c != "dice")]
    groups = []
    if own and metrics is None:
        columns = [{"key": c, "label": tables.metric_label(c), "control": False} for c in own[:4]]
        groups.append({"label": "Prediction", "columns": columns, "best": False})
    for metric in chosen:
        columns = [
            {"key": f"{m}/{metric}", "label": m, "control": m in tables.CONTROLS}
            for m in tables.map_order(run.columns)
            if f"{m}/{metric}" in run.columns
        ]
        groups.append({"label": tables.metric_label(metric), "columns": columns, "best": True})
    return groups


def _row(index: int, case: Case, groups: list[dict[str, Any]]) -> dict[str, Any]:
    cells = []
    for group in groups:
        for column in group["columns"]:
            value = number(case.row.get(column["key"]))
            cells.append({"text": tables.show(value), "value": value if math.isfinite(value) else None})
    return {
        "index": index,
        "name": case.name,
        "state": _state(case),
        "failed": case.failed,
        "held": tables.held_of(case.row),
        "seconds": tables.show_seconds(case.row.get("seconds")),
        "seconds_value": number(case.row.get("seconds")),
        "held_value": _ratio(case.row.get("held"), case.row.get("members")),
        "cells": cells,
    }


def _state(case: Case) -> str:
    if case.failed is not None:
        return "failed"
    if not case.row and not case.record:
        return "not computed"
    held, members = number(case.row.get("held")), number(case.row.get("members"))
    return "bound missed" if held < members else "ok"


def _means(run: Run) -> dict[str, dict[str, Any]]:
    """Mean, interval and counts of every column: from summary.json, else the plain mean of the rows."""
    stored = run.summary.get("columns")
    means: dict[str, dict[str, Any]] = {}
    for column in run.columns:
        entry = stored.get(column) if isinstance(stored, Mapping) else None
        if isinstance(entry, Mapping):
            figures_of = {k: number(entry.get(k)) for k in ("mean", "sd", "low", "high", "n", "n_nan")}
        else:
            values = [number(c.row.get(column)) for c in run.cases if c.failed is None and column in c.row]
            known = [v for v in values if math.isfinite(v)]
            if column in tables.PLAIN or not known:
                continue
            figures_of = {"mean": sum(known) / len(known), "n": len(known)}
        if not math.isfinite(figures_of.get("mean", math.nan)):
            continue
        low, high = figures_of.get("low", math.nan), figures_of.get("high", math.nan)
        means[column] = {
            "text": tables.show(figures_of["mean"]),
            "interval": _interval(low, high) if math.isfinite(low + high) else "",
            "detail": _detail(figures_of),
            "mean": figures_of["mean"],
            "low": low,
            "high": high,
        }
    return means


def _interval(low: float, high: float) -> str:
    """Two decimals are enough for figures of the size of a correlation, and keep the column narrow."""
    small = max(abs(low), abs(high)) < 0.1 or max(abs(low), abs(high)) >= 100
    texts = [tables.show(v, 2) if small else f"{v:.2f}" for v in (low, high)]
    return " to ".join(texts)


def _detail(entry: Mapping[str, float]) -> str:
    parts = []
    if math.isfinite(entry.get("sd", math.nan)):
        parts.append(f"standard deviation {tables.show(entry['sd'])}")
    if math.isfinite(entry.get("n", math.nan)):
        parts.append(f"{entry['n']:.0f} cases")
    if entry.get("n_nan", 0) > 0:
        parts.append(f"{entry['n_nan']:.0f} not a number")
    return ", ".join(parts)


def _strips(run: Run, metrics: list[str], means: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    found = []
    for metric in metrics:
        strips = []
        for name in tables.map_order(run.columns):
            key = f"{name}/{metric}"
            mean = means.get(key, {})
            values = [number(c.row.get(key)) for c in run.cases if c.failed is None]
            if any(math.isfinite(v) for v in values):
                missing = math.nan
                strips.append(
                    plots.Strip(name, values, mean.get("mean", missing), mean.get("low", missing),
                                mean.get("high", missing), name in tables.CONTROLS)
                )  # fmt: skip
        if strips:
            label = tables.metric_label(metric)
            found.append((label, plots.strip_plot(strips, name=label)))
    return found


def _table_data(run: Run, headline: list[str], means: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the script needs to show other metrics than the headline ones; empty where there are none."""
    others = [m for m in tables.metric_order(run.columns) if m not in headline]
    groups = {m: column_groups(run, [m])[0] for m in tables.metric_order(run.columns)} if others else {}
    keys = [c["key"] for g in groups.values() for c in g["columns"]]
    values = {}
    for key in keys:
        cells = [number(c.row.get(key)) for c in run.cases]
        values[key] = [float(f"{v:.6g}") if math.isfinite(v) else None for v in cells]
    shown = {k: {"text": means[k]["text"], "interval": means[k]["interval"], "detail": means[k]["detail"],
                 "mean": means[k]["mean"]} for k in keys if k in means}  # fmt: skip
    return {"groups": groups, "values": values, "means": shown}


def _summary_line(case: Case, context: Mapping[str, Any]) -> list[str]:
    if case.failed is not None:
        return []
    facts = []
    if math.isfinite(number(case.row.get("dice"))):
        facts.append(f"Dice {tables.show(case.row.get('dice'))}")
    share = context.get("share")
    if share is not None:
        facts.append(f"epistemic share {100 * share:.0f} %")
    if context.get("region_count"):
        count = context["region_count"]
        facts.append(f"{count} region" + ("s" if count != 1 else ""))
    held = tables.held_of(case.row)
    if held != tables.NONE:
        facts.append(f"constraint held {held}")
    return facts


def _facts(run: Run) -> list[tuple[str, str]]:
    info = run.info
    facts: list[tuple[str, str]] = []
    model = info.get("model")
    if isinstance(model, Mapping):
        facts.append(("Model", _model_name(info)))
        if model.get("parameters") is not None:
            facts.append(("Parameters", tables.show_count(model["parameters"])))
        if model.get("path"):
            facts.append(("Checkpoint", plain(model["path"])))
        if model.get("sha256"):
            facts.append(("Checkpoint SHA-256", plain(model["sha256"])))
    elif model is not None:
        facts.append(("Model", plain(model)))
    for key, label in (("method", "Method"), ("setting", "Setting"), ("device", "Device"), ("seed", "Seed"),
                       ("units", "Units"), ("started", "Started")):  # fmt: skip
        if info.get(key) is not None:
            facts.append((label, plain(info[key])))
    if info.get("seconds") is not None:
        facts.append(("Time", tables.show_seconds(info["seconds"])))
    if isinstance(info.get("versions"), Mapping):
        facts.append(("Versions", ", ".join(f"{k} {plain(v)}" for k, v in info["versions"].items())))
    return facts


def _model_name(info: Mapping[str, Any]) -> str:
    model = info.get("model")
    if isinstance(model, Mapping):
        return plain(model.get("architecture") or model.get("path") or "a segmentation network")
    return "a segmentation network"


def _config_rows(config: object, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if isinstance(config, Mapping):
        for key, value in config.items():
            if isinstance(value, Mapping):
                rows += _config_rows(value, f"{prefix}{key}.")
            else:
                rows.append((f"{prefix}{key}", plain(value)))
    return rows


def _any_number(run: Run, column: str) -> bool:
    return any(math.isfinite(number(c.row.get(column))) for c in run.cases)


def _ratio(part: object, whole: object) -> float | None:
    value = number(part) / number(whole) if number(whole) > 0 else math.nan
    return value if math.isfinite(value) else None
