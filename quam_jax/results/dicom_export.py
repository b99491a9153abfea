"""A case of a run as DICOM: its segmentation and uncertainty maps, bound to the series that it was computed from."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ..data.alignment import require_same_grid
from ..data.dicom import Series, read_series, write_parametric_map, write_segmentation
from ..data.files import write_atomic
from ..data.maps import read_map
from ..data.nifti import encode_nifti
from ..data.records import mapping, read_json
from ..data.volumes import read_image
from ..evaluation.overlap import in_structure
from ..runs.codings import coding_in
from ..version import __version__

MAPS = ("total", "aleatoric", "epistemic")


def import_series(folder: Path, out: Path) -> Series:
    """A series as `out`, a NIfTI file in the units of its rescale; ValueError for a bad series or another suffix."""
    if not out.name.endswith(".nii.gz"):
        raise ValueError(f"{out}: expected a name that ends in .nii.gz")
    series = read_series(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(
        out,
        encode_nifti(
            series.array,
            series.geometry,
            intent="none",
            description="from a DICOM series",
            display=(float(series.array.min()), float(series.array.max())),
        ),
    )
    return series


def export_case(run: Path, case: str, *, series: Path, out: Path) -> list[Path]:
    """Write `CASE_seg.dcm` and one `CASE_NAME.dcm` a map to `out`; the files written.

    ValueError for a case that the run has not finished, and a series on another grid than the case.
    """
    record = read_json(run / f"{case}.json")
    outputs = {name: file for name, file in mapping(record, "outputs").items() if isinstance(file, str)}
    if "segmentation" not in outputs:
        raise ValueError(f"{run / case}.json: expected a finished case of a run, got none")
    read = read_series(series)
    stored = read_image(run / outputs["segmentation"])
    require_same_grid(stored.geometry, read.geometry, where=str(run / outputs["segmentation"]))
    labels = np.rint(stored.array[..., 0]).astype(np.int32)
    if lacking := [name for name in MAPS if name not in outputs]:
        raise ValueError(f"{run / case}.json: expected the maps of a finished case, got none for {', '.join(lacking)}")
    drawn, names = _segments(run, record, labels)
    out.mkdir(parents=True, exist_ok=True)
    written = [write_segmentation(out / f"{case}_seg.dcm", drawn, read, names=names, version=__version__)]
    for number, name in enumerate(MAPS, start=2):
        values = read_map(run / outputs[name].removesuffix(".nii.gz"))
        written.append(
            write_parametric_map(out / f"{case}_{name}.dcm", values, read, name=name, number=number, version=__version__)
        )
    return written


def _segments(run: Path, record: dict[str, Any], labels: Int[np.ndarray, "i j k"]) -> tuple[np.ndarray, list[str]]:
    """What becomes a segment, with its name: every label, or every region of a model of regions, which may overlap."""
    table, structures = coding_in(read_json(run / "run.json")), list(mapping(record, "structures").get("names", ()))
    if table is not None and "regions" in record["outputs"] and structures:
        channels = np.asarray(read_map(run / record["outputs"]["regions"].removesuffix(".nii.gz")))
        classes = table.counted(table.classify_channels(channels))
        return np.stack([in_structure(classes, member) for member in table.structures], -1), list(table.structure_names)
    known = structures or list(mapping(record, "volumes"))
    names = known if len(known) >= labels.max() else [f"label {k}" for k in range(1, int(labels.max()) + 1)]
    return labels, names or ["foreground"]
