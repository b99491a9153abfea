"""Pictures of a study: reliability and risk-coverage curves, map against rater entropy, tuning curves, one strip a case."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .cases import StudyCase
from .study import COVERAGE, Cell, rater_entropy

_STYLE: dict[Any, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 120}


def draw_curves(cells: Sequence[Cell], path: Path, *, condition: str = "none") -> None:
    """Reliability of the mean prediction (pixels of all cases and networks pooled) and generalised risk against coverage."""
    with _figure(2, width=9, height=3.8) as (figure, (left, right)):
        left.plot([0.5, 1], [0.5, 1], color="0.7", linewidth=1)
        for place, method in enumerate(dict.fromkeys(c.method for c in cells)):
            own = [c for c in cells if c.method == method and c.condition == condition]
            style = {"color": _colour(place), "linestyle": ("-", "--", ":")[place // 10 % 3], "linewidth": 1.2}
            bins = [c.curves for c in own if "bin_pixels" in c.curves]
            if bins:
                pixels, confidence, correct = (
                    np.sum([b[n] for b in bins], axis=0) for n in ("bin_pixels", "bin_confidence", "bin_correct")
                )
                some = pixels > 0
                left.plot(confidence[some] / pixels[some], correct[some] / pixels[some], marker=".", **style)
            risks = [c.curves["risk"] for c in own if "risk" in c.curves]
            if risks:
                right.plot(COVERAGE, np.mean(risks, axis=0), label=method, **style)
        left.set(xlabel="confidence", ylabel="share of raters who agree", title="reliability")
        right.set(xlabel="coverage", ylabel="wrong and accepted (share of pixels)", title="generalised risk")
        right.legend(fontsize=6, frameon=False, loc="upper left")
        figure.savefig(path)


def draw_scatter(maps: Mapping[str, Mapping[str, np.ndarray]], cases: Sequence[StudyCase], path: Path, *, classes: int) -> None:
    """Total map against rater entropy, every pixel of the kept cases, one panel a method; `maps[case][method]`."""
    methods = list(dict.fromkeys(m for table in maps.values() for m in table))
    known = [case for case in cases if case.identity.name in maps]
    with _figure(len(methods), width=1.9 * min(len(methods), 5), height=1.9 * -(-len(methods) // 5)) as (figure, axes):
        for axis, method in zip(axes, methods, strict=True):
            pairs = [
                (rater_entropy(c, classes=classes).ravel(), maps[c.identity.name][method].ravel())
                for c in known
                if method in maps[c.identity.name]
            ]
            if pairs:
                x, y = (np.concatenate(values) for values in zip(*pairs, strict=True))
                axis.scatter(x, y, s=1, alpha=0.15, color="0.2", rasterized=True)
            axis.set_title(method, fontsize=7)
            axis.tick_params(labelsize=6)
        figure.supxlabel("rater entropy (nats)", fontsize=8)
        figure.supylabel("map", fontsize=8)
        figure.savefig(path)


def draw_strip(case: StudyCase, maps: Mapping[str, Float[np.ndarray, "*space"]], path: Path, *, classes: int) -> None:
    """Input, rater entropy and the total map of every method of one case, each map on its own scale from 0.

    A volume shows the slice with the most disagreement.
    """
    disagreement = rater_entropy(case, classes=classes)
    place = int(disagreement.sum((0, 1)).argmax()) if disagreement.ndim == 3 else None

    def plane(values: np.ndarray) -> np.ndarray:
        return values if place is None else values[:, :, place]

    picture = plane(case.picture)
    shown = picture if picture.shape[-1] == 3 else picture[..., 0]
    panels: list[tuple[str, np.ndarray, str]] = [
        ("input", shown / 255 if shown.ndim == 3 else shown, "gray"),
        ("raters", plane(disagreement), "inferno"),
    ]
    panels += [(name, plane(values), "inferno") for name, values in maps.items()]
    with _figure(len(panels), width=1.4 * min(len(panels), 9), height=1.6 * -(-len(panels) // 9), columns=9) as (figure, axes):
        for axis, (name, values, colours) in zip(axes, panels, strict=True):
            if colours == "gray":
                axis.imshow(values, cmap=colours)
            else:
                axis.imshow(values, cmap=colours, vmin=0, vmax=max(float(values.max()), 1e-9))
            axis.set_title(name, fontsize=6)
            axis.axis("off")
        figure.savefig(path)


def draw_strips(
    cases: Sequence[StudyCase], maps: Mapping[str, Mapping[str, Float[np.ndarray, "_ _"]]], path: Path, *, classes: int
) -> None:
    """A row a case: input, rater entropy and chosen maps (`maps[case][title]`), each map on its own scale from 0; images only."""
    rows = [case for case in cases if case.identity.name in maps and case.raters.ndim == 3]
    if not rows:
        return
    titles = list(maps[rows[0].identity.name])
    columns = 2 + len(titles)
    with _figure(columns * len(rows), width=1.25 * columns, height=1.35 * len(rows), columns=columns) as (figure, axes):
        for row, case in enumerate(rows):
            shown = case.picture / 255 if case.picture.shape[-1] == 3 else case.picture[..., 0]
            values = [shown, rater_entropy(case, classes=classes), *(maps[case.identity.name][title] for title in titles)]
            for place, (title, panel) in enumerate(zip(["input", "raters", *titles], values, strict=True)):
                axis = axes[row * columns + place]
                limits = {"cmap": "inferno", "vmin": 0, "vmax": max(float(panel.max()), 1e-9)} if place else {"cmap": "gray"}
                axis.imshow(panel, **limits)
                axis.axis("off")
                if row == 0:
                    axis.set_title(title, fontsize=7)
        figure.savefig(path)


def draw_tuning(tables: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, score: str) -> None:
    """The validation score of every setting, one panel a method."""
    with _figure(len(tables), width=2.6 * min(len(tables), 4), height=2.4 * -(-len(tables) // 4), columns=4) as (figure, axes):
        for axis, (name, rows) in zip(axes, tables.items(), strict=True):
            values = [row["score"] for row in rows]
            axis.errorbar(
                range(len(rows)),
                values,
                yerr=[np.nan_to_num(row["standard_error"]) for row in rows],
                marker="o",
                linewidth=1,
                color=_colour(0),
            )
            axis.set_xticks(range(len(rows)), [_short(row["settings"]) for row in rows], rotation=60, ha="right", fontsize=6)
            axis.set_title(name, fontsize=8)
            axis.set_ylabel(score, fontsize=7)
        figure.savefig(path)


def _short(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in settings.values()) or "as it is"


def _colour(place: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](place % 10)


class _figure:
    """A figure of `count` panels in rows, closed at the end; yields the figure and its axes in order."""

    def __init__(self, count: int, *, width: float, height: float, columns: int = 5) -> None:
        self.count, self.size, self.columns = count, (width, height), min(columns, count)

    def __enter__(self) -> tuple[Any, Any]:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.context = matplotlib.rc_context(_STYLE)
        self.context.__enter__()
        figure = Figure(figsize=self.size, layout="constrained")
        FigureCanvasAgg(figure)
        rows = -(-self.count // self.columns)
        axes = np.atleast_1d(figure.subplots(rows, self.columns, squeeze=False)).ravel()
        for spare in axes[self.count :]:
            spare.axis("off")
        return figure, list(axes[: self.count])

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)
