"""A case of a run in 3D Slicer: which files it opens, by which names and colours."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import slicer_script
from .folder import read_run
from .html import survey
from .layers import TITLES

PROGRAMS = ("Slicer", "slicer")
FILES = {"total": "map", "aleatoric": "map", "epistemic": "map", "flipcost": "map", "error": "map", "segmentation": "labels"}


def case_files(path: Path) -> list[dict[str, Any]]:
    """The image, maps and prediction of a run's CASE.json as Slicer takes them: path, name, kind, colours, range.

    ValueError for a file that belongs to no finished case, and for pictures, whose files Slicer does not read.
    """
    run = read_run(path.parent) if path.is_file() else None
    case = next((case for case in run.cases if case.name == path.stem), None) if run is not None else None
    if run is None or case is None or path.suffix != ".json":
        raise ValueError(f"{path}: expected the CASE.json of a finished case in a run folder, got none")
    outputs, image = case.record.get("outputs"), case.record.get("image")
    named = {k: run.folder / str(v) for k, v in outputs.items()} if isinstance(outputs, Mapping) else {}
    found = {
        what: file for what, file in named.items() if what in FILES and file.name.endswith((".nii", ".nii.gz", ".nrrd", ".mha"))
    }
    if not found:
        raise ValueError(f"{path}: expected maps in NIfTI, NRRD or MetaImage, which 3D Slicer reads, got none")
    missing = [file.name for file in found.values() if not file.is_file()]
    if missing:
        raise ValueError(f"{path}: expected {missing[0]} beside it, got nothing there")
    layers: list[dict[str, Any]] = []
    source = Path(str(image.get("path"))) if isinstance(image, Mapping) else Path()
    if source.is_file():
        layers.append({"path": str(source.resolve()), "name": case.name, "kind": "image", "on": True})
    scales = survey(run)
    first = "flipcost" if "flipcost" in found else "epistemic"
    for what, kind in FILES.items():
        if what not in found:
            continue
        layer: dict[str, Any] = {
            "path": str(found[what].resolve()),
            "name": f"{case.name} {TITLES.get(what, 'Prediction').lower()}",
            "kind": kind,
        }
        if what in TITLES:
            scale = scales.of(what)
            layer |= {"colours": scale.colours.capitalize(), "high": scale.high, "on": what == first}
        elif kind == "map":
            layer |= {"name": f"{case.name} rate of wrong pixels", "colours": "Magma", "high": 1.0, "on": False}
        layers.append(layer)
    return layers


def command_for(path: Path, program: str | None = None) -> list[str]:
    """The command that opens a case in Slicer. ValueError where no program is named and none is found, and as in `case_files`."""
    layers = case_files(path)
    found = program or next((there for name in PROGRAMS if (there := shutil.which(name))), None)
    if found is None:
        raise ValueError(f"3D Slicer: expected {PROGRAMS[0]} on the path, got none; give --slicer PATH/TO/Slicer")
    return [found, "--python-script", str(Path(slicer_script.__file__).resolve()), json.dumps(layers)]


def open_case(path: Path, program: str | None = None) -> None:
    """Open a case in Slicer, which goes on by itself; ValueError where it does not start."""
    command = command_for(path, program)
    try:
        subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        raise ValueError(f"{command[0]}: 3D Slicer did not start ({error.strerror})") from error
