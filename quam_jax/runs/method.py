"""What all cases of a run share: the model, the fit data, and how a case is prepared and quantified.

There are two ways. Images of the network's rank (and slices of volumes) are taken whole; a model with an nnU-Net plan takes
them on its grid, in patches. A method lives on one device; `on_device` makes the same method for another one.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..case.image import Quantified, quantify_images
from ..case.volume.case import VolumeResult, quantify_volume
from ..case.volume.study import find_planned_cases, has_plan, label_names, load_study
from ..config import Config
from ..config.build import build_layout
from ..core.layout.choose import choose_group
from ..core.types import FitData
from ..data.datasets import Case, find_cases
from ..data.preprocess import Preprocessing, stack_fit_batches, to_slices
from ..data.records import digest
from ..data.volumes import Image, read_channels, read_labels
from ..evaluation.reference_maps import consensus
from ..models.description import model_digest, preprocessing_of
from ..models.model import SegmentationModel
from ..models.predict import fit_data
from ..models.prepare import prepare
from .request import RunRequest


class Known(NamedTuple):
    """The fit data of a run with the hashes of its image files."""

    fit: FitData
    names: list[str]
    hashes: list[str]


class Method(NamedTuple):
    """How the cases of a run are found, prepared (on the host alone) and quantified (on the device), one or several at a time.

    `share` is the part that a prepared image fills of what is searched together.
    """

    cases: list[Case]
    model: SegmentationModel
    labels: tuple[str, ...]
    prepare: Callable[[Image], np.ndarray]
    share: Callable[[np.ndarray], float]
    quantify: Callable[[Sequence[Image], Sequence[np.ndarray]], list[tuple[Quantified, VolumeResult | None]]]
    fit_names: list[str]
    fit_hashes: list[str]
    preparation: dict[str, Any]
    folds: int


def find_method(models: Sequence[SegmentationModel], request: RunRequest) -> Method:
    """The method of a run, with its fit data read; ValueError for data or settings that the model cannot use."""
    method = (_by_plan if has_plan(models[0]) else _whole_images)(models, request)
    if not request.only:
        return method
    missing = sorted(set(request.only) - {case.name for case in method.cases})
    if missing:
        raise ValueError(f"{request.images}: expected the cases {', '.join(request.only[:5])}, found none named {missing[0]}")
    return method._replace(cases=[case for case in method.cases if case.name in request.only])


def on_device(models: Sequence[SegmentationModel], request: RunRequest, device: Any) -> Method:
    """The same method with everything it holds on `device`, and with searches that stay there."""
    placed = [
        dataclasses.replace(model, params=jax.device_put(model.params, device), stats=jax.device_put(model.stats, device))
        for model in models
    ]
    alone = dataclasses.replace(request.config.execution, devices=1)
    request = dataclasses.replace(request, config=dataclasses.replace(request.config, execution=alone))
    with jax.default_device(device):
        method = find_method(placed, request)

    def quantify(images: Sequence[Image], prepared: Sequence[np.ndarray]) -> list[tuple[Quantified, VolumeResult | None]]:
        with jax.default_device(device):
            return method.quantify(images, prepared)

    return method._replace(quantify=quantify)


def models_digest(models: Sequence[SegmentationModel], path: Path) -> str:
    """SHA-256 of the weights and architecture of a model, of all folds together; ValueError for NaN or infinity in them."""
    first, *others = (_model_digest(model, path) for model in models)
    return digest(first, *others) if others else first


def load_fit(model: SegmentationModel, images: Path, masks: Path, *, preprocessing: Preprocessing, config: Config) -> Known:
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


def _whole_images(models: Sequence[SegmentationModel], request: RunRequest) -> Method:
    model = models[0]
    cases = find_cases(request.images, request.masks)
    preprocessing = request.preprocessing or preprocessing_of(model)
    known = load_fit(model, request.fit_images, request.fit_masks, preprocessing=preprocessing, config=request.config)
    shared = prepare(model, known.fit, request.config.search, execution=request.config.execution)
    names = [str(name) for name in model.manifest.get("class_names") or ()]
    if len(names) != model.network.classes:
        names = [f"class {label}" for label in range(model.network.classes)]
    config = request.config

    def share(prepared: np.ndarray) -> float:
        if config.targets.target != "mask" or prepared.ndim - 1 != model.network.rank:
            return 1.0
        return 1 / choose_group(
            build_layout(config.execution), members=config.search.members, pixels=math.prod(prepared.shape[:-1])
        )

    return Method(
        cases,
        model,
        tuple(names),
        lambda image: preprocessing.apply(image.array),
        share,
        lambda images, prepared: [(found, None) for found in quantify_images(shared, prepared, config=config)],
        known.names,
        known.hashes,
        preprocessing.to_dict(),
        1,
    )


def _by_plan(models: Sequence[SegmentationModel], request: RunRequest) -> Method:
    if request.preprocessing is not None:
        raise ValueError(f"{request.model}: its nnU-Net plan says how images are prepared; expected no --preprocessing")
    record = models[0].manifest["nnunet"]
    cases = find_planned_cases(request.images, request.masks, channels=len(record["channel_names"]))
    study, names, hashes = load_study(
        models, request.fit_images, request.fit_masks, config=request.config, where=str(request.model)
    )

    def quantify(images: Sequence[Image], prepared: Sequence[np.ndarray]) -> list[tuple[Quantified, VolumeResult | None]]:
        results = []
        for image, array in zip(images, prepared, strict=True):
            try:
                results.append(quantify_volume(study, array, image.geometry, config=request.config))
            except ValueError as error:
                raise ValueError(f"{image.path}: {error}") from None
        return [(result.quantified, result) for result in results]

    return Method(
        cases,
        models[0],
        label_names(models[0], study.coding),
        lambda image: image.array,
        lambda prepared: 1.0,
        quantify,
        names,
        hashes,
        {"nnunet": record},
        len(models),
    )


def _read_fit_case(case: Case, classes: int) -> tuple[Image, np.ndarray]:
    image = read_channels(case.files)
    raters = [read_labels(path, classes=classes, like=image.geometry) for path in case.raters.values()]
    return image, consensus(np.stack(raters), classes=classes, ties="smallest")


def _model_digest(model: SegmentationModel, path: Path) -> str:
    bad = [n for n, v in {**model.params, **model.stats}.items() if not bool(np.isfinite(np.asarray(v)).all())]
    if bad:
        raise ValueError(
            f"{path}: expected finite weights, got NaN or infinity in {', '.join(bad[:3])}"
            + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        )
    return model_digest(model)
