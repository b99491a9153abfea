"""The page of a comparison: what changed, in numbers and in three planes through the change that is most sure.

One HTML file with its pictures inside, without scripts. Text that comes from files is escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from .planes import Plane, orthogonal_planes

EXPLAINED, EXCEEDS = "#8c8c8c", "#d1495b"  # as the verdict's colours in picture and text
MOST_ROWS = 50
STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:1.6rem}table{border-collapse:collapse}td,th{padding:.2rem .7rem;
border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child,td.t,th.t{text-align:left}img{max-width:100%}
.yes{color:#b3263c;font-weight:600}.note{background:#fff6e0;padding:.4rem .7rem}small{color:#555}"""


def comparison_page(
    record: Mapping[str, Any],
    compared: Any,
    *,
    images: tuple[np.ndarray | None, np.ndarray | None],
    labels: tuple[Integer[np.ndarray, "*space"], Integer[np.ndarray, "*space"]],
    spacing: Sequence[float],
    orientation: str | None,
) -> str:
    """The page as text. `record` is what comparison.json holds, `compared` the maps; images may be missing."""
    names = [record[which]["case"] for which in ("baseline", "followup")]
    more = [row for row in record["changes"] if row["exceeds"] == "yes"]
    verdict = (
        f"{len(more)} of {len(record['changes'])} connected changes exceed what uncertainty explains."
        if record["changes"]
        else "No voxel changed its label."
    )
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(' and '.join(names))}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(names[0])} (baseline) and {escape(names[1])} (follow-up)</h1>",
        f"<p class='{'yes' if more else ''}'>{verdict}</p>",
        *(f"<p class='note'>Note: {escape(note)}.</p>" for note in record["notes"]),
        _picture(compared, images=images, labels=labels, spacing=spacing, orientation=orientation),
        "<h2>Volumes</h2>",
        _volumes(record["structures"]),
        "<h2>Connected changes, largest first</h2>",
        _changes(record["changes"]),
        f"<h2>Rule</h2><p><small>{escape(record['rule'])}. Level {record['level']:g}, least change of probability "
        f"{record['least']:g}. Intervals of volumes are those of the adversarial models.</small></p></body></html>",
    ]
    return "\n".join(parts)


def _volumes(structures: Mapping[str, Mapping[str, Any]]) -> str:
    if not structures:
        return "<p>No volumes: the images are not volumes.</p>"
    rows = [
        [
            escape(name),
            *(
                f"{r[d + '_ml']:.3f} [{r[d + '_low_ml']:.3f}, {r[d + '_high_ml']:.3f}]"
                for d in ("baseline", "followup", "change")
            ),
            _yes(r["exceeds"]),
        ]
        for name, r in structures.items()
    ]
    return _table(["structure", "baseline, ml", "follow-up, ml", "change, ml", "exceeds uncertainty"], rows)


def _changes(changes: Sequence[Mapping[str, Any]]) -> str:
    if not changes:
        return "<p>None.</p>"
    rows = [
        [
            str(r["change"]),
            f"{escape(r['before'])} to {escape(r['after'])}",
            f"{r['volume_ml']:.3f}",
            f"{r['shift']:.3f}",
            f"{r['spread']:.3f}",
            f"{r['probability']:.4f}",
            escape(r["peak"]),
            _yes(r["exceeds"]),
        ]
        for r in changes[:MOST_ROWS]
    ]
    rest = len(changes) - len(rows)
    tail = f"<p><small>and {rest} smaller ones in changes.csv</small></p>" if rest else ""
    return (
        _table(
            ["change", "from, to", "ml", "change of probability", "spread", "probability", "at voxel", "exceeds uncertainty"],
            rows,
        )
        + tail
    )


def _yes(value: str) -> str:
    return f"<span class='{escape(value)}'>{escape(value)}</span>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{cells}</table>"


def _picture(
    compared: Any,
    *,
    images: tuple[np.ndarray | None, np.ndarray | None],
    labels: tuple[Integer[np.ndarray, "*space"], Integer[np.ndarray, "*space"]],
    spacing: Sequence[float],
    orientation: str | None,
) -> str:
    """Baseline, follow-up and verdict side by side on every plane through the change that is most sure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: importing it takes long
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    place = _place(compared, labels)
    planes = _planes(labels[0].shape, place, orientation)
    figure = Figure(figsize=(11, 3.6 * len(planes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(planes), 3, squeeze=False)
    verdict = compared.verdict
    colours = ListedColormap([EXPLAINED, EXCEEDS])
    titles = ("baseline", "follow-up", "change: red exceeds uncertainty, grey explained by it")
    limits = [(float(np.percentile(i, 1)), float(np.percentile(i, 99.5))) if i is not None else (0.0, 1.0) for i in images]
    for row, plane in zip(axes, planes, strict=True):
        aspect = spacing[plane.down] / spacing[plane.across]
        for column, (panel, title) in enumerate(zip(row, titles, strict=True)):
            which = min(column, 1)
            image = images[which]
            if image is not None:
                low, high = limits[which]
                panel.imshow(plane.tiles(image)[0], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
            else:
                panel.imshow(np.zeros(plane.tiles(labels[which])[0].shape), cmap="gray", vmin=0, vmax=1, aspect=aspect)
            shown = plane.tiles(verdict)[0]
            if column == 2:
                panel.imshow(
                    np.ma.masked_equal(shown, 0), cmap=colours, vmin=1, vmax=2, alpha=0.75, aspect=aspect, interpolation="nearest"
                )
            else:
                _outline(panel, plane.tiles(labels[which])[0])
            panel.set_title(title if plane is planes[0] else "", fontsize=9)
            panel.set_xticks([])
            panel.set_yticks([])
            if plane.letters:
                panel.set_ylabel(plane.letters[3], rotation=0, labelpad=8)
                panel.set_xlabel(plane.letters[2])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"<p><img alt='planes through voxel {' '.join(map(str, place))}' src='data:image/png;base64,{text}'></p>"


def _outline(panel: Any, labels: Integer[np.ndarray, "h w"]) -> None:
    for label, colour in zip(
        np.unique(labels[labels > 0]), ("#ffd166", "#06d6a0", "#4cc9f0", "#f78c6b", "#c77dff") * 60, strict=False
    ):
        panel.contour(labels == label, levels=[0.5], colors=[colour], linewidths=1)


def _place(compared: Any, labels: tuple[np.ndarray, np.ndarray]) -> tuple[int, ...]:
    """Where to look: the surest change, the largest of equal ones; else the middle of the structures."""
    if compared.changes:
        return max(compared.changes, key=lambda change: (change.exceeds, change.voxels * change.shift)).peak
    there = np.argwhere(labels[0] > 0)
    return tuple(int(i) for i in (np.median(there, 0) if len(there) else np.array(labels[0].shape) // 2))


def _planes(shape: tuple[int, ...], place: tuple[int, ...], orientation: str | None) -> list[Plane]:
    if len(shape) == 2:
        return [Plane(None, (0,), 0, 1)]
    mass: Float[np.ndarray, "x y z"] = np.zeros(shape)
    mass[place] = 1
    return orthogonal_planes(mass, orientation=orientation, limit=max(shape), slices=1)
