"""What the plots of the page show, as plain values: courses of a search, and figures by map. Observable Plot draws them.

Colours are those of the page's style sheet (`dilated`, `eroded`, `other0`...), so that a plot and the outlines beside it speak
the same language, in light and dark.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

MOST_STEPS = 240  # recorded steps drawn a line; more are thinned
DIGITS = 6  # significant digits that a page keeps of a value


class Strip(NamedTuple):
    """One row of a dot plot: the values of all cases, their mean and its interval (NaN where unknown)."""

    label: str
    values: Sequence[float]
    mean: float
    low: float
    high: float
    control: bool = False


def member_class(wanted: str, index: int) -> str:
    """The style of an adversarial model: by the direction it was asked for, else by its number."""
    name = wanted.lower()
    if "dilat" in name or "grow" in name or "all_one" in name:
        return "dilated"
    if "ero" in name or "shrink" in name or "all_zero" in name:
        return "eroded"
    return f"other{index % 3}"


def course(
    values: Float[np.ndarray, "m s"],
    bound: Float[np.ndarray, "m s"] | None = None,
    feasible: Bool[np.ndarray, "m s"] | None = None,
    *,
    members: Sequence[str],
) -> dict[str, Any]:
    """A line per adversarial model over the recorded steps (from 1), with its bound and whether a step was feasible.

    `members` are the wanted directions in the order of `values`. What is not finite is None, where lines break. The axis is
    `logarithmic` where all values are positive and span more than a factor of 50.
    """
    steps = values.shape[1]
    shown = np.unique(np.linspace(0, steps - 1, min(steps, MOST_STEPS)).round().astype(int)) if steps else np.array([], int)
    seen = np.concatenate([part[:, shown].ravel() for part in (values, bound) if part is not None])
    finite = seen[np.isfinite(seen)]
    lines = [
        {
            "name": f"model {index}" + (f" ({members[index]})" if index < len(members) else ""),
            "style": member_class(members[index] if index < len(members) else "", index),
            "values": [_plain(v) for v in line[shown]],
            "bound": None if bound is None else [_plain(v) for v in bound[index, shown]],
            "feasible": None if feasible is None else feasible[index, shown].tolist(),
        }
        for index, line in enumerate(values)
    ]
    logarithmic = bool(finite.size and finite.min() > 0 and finite.max() > 50 * finite.min())
    return {"steps": (shown + 1).tolist(), "lines": lines, "logarithmic": logarithmic, "empty": not finite.size}


def strips_data(strips: Sequence[Strip], *, name: str) -> dict[str, Any]:
    """One row a map: a dot per case, the mean and its interval, and what a screen reader says of it."""
    rows = [
        {
            "label": strip.label,
            "values": [_plain(v) for v in strip.values if math.isfinite(v)],
            **{key: _plain(getattr(strip, key)) for key in ("mean", "low", "high")},
            "control": strip.control,
        }
        for strip in strips
    ]
    spoken = "; ".join(f"{s.label} mean {s.mean:.3f}" for s in strips if math.isfinite(s.mean))
    return {"label": f"{name} of every case by map: {spoken}", "rows": rows}


def _plain(value: float | np.floating) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
