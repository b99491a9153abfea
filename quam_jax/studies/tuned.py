"""Settings for one's own network, chosen on validation cases, from a request to the files that hold them."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..config import Config, change, dump_config
from ..data.records import write_json, write_table
from .figures import draw_tuning
from .preparation import prepare_study
from .request import TuneRequest
from .tuning import best, tune


class TuneResult(NamedTuple):
    """The best row of every method, and all rows, whose first is the untuned setting."""

    chosen: dict[str, dict[str, Any]]
    curves: dict[str, list[dict[str, Any]]]


def tune_study(request: TuneRequest, *, progress: Callable[[str, int, int], None] = lambda *_: None) -> TuneResult:
    """Score every setting, and write `tuned.yaml` (of the search), `tuning.csv`, `tuning.json` and `tuning.png`.

    With several networks the score of a setting is the mean over them. ValueError where no method has anything to choose, no
    validation case has the figure, and as for `prepare_study`.
    """
    parts, score, out = prepare_study(request.study), request.study.score, request.out
    methods = dict(parts.methods)
    if request.grid and "quam_tuned" in methods:
        methods["quam_tuned"] = dataclasses.replace(methods["quam_tuned"], grid=combine(request.grid))
    tunable = {name: method for name, method in methods.items() if len(method.grid) > 1}
    if not tunable:
        raise ValueError(f"--methods: expected one with something to choose, got {', '.join(methods)}")
    out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, method in tunable.items():
        runs = [tune(network, method, parts.validation, score=score, out=out, progress=progress) for network in parts.networks]
        curves[name] = [
            {**rows[0], **{figure: float(np.mean([row[figure] for row in rows])) for figure in ("score", "standard_error")}}
            for rows in zip(*runs, strict=True)
        ]
    unknown = [name for name, rows in curves.items() if all(np.isnan(row["score"]) for row in rows)]
    if unknown:
        raise ValueError(f"tune: {unknown[0]}: expected the figure {score} of some validation case, got none")
    chosen = {name: best(rows, score=score) for name, rows in curves.items()}
    if "quam_tuned" in curves:
        (out / "tuned.yaml").write_text(dump_config(change(Config(), chosen["quam_tuned"]["settings"])))
    write_table(
        out / "tuning.csv",
        [{"method": name, **row, "settings": json.dumps(row["settings"])} for name, rows in curves.items() for row in rows],
    )
    about = {
        "score": score,
        "validation_cases": [c.identity.name for c in parts.validation],
        "networks": {n.name: n.digest for n in parts.networks},
        "chosen": chosen,
    }
    write_json(out / "tuning.json", {**about, "curves": curves})
    draw_tuning(curves, out / "tuning.png", score=score)
    return TuneResult(chosen, curves)


def combine(grid: Mapping[str, tuple[Any, ...]]) -> tuple[dict[str, Any], ...]:
    """Every combination of the values, the last setting changing fastest."""
    return tuple(dict(zip(grid, row, strict=True)) for row in itertools.product(*grid.values()))
