"""One case of a run in its three steps: read and prepare (host), quantify (device), evaluate and write (host)."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..case.audit import models_broken_on_whole, models_held, none_moved
from ..case.quantified import Quantified, audit_rows
from ..case.structures import structure_pixels, structure_volumes, volume_columns
from ..config import to_dict
from ..data.cases import read_case_files
from ..data.channels import require_channels
from ..data.datasets import Case
from ..data.maps import write_map
from ..data.preprocess import PreparedInParts
from ..data.records import digest, digest_arrays
from ..data.spacing import spacing_note
from ..data.volumes import Image
from ..evaluation.evaluate import evaluate
from ..evaluation.reference_maps import BOUNDARY_SIGMA, boundary_map, contour_distance
from . import folder as run_folder
from .drawn import pack_drawn, whole_figures
from .quantifier import Quantifier
from .request import RunRequest


class Loaded(NamedTuple):
    """A case as read; `done` is its record where it is finished already, else `why` says what was wrong with an older one."""

    case: Case
    image: Image
    prepared: np.ndarray | PreparedInParts
    raters: dict[str, np.ndarray]
    digest: str
    notes: list[str]
    done: dict[str, Any] | None
    why: str
    seconds: float


class Searched(NamedTuple):
    """A case with its maps, and the seconds that the device took (its share, where several were searched together)."""

    loaded: Loaded
    quantified: Quantified
    seconds: float


def read_case(case: Case, quantifier: Quantifier, request: RunRequest, run_digest: str) -> Loaded:
    """Read the files of a case, look whether its results are there and sound, and prepare the image if not."""
    start = time.perf_counter()
    plan = quantifier.shared.plan
    ignore = None if plan is None else plan.ignore_label
    image, raters = read_case_files(case, classes=quantifier.shared.coding.labels, ignore=ignore, small_types=True)
    case_digest = digest(run_digest, image.sha256, digest_arrays(raters))
    notes = [f"{case.name}: the image is also one of the fit cases"] if image.sha256 in quantifier.known.hashes else []
    told = [] if quantifier.preprocessing is None else require_channels(image, quantifier.preprocessing.channels)
    notes += [f"{case.name}: {note}" for note in (*image.notes, *told)]
    if plan is not None and (note := spacing_note(image.geometry, reorient=plan.reorient, units=plan.units)):
        notes.append(f"{case.name}: {note}")
    done, why = run_folder.verify(request.out, case.name, case_digest)
    prepared = quantifier.prepare(image) if done is None else np.empty(0)
    return Loaded(case, image, prepared, raters, case_digest, notes, done, why, time.perf_counter() - start)


def search_cases(loaded: Sequence[Loaded], quantifier: Quantifier) -> list[Searched]:
    """The maps of some cases."""
    start = time.perf_counter()
    found = quantifier.quantify([case.image for case in loaded], [case.prepared for case in loaded])
    seconds = (time.perf_counter() - start) / len(loaded)
    return [Searched(case, quantified, seconds) for case, quantified in zip(loaded, found, strict=True)]


def evaluate_case(searched: Searched, quantifier: Quantifier, request: RunRequest, run_digest: str) -> dict[str, Any]:
    """The JSON of a case but for its files: equal inputs give equal values, so nothing here is a time."""
    loaded, quantified, _ = searched
    case, image, raters = loaded.case, loaded.image, loaded.raters
    notes = list(loaded.notes)
    if not quantified.segmentation.any():
        notes.append(f"{case.name}: the reference segmentation is empty, so dilation and erosion have nothing to move")
    elif none_moved(quantified.audit):
        notes.append(
            f"{case.name}: no model that kept the bound came nearer to its target, so that the maps are those of the given "
            "network; a larger --learning-rate, more --steps or a larger --slack let them move"
        )
    broken, checked = models_broken_on_whole(quantified.audit)
    if broken:
        notes.append(
            f"{case.name}: {broken} of {checked} models that keep the bound on the fit crops break it on the whole fit images; "
            "more crops (--fit-cases), larger ones (--fit-crop) or less slack keep them nearer"
        )
    spacing = image.geometry.spacing[: quantified.segmentation.ndim]
    held, searched_models = models_held(quantified.audit)
    row: dict[str, Any] = {"case": case.name, "status": "ok", "members": searched_models, "held": held}
    metrics = {}
    coding, found = quantifier.shared.coding, quantified.in_classes(quantifier.shared.coding)
    drawn = {who: coding.classes_of(labels) for who, labels in raters.items()}
    if raters:
        control = boundary_map(contour_distance(found.segmentation, spacing=spacing), sigma=BOUNDARY_SIGMA)
        metrics = evaluate(
            {**quantified.maps, "boundary": control},
            np.stack(list(drawn.values())),
            probabilities=found.probs,
            segmentation=found.segmentation,
            structures=coding.structures,
            spacing=spacing,
        )
        row |= {"dice": metrics["dice_consensus"], **metrics}
    for name, values in quantified.maps.items():
        row[f"{name}/mean"] = float(values.mean())
    volumes: dict[str, dict[str, Any]] = {}
    if image.geometry.kind == "nifti" and len(image.geometry.voxel_sides) == 3:
        volumes = structure_volumes(
            found.segmentation,
            found.structures,
            found.adversarial,
            structures=coding.structures,
            names=coding.structure_names,
            voxel=math.prod(image.geometry.voxel_sides) / 1000,
            raters=drawn,
            samples=quantified.volumes,
        )
        row |= volume_columns(volumes)
    reduced = whole_figures(quantified)
    return {
        "case": case.name,
        "digest": loaded.digest,
        "units": "nats",
        "image": {
            "path": str(case.image),
            "sha256": image.sha256,
            "shape": list(quantified.segmentation.shape),
            "spacing": [float(s) for s in spacing],
            **({} if image.geometry.thickness is None else {"thickness": image.geometry.thickness}),
            "orientation": image.geometry.orientation,
        },
        "raters": {name: str(path) for name, path in case.raters.items()},
        "method": "adversarial-model search (QUAM-SM)",
        "setting": request.config.setting,
        "config": to_dict(request.config),
        "seed": request.config.seed,
        "run_digest": run_digest,
        "audit": audit_rows(quantified),
        "metrics": metrics,
        "labels": list(coding.label_names),
        "structures": {
            "names": list(coding.structure_names),
            "pixels": structure_pixels(found.segmentation, found.adversarial, drawn, structures=coding.structures),
        },
        "volumes": volumes,
        "row": row,
        "notes": notes,
        **({} if reduced is None else {"reduced": reduced}),
        **(
            {} if quantified.patches is None else {"patches": quantified.patches, "patches_searched": quantified.searched_patches}
        ),
    }


def stage_case(searched: Searched, folder: Path) -> dict[str, str]:
    """Write the files of a case into an empty folder; returns what each of them is called."""
    loaded, quantified, _ = searched
    outputs = _write_maps(folder, loaded.case.name, quantified, loaded.image)
    data = folder / run_folder.REPORT_DATA / f"{loaded.case.name}.npz"
    data.write_bytes(pack_drawn(quantified, loaded.image, loaded.raters))
    return outputs


def _write_maps(folder: Path, name: str, quantified: Quantified, image: Image) -> dict[str, str]:
    """The map files, named as in docs/files.md; returns what each is called."""
    geometry, highest = image.geometry, math.log(quantified.reference.shape[-1])
    files = {
        "segmentation": write_map(folder / f"{name}_seg", quantified.segmentation, geometry, kind="label"),
        "reference": write_map(folder / f"{name}_desc-reference_probseg", quantified.reference, geometry, kind="probability"),
    }
    if quantified.channels is not None:
        files["regions"] = write_map(folder / f"{name}_desc-regions_probseg", quantified.channels, geometry, kind="probability")
        highest = quantified.channels.shape[-1] * math.log(2)
    for kind in ("total", "aleatoric", "epistemic"):
        files[kind] = write_map(
            folder / f"{name}_desc-{kind}_uncertainty", getattr(quantified, kind), geometry, kind="uncertainty", vmax=highest
        )
    if "slack" in quantified.fragility:
        cost = quantified.fragility["slack"]
        highest = float(np.max(cost, where=np.isfinite(cost), initial=0.0)) or 1.0
        files["flipcost"] = write_map(
            folder / f"{name}_desc-flipcost_uncertainty", cost, geometry, kind="uncertainty", vmax=highest
        )
    return {
        key if i == 0 else f"{key}_picture" + (f"_{i}" if i > 1 else ""): path.name
        for key, paths in files.items()
        for i, path in enumerate(paths)
    }
