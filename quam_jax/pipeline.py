"""A whole run, read top to bottom: load the model and the fit data once, then case by case read, quantify, evaluate, write.

A bad case is recorded with its reason and the others go on. A run that was interrupted goes on where it stopped, because a
case counts as done when its JSON carries the digest of everything its numbers depend on.
"""

import dataclasses
import datetime
import importlib.metadata
import math
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import __version__, run_folder
from .case import Quantified, audit_rows, quantify_prepared
from .config import Config, to_dict
from .data.datasets import Case, find_cases
from .data.preprocess import Preprocessing, consensus, stack_fit_batches, to_slices
from .data.volumes import Image, read_channels, read_labels, write_map
from .evaluation.evaluate import evaluate
from .evaluation.reference_maps import boundary_map, contour_distance
from .evaluation.statistics import summarise
from .execution import backend_name, prepare
from .loading import load_models
from .model import SegmentationModel
from .predict import fit_data
from .report.html import write_report
from .structures import structure_volumes, volume_columns
from .types import FitData
from .volume_case import VolumeResult, quantify_volume
from .volume_study import find_planned_cases, has_plan, label_names, load_study

BOUNDARY_SIGMA = 2.0  # pixels; the width of the `boundary` control, in mm for images with a spacing


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to do; `masks` and the fit data follow the CASE.ext / CASE_RATER.ext convention."""

    model: Path
    images: Path
    out: Path
    fit_images: Path
    fit_masks: Path
    masks: Path | None = None
    arch: str | None = None
    config: Config = Config()
    preprocessing: Preprocessing | None = None
    overwrite: bool = False
    command: str = ""


class RunResult(NamedTuple):
    """What came of a run: one row a finished case, the reason of every failed one, the summary and the report."""

    rows: list[dict[str, Any]]
    failed: dict[str, str]
    notes: list[str]
    summary: dict[str, Any]
    report: Path


class Known(NamedTuple):
    """The fit data of a run with the hashes of its image files."""

    fit: FitData
    names: list[str]
    hashes: list[str]


class Method(NamedTuple):
    """How the cases of a run are found and quantified: as whole images, or as nnU-Net's plan says."""

    cases: list[Case]
    model: SegmentationModel
    labels: tuple[str, ...]
    quantify: Callable[[Image], tuple[Quantified, VolumeResult | None]]
    fit_names: list[str]
    fit_hashes: list[str]
    preparation: dict[str, Any]
    folds: int


def run(request: RunRequest, *, progress: Callable[[str, int, int], None] = lambda *_: None) -> RunResult:
    """Quantify every case of a folder and write the run folder (names in docs/files.md).

    `progress(name, done, total)` is called before each case and once at the end. Raises ValueError, before anything is
    written, for a model, fit data, settings or folders that cannot be used, and if every case failed.
    """
    started = time.time()
    models = load_models(request.model, arch=request.arch)
    model_digest = _models_digest(models, request.model)
    method = (_by_plan if has_plan(models[0]) else _whole_images)(models, request)
    cases, model = method.cases, method.model
    settings = to_dict(dataclasses.replace(request.config, execution=Config().execution))
    run_digest = run_folder.digest(__version__, model_digest, settings, method.fit_hashes, method.preparation)
    out, fresh = request.out, not request.out.exists()
    run_folder.claim(out, run_digest, overwrite=request.overwrite)
    info = {
        "format": run_folder.FORMAT, "status": "running", "digest": run_digest, "command": request.command,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "versions": _versions(),
        "device": backend_name(), "units": "nats", "method": "adversarial-model search (QUAM-SM)",
        "setting": request.config.setting, "config": to_dict(request.config), "seed": request.config.seed,
        "model": {"path": str(request.model), "sha256": model_digest, "architecture": model.network.architecture,
                  "classes": model.network.classes, "parameters": model.parameter_count, "folds": method.folds},
        "preprocessing": method.preparation, "fit_cases": method.fit_names, "cases": [c.name for c in cases],
        "controls": {"boundary": f"Gaussian of the distance to the reference contour, sigma {BOUNDARY_SIGMA}",
                     "softmax": "entropy of the given network's prediction"},
    }
    run_folder.write_json(out / "run.json", info)
    rows: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    notes: list[str] = []
    for index, case in enumerate(cases):
        progress(case.name, index, len(cases))
        try:
            rows[case.name], note = _one_case(case, method, request, run_digest)
            notes += note
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            run_folder.discard(out, case.name)
            failed[case.name] = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    progress("", len(cases), len(cases))
    if not rows:
        if fresh:
            shutil.rmtree(out)
        raise ValueError(next(iter(failed.values())) if len(failed) == 1 else
                         f"all {len(failed)} cases failed; the first, {next(iter(failed))}: {next(iter(failed.values()))}")
    table = [rows.get(c.name, {"case": c.name, "status": "failed"}) for c in cases]
    summary = {"columns": summarise([{k: v for k, v in row.items() if isinstance(v, float)} for row in rows.values()]),
               "cases": len(rows), "failed": len(failed)}
    run_folder.write_table(out / "results.csv", table)
    run_folder.write_json(out / "summary.json", summary)
    info |= {"status": "finished", "failed": failed, "notes": notes, "seconds": time.time() - started}
    run_folder.write_json(out / "run.json", info)
    return RunResult(table, failed, notes, summary, write_report(out))


