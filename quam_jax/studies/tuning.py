"""Settings chosen on validation cases, by one rule for every method, and the curve that justified the choice.

The score of a setting is the mean over validation cases of one figure of the total map; ties and missing figures go to the
earlier entry of the grid, whose first is the untuned default. Test cases never come here.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..baselines.method import Method
from ..config import Config, change, dump_config
from ..data.records import digest, read_json, write_json, write_table
from .cases import StudyCase
from .figures import draw_tuning
from .preparation import StudyParts, prepare_study
from .request import TuneRequest
from .study import StudyNetwork, run_case

SCORE = "total/pcc"
LOWER_IS_BETTER = ("aurc_image", "e_aurc_image", "augrc_image", "ged_v", "ged_u")


class TuneResult(NamedTuple):
    """The best row of every method, and all rows, whose first is the untuned setting."""

    chosen: dict[str, dict[str, Any]]
    curves: dict[str, list[dict[str, Any]]]
    notes: list[str]


def tune(
    network: StudyNetwork,
    method: Method,
    cases: Sequence[StudyCase],
    *,
    score: str = SCORE,
    out: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Every setting of a method's grid with its mean score on validation cases; read back where it was computed before.

    `progress(name, done, total)` is called after each setting on each case, and once where they are read back.
    A figure that no case has (a map that is constant everywhere) leaves every score NaN, and the default stands. ValueError
    without validation cases.
    """
    if not cases:
        raise ValueError(f"tune: {method.name}: expected validation cases, got none")
    identity = _identity(network, method, cases, score)
    path = None if out is None else out / "tuning" / f"{method.name}-{identity[:16]}.json"
    stored = read_json(path) if path else {}
    total = len(method.grid) * len(cases)
    if stored.get("digest") == identity:
        progress(f"{network.name} {method.name}", total, total)
        return [_numbers(row) for row in stored["rows"]]
    rows = []
    for place in range(len(method.grid)):

        def told(name: str, done: int, before: int = place * len(cases)) -> None:
            progress(f"{network.name} {method.name} {name}", before + done, total)

        rows.append(score_setting(network, method, place, cases, score=score, out=out, progress=told))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"digest": identity, "network": network.name, "method": method.name, "score": score, "rows": rows})
    return rows


def score_setting(
    network: StudyNetwork,
    method: Method,
    place: int,
    cases: Sequence[StudyCase],
    *,
    score: str,
    out: Path | None,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """One setting of a method's grid with its mean score; read back where it was computed before.

    `progress(name, done)` is called after each case.
    """
    identity = digest(_identity(network, method, cases, score), place)
    path = None if out is None else out / "tuning" / method.name / f"{identity[:32]}.json"
    stored = read_json(path) if path else {}
    if stored.get("digest") == identity:
        progress("", len(cases))
        return _numbers(stored["row"])
    settings, started = method.grid[place], time.perf_counter()
    run = method.start(network.subject, settings)
    scores = []
    for case in cases:
        figures, _, _ = run_case(network, run, case, condition="none")
        scores.append(figures.get(score, float("nan")))
        progress(case.identity.name, len(scores))
    known = np.array(scores)[~np.isnan(scores)]
    row = {
        "settings": dict(settings),
        "score": float(known.mean()) if known.size else float("nan"),
        "standard_error": float(known.std(ddof=1) / np.sqrt(known.size)) if known.size > 1 else float("nan"),
        "cases": int(known.size),
        "missing": len(scores) - int(known.size),
        "seconds": time.perf_counter() - started,
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"digest": identity, "row": row})
    return row


def _identity(network: StudyNetwork, method: Method, cases: Sequence[StudyCase], score: str) -> str:
    """What the scores of a method's grid depend on."""
    return digest(
        network.digest,
        method.name,
        method.about,
        list(method.grid),
        [c.digest for c in cases],
        [c.digest for c in network.subject.fit_cases],
        score,
        network.subject.seed,
    )


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it was before it was written."""
    return {name: float("nan") if value is None else value for name, value in row.items()}


def best(rows: Sequence[dict[str, Any]], *, score: str = SCORE) -> dict[str, Any]:
    """The row of the best score; the first of equal ones."""
    sign = -1.0 if score.rsplit("/", 1)[-1] in LOWER_IS_BETTER else 1.0
    values = [sign * row["score"] if not np.isnan(row["score"]) else -np.inf for row in rows]
    return dict(rows[int(np.argmax(values))])


def tune_study(request: TuneRequest, *, progress: Callable[[str, int, int], None] = lambda *_: None) -> TuneResult:
    """Score every setting, and write `tuned.yaml` (of the search), `tuning.csv`, `tuning.json` and `tuning.png`.

    With several networks the score of a setting is the mean over them. `progress(name, done, total)` counts settings on cases,
    over all networks and methods; it is called first with nothing done. ValueError where no method has anything to choose, no
    validation case has the figure, and as for `prepare_study`.
    """
    parts, tunable = plan_tuning(request)
    score, out = request.study.score, request.out
    out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[dict[str, Any]]] = {}
    steps = [(method, network) for method in tunable.values() for network in parts.networks]
    told = iter(joined_progress([len(method.grid) * len(parts.validation) for method, _ in steps], progress))
    for name, method in tunable.items():
        runs = [tune(network, method, parts.validation, score=score, out=out, progress=next(told)) for network in parts.networks]
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
    return TuneResult(chosen, curves, parts.notes)


def plan_tuning(request: TuneRequest) -> tuple[StudyParts, dict[str, Method]]:
    """The study and those of its methods that have something to choose; ValueError where none has."""
    parts = prepare_study(request.study)
    methods = dict(parts.methods)
    if request.grid and "quam_tuned" in methods:
        methods["quam_tuned"] = dataclasses.replace(methods["quam_tuned"], grid=combine(request.grid))
    tunable = {name: method for name, method in methods.items() if len(method.grid) > 1}
    if not tunable:
        raise ValueError(f"--methods: expected one with something to choose, got {', '.join(methods)}")
    return parts, tunable


def joined_progress(sizes: Sequence[int], progress: Callable[[str, int, int], None]) -> list[Callable[[str, int, int], None]]:
    """A progress for each of several lists of these sizes that counts over all of them; nothing is done yet."""
    progress("", 0, sum(sizes))

    def after(before: int) -> Callable[[str, int, int], None]:
        return lambda name, done, total: progress(name, before + done, sum(sizes))

    return [after(sum(sizes[:n])) for n in range(len(sizes))]


def combine(grid: Mapping[str, tuple[Any, ...]]) -> tuple[dict[str, Any], ...]:
    """Every combination of the values, the last setting changing fastest."""
    return tuple(dict(zip(grid, row, strict=True)) for row in itertools.product(*grid.values()))
