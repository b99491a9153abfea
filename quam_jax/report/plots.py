"""Small line and dot plots as inline SVG: crisp at any size, coloured by the page's style sheet.

Colours come from CSS classes (`dilated`, `eroded`, `other0`...), so a plot and the contours beside it speak
the same language, in light and dark. All text that comes from files is escaped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 38
MOST_STEPS = 240  # recorded steps drawn a line; more are thinned
MOST_MARKS = 60  # with more steps than this, marks would run into each other


@dataclass(frozen=True)
class Strip:
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


def trajectory_plot(
    values: Float[np.ndarray, "m s"],
    bound: Float[np.ndarray, "m s"] | None = None,
    feasible: Bool[np.ndarray, "m s"] | None = None,
    *,
    members: Sequence[str],
    name: str,
    unit: str,
) -> Markup:
    """A line per adversarial model over the recorded steps, with its bound dashed and feasible steps filled.

    `members` are the wanted directions in the order of `values`. The axis is logarithmic where all values are
    positive and span more than a factor of 50.
    """
    steps = values.shape[1]
    shown = np.unique(np.linspace(0, steps - 1, min(steps, MOST_STEPS)).round().astype(int)) if steps else np.array([], int)
    seen = [values[:, shown]] + ([bound[:, shown]] if bound is not None else [])
    everything = np.concatenate([v.ravel() for v in seen]) if steps else np.array([])
    finite = everything[np.isfinite(everything)]
    if finite.size == 0:
        return Markup('<p class="absent">{}: no finite value was recorded.</p>').format(name)
    logarithmic = bool(finite.min() > 0 and finite.max() > 50 * finite.min())
    ticks = nice_ticks(float(finite.min()), float(finite.max()), logarithmic=logarithmic)
    low, high = min(ticks[0], float(finite.min())), max(ticks[-1], float(finite.max()))

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (0.5 if steps == 1 else step / (steps - 1))

    def y(value: float | np.floating) -> float:
        place = (np.log(value / low) / np.log(high / low)) if logarithmic else (value - low) / (high - low)
        return float(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * place)

    parts = [_frame(ticks, y), _step_axis(steps, x)]
    for index, line in enumerate(values):
        style = member_class(members[index] if index < len(members) else "", index)
        label = escape(f"model {index} ({members[index]})" if index < len(members) else f"model {index}")
        parts.append(f'<g class="{style}"><title>{label}</title>')
        if bound is not None:
            parts.append(f'<path class="bound" d="{_line(shown, bound[index], x, y)}"/>')
        parts.append(f'<path class="line" d="{_line(shown, line, x, y)}"/>')
        if len(shown) <= MOST_MARKS:
            known = [step for step in shown.tolist() if np.isfinite(line[step])]
            kept = [step for step in known if feasible is None or feasible[index, step]]
            missed = [step for step in known if step not in kept]
            parts.append(_dots("yes", kept, line, x, y) + _dots("no", missed, line, x, y) + _dots("hole", missed, line, x, y))
        parts.append("</g>")
    label = escape(f"{name} per recorded step, {len(values)} adversarial models")
    turned = f'transform="translate(13 {(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)"'
    parts.append(f'<text class="label" {turned}>{escape(unit)}</text>')
    return Markup(f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def strip_plot(strips: Sequence[Strip], *, name: str) -> Markup:
    """One row a map: a dot per case, the mean as a diamond and its interval as a bar."""
    values = np.array([v for strip in strips for v in (*strip.values, strip.mean, strip.low, strip.high)], float)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Markup('<p class="absent">{}: no value.</p>').format(name)
    ticks = nice_ticks(min(0.0, float(finite.min())), max(1.0, float(finite.max())))
    low, high = ticks[0], ticks[-1]
    row, left, bottom = 30, 96, 30
    height = row * len(strips) + bottom + 6

    def x(value: float) -> float:
        return left + (WIDTH - left - 16) * (value - low) / (high - low)

    parts = [
        f'<g class="axis"><path d="M{x(t):.1f} 4V{height - bottom}"/>'
        f'<text x="{x(t):.1f}" y="{height - bottom + 16}" text-anchor="middle">{t:g}</text></g>'
        for t in ticks
    ]
    for index, strip in enumerate(strips):
        middle = 4 + row * (index + 0.5)
        kind = "strip control" if strip.control else "strip"
        parts.append(
            f'<g class="{kind}"><text x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(strip.label)}</text>'
        )
        known = [v for v in strip.values if np.isfinite(v)]
        for place, value in enumerate(known):
            # A fixed spread by the golden ratio keeps dots of equal value apart, the same on every build.
            offset = ((place * 0.618034) % 1 - 0.5) * (row - 14)
            parts.append(f'<circle class="dot" cx="{x(value):.1f}" cy="{middle + offset:.1f}" r="2.2"/>')
        if np.isfinite(strip.low) and np.isfinite(strip.high):
            parts.append(f'<path class="interval" d="M{x(strip.low):.1f} {middle:.1f}H{x(strip.high):.1f}"/>')
        if np.isfinite(strip.mean):
            parts.append(f'<path class="mean" d="M{x(strip.mean) - 6:.1f} {middle:.1f}l6 -6 6 6 -6 6z"/>')
        parts.append("</g>")
    spoken = "; ".join(f"{s.label} mean {s.mean:.3f}" for s in strips if np.isfinite(s.mean))
    label = escape(f"{name} of every case by map: {spoken}")
    return Markup(f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def nice_ticks(low: float, high: float, *, logarithmic: bool = False) -> list[float]:
    """Round numbers that cover low to high (1, 2, 5 times powers of ten)."""
    if logarithmic:
        powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        return [10.0**p for p in powers]
    if not high > low:
        margin = abs(low) * 0.1 or 0.1
        low, high = low - margin, high + margin
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(f for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _frame(ticks: Sequence[float], y: Callable[[float], float]) -> str:
    rules = "".join(f"M{LEFT} {y(t):.1f}H{WIDTH - RIGHT}" for t in ticks)
    marks = "".join(f'<text x="{LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>' for t in ticks)
    return f'<g class="axis"><path d="{rules}"/>{marks}</g>'


def _step_axis(steps: int, x: Callable[[int], float]) -> str:
    stride = max(1, -(-steps // 8))
    marks = "".join(
        f'<text x="{x(s):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{s + 1}</text>' for s in range(0, steps, stride)
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<g class="axis">{marks}</g><text class="label" x="{middle}" y="{HEIGHT - 4}">recorded step</text>'


def _dots(
    kind: str,
    steps: Sequence[int],
    values: np.ndarray,
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> str:
    """One path for all marks of a kind: strokes of no length with round ends are dots."""
    return f'<path class="{kind}" d="{"".join(f"M{x(s):.1f} {y(values[s]):.1f}h0" for s in steps)}"/>' if steps else ""


def _line(shown: np.ndarray, values: np.ndarray, x: Callable[[int], float], y: Callable[[float], float]) -> str:
    path, pen = [], "M"
    for step in shown.tolist():
        if not np.isfinite(values[step]):
            pen = "M"
            continue
        path.append(f"{pen}{x(step):.1f} {y(values[step]):.1f}")
        pen = "L"
    return "".join(path)