def _whole_images(models: Sequence[SegmentationModel], request: RunRequest) -> Method:
    """Images of the network's rank, and slices of volumes, each taken whole."""
    model = models[0]
    cases = find_cases(request.images, request.masks)
    preprocessing = request.preprocessing or preprocessing_of(model)
    known = load_fit(model, request.fit_images, request.fit_masks, preprocessing=preprocessing, config=request.config)
    prepared = prepare(model, known.fit, request.config.search)
    names = [str(name) for name in model.manifest.get("class_names") or ()]
    if len(names) != model.network.classes:
        names = [f"class {label}" for label in range(model.network.classes)]
    return Method(cases, model, tuple(names),
                  lambda image: (quantify_prepared(prepared, preprocessing.apply(image.array), config=request.config), None),
                  known.names, known.hashes, preprocessing.to_dict(), 1)


def _by_plan(models: Sequence[SegmentationModel], request: RunRequest) -> Method:
    """Volumes (or images) as nnU-Net's plan says: on its grid, in patches, by all folds."""
    if request.preprocessing is not None:
        raise ValueError(f"{request.model}: its nnU-Net plan says how images are prepared; expected no --preprocessing")
    record = models[0].manifest["nnunet"]
    cases = find_planned_cases(request.images, request.masks, channels=len(record["channel_names"]))
    study, names, hashes = load_study(models, request.fit_images, request.fit_masks, config=request.config,
                                      where=str(request.model))

    def quantify(image: Image) -> tuple[Quantified, VolumeResult | None]:
        try:
            result = quantify_volume(study, image.array, image.geometry, config=request.config)
        except ValueError as error:
            raise ValueError(f"{image.path}: {error}") from None
        return result.quantified, result

    return Method(cases, models[0], label_names(models[0], study.coding), quantify, names, hashes, {"nnunet": record},
                  len(models))


def preprocessing_of(model: SegmentationModel) -> Preprocessing:
    """How a model's images are prepared, by its manifest; z-score where it does not say."""
    stored = {"normalise": "zscore", "channels": model.network.in_channels, **model.manifest.get("preprocessing", {})}
    return Preprocessing.from_dict(stored)


