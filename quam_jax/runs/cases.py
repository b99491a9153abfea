"""One case of a run in its three steps: read and prepare (host), quantify (device), evaluate and write (host)."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..case.audit import models_broken_on_whole, models_held, models_moved, uninformative
from ..case.quantified import Quantified, audit_rows
from ..case.structures import structure_pixels
from ..config import to_dict
from ..core.layout.measuring import like_searches
from ..core.progress import tell
from ..data.cases import read_raters
from ..data.channels import require_channels
from ..data.datasets import Case
from ..data.maps import write_map
from ..data.preprocess import PreparedInParts
from ..data.records import digest
from ..data.spacing import spacing_note
from ..data.volumes import Image, read_channels
from ..guarantees.evidence import scores_of
from ..models.kept import SUFFIX, write_kept_models
from . import folder as run_folder
from .compiling import compiling
from .drawn import pack_drawn, whole_figures
from .findings import CaseFindings, findings_of, read_findings, voxel_of
from .guaranteeing import guarantee, is_guaranteed
from .quantifier import Quantifier
from .request import RunRequest
from .scoring import NOBODY, Drawn, drawn_of, is_scored, score


class Loaded(NamedTuple):
    """A case as read; `done` is its record where its search is finished, else `why` says what was wrong with an older one.

    `fault` is what was wrong with the masks of a finished case.
    """

    case: Case
    image: Image
    prepared: np.ndarray | PreparedInParts
    drawn: Drawn
    digest: str
    notes: list[str]
    done: dict[str, Any] | None
    why: str
    seconds: float
    fault: str = ""


class Searched(NamedTuple):
    """A case with its maps, and the seconds that its search took without compiling (its share of several searched together)."""

    loaded: Loaded
    quantified: Quantified
    seconds: float


def read_case(case: Case, quantifier: Quantifier, request: RunRequest, run_digest: str) -> Loaded:
    """Read the files of a case, look whether its results are there and sound, and prepare the image if not."""
    start = time.perf_counter()
    plan = quantifier.shared.plan
    ignore = None if plan is None else plan.ignore_label
    image = read_channels(case.files, small_types=True)
    case_digest = digest(run_digest, image.sha256)
    notes = [f"{case.name}: the image is also one of the fit cases"] if image.sha256 in quantifier.known.hashes else []
    told = [] if quantifier.preprocessing is None else require_channels(image, quantifier.preprocessing.channels)
    notes += [f"{case.name}: {note}" for note in (*image.notes, *told)]
    if plan is not None and (note := spacing_note(image.geometry, reorient=plan.reorient, units=plan.units)):
        notes.append(f"{case.name}: {note}")
    done, why = run_folder.verify(request.out, case.name, case_digest)
    if done is not None and request.config.outputs.keep_models and "models" not in done["outputs"]:
        done, why = None, "its adversarial models were not kept"
    drawn, fault = NOBODY, ""
    try:
        labels = quantifier.shared.coding.labels
        drawn = drawn_of(case, *read_raters(case, image.geometry, classes=labels, ignore=ignore, small_types=True))
    except (ValueError, OSError) as error:
        if done is None:
            raise
        fault = str(error)  # masks that nobody can read are no reason to throw maps away
    prepared = quantifier.prepare(image) if done is None else np.empty(0)
    return Loaded(case, image, prepared, drawn, case_digest, notes, done, why, time.perf_counter() - start, fault)


def search_cases(loaded: Sequence[Loaded], quantifier: Quantifier) -> list[Searched]:
    """The maps of some cases."""
    start = time.perf_counter()
    with compiling() as compiled, like_searches(len(quantifier.cases) // len(loaded)):
        found = quantifier.quantify([case.image for case in loaded], [case.prepared for case in loaded])
    seconds = max(0.0, time.perf_counter() - start - compiled.seconds) / len(loaded)
    return [Searched(case, quantified, seconds) for case, quantified in zip(loaded, found, strict=True)]


def record_case(searched: Searched, found: CaseFindings, quantifier: Quantifier, request: RunRequest, run_digest: str) -> dict:
    """The JSON of a case but for its scores and files: equal inputs give equal values, so nothing here is a time."""
    loaded, quantified, _ = searched
    case, image, coding = loaded.case, loaded.image, quantifier.shared.coding
    notes = list(loaded.notes)
    if unlike := quantifier.unlike(loaded.prepared):
        notes.append(
            f"{case.name}: the image is unlike every fit image ({', '.join(unlike)}); a bound kept on them says little of it"
        )
    if not quantified.segmentation.any():
        notes.append(f"{case.name}: the reference segmentation is empty, so dilation and erosion have nothing to move")
    elif told := uninformative(quantified.audit, pixels=quantified.segmentation.size):
        notes.append(f"{case.name}: {told}")
    broken, checked = models_broken_on_whole(quantified.audit)
    if broken:
        notes.append(
            f"{case.name}: {broken} of {checked} models that keep the bound on the fit crops break it on the whole fit images; "
            "more crops (--fit-cases), larger ones (--fit-crop) or less slack keep them nearer"
        )
    held, searched_models = models_held(quantified.audit)
    reduced = whole_figures(quantified)
    patches = quantified.patches
    return {
        "case": case.name,
        "digest": loaded.digest,
        "units": "nats",
        "image": {
            "path": str(case.image),
            "sha256": image.sha256,
            "shape": list(quantified.segmentation.shape),
            "spacing": list(found.spacing),
            "voxel_ml": found.voxel,
            **({} if image.geometry.thickness is None else {"thickness": image.geometry.thickness}),
            "orientation": image.geometry.orientation,
        },
        "method": "adversarial-model search (QUAM-SM)",
        "setting": request.config.setting,
        "config": to_dict(request.config),
        "seed": request.config.seed,
        "run_digest": run_digest,
        "audit": audit_rows(quantified),
        "labels": list(coding.label_names),
        "structures": {
            "names": list(coding.structure_names),
            "pixels": structure_pixels(found.segmentation, found.adversarial, {}, structures=coding.structures),
        },
        "dice_scores": scores_of(found.segmentation, list(found.adversarial), found.structures, coding.structures),
        "row": {
            "case": case.name,
            "status": "ok",
            "members": searched_models,
            "held": held,
            "moved": models_moved(quantified.audit),
        },
        "notes": notes,
        **({} if reduced is None else {"reduced": reduced}),
        **({} if patches is None else {"patches": patches, "patches_searched": quantified.searched_patches}),
    }


def settle_case(searched: Searched, quantifier: Quantifier, request: RunRequest, run_digest: str, folder: Path) -> dict[str, Any]:
    """The JSON of a case, whose files go into an empty folder."""
    loaded, quantified, _ = searched
    image, coding, geometry = loaded.image, quantifier.shared.coding, loaded.image.geometry
    spacing = tuple(float(s) for s in geometry.spacing[: quantified.segmentation.ndim])
    found = findings_of(quantified, coding, spacing=spacing, voxel=voxel_of(geometry))
    record = record_case(searched, found, quantifier, request, run_digest)
    tell("scoring")
    record = score(record, found, coding, loaded.drawn, folder)
    record = guarantee(record, found, coding, request.calibration, folder, geometry)
    tell("writing")
    record["outputs"] = _write_maps(folder, loaded.case.name, quantified, image)
    if quantified.adversarial_weights:
        kept = folder / f"{loaded.case.name}{SUFFIX}"
        names = quantified.adversarial_names
        write_kept_models(kept, quantifier.shared.folds[0].model, quantified.adversarial_weights, wanted=names)
        record["outputs"]["models"] = kept.name
    data = folder / run_folder.REPORT_DATA / f"{loaded.case.name}.npz"
    data.write_bytes(pack_drawn(quantified, image))
    return record


def settle_again(loaded: Loaded, quantifier: Quantifier, request: RunRequest, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The JSON of a finished case with the scores and the guarantee of this run, and which of its stages are new."""
    assert loaded.done is not None
    record, coding, out = loaded.done, quantifier.shared.coding, request.out
    scored, guaranteed = is_scored(out, record, loaded.drawn), is_guaranteed(out, record, request.calibration)
    if scored and guaranteed:
        return record, []
    found = read_findings(out, record, coding)
    if not scored:
        record = score(record, found, coding, loaded.drawn, folder)
    if not guaranteed:
        record = guarantee(record, found, coding, request.calibration, folder, loaded.image.geometry)
    stages = [stage for stage, stands in (("score_files", scored), ("guarantee_files", guaranteed)) if not stands]
    return record, stages


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
