"""One self-contained report.html from the files of a run folder, and from nothing else.

The page opens offline: style and script are inline, pictures are data URIs inside inert JSON, and a content
policy in its head forbids the browser every request. A case is decoded when it is opened, so that hundreds of
cases open at once. The page is written case by case to a temporary file that then replaces an older report.
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

from . import figures, tables
from .case_numbers import moved, plain
from .case_page import build_case
from .figures import round_up
from .folder import Run, load_array, number, read_run
from .layers import TITLES, Scales, largest_of
from .overview_page import build_overview, case_line, case_state

NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
COLOURS = {"total": "viridis", "epistemic": "magma"}
MOST_CLASSES = 65536  # a larger number of classes in a file is not believed


def write_report(run_folder: str | Path) -> Path:
    """Write report.html into a run folder and return its path.

    Everything comes from the folder's own files (run.json, results.csv, summary.json, CASE.json and
    report_data); what is missing or damaged is named on the page and the rest is shown. An older report is
    replaced in one step. Raises ValueError if the folder holds neither run.json nor results.csv.
    """
    run = read_run(Path(run_folder))
    scales = survey(run)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(show=tables.show, plain=plain, moved=moved, to_json=to_json)
    page = environment.get_template("report.html.j2")
    tables_of_colours = {name: figures.colour_table(name).tolist() for name in COLOURS.values()}
    stream = page.stream(cases=_cases(run, scales, environment), colours=tables_of_colours, **build_overview(run, scales))
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


def survey(run: Run) -> Scales:
    """The scales of the page: ln C for entropies, and the run's largest epistemic value, rounded up."""
    model = run.info.get("model")
    stored = [model.get("classes") if isinstance(model, Mapping) else None, run.info.get("classes")]
    stored += [case.record.get("classes") for case in run.cases]
    given = [int(number(value)) for value in stored if 2 <= number(value) <= MOST_CLASSES]
    seen, largest, pictured = 2, 0.0, 0
    for case in run.cases:
        pictured += case.arrays is not None
        epistemic = load_array(case, "epistemic")
        if epistemic is not None:
            finite = epistemic[np.isfinite(epistemic)]
            largest = max(largest, float(finite.max(initial=0.0)), largest_of(case, "epistemic") or 0.0)
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
        largest_epistemic=largest,
        pictured=pictured,
    )


def to_json(value: object) -> Markup:
    """JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def join_json(fields: Mapping[str, object], markup: Mapping[str, object]) -> Markup:
    """`to_json` of both mappings as one object, shorter for `markup`, which is the page's own.

    In that only the sequences that a script element reacts to are written differently.
    """
    text = json.dumps(markup, ensure_ascii=True, separators=(",", ":"))
    for risky, safe in (("</", "<\\/"), ("<!", "\\u003c!"), ("<s", "\\u003cs"), ("<S", "\\u003cS")):
        text = text.replace(risky, safe)
    return Markup(str(to_json(fields))[:-1] + "," + text[1:])


def _cases(run: Run, scales: Scales, environment: jinja2.Environment) -> Iterator[dict[str, Any]]:
    template = environment.get_template("case.html.j2")
    for index, case in enumerate(run.cases):
        context = build_case(run, case, scales)
        body = template.render(case=context, index=index, last=len(run.cases) - 1, titles=TITLES)
        fields = {
            "name": case.name,
            "planes": context["planes"],
            "start": context["start"],
            "plots": [{k: p[k] for k in ("key", "linked", "indices")} for p in context["plots"]],
            "marks": context["marks"],
            "highs": {layer: scales.of(layer).high for layer in TITLES},
        }
        drawn = {p["key"]: [str(svg) for svg in p["svgs"]] for p in context["plots"]}
        yield {
            "index": index,
            "name": case.name,
            "state": case_state(case, run.info),
            "failed": case.failed,
            "thumb": context["thumb"],
            "facts": case_line(case, context),
            "json": join_json(fields, {"html": _compact(body), "svgs": drawn}),
        }


def _compact(markup: str) -> str:
    """Markup without the line breaks and indents of its template."""
    return re.sub(r"\s*\n\s*", "\n", markup)
