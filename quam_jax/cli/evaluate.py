"""`quam-jax evaluate`: maps of a run, or map files of any tool, against the masks of several raters."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from .common import PATH, progress_bar, say

_SHOWN = ("pcc", "r2_pearson", "sdice_product_minmax", "partial_pcc_distance", "auroc_image", "aurc_image")
_KINDS = ("total", "aleatoric", "epistemic")


class Item(NamedTuple):
    """One case: where its maps, its segmentation and its probabilities lie (stems of map files), and its raters."""

    name: str
    maps: dict[str, Path]
    segmentation: Path | None
    probabilities: Path | None
    raters: dict[str, Path]


@click.command(
    epilog="Example: quam-jax evaluate maps/ --masks raters/ --out scores/   or   quam-jax evaluate --map "
    "entropy=other_tool/ --masks raters/ --out scores/"
)
@click.argument("run", required=False, type=PATH)
@click.option("--map", "maps", multiple=True, help="NAME=FOLDER of map files CASE.nii.gz or CASE.npz, instead of a run folder.")
@click.option("--segmentation", type=PATH, help="With --map: folder of label maps CASE.ext; without it no error is counted.")
@click.option("--masks", type=PATH, help="Masks of the raters, CASE.ext or CASE_RATER.ext; default: those of the run.")
@click.option("--classes", default=2, show_default=True, help="With --map: classes of the masks, the background among them.")
@click.option("--band", default=3.0, show_default=True, help="Width of the boundary band, in mm where images have a spacing.")
@click.option("--tolerance", default=1.0, show_default=True, help="Tolerance of the surface Dice, in the same unit.")
@click.option("--out", type=PATH, help="Folder for evaluation.csv and evaluation.json.")
@click.pass_context
def evaluate(
    context: click.Context,
    run: Path | None,
    maps: tuple[str, ...],
    segmentation: Path | None,
    masks: Path | None,
    classes: int,
    band: float,
    tolerance: float,
    out: Path | None,
) -> int:
    """Hold uncertainty maps against several raters: agreement, calibration, failure detection, overlap, surfaces."""
    from ..data.records import write_json, write_table
    from ..evaluation.statistics import summarise

    if (run is None) == (not maps):
        raise ValueError("evaluate: expected either a run folder or --map NAME=FOLDER")
    items = list(_run_items(run, masks)) if run is not None else list(_file_items(maps, segmentation, masks))
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with progress_bar("cases", quiet=context.obj["quiet"]) as update:
        for done, item in enumerate(items):
            update(item.name, done, len(items))
            try:
                rows.append({"case": item.name, **_row(item, classes=classes, band=band, tolerance=tolerance)})
            except (ValueError, OSError) as error:
                failed[item.name] = " ".join(str(error).split())
    if not rows:
        raise ValueError(next(iter(failed.values())))
    summary = summarise([{k: v for k, v in row.items() if not isinstance(v, str)} for row in rows])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "evaluation.csv", rows)
        write_json(out / "evaluation.json", {"cases": len(rows), "failed": failed, "columns": summary})
    click.echo(_table(summary))
    for note in dict.fromkeys(row["note"] for row in rows if "note" in row):
        say(context, f"{sum(row.get('note') == note for row in rows)} of {len(rows)} cases: {note}")
    for name, reason in failed.items():
        say(context, f"failed: {name}: {reason}")
    return 1 if failed else 0


def _row(item: Item, *, classes: int, band: float, tolerance: float) -> dict[str, Any]:
    import numpy as np

    from ..data.volumes import read_image, read_labels, read_map
    from ..evaluation.evaluate import evaluate as figures
    from ..evaluation.reference_maps import boundary_map, consensus, contour_distance, rater_mean

    if not item.raters:
        raise ValueError(f"case {item.name}: expected the masks of its raters, got none")
    probabilities = None if item.probabilities is None else np.asarray(read_map(item.probabilities))
    classes = classes if probabilities is None else probabilities.shape[-1]
    geometry = read_image(next(iter(item.raters.values()))).geometry
    raters = np.stack([read_labels(path, classes=classes, like=geometry) for path in item.raters.values()])
    maps = {name: np.asarray(read_map(stem), np.float64) for name, stem in item.maps.items()}
    labels = None
    if item.segmentation is not None:
        labels = np.asarray(read_map(item.segmentation)).astype(np.int32)
    spacing = tuple(float(s) for s in geometry.spacing[: raters.ndim - 1])
    # without a segmentation the control knows the raters' own contour, which flatters it
    contour = labels if labels is not None else consensus(rater_mean(raters, classes=classes))
    maps["boundary"] = boundary_map(contour_distance(contour, spacing=spacing), sigma=2.0)
    return figures(
        maps,
        raters,
        probabilities=probabilities,
        segmentation=labels,
        spacing=spacing,
        band=band,
        tolerance=tolerance,
        classes=classes,
    )


def _run_items(run: Path, masks: Path | None) -> Iterator[Item]:
    from ..data.files import natural_key
    from ..data.records import read_json

    sidecars = (
        {
            path.stem: read_json(path)
            for path in sorted(run.glob("*.json"), key=lambda p: natural_key(p.name))
            if path.name not in ("run.json", "summary.json")
        }
        if run.is_dir()
        else {}
    )
    sidecars = {name: about for name, about in sidecars.items() if "outputs" in about}
    if not sidecars:
        raise ValueError(f"{run}: expected the folder of a run with finished cases, got none")
    drawn = (
        _raters(masks, list(sidecars))
        if masks is not None
        else {name: {rater: Path(path) for rater, path in about.get("raters", {}).items()} for name, about in sidecars.items()}
    )
    for name, about in sidecars.items():
        stems = {
            kind: run / _stem(about["outputs"][kind])
            for kind in (*_KINDS, "segmentation", "reference")
            if kind in about["outputs"]
        }
        yield Item(
            name,
            {kind: stems[kind] for kind in _KINDS if kind in stems},
            stems.get("segmentation"),
            stems.get("reference"),
            drawn[name],
        )


def _file_items(maps: tuple[str, ...], segmentation: Path | None, masks: Path | None) -> Iterator[Item]:
    folders: dict[str, Path] = {}
    for text in maps:
        name, equals, folder = text.partition("=")
        if not equals or not name or not Path(folder).is_dir():
            raise ValueError(f"--map: expected NAME=FOLDER, got {text!r}")
        folders[name] = Path(folder)
    if masks is None:
        raise ValueError("--masks: expected the raters' masks beside --map, got none")
    first = next(iter(folders.values()))
    files = [p.name for p in first.iterdir() if not p.name.startswith(".")]
    names = sorted({_stem(name) for name in files if name.endswith((".nii.gz", ".npz"))})
    if not names:
        raise ValueError(f"{first}: expected maps CASE.nii.gz or CASE.npz, got none")
    drawn = _raters(masks, names)
    for name in names:
        yield Item(
            name,
            {kind: folder / name for kind, folder in folders.items()},
            None if segmentation is None else segmentation / name,
            None,
            drawn[name],
        )


def _raters(masks: Path, names: list[str]) -> Mapping[str, dict[str, Path]]:
    """Masks by case and rater; where one case name begins another, a mask goes to the longest that fits."""
    from ..data.datasets import ONLY_RATER, list_images
    from ..data.files import image_stem

    found: dict[str, dict[str, Path]] = {name: {} for name in names}
    for path in list_images(masks, what="masks"):
        stem = image_stem(path)
        fits = [name for name in names if stem == name or stem.startswith(f"{name}_")]
        if fits:
            name = max(fits, key=len)
            found[name][stem[len(name) + 1 :] or ONLY_RATER] = path
    return found


def _stem(name: str) -> str:
    return name.removesuffix(".nii.gz").removesuffix(".npz")


def _table(summary: Mapping[str, Mapping[str, float]]) -> str:
    kinds = dict.fromkeys(name.rpartition("/")[0] for name in summary if "/" in name)
    lines = ["  ".join(["map".ljust(12), *(figure.rjust(20) for figure in _SHOWN)])]
    for kind in kinds:
        columns = [summary.get(f"{kind}/{figure}") for figure in _SHOWN]
        lines.append(
            "  ".join([kind.ljust(12), *(("-" if c is None else f"{c['mean']:.3f} ±{c['sd']:.3f}").rjust(20) for c in columns)])
        )
    overall = [f"{name} {summary[name]['mean']:.3f}" for name in ("dice_consensus", "ece_soft", "nll_raters") if name in summary]
    return "\n".join([*lines, "  ".join(overall)])
