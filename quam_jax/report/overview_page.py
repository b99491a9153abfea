"""Everything of the page but its cases: the sentence, the sheet of cases, agreement with raters, and the provenance."""

import math
from collections.abc import Mapping
from typing import Any

from . import plots, tables
from .case_numbers import plain
from .case_page import decomposition_of
from .first_look import BADGES, SAY_NOTHING, UNEXPLAINED, FirstLook, Look, unexplained
from .folder import Case, Run, number
from .guarantee import build_guarantee
from .layers import Scales

PREDICTION = "prediction"  # the choice of all columns without a map, in the list of metrics
RUN_FILES = ("run.json", "results.csv", "summary.json")


def build_overview(run: Run, scales: Scales, seen: FirstLook) -> dict[str, Any]:
    """Everything of the page but the cases, which stand in the order of `seen`."""
    info = run.info
    headline = tables.headline_metrics(run.columns)
    groups = column_groups(run)[:2]  # the other metrics are one click away
    means = column_means(run)
    remarks, doubts = info.get("notes"), unexplained(info)
    stored = run.summary.get("columns")
    return {
        "title": f"Uncertainty of {_model_name(info)}",
        "sentence": seen.sentence,
        "more": seen.more,
        "order": order_words(seen),
        "rule": seen.rule,
        "cards": [_card(run.cases[look.number], look) for look in seen.looks],
        "costs": any(not math.isnan(look.criteria["flip_cost"]) for look in seen.looks),
        "count": len(run.cases),
        "failed": sum(case.failed is not None for case in run.cases),
        "status": str(info.get("status", "unknown status")),
        "command": plain(info["command"]) if info.get("command") else None,
        "facts": _facts(run),
        "config": _settings(info),
        "bound_words": bound_words(info),
        "notes": [*doubts, *run.notes],
        "remarks": [plain(text) for text in remarks if not (doubts and UNEXPLAINED in plain(text))]
        if isinstance(remarks, list)
        else [],
        "files": [name for name in RUN_FILES if (run.folder / name).is_file()],
        "groups": groups,
        "rows": [_row(look, run.cases[look.number], groups) for look in seen.looks],
        "means": [means.get(column["key"]) for group in groups for column in group["columns"]],
        "intervals": isinstance(stored, Mapping) and bool(stored),
        "strips": _strips(run, headline, means),
        "metrics": _choices(run, headline),
        "table": _table_data(run, headline, means),
        "scales": scales,
        "what": decomposition_of(run),
        "published": info.get("setting") == "published",
        "rated": any(tables.is_agreement(metric) for metric in headline),
        "boundary": _boundary(info),
        "guarantee": build_guarantee(run),
    }


def column_groups(run: Run, metrics: list[str] | None = None) -> list[dict[str, Any]]:
    """The metric columns of the table by group: Dice of the prediction, then a group a headline metric.

    With `metrics` only the groups of these; `PREDICTION` stands for everything that judges the prediction.
    """
    own = _own_metrics(run)
    groups = []
    for metric in [PREDICTION, *tables.headline_metrics(run.columns)] if metrics is None else metrics:
        if metric == PREDICTION:
            dice = tables.dice_column(own)
            keys = own if metrics is not None else [dice] if dice else own[:1]
            columns = [{"key": k, "label": tables.metric_label(k), "control": False} for k in keys]
            label = "Prediction"
        else:
            maps = [m for m in tables.map_order(run.columns) if f"{m}/{metric}" in run.columns]
            columns = [{"key": f"{m}/{metric}", "label": m, "control": m in tables.CONTROLS} for m in maps]
            label = tables.metric_label(metric)
        if columns:
            groups.append({"label": label, "columns": columns})
    return groups


def column_means(run: Run) -> dict[str, dict[str, Any]]:
    """Mean, interval and counts of every column: from summary.json, else the plain mean of the rows."""
    stored = run.summary.get("columns")
    means: dict[str, dict[str, Any]] = {}
    for column in run.columns:
        entry = stored.get(column) if isinstance(stored, Mapping) else None
        if isinstance(entry, Mapping):
            found = {k: number(entry.get(k)) for k in ("mean", "sd", "low", "high", "n", "n_nan")}
        else:
            values = [number(case.row.get(column)) for case in run.cases if case.failed is None]
            known = [v for v in values if math.isfinite(v)]
            if column in tables.PLAIN or not known:
                continue
            found = {"mean": sum(known) / len(known), "n": len(known)}
        if not math.isfinite(found["mean"]):
            continue
        low, high = found.get("low", math.nan), found.get("high", math.nan)
        means[column] = {
            "text": tables.show(found["mean"]),
            "interval": _interval(low, high) if math.isfinite(low + high) else "",
            "detail": _detail(found),
            "mean": found["mean"],
            "low": low,
            "high": high,
        }
    return means