def load_fit(model: SegmentationModel, images: Path, masks: Path, *, preprocessing: Preprocessing,
             config: Config) -> Known:
    """The data that an adversarial model must still explain, evenly chosen over the sorted cases.

    Several raters of a case count by their majority. A volume gives a two-dimensional network its slices, those without
    foreground only where there is nothing else. ValueError if a case has no mask or does not fit the model.
    """
    cases = find_cases(images, masks)
    unlabelled = [c.name for c in cases if not c.raters]
    if unlabelled:
        raise ValueError(f"{masks}: expected a mask for every fit image, got none for {', '.join(unlabelled[:5])}")
    limit = config.fit.fit_cases or len(cases)
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(limit, len(cases))).round().astype(int))]
    pictures, labels, hashes = [], [], []
    for case in chosen:
        image, truth = _read_fit_case(case, model.network.classes)
        prepared = preprocessing.apply(image.array)
        if prepared.ndim - 1 == model.network.rank:
            pictures.append(prepared)
            labels.append(truth)
        elif prepared.ndim - 1 == 3:
            slices, slice_labels = to_slices(prepared), to_slices(truth)
            some = slice_labels.reshape(len(slice_labels), -1).any(1)
            wanted = np.flatnonzero(some if some.any() else ~some)
            if config.fit.fit_cases:
                wanted = wanted[np.unique(np.linspace(0, len(wanted) - 1, min(limit, len(wanted))).round().astype(int))]
            pictures += [slices[z] for z in wanted]
            labels += [slice_labels[z] for z in wanted]
        else:
            raise ValueError(f"{case.image}: expected {model.network.rank} spatial axes, got {prepared.ndim - 1}")
        hashes.append(image.sha256)
    if config.fit.fit_cases and len(pictures) > limit:
        spread = np.linspace(0, len(pictures) - 1, limit).round().astype(int)
        pictures, labels = [pictures[i] for i in spread], [labels[i] for i in spread]
    batch = config.fit.fit_batch or len(pictures)
    stacked = stack_fit_batches(pictures, labels, batch_size=batch, multiple=model.network.size_multiple)
    return Known(fit_data(model, *stacked), [c.name for c in chosen], hashes)


def _read_fit_case(case: Case, classes: int) -> tuple[Image, np.ndarray]:
    image = read_channels(case.files)
    raters = [read_labels(path, classes=classes, like=image.geometry) for path in case.raters.values()]
    return image, consensus(np.stack(raters), classes, ties="smallest")


def _one_case(case: Case, method: Method, request: RunRequest, run_digest: str) -> tuple[dict[str, Any], list[str]]:
    """Read, quantify, evaluate and write one case; returns its row of results.csv and notes about it."""
    start = time.perf_counter()
    image = read_channels(case.files)
    classes = len(method.labels)
    raters = {name: read_labels(path, classes=classes, like=image.geometry) for name, path in case.raters.items()}
    case_digest = run_folder.digest(run_digest, image.sha256, run_folder.digest_arrays(raters))
    notes = [f"{case.name}: the image is also one of the fit cases"] if image.sha256 in method.fit_hashes else []
    done = run_folder.finished(request.out, case.name, case_digest)
    if done:
        return done["row"], notes
    quantified, volume = method.quantify(image)
    if not quantified.segmentation.any():
        notes.append(f"{case.name}: the reference segmentation is empty, so dilation and erosion have nothing to move")
    spacing = image.geometry.spacing[:quantified.segmentation.ndim]
    distance = contour_distance(quantified.segmentation, spacing=spacing)
    maps = {**quantified.maps, "boundary": boundary_map(distance, sigma=BOUNDARY_SIGMA)}
    row: dict[str, Any] = {"case": case.name, "status": "ok", "seconds": 0.0,
                           "members": sum(a.searched for a in quantified.audit),
                           "held": sum(a.kept if a.searched > 1 else a.held for a in quantified.audit)}
    metrics = {}
    if raters:
        metrics = evaluate(maps, np.stack(list(raters.values())), probabilities=quantified.reference,
                           segmentation=quantified.segmentation, spacing=spacing)
        row |= {"dice": metrics["dice_consensus"], **metrics}
    for name, values in quantified.maps.items():
        row[f"{name}/mean"] = float(values.mean())
    volumes: dict[str, dict[str, Any]] = {}
    if image.geometry.kind == "nifti" and quantified.segmentation.ndim == 3:
        samples = {} if volume is None else {"sample_ml": volume.sample_ml, "sample_weights": volume.sample_weights}
        volumes = structure_volumes(quantified.segmentation, quantified.reference, quantified.adversarial, names=method.labels,
                                    spacing=spacing, raters=raters, **samples)
        row |= volume_columns(volumes)
    folder = run_folder.staging_folder(request.out, case.name)
    outputs = _write_maps(folder, case.name, quantified, image, volume)
    _write_report_data(folder / "report_data" / f"{case.name}.npz", quantified, image, raters)
    row["seconds"] = round(time.perf_counter() - start, 3)
    run_folder.publish(request.out, case.name, {
        "case": case.name, "digest": case_digest, "units": "nats", "outputs": outputs,
        "image": {"path": str(case.image), "sha256": image.sha256, "shape": list(quantified.segmentation.shape),
                  "spacing": [float(s) for s in spacing], "orientation": image.geometry.orientation},
        "raters": {name: str(path) for name, path in case.raters.items()},
        "method": "adversarial-model search (QUAM-SM)", "setting": request.config.setting,
        "config": to_dict(request.config), "seed": request.config.seed, "run_digest": run_digest,
        "audit": audit_rows(quantified), "metrics": metrics, "volumes": volumes, "row": row, "seconds": row["seconds"],
        "notes": notes, **({} if volume is None else {"patches": volume.tiles, "patches_searched": volume.searched})})
    return row, notes


