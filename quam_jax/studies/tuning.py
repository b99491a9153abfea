"""Settings chosen on validation cases, by one rule for every method, and the curve that justified the choice.

The score of a setting is the mean over validation cases of one figure of the total map; ties and missing figures go to the
earlier entry of the grid, whose first is the untuned default. Test cases never come here.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..baselines.method import Method
from ..data.records import digest, read_json, write_json
from .cases import StudyCase
from .study import StudyNetwork, run_case

SCORE = "total/pcc"
LOWER_IS_BETTER = ("aurc_image", "e_aurc_image", "augrc_image", "ged_v", "ged_u")


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

    A figure that no case has (a map that is constant everywhere) leaves every score NaN, and the default stands. ValueError
    without validation cases.
    """
    if not cases:
        raise ValueError(f"tune: {method.name}: expected validation cases, got none")
    identity = digest(
        network.digest,
        method.name,
        method.about,
        list(method.grid),
        [c.digest for c in cases],
        [c.digest for c in network.subject.fit_cases],
        score,
        network.subject.seed,
    )
    path = None if out is None else out / "tuning" / f"{method.name}-{identity[:16]}.json"
    stored = read_json(path) if path else {}
    if stored.get("digest") == identity:
        return [{name: float("nan") if value is None else value for name, value in row.items()} for row in stored["rows"]]
    rows = []
    for place, settings in enumerate(method.grid):
        started = time.perf_counter()
        run = method.start(network.subject, settings)
        scores = []
        for case in cases:
            figures, _, _ = run_case(network, run, case, condition="none")
            scores.append(figures.get(score, float("nan")))
            progress(f"{network.name} {method.name} {case.identity.name}", place + 1, len(method.grid))
        known = np.array(scores)[~np.isnan(scores)]
        rows.append(
            {
                "settings": dict(settings),
                "score": float(known.mean()) if known.size else float("nan"),
                "standard_error": float(known.std(ddof=1) / np.sqrt(known.size)) if known.size > 1 else float("nan"),
                "cases": int(known.size),
                "missing": len(scores) - int(known.size),
                "seconds": time.perf_counter() - started,
            }
        )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"digest": identity, "network": network.name, "method": method.name, "score": score, "rows": rows})
    return rows


def best(rows: Sequence[dict[str, Any]], *, score: str = SCORE) -> dict[str, Any]:
    """The row of the best score; the first of equal ones."""
    sign = -1.0 if score.rsplit("/", 1)[-1] in LOWER_IS_BETTER else 1.0
    values = [sign * row["score"] if not np.isnan(row["score"]) else -np.inf for row in rows]
    return dict(rows[int(np.argmax(values))])