def case_state(look: Look) -> str:
    """One word or two for the state of a case: what is off the most, else ok."""
    return look.badges[0] if look.badges else "ok"


def order_words(seen: FirstLook) -> str:
    """What the order of the cases is by."""
    words = {"total": "total uncertainty", "changed": "how much the adversarial models label otherwise"}
    named = [words.get(name, name) for name in seen.by]
    return f"In the order of {' and of '.join(named)}" if named else "Not in an order: no case has maps"


def _card(case: Case, look: Look) -> dict[str, Any]:
    """A case on the contact sheet."""
    size, dice = look.size, tables.dice_column(case.row)
    value = number(case.row[dice]) if dice else math.nan
    return {
        "index": look.number,
        "rank": look.rank,
        "name": look.name,
        "suggested": look.suggested,
        "thumb": look.thumb,
        "failed": case.failed,
        "state": case_state(look),
        "size": size.text if size else "",
        "range": size.range_text if size else "",
        "structure": size.name if size and len(look.sizes) > 1 else "",
        "kind": look.kind,
        "share": look.share,
        "place": look.place,
        "regions": look.regions,
        "dice": tables.show(value) if math.isfinite(value) else "",
        "badges": [(key, BADGES[key], key in SAY_NOTHING) for key in look.badges],
        "sort": {
            "rank": look.rank,
            "size": size.value if size else None,
            "share": look.share,
            "regions": look.regions if look.rank else None,
            "dice": _known(value),
        },
    }


def _row(look: Look, case: Case, groups: list[dict[str, Any]]) -> dict[str, Any]:
    keys = [column["key"] for group in groups for column in group["columns"]]
    values = [number(case.row.get(key)) for key in keys]
    held, members = number(case.row.get("held")), number(case.row.get("members"))
    return {
        "index": look.number,
        "name": case.name,
        "state": case_state(look),
        "failed": case.failed,
        "held": tables.held_of(case.row),
        "held_value": _known(held / members) if members > 0 else None,
        "seconds": tables.show_seconds(case.row.get("seconds")),
        "seconds_value": _known(number(case.row.get("seconds"))),
        "cells": [{"text": tables.show(v), "value": _known(v)} for v in values],
    }


