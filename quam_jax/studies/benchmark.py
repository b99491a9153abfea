"""Every method on the same networks and the same cases, from a request to tables and pictures.

Settings are chosen on the validation cases alone, for every method that has any; test cases are only measured.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..baselines.method import Settings
from ..config import Config
from ..data.records import write_json, write_table
from ..report.table_page import Picture, Section, table_page
from . import figures, tables
from .cases import StudyCase
from .preparation import StudyParts, prepare_study
from .request import BenchmarkRequest
from .shifts import parse_shift
from .study import Cell, Planned, plan_cells, run_study
from .tuning import best, joined_progress, tune

STRIP = {
    ("softmax", "total"): "softmax",
    ("tta", "total"): "TTA",
    ("ensemble", "total"): "ensemble",
    ("blur", "total"): "blurred (control)",
    ("quam", "total"): "QUAM-SM total",
    ("quam", "epistemic"): "QUAM-SM epistemic",
}  # columns of the overview picture, where these methods ran
Progress = Callable[[str, str, int, int], None]


class BenchmarkResult(NamedTuple):
    """The tables as text, and the reason of every cell that failed, by `network/method/condition/case`, and notes."""

    text: str
    failed: dict[str, str]
    notes: list[str]


class Chosen(NamedTuple):
    """The settings of every (network, method), and the scores of those that were tuned, by `network method`."""

    settings: dict[tuple[str, str], Settings]
    tuned: dict[str, list[dict[str, Any]]]


def benchmark_methods(request: BenchmarkRequest, *, progress: Progress = lambda *_: None) -> BenchmarkResult:
    """Tune, measure and write `methods.html`, `.json`, `.csv`, `.md`, `.tex` and the pictures; an interrupted study goes on.

    `progress(stage, name, done, total)` tells how far tuning and cases are, both first with nothing done. ValueError for a
    request that does not fit (`prepare_study`), and where every cell failed.
    """
    plan = plan_benchmark(request)
    parts, out, conditions = plan.parts, request.out, plan.conditions
    out.mkdir(parents=True, exist_ok=True)
    chosen = plan.choose(progress)
    cells, failed = run_study(plan.cells(chosen), total=plan.total, progress=functools.partial(progress, "cases"))
    cells = tables.with_review_shares(cells)
    if not cells:
        raise ValueError(next(iter(failed.values())))
    summaries = _summarise(cells, conditions, baseline=request.baseline)
    write_json(out / "methods.json", {**_describe(request, parts, chosen, failed), "summaries": summaries})
    write_table(out / "methods.csv", tables.long_rows(cells))
    shown = {name: _shown([chosen.settings[n.name, name] for n in parts.networks]) for name in parts.methods}
    text = "\n".join(tables.markdown(summary, shown) for summary in summaries.values())
    (out / "methods.md").write_text(text)
    (out / "methods.tex").write_text(tables.latex(summaries[conditions[0]]))
    for condition in [c for c in summaries if c != "shifted"]:
        figures.draw_curves(cells, out / f"curves-{condition.replace(':', '-')}.png", condition=condition)
    _draw_maps(out, parts.methods, parts.test, classes=parts.networks[0].subject.model.network.classes)
    if chosen.tuned:
        first = {name: rows for name, rows in chosen.tuned.items() if name.startswith(parts.networks[0].name)}
        figures.draw_tuning(first, out / "tuning.png", score=request.study.score)
    (out / "methods.html").write_text(_page(request, out, summaries, shown, [*parts.notes, *failed.values()]), encoding="utf-8")
    return BenchmarkResult(text, failed, parts.notes)


class BenchmarkPlan(NamedTuple):
    """A benchmark before its first figure: the parts of the study, and the methods that run under shifts."""

    request: BenchmarkRequest
    parts: StudyParts
    shifted: list[str]

    @property
    def conditions(self) -> tuple[str, ...]:
        """None, and the shifts."""
        return "none", *self.request.shifts

    @property
    def total(self) -> int:
        """How many cells there are, with those that are left out."""
        return len(self.parts.networks) * len(self.parts.methods) * len(self.conditions) * len(self.parts.test)

    def choose(self, progress: Progress = lambda *_: None) -> Chosen:
        """The settings of every network and method, tuned where there are several, or read back."""
        chosen, parts = Chosen({}, {}), self.parts
        score = self.request.study.score
        searched = [method for method in parts.methods.values() if len(method.grid) > 1]
        sizes = [len(method.grid) * len(parts.validation) for _ in parts.networks for method in searched]
        told = iter(joined_progress(sizes, functools.partial(progress, "tuning")) if sizes else ())
        for network in parts.networks:
            for name, method in parts.methods.items():
                chosen.settings[network.name, name] = dict(method.grid[0])
                if len(method.grid) > 1:
                    rows = tune(network, method, parts.validation, score=score, out=self.request.out, progress=next(told))
                    chosen.settings[network.name, name] = best(rows, score=score)["settings"]
                    chosen.tuned[f"{network.name} {name}"] = rows
            for name, method in parts.methods.items():
                if method.parts:
                    chosen.settings[network.name, name] = {part: chosen.settings[network.name, part] for part in method.parts}
        return chosen

    def cells(self, chosen: Chosen) -> Iterator[Planned]:
        """Every method on every case under every condition."""
        return plan_cells(
            self.parts.networks,
            self.parts.methods,
            chosen.settings,
            self.parts.test,
            conditions=self.conditions,
            shifted_methods=self.shifted,
            out=self.request.out,
        )


def plan_benchmark(request: BenchmarkRequest) -> BenchmarkPlan:
    """Load and check what a benchmark needs; ValueError for a request that does not fit."""
    for shift in request.shifts:
        parse_shift(shift)
    parts = prepare_study(request.study, dataset=request.dataset, limit=request.limit, configs=request.configs)
    return BenchmarkPlan(request, parts, _check_names(request, parts))


def _check_names(request: BenchmarkRequest, parts: StudyParts) -> list[str]:
    """The methods that run under shifts; ValueError for names that the study does not have."""
    known = ", ".join(parts.methods)
    if request.baseline not in parts.methods:
        raise ValueError(f"--baseline: expected one of {known}, got {request.baseline!r}")
    shifted = list(request.shift_methods or parts.methods)
    if not set(shifted) <= set(parts.methods) or (request.shifts and request.baseline not in shifted):
        raise ValueError(
            f"--shift-methods: expected some of {known}, {request.baseline} among them, got {','.join(request.shift_methods)!r}"
        )
    return shifted


def _summarise(cells: Sequence[Cell], conditions: Sequence[str], *, baseline: str) -> dict[str, dict[str, Any]]:
    """A summary for every condition that has cells, and one of all shifts together where there are several."""
    summaries = {
        c: tables.summarise_methods(cells, condition=c, baseline=baseline)
        for c in conditions
        if any(cell.condition == c for cell in cells)
    }
    if len(conditions) > 2:
        summaries["shifted"] = tables.summarise_methods(tables.pool_shifts(cells), condition="shifted", baseline=baseline)
    return summaries


def _describe(request: BenchmarkRequest, parts: StudyParts, chosen: Chosen, failed: Mapping[str, str]) -> dict[str, Any]:
    """What methods.json says beside the figures."""
    start = Config()
    return {
        "command": request.command,
        "dataset": request.dataset,
        "failed": failed,
        "tuning_score": request.study.score,
        "networks": {n.name: n.digest for n in parts.networks},
        "test_cases": {c.identity.name: c.identity.sha256 for c in parts.test},
        "validation_cases": [c.identity.name for c in parts.validation],
        "fit_cases": [c.identity.name for c in parts.networks[0].subject.fit_cases],
        "default": {
            "radius": start.targets.radius,
            "learning_rate": start.search.learning_rate,
            "slack": start.search.slack,
            "views": start.samples.views,
        },
        "settings": {f"{network} {name}": values for (network, name), values in chosen.settings.items()},
        "tuning": chosen.tuned,
    }


def _page(
    request: BenchmarkRequest, out: Path, summaries: Mapping[str, Any], shown: Mapping[str, str], notes: Sequence[str]
) -> str:
    """The page of the study: its tables by condition, and the pictures that were drawn."""
    sections = [
        Section(f"{table.title}: {condition}", table.head, table.rows, tables.caption(summary))
        for condition, summary in summaries.items()
        for table in tables.laid_out(summary, shown)
    ]
    drawn = {"strips": "Maps of some cases", "tuning": f"{request.study.score} on validation cases by setting"}
    drawn |= {path.stem: f"Curves of errors, {path.stem[7:]}" for path in sorted(out.glob("curves-*.png"))}
    there = {alt: out / f"{name}.png" for name, alt in drawn.items() if (out / f"{name}.png").is_file()}
    pictures = [Section(alt, pictures=[Picture(path, alt)]) for alt, path in there.items()]
    heading = f"{len(shown)} methods on {max(s['cases'] for s in summaries.values())} cases"
    ordered = [*pictures[:1], *sections, *pictures[1:]]
    return table_page(kicker="Comparison of methods", heading=heading, sections=ordered, notes=notes)


def _shown(settings: Sequence[Settings]) -> str:
    """The settings of a method for its row: those of every network, each once."""
    return "; ".join(dict.fromkeys(json.dumps(values) for values in settings if values))


def _draw_maps(out: Path, names: Sequence[str] | Mapping[str, Any], cases: Sequence[StudyCase], *, classes: int) -> None:
    """Pictures of the cases whose maps were kept."""
    kept: dict[str, dict[str, np.ndarray]] = {}
    strips: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        for case in cases:
            path = out / "maps" / name / f"{case.identity.name}.npz"
            if path.exists():
                with np.load(path) as stored:
                    kept.setdefault(case.identity.name, {})[name] = stored["total"]
                    for kind in ("total", "epistemic"):
                        if (name, kind) in STRIP and kind in stored:
                            strips.setdefault(case.identity.name, {})[STRIP[name, kind]] = stored[kind]
    if kept:
        figures.draw_strips(cases, strips, out / "strips.png", classes=classes)
        figures.draw_scatter(kept, cases, out / "scatter.png", classes=classes)
    for case in cases:
        if case.identity.name in kept:
            figures.draw_strip(case, kept[case.identity.name], out / f"strip-{case.identity.name}.png", classes=classes)
