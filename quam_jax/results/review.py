"""The review list of a run folder: its cases and regions in order, as tables, and the regions as label maps.

Everything is read from the files of the run; a case without the arrays that are needed is named with its reason and left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.colour_tables import write_colour_tables
from ..data.maps import write_map
from ..data.records import mapping, write_json, write_table
from ..data.volumes import read_image
from ..evaluation.regions import Region, enlarged, enlarged_labels, find_regions
from ..evaluation.review import CASE_CRITERIA, REGION_CRITERIA, case_criteria, order_by, region_criteria
from ..report.first_look import ORDER, REGION_SHARE, TOP
from ..report.folder import Run, load_arrays, read_run
from ..report.html import survey
from ..report.layers import reduction_of, spacing_of
from .pages import write_ranking

MOST_LABELS = 255  # of one label map; a palette picture has no more


class Review(NamedTuple):
    """The rows of cases.csv and regions.csv in order, why cases were left out, and the files written."""

    cases: list[dict[str, Any]]
    regions: list[dict[str, Any]]
    left_out: dict[str, str]
    files: list[Path]


def rank_run(
    run_folder: str | Path,
    out: str | Path,
    *,
    by: Sequence[str] = ORDER,
    regions_by: Sequence[str] = ("epistemic",),
    top: float = TOP,
    threshold: float = 0.0,
    least: int = 4,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Review:
    """Order the cases and regions of a run by criteria of ranking.py and write the review list into `out`.

    The first share `top` of the cases (rounded up) is marked as suggested. Regions are connected pixels of at least `threshold`
    nats of epistemic uncertainty (0: a quarter of the scale of the report) and `least` pixels; those of a large picture are found
    on the reduced map that the report shows. Written are cases.csv, regions.csv, ranking.json, a label map
    CASE_desc-review_dseg of every case with regions (label 1 is its most worthwhile region) with colour tables.
    `progress(name, done, total)` is called first with nothing done and after each case. ValueError for a folder that is no run,
    unknown criteria, settings out of range, or where no case can be ranked.
    """
    if not 0 < top <= 1:
        raise ValueError(f"top: expected a share in (0, 1], got {top}")
    _require_known(by, CASE_CRITERIA, "by")
    _require_known(regions_by, REGION_CRITERIA, "regions_by")
    run = read_run(Path(run_folder))
    threshold = threshold or REGION_SHARE * survey(run).epistemic.high
    names, found, marked, left_out = [], [], {}, {}
    regions: list[tuple[str, Region, dict[str, float]]] = []
    for case in _counted(run.cases, progress):
        arrays, problems = load_arrays(case)
        if "epistemic" not in arrays:
            left_out[case.name] = case.failed or " ".join([*case.missing, *problems]) or "no epistemic map"
            continue
        spacing, _ = spacing_of(case, arrays["epistemic"].ndim)
        factor, full = reduction_of(case, arrays["epistemic"].shape)
        block = factor**2  # pixels of the image that one of the arrays stands for
        voxel = float(np.prod(spacing))
        names.append(case.name)
        found.append(case_criteria(arrays, voxel=voxel * block))
        regions_of_case = find_regions(arrays, threshold=threshold, least=max(1, least // block))
        if regions_of_case.listed:
            marked[case.name] = enlarged_labels(regions_of_case.labels, factor, full)
            listed = [enlarged(region, factor) for region in regions_of_case.listed]
            regions += [(case.name, region, region_criteria(region, voxel=voxel)) for region in listed]
    if not names:
        raise ValueError(f"{run_folder}: no case can be ranked: {next(iter(left_out.values()), 'the run has no cases')}")
    cases = _case_rows(names, found, by=by, top=top)
    rows = _region_rows(regions, by=regions_by)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files = _write_label_maps(run, marked, rows, out)
    settings = {"by": list(by), "regions_by": list(regions_by), "top": top, "threshold": threshold, "least": least}
    write_table(out / "cases.csv", cases)
    write_table(out / "regions.csv", rows or [{"rank": ""}])
    write_json(
        out / "ranking.json",
        {
            "run": str(run_folder),
            "settings": settings,
            "criteria": {"cases": CASE_CRITERIA, "regions": REGION_CRITERIA},
            "cases": cases,
            "regions": rows,
            "left_out": left_out,
        },
    )
    review = Review(cases, rows, left_out, [out / "cases.csv", out / "regions.csv", out / "ranking.json", *files])
    page = write_ranking(out / "ranking.html", review, settings)
    return review._replace(files=[*review.files, page])


def _counted(cases: Sequence[Any], progress: Callable[[str, int, int], None]) -> Iterator[Any]:
    progress("", 0, len(cases))
    for done, case in enumerate(cases, 1):
        yield case
        progress(case.name, done, len(cases))


def _case_rows(
    names: Sequence[str], found: Sequence[Mapping[str, float]], *, by: Sequence[str], top: float
) -> list[dict[str, Any]]:
    order, scores = order_by(found, by)
    suggested = int(np.ceil(top * len(names)))
    return [
        {
            "rank": rank,
            "case": names[i],
            "suggested": "yes" if rank <= suggested else "no",
            "score": round(float(scores[i]), 6),
            **found[i],
        }
        for rank, i in enumerate(order.tolist(), start=1)
    ]


def _region_rows(regions: Sequence[tuple[str, Region, dict[str, float]]], *, by: Sequence[str]) -> list[dict[str, Any]]:
    """Regions in order; `label` is the place of a region among those of its case, which its label map shows."""
    if not regions:
        return []
    order, scores = order_by([criteria for *_, criteria in regions], by)
    seen: dict[str, int] = {}
    rows = []
    for rank, i in enumerate(order.tolist(), start=1):
        name, region, criteria = regions[i]
        seen[name] = seen.get(name, 0) + 1
        rows.append(
            {
                "rank": rank,
                "case": name,
                "label": seen[name] if seen[name] <= MOST_LABELS else "",
                "found_as": region.label,
                "at": ",".join(map(str, region.peak)),
                "pixels": region.pixels,
                "score": round(float(scores[i]), 6),
                **criteria,
            }
        )
    return rows


def _write_label_maps(run: Run, marked: Mapping[str, np.ndarray], rows: list[dict[str, Any]], out: Path) -> list[Path]:
    """A label map for every case with regions; `found_as` of the rows becomes the label and goes."""
    lookup: dict[str, np.ndarray] = {name: np.zeros(int(labels.max()) + 1, np.int32) for name, labels in marked.items()}
    for row in rows:
        found_as = row.pop("found_as")
        lookup[row["case"]][found_as] = row["label"] or 0
    records = {case.name: case.record for case in run.cases}
    files: list[Path] = []
    for name, labels in marked.items():
        outputs = mapping(records[name], "outputs")
        segmentation = outputs.get("segmentation")
        source = run.folder / segmentation if isinstance(segmentation, str) else None
        picture = outputs.get("segmentation_picture")
        if source is not None and isinstance(picture, str):
            source = run.folder / picture
        if source is None or not source.is_file():
            continue
        geometry = read_image(source).geometry
        files += write_map(out / f"{name}_desc-review_dseg", lookup[name][labels], geometry, kind="label")
    if files:
        most = max(int(table.max()) for table in lookup.values())
        files += write_colour_tables(out, ["background", *(f"look {k}" for k in range(1, most + 1))])
    return files


def _require_known(by: Sequence[str], known: Mapping[str, str], what: str) -> None:
    unknown = [name for name in by if name not in known]
    if unknown or not by:
        raise ValueError(f"{what}: expected some of {', '.join(known)}, got {', '.join(unknown) or 'none'}")