def _strips(run: Run, metrics: list[str], means: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for metric in filter(tables.is_agreement, metrics):
        strips = []
        for name in tables.map_order(run.columns):
            key = f"{name}/{metric}"
            mean = means.get(key, {})
            values = [number(case.row.get(key)) for case in run.cases if case.failed is None]
            if any(math.isfinite(v) for v in values):
                middle, low, high = (mean.get(k, math.nan) for k in ("mean", "low", "high"))
                strips.append(plots.Strip(name, values, middle, low, high, control=name in tables.CONTROLS))
        if strips:
            label = tables.metric_label(metric)
            found.append((label, plots.strips_data(strips, name=label)))
    return found


def _choices(run: Run, headline: list[str]) -> list[tuple[str, str]]:
    """(key, label) of what the table can be switched to; none where it shows everything already."""
    several = len(_own_metrics(run)) > 1
    maps = tables.metric_order(run.columns)
    if not several and len(maps) <= len(headline):
        return []
    prediction = [(PREDICTION, "all figures of the prediction")] if several else []
    return [*prediction, *((m, tables.metric_label(m)) for m in maps)]


def _table_data(run: Run, headline: list[str], means: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the script needs to show other metrics than the headline ones; empty where there are none."""
    groups = {key: column_groups(run, [key])[0] for key, _ in _choices(run, headline)}
    keys = [column["key"] for group in groups.values() for column in group["columns"]]
    values = {}
    for key in keys:
        cells = [_known(number(case.row.get(key))) for case in run.cases]
        values[key] = [None if v is None else float(f"{v:.6g}") for v in cells]
    shown = {k: {part: means[k][part] for part in ("text", "interval", "detail")} for k in keys if k in means}
    return {"groups": groups, "values": values, "means": shown}


def _facts(run: Run) -> list[tuple[str, str]]:
    info = run.info
    facts: list[tuple[str, str]] = [("Model", _model_name(info))]
    model = info.get("model")
    if isinstance(model, Mapping):
        if model.get("parameters") is not None:
            facts.append(("Parameters", tables.show_count(model["parameters"])))
        if model.get("path"):
            facts.append(("Checkpoint", plain(model["path"])))
        if model.get("sha256"):
            facts.append(("Checkpoint SHA-256", plain(model["sha256"])))
    facts += _on_fit_data(info)
    for key in ("method", "setting", "device", "seed", "units", "started"):
        if info.get(key) is not None:
            facts.append((key.capitalize(), plain(info[key])))
    if info.get("seconds") is not None:
        facts.append(("Time", tables.show_seconds(info["seconds"])))
    if isinstance(info.get("versions"), Mapping):
        facts.append(("Versions", ", ".join(f"{k} {plain(v)}" for k, v in info["versions"].items())))
    return facts


def bound_words(info: Mapping[str, Any]) -> str:
    """How badly an adversarial model may explain the known data, by the slack of the run."""
    config = info.get("config")
    search = config.get("search") if isinstance(config, Mapping) else None
    slack = number(search.get("slack")) if isinstance(search, Mapping) else math.nan
    if not isinstance(search, Mapping) or not math.isfinite(slack):
        return "worse than the given network by a stated slack"
    said = f"slack {slack:g}{' nats' if search.get('slack_unit') == 'nats' else ''}; --slack"
    if search.get("slack_unit") == "nats":
        return f"worse than the given network by up to {slack:g} nats a pixel ({said})"
    if slack == 0:
        return f"no worse than the given network ({said})"
    if slack < 1:
        return f"up to {100 * slack:g} % worse than the given network ({said})"
    return f"up to {'twice' if slack == 1 else f'{1 + slack:g} times'} as badly as the given network ({said})"


def _on_fit_data(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the given network explains the fit data, where the run says so."""
    fit = info.get("fit")
    if not isinstance(fit, Mapping):
        return []
    loss, guess = number(fit.get("loss")), number(fit.get("guess"))
    if not guess > 0:  # a damaged file
        return []
    dice = fit["dice"] if isinstance(fit.get("dice"), Mapping) else {}
    known = [f"{name} {value:.2f}" for name, value in dice.items() if isinstance(value, float | int)]
    text = f"{tables.show(loss)} nats a pixel, {100 * loss / guess:.0f} % of a guess"
    return [("Network on its fit data", text + (f"; Dice {', '.join(known)}" if known else ""))]


def _model_name(info: Mapping[str, Any]) -> str:
    model = info.get("model")
    if isinstance(model, Mapping):
        model = model.get("architecture") or model.get("path")
    return plain(model) if model else "a segmentation network"


def _config_rows(config: object, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if isinstance(config, Mapping):
        for key, value in config.items():
            name = f"{prefix}{key}"
            rows += _config_rows(value, f"{name}.") if isinstance(value, Mapping) else [(name, plain(value))]
    return rows


def _settings(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = _config_rows(info.get("config"))
    rows += _config_rows(info.get("preprocessing"), "preprocessing.")
    rows += _config_rows(info.get("patches"), "images cut: ")
    return rows + ([("fit cases", plain(info["fit_cases"]))] if info.get("fit_cases") else [])


def _boundary(info: Mapping[str, Any]) -> str:
    """What the `boundary` control is, in the run's own words where it says so."""
    controls = info.get("controls")
    told = controls.get("boundary") if isinstance(controls, Mapping) else None
    return plain(told) if told else "a band around the predicted contour"


def _interval(low: float, high: float) -> str:
    """Two decimals are enough for figures of the size of a correlation, and keep the column narrow."""
    largest = max(abs(low), abs(high))
    texts = [f"{v:.2f}" if 0.1 <= largest < 100 else tables.show(v, 2) for v in (low, high)]
    return " to ".join(texts)


def _detail(found: Mapping[str, float]) -> str:
    parts = []
    if math.isfinite(found.get("sd", math.nan)):
        parts.append(f"standard deviation {tables.show(found['sd'])}")
    if math.isfinite(found.get("n", math.nan)):
        parts.append(f"{found['n']:.0f} cases")
    if found.get("n_nan", 0) > 0:
        parts.append(f"{found['n_nan']:.0f} not a number")
    return ", ".join(parts)


def _own_metrics(run: Run) -> list[str]:
    """The metrics of the prediction of which some case has a figure."""
    own = tables.prediction_metrics(run.columns)
    return [c for c in own if any(math.isfinite(number(case.row.get(c))) for case in run.cases)]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
