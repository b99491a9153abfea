"""The tables of docs/speed.md on accelerators: what benchmarks.accelerator measured on which hardware, and what it did not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .accelerator_row import ROWS
from .record import markdown_table

KINDS = {"gpu": "NVIDIA GPU", "tpu": "TPU"}
NONE = "not measured"


def results(folder: Path) -> list[dict[str, Any]]:
    """All results of the command, those with small sizes last."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("accelerator_*.json"))]
    return sorted(found, key=lambda result: result["small"])


def figures_table(found: list[dict[str, Any]]) -> str:
    """A row of the command a line: what it measures, and what came of it on every kind of hardware."""
    full = [result for result in found if not result["small"]]
    small = [result for result in found if result["small"]]
    missing = [name for kind, name in KINDS.items() if all(result["device"]["backend"] != kind for result in full)]
    header = ["row", "what", *(_name(result) for result in full), *missing, *(f"`--small` on {_name(r)}" for r in small)]
    lines = []
    for name, row in ROWS.items():
        measured = [_figure(_row(result, name), name) for result in full]
        tried = [_state(_row(result, name)) for result in small]
        lines.append([f"`{name}`", row.what, *measured, *(NONE for _ in missing), *tried])
    return markdown_table(header, lines) + "\n\n" + " ".join(_source(result) for result in found)


def _name(result: dict[str, Any]) -> str:
    device = result["device"]
    return device["processor"] if device["backend"] == "cpu" else device["kind"]


def _source(result: dict[str, Any]) -> str:
    device, versions = result["device"], result["versions"]
    torch = result["torch"].get("version") or result["torch"].get("left_out")
    driver = f", driver {device['driver']}" if device["driver"] else ""
    where = f"{_name(result)}, {device['cores']} cores{driver}"
    return f"`{result['command']}`, {where}, JAX {versions['jax']}, PyTorch: {torch}, {result['date']}."


def _row(result: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((row for row in result["rows"] if row["name"] == name), None)


def _state(row: dict[str, Any] | None) -> str:
    """Whether a row ran; its small sizes tell nothing else."""
    if row is None:
        return NONE
    for kind, word in (("skipped", "skipped for want of time"), ("failed", "failed"), ("cut_off", "cut off")):
        if kind in row:
            return word
    wrong = [part["part"] for part in row["parts"] if part.get("failed")]
    left = [part["part"] for part in row["parts"] if "left_out" in part]
    return "ran" + (f"; failed: {', '.join(wrong)}" if wrong else "") + (f"; left out: {', '.join(left)}" if left else "")


def _figure(row: dict[str, Any] | None, name: str) -> str:
    """The figure that a row is about, for every part that has one."""
    if row is None or "skipped" in row:
        return NONE
    said = [text for part in row["parts"] if (text := _part(part))]
    ended = [f"{kind.replace('_', ' ')}: {row[kind]}" for kind in ("failed", "cut_off") if kind in row]
    return "; ".join([*said, *ended]) or NONE


def _part(part: dict[str, Any]) -> str:
    name = part["part"]
    if part.get("left_out"):
        return f"{name}: left out ({part['left_out']})"
    if isinstance(part.get("failed"), str):
        return f"{name}: failed ({part['failed']})"
    if name == "chosen":
        return f"chosen: {part['name']}"
    kinds: list[tuple[str, Callable[[Any], str]]] = [
        ("ratio_best", lambda value: f"{value:.2f} x (goal {part['goal_ratio']:.0f} x)"),
        ("equal", lambda value: f"{value} of {part['cases']} equal"),
        ("pcc", lambda value: f"PCC {value:.4f}, largest difference {part['largest']:.2g} nats"),
        ("largest", lambda value: f"largest difference {value:.2g}"),
        ("cases_a_second", lambda value: f"{value:.3g} images/s, device busy {part['device_busy']:.0%}"),
        ("predicted", lambda value: f"planned {value / 1e9:.2f} GB, peak {part['peak'] / 1e9:.2f} GB"),
        ("goal_seconds", lambda value: f"{part['seconds']:.3g} s (goal {value} s)"),
        ("seconds", lambda value: f"{value:.3g} s"),
    ]
    for key, text in kinds:
        if part.get(key) is not None:
            return f"{name}: {text(part[key])}"
    return ""