def _write_maps(folder: Path, name: str, quantified: Quantified, image: Image,
                volume: VolumeResult | None) -> dict[str, str]:
    """The files of METHOD's section 'files of a run'; returns what each is called."""
    geometry, highest = image.geometry, math.log(quantified.reference.shape[-1])
    files = {
        "segmentation": write_map(folder / f"{name}_seg", quantified.segmentation, geometry, kind="label"),
        "reference": write_map(folder / f"{name}_desc-reference_probseg", quantified.reference, geometry,
                               kind="probability"),
    }
    if volume is not None and volume.regions:
        files["regions"] = write_map(folder / f"{name}_desc-regions_probseg", volume.channels, geometry, kind="probability")
        highest = volume.channels.shape[-1] * math.log(2)
    for kind in ("total", "aleatoric", "epistemic"):
        files[kind] = write_map(folder / f"{name}_desc-{kind}_uncertainty", getattr(quantified, kind), geometry,
                                kind="uncertainty", vmax=highest)
    if "slack" in quantified.fragility:
        cost = quantified.fragility["slack"]
        highest = float(np.max(cost, where=np.isfinite(cost), initial=0.0)) or 1.0
        files["flipcost"] = write_map(folder / f"{name}_desc-flipcost_uncertainty", cost, geometry, kind="uncertainty",
                                      vmax=highest)
    return {key if i == 0 else f"{key}_picture" + (f"_{i}" if i > 1 else ""): path.name
            for key, paths in files.items() for i, path in enumerate(paths)}


def _write_report_data(path: Path, quantified: Quantified, image: Image, raters: dict[str, np.ndarray]) -> None:
    """What the report draws: the image as read, the maps, the label maps and the trajectories."""
    picture = image.array[..., :3] if image.array.shape[-1] == 3 else image.array[..., 0]
    arrays: dict[str, Any] = dict(
        image=picture.astype(np.float32), segmentation=quantified.segmentation.astype(np.int16),
        **{name: values.astype(np.float32) for name, values in quantified.maps.items()},
        adversarial=quantified.adversarial.astype(np.int8), adversarial_names=np.array(quantified.adversarial_names),
        **{name: getattr(quantified, name) for name in ("objective", "fit_loss", "bound", "penalty", "feasible")})
    if "slack" in quantified.fragility:
        arrays["flipcost"] = quantified.fragility["slack"]
    if raters:
        arrays |= {"raters": np.stack(list(raters.values())).astype(np.uint8), "rater_names": np.array(list(raters))}
    np.savez_compressed(path, **arrays)


def _models_digest(models: Sequence[SegmentationModel], path: Path) -> str:
    first, *others = (_model_digest(model, path) for model in models)
    return run_folder.digest(first, *others) if others else first


def _model_digest(model: SegmentationModel, path: Path) -> str:
    bad = [n for n, v in {**model.params, **model.stats}.items() if not bool(np.isfinite(np.asarray(v)).all())]
    if bad:
        raise ValueError(f"{path}: expected finite weights, got NaN or infinity in {', '.join(bad[:3])}"
                         + (f" and {len(bad) - 3} more" if len(bad) > 3 else ""))
    description = run_folder.digest(model.network.architecture, dict(model.network.arguments))
    return run_folder.digest(description, run_folder.digest_arrays({**model.params, **model.stats}))


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "nibabel")
    return {"quam_jax": __version__, "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages}}

