"""A case of a run in napari: dropping its CASE.json on the viewer, or `napari maps/CASE.json`, opens its layers by name.

Only napari imports this, by the manifest `quam_jax/napari.yaml`; nothing of napari is imported here.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import figures
from .case_numbers import asked
from .folder import Case, read_run
from .html import survey
from .layers import TITLES, Scales, read_layers

Layer = tuple[Any, dict[str, Any], str]  # as napari's readers give them: the array, its settings, its kind


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Layer]] | None:
    """A reader for the CASE.json of a run that still has its `report_data`; None for every other file."""
    paths = [path] if isinstance(path, str) else list(path)
    return _read if paths and all(_is_case(Path(one)) for one in paths) else None


def case_layers(path: Path) -> list[Layer]:
    """The image, the maps on the colour scales of the report, the prediction, the adversarial models and the raters.

    Axes are those of the file, with its spacing. Only the image, the epistemic map (or the costs) and the prediction are shown
    at first. ValueError where the case has no arrays.
    """
    run = read_run(path.parent)  # of the whole folder, as all cases share its colour scales
    case: Case | None = next((case for case in run.cases if case.name == path.stem), None)
    layers = read_layers(case) if case is not None else None
    if case is None or layers is None or not layers.space:
        raise ValueError(f"{path}: expected a case with its arrays in report_data, found none")
    scales: Scales = survey(run)
    shared: dict[str, Any] = {"scale": layers.spacing, "metadata": {"case": case.name}}
    found: list[Layer] = []
    if "image" in layers.arrays:
        image = layers.arrays["image"]
        colour = image.ndim > len(layers.space)
        limits = figures.display_range(image, colour=colour)
        options = {"rgb": True} if colour else {"colormap": "gray", "contrast_limits": limits}
        found.append((image / limits[1] if colour else image, {"name": "image", **options, **shared}, "image"))
    first = "flipcost" if "flipcost" in layers.maps else "epistemic"
    for name in layers.maps:
        scale = scales.of(name)
        settings = {
            "name": TITLES[name],
            "colormap": "afmhot_r" if scale.falling else scale.colours,  # of the reversed ones that napari has
            "contrast_limits": (0.0, scale.high),
            "blending": "additive" if not scale.falling else "translucent",
            "visible": name == first,
            **shared,
        }
        values = layers.arrays[name]
        found.append((np.where(np.isfinite(values), values, np.nan), settings, "image"))
    if "segmentation" in layers.arrays:
        found.append((layers.arrays["segmentation"].astype(int), {"name": "prediction", "opacity": 0.4, **shared}, "labels"))
    for stack, names in (("adversarial", layers.adversarial), ("raters", layers.raters)):
        for labels, name in zip(layers.arrays.get(stack, ()), names, strict=True):
            title = f"{'adversarial' if stack == 'adversarial' else 'rater'}: {asked(name)}"
            found.append((labels.astype(int), {"name": title, "visible": False, "opacity": 0.4, **shared}, "labels"))
    return found


def _read(path: str | Sequence[str]) -> list[Layer]:
    paths = [path] if isinstance(path, str) else path
    return [layer for one in paths for layer in case_layers(Path(one))]


def _is_case(path: Path) -> bool:
    if path.suffix != ".json" or not (path.parent / "report_data" / f"{path.stem}.npz").is_file():
        return False
    try:
        return "case" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
