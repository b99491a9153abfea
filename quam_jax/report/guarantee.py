"""What a guarantee says, as a section of the page and as facts of a case, from run.json and the JSON of the case."""

import math
from collections.abc import Mapping
from typing import Any

from .case_numbers import plain
from .folder import Case, Run, number
from .tables import show


def build_guarantee(run: Run) -> dict[str, Any] | None:
    """The statements of the run's guarantee, its reliability and the cases to look at; None of a run without one."""
    record = run.info.get("calibration")
    if not isinstance(record, Mapping):
        return None
    alpha, cases, limits = number(record.get("alpha")), record.get("cases"), record.get("limits")
    share = f"{100 * alpha:.3g} %"
    rows = []
    for key, limit in limits.items() if isinstance(limits, Mapping) else ():
        if isinstance(limit, Mapping):
            rows.append(
                (_words(str(key), share), f"{plain(limit.get('map'))} from {show(limit.get('threshold'), 4)}", _of(limit))
            )
    volumes, dice, errors = record.get("volumes"), record.get("dice"), record.get("errors")
    for name, one in volumes.items() if isinstance(volumes, Mapping) else ():
        factor = math.exp(number(one.get("widening"))) if isinstance(one, Mapping) else math.nan
        text = f"range of the models times {show(factor)}, both ways"
        rows.append((f"The volume of {name} lies in its range, but in {share} of cases", text, _of(one)))
    if isinstance(dice, Mapping):
        text = f"expected by {plain(dice.get('score'))}, less {show(dice.get('below'))}"
        rows.append((f"The Dice is no lower than said, but in {share} of cases", text, _of(dice)))
    reliability = errors.get("reliability") if isinstance(errors, Mapping) else None
    return {
        "count": len(cases) if isinstance(cases, list) else 0,
        "rows": rows,
        "reliability": [[show(value) for value in row[:2]] + [f"{number(row[2]):,.0f}"] for row in reliability or []],
        "map": plain(errors.get("map")) if isinstance(errors, Mapping) else "",
        "look": [case.name for case in run.cases if told_of(case).get("look") is True],
        "least_dice": record.get("least_dice"),
        "notes": [plain(note) for note in record.get("notes") or ()],
    }


def _words(key: str, share: str) -> str:
    what, _, name = key.partition(":")
    if what == "zone":
        return f"At most {share} of the wrong pixels lie outside the review zone"
    if what == "outer":
        return f"At most {share} of {name} lie outside its outer mask"
    return f"At most {share} of the predicted {name} are false inside its inner mask"


def _of(record: object) -> str:
    return f"{number(record.get('cases')):.0f} cases" if isinstance(record, Mapping) else ""


def told_of(case: Case) -> Mapping[str, Any]:
    """What a guarantee says of a case; empty where none does."""
    told = case.record.get("guarantee")
    return told if isinstance(told, Mapping) else {}


def least_dice(run: Run) -> float:
    """The Dice below which cases are to be looked at; NaN of a run without such a guarantee."""
    record = run.info.get("calibration")
    return number(record.get("least_dice")) if isinstance(record, Mapping) else math.nan


def guarantee_facts(case: Case) -> list[tuple[str, str]]:
    """What a guarantee says of a case, in words and figures."""
    told = told_of(case)
    facts = []
    if "review_share" in told:
        facts.append(("review zone", f"{100 * number(told['review_share']):.1f} % of the image"))
    if "dice_lower" in told:
        facts.append(("Dice", f"{show(told.get('expected_dice'), 2)} expected, {show(told['dice_lower'], 2)} or more guaranteed"))
    structures = told.get("structures")
    for name, values in structures.items() if isinstance(structures, Mapping) else ():
        for unit in ("ml", "pixels"):
            ends = values.get(unit) if isinstance(values, Mapping) else None
            if isinstance(ends, list) and len(ends) == 2:
                facts.append((f"guaranteed range of {name}", f"{number(ends[0]):,.4g} to {number(ends[1]):,.4g} {unit}"))
                break
    return facts
