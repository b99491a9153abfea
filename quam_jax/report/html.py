"""One self-contained report.html from the files of a run folder, and from nothing else.

The page opens offline: style and script are inline, pictures are data URIs inside packed JSON, and a content
policy in its head forbids the browser every request. A case is unpacked when it is opened, so that hundreds of
cases open at once. Pages with volumes have a viewer inside. The page is written case by
case to a temporary file that then replaces an older report.
"""

import base64
import gzip
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from . import figures, tables
from .case_numbers import moved, plain
from .case_page import build_case
from .figures import round_up
from .first_look import FirstLook, look_at
from .folder import Run, load_array, number, read_run
from .layers import TITLES, Scales, largest_of
from .overview_page import build_overview, case_state

NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
COLOURS = {"total": "viridis", "epistemic": "magma", "flipcost": "inferno"}
LIBRARIES = {  # built files of others, each with its licence beside it
    "niivue": "niivue/niivue.umd.js",
    "d3": "observable_plot/d3.min.js",
    "plot": "observable_plot/plot.umd.min.js",
}
MOST_CLASSES = 65536  # a larger number of classes in a file is not believed


def write_report(run_folder: str | Path, *, seen: FirstLook | None = None) -> Path:
    """Write report.html into a run folder and return its path.

    Everything comes from the folder's own files (run.json, results.csv, summary.json, CASE.json and
    report_data); what is missing or damaged is named on the page and the rest is shown. An older report is
    replaced in one step. `seen` is what `review` found, where it was asked before.
    Raises ValueError if the folder holds neither run.json nor results.csv.
    """
    run = read_run(Path(run_folder))
    scales = survey(run)
    seen = seen or look_at(run, scales)
    made = environment()
    page = made.get_template("report.html.j2")
    tables_of_colours = {name: figures.colour_table(name).tolist() for name in COLOURS.values()}
    stream = page.stream(
        cases=_cases(run, scales, seen, made),
        colours=tables_of_colours,
        library=packed_library,
        **build_overview(run, scales, seen),
    )
    stream.enable_buffering(64)
    target = run.folder / NAME
    temporary = run.folder / f".{NAME}.{os.getpid()}"
    try:
        # A name of a file may hold bytes that are no text; they become question marks.
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            for piece in stream:
                file.write(piece)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def environment() -> jinja2.Environment:
    """The templates that all pages are made of; text is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.globals.update(show=tables.show, plain=plain, moved=moved, to_json=to_json)
    return made


def review(run_folder: str | Path) -> FirstLook:
    """The cases of a run folder in review order, with what the first screen says of them."""
    run = read_run(Path(run_folder))
    return look_at(run, survey(run))


def survey(run: Run) -> Scales:
    """The scales of the page: ln C for entropies, and the run's largest epistemic value and largest finite cost, rounded up."""
    model = run.info.get("model")
    stored = [model.get("classes") if isinstance(model, Mapping) else None, run.info.get("classes")]
    stored += [case.record.get("classes") for case in run.cases]
    given = [int(number(value)) for value in stored if 2 <= number(value) <= MOST_CLASSES]
    seen, largest, dearest, pictured = 2, 0.0, 0.0, 0
    for case in run.cases:
        pictured += case.arrays is not None
        epistemic = load_array(case, "epistemic")
        if epistemic is not None:
            finite = epistemic[np.isfinite(epistemic)]
            largest = max(largest, float(finite.max(initial=0.0)), largest_of(case, "epistemic") or 0.0)
        costs = load_array(case, "flipcost")
        if costs is not None:
            dearest = max(dearest, float(costs[np.isfinite(costs)].max(initial=0.0)))
        for name in ("segmentation", "raters") if not given else ():
            labels = load_array(case, name)
            if labels is not None:
                seen = max(seen, int(np.nan_to_num(labels).max(initial=0)) + 1)
    classes = max(given) if given else seen
    return Scales(
        classes=classes,
        classes_known=bool(given),
        total=figures.Scale(math.log(classes), COLOURS["total"]),
        epistemic=figures.Scale(round_up(largest) or math.log(classes), COLOURS["epistemic"]),
        flipcost=figures.Scale(round_up(dearest) or 1.0, COLOURS["flipcost"], falling=True),
        largest_epistemic=largest,
        pictured=pictured,
    )


def to_json(value: object) -> Markup:
    """JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def packed(text: str) -> str:
    """Text as the page unpacks it: gzipped, as base64."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


@cache
def packed_library(name: str) -> str:
    """A file of LIBRARIES, for pages that need it."""
    return packed((Path(__file__).parent / LIBRARIES[name]).read_text(encoding="utf-8"))


def _cases(run: Run, scales: Scales, seen: FirstLook, made: jinja2.Environment) -> Iterator[dict[str, Any]]:
    template = made.get_template("case.html.j2")
    for place, look in enumerate(seen.looks):
        context = build_case(run, look, scales)
        neighbours = [seen.looks[i] if 0 <= i < len(seen.looks) else None for i in (place - 1, place + 1)]
        body = template.render(case=context, index=look.number, before=neighbours[0], after=neighbours[1], titles=TITLES)
        volume = context["volume"]
        fields = {
            "name": look.name,
            "planes": context["planes"],
            "start": context["start"],
            "plots": [{k: p[k] for k in ("key", "title", "linked", "indices")} for p in context["plots"]],
            "marks": context["marks"],
            "scales": {layer: scales.of(layer)._asdict() for layer in TITLES},
            "limits": context.get("limits"),
            "volume": None if volume is None else {k: v for k, v in volume._asdict().items() if k != "data"},
            "html": _compact(body),
            "courses": {p["key"]: p["courses"] for p in context["plots"]},
        }
        yield {
            "index": look.number,
            "name": look.name,
            "rank": look.rank,
            "state": case_state(look),
            "failed": run.cases[look.number].failed,
            "facts": [f"{what}: {figure}" for what, figure, _ in context["five"]],
            "packed": packed(json.dumps(fields, separators=(",", ":"), allow_nan=False)),
            "plotted": bool(context["plots"]),
            "volume": {} if volume is None else volume.data,
        }


def _compact(markup: str) -> str:
    """Markup without the line breaks and indents of its template."""
    return re.sub(r"\s*\n\s*", "\n", markup)
