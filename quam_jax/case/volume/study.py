"""From an nnU-Net model and a folder of known cases to a `Study` that quantifies volumes.

Each fold is searched by itself and keeps its own loss on the same fit patches.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...config import Config
from ...data.datasets import Case, find_cases, list_images
from ...data.files import image_stem
from ...data.plans import Plan
from ...data.volumes import read_channels, read_labels
from ...evaluation.reference_maps import consensus
from ...models.coding import Coding
from ...models.model import SegmentationModel
from ...models.predict import fit_data
from ...models.prepare import prepare
from .fit import FitVolume, batch_patches, fit_patches, patches_a_case
from .parts import Study


def has_plan(model: SegmentationModel) -> bool:
    """Whether a model comes with an nnU-Net plan, which says how images are prepared and cut into patches."""
    return "nnunet" in model.manifest


def find_planned_cases(images: Path, masks: Path | None, *, channels: int) -> list[Case]:
    """The cases of a folder; files named as nnU-Net names channels (CASE_0000 and so on) are channels.

    They are read so where every image ends in four digits below the number of channels.
    """
    endings = [re.search(r"_(\d{4})$", image_stem(file)) for file in list_images(images, what="images")]
    return find_cases(images, masks, channel_files=all(e is not None and int(e[1]) < channels for e in endings))


def label_names(model: SegmentationModel, coding: Coding) -> tuple[str, ...]:
    """A name for every label; of a region model the region that writes it."""
    names = [str(name) for name in model.manifest["nnunet"]["class_names"]]
    if coding.order is None:
        return tuple(names)
    written = dict(zip(coding.order, names, strict=True))
    return tuple(written.get(label, "background" if label == 0 else f"label {label}") for label in range(coding.labels))


def load_study(
    models: Sequence[SegmentationModel], images: Path, masks: Path, *, config: Config, where: str
) -> tuple[Study, list[str], list[str]]:
    """The study of some folds, the names of the fit cases and the hashes of their images.

    Fit cases are spread evenly over the sorted folder, at most `fit_cases` of them; they give as many patches as
    `fit_cases` asks for (0: one a case). Several raters of a case count by their majority. ValueError for a case without a
    mask, a mask on another grid than its image, and a plan that is not supported.
    """
    plan = Plan.of(models[0].manifest, where=where)
    coding = Coding.of(plan, where=where)
    cases = find_planned_cases(images, masks, channels=len(plan.normalisation))
    unlabelled = [c.name for c in cases if not c.raters]
    if unlabelled:
        raise ValueError(f"{masks}: expected a mask for every fit image, got none for {', '.join(unlabelled[:5])}")
    limit = config.fit.fit_cases or len(cases)
    chosen = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, min(limit, len(cases))).round().astype(int))]
    stored = coding.labels if plan.ignore_label is None else max(coding.labels, plan.ignore_label + 1)
    patches, hashes = [], []
    for number, case in enumerate(chosen):
        image = read_channels(case.files)
        raters = np.stack([read_labels(path, classes=stored, like=image.geometry) for path in case.raters.values()])
        labels = consensus(raters, classes=stored, ties="smallest")
        try:
            patches += fit_patches(
                FitVolume(image.array, labels, image.geometry),
                plan,
                coding,
                count=patches_a_case(len(chosen), config.fit.fit_cases),
                seed=number,
            )
        except ValueError as error:
            raise ValueError(f"{case.image}: {error}") from None
        hashes.append(image.sha256)
    images_labels = batch_patches(patches[: config.fit.fit_cases or None], fit_batch=config.fit.fit_batch)
    prepared = [
        prepare(model, fit_data(model, *images_labels), config.search, execution=config.execution)
        for model in map(coding.searchable, models)
    ]
    folds = tuple(str(m.manifest["nnunet"].get("fold", i)) for i, m in enumerate(models))
    return Study(plan, coding, folds, tuple(models), tuple(prepared)), [c.name for c in chosen], hashes
