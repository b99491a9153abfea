"""The page of a comparison: what changed, in numbers and in three planes through the change that is most sure.

One HTML file with its pictures inside, in the style of the report and without scripts. Text that comes from files is escaped.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from .html import environment
from .planes import Plane, orthogonal_planes

EXPLAINED, EXCEEDS = "#8c8c8c", "#d1495b"  # the verdict in the picture
GROUND, INK = "#0f1114", "#e7e9ed"  # of pictures in the report, in light and dark
MOST_ROWS = 50


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
    place, picture = _picture(compared, images=images, labels=labels, spacing=spacing, orientation=orientation)
    names = [record[which]["case"] for which in ("baseline", "followup")]
    more = [row for row in record["changes"] if row["exceeds"] == "yes"]
    verdict = f"{exceeding(len(more), len(record['changes']))}." if record["changes"] else "No voxel changed its label."
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            title=" and ".join(names),
            kicker=f"Comparison of two dates · {names[0]} (baseline) and {names[1]} (follow-up)",
            heading=verdict,
            notes=record["notes"],
            place=" ".join(map(str, place)),
            picture=picture,
            volumes=_volumes(record["structures"]),
            changes=_changes(record["changes"][:MOST_ROWS]),
            rest=max(0, len(record["changes"]) - MOST_ROWS),
            rule=record["rule"][0].upper() + record["rule"][1:],
            level=f"{record['level']:g}",
            least=f"{record['least']:g}",
        )
    )


def exceeding(more: int, changes: int) -> str:
    """How many of the connected changes exceed what uncertainty explains."""
    return f"{more} of {changes} connected changes exceed{'s' if more == 1 else ''} what uncertainty explains"


def _volumes(structures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row a structure: its volume at both dates and the change, each with its interval, and the verdict."""
    return [
        [
            name,
            *(
                f"{r[d + '_ml']:.3f} [{r[d + '_low_ml']:.3f}, {r[d + '_high_ml']:.3f}]"
                for d in ("baseline", "followup", "change")
            ),
            r["exceeds"],
        ]
        for name, r in structures.items()
    ]


def _changes(changes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row a change."""
    return [
        [
            str(r["change"]),
            f"{r['before']} to {r['after']}",
            f"{r['volume_ml']:.3f}",
            f"{r['shift']:.3f}",
            f"{r['spread']:.3f}",
            f"{r['probability']:.4f}",
            r["peak"],
            r["exceeds"],
        ]
        for r in changes
    ]


def _picture(
    compared: Any,
    *,
    images: tuple[np.ndarray | None, np.ndarray | None],
    labels: tuple[Integer[np.ndarray, "*space"], Integer[np.ndarray, "*space"]],
    spacing: Sequence[float],
    orientation: str | None,
) -> tuple[tuple[int, ...], str]:
    """Where the surest change is, and a PNG as base64: baseline, follow-up and verdict on every plane through it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: importing it takes long
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    place = _place(compared, labels)
    planes = _planes(labels[0].shape, place, orientation)
    figure = Figure(figsize=(11, 3.6 * len(planes)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_facecolor(GROUND)
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
            panel.set_title(title if plane is planes[0] else "", fontsize=9, color=INK)
            panel.set_xticks([])
            panel.set_yticks([])
            if plane.letters:
                panel.set_ylabel(plane.letters[3], rotation=0, labelpad=8, color=INK)
                panel.set_xlabel(plane.letters[2], color=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    return place, base64.b64encode(buffer.getvalue()).decode()


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
