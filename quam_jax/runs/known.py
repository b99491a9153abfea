"""The fit data of a folder as a run takes them: cases found, their masks understood, images prepared, in batches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..case.fit import Known, read_fit_images, read_fit_patches
from ..case.shared import has_plan
from ..config import Config
from ..data.cases import settle_masks
from ..data.datasets import Case, find_cases, find_channel_cases
from ..data.mask_settings import MaskSettings
from ..data.masks import MaskCoding
from ..data.plans import Plan
from ..data.preprocess import Preprocessing
from ..models.coding import Coding
from ..models.description import preprocessing_of
from ..models.model import SegmentationModel
from ..models.outputs import coding_of


class Pairs(NamedTuple):
    """Known images with their labels, as `fit_data` takes them: in batches, -1 where a pixel is not rated or padding."""

    images: Float[np.ndarray, "k b *space i"]
    labels: Int[np.ndarray, "k b *space"]

    def __repr__(self) -> str:
        return f"Pairs(images {list(self.images.shape)}, labels {list(self.labels.shape)})"


def read_known(
    model: SegmentationModel,
    images: Path,
    masks: Path,
    *,
    plan: Plan | None,
    preprocessing: Preprocessing | None,
    settings: MaskSettings,
    config: Config,
) -> tuple[Known, list[Case], MaskCoding]:
    """The fit data of a model, their cases and what their masks hold; ValueError for data that the model cannot use."""
    if plan is not None:
        coding = Coding.of(plan, where=str(images))
        cases = find_channel_cases(images, masks, channels=len(plan.normalisation))
        cases, found = settle_masks(cases, classes=coding.labels, settings=settings.or_ignored(plan.ignore_label), where=masks)
        return read_fit_patches(cases, masks, plan=plan, coding=coding, settings=config.fit), cases, found
    cases = find_cases(images, masks)
    cases, found = settle_masks(cases, classes=coding_of(model).labels, settings=settings, where=masks)
    prepared = preprocessing or preprocessing_of(model)
    known = read_fit_images(cases, masks, model=model, preprocessing=prepared, settings=config.fit, seed=config.seed)
    return known, cases, found


def read_pairs(
    model: SegmentationModel,
    images: str | Path,
    masks: str | Path,
    *,
    config: Config | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    mask_settings: MaskSettings | None = None,
) -> Pairs:
    """Read a folder of known images and their masks for `fit_data`, the same numbers as `quam-jax run --fit-images --fit-masks`.

    Args:
        model: The model, whose preparation, classes and channels decide how files are read.
        images: Folder, file or glob of images, `CASE.ext` (nnU-Net models: `CASE_0000.ext`).
        masks: Folder of their masks, `CASE.ext`, or `CASE_RATER.ext` of several raters, whose majority counts.
        config: Its `fit` section says how many cases and whether large images are used as crops, its `seed` where these lie.
        preprocessing: How images are prepared, in place of what the model's manifest says.
        mask_settings: What masks hold, where it is not plain.

    Returns:
        Images `[k b *space i]`, prepared, and labels `[k b *space]` as classes of the network, in `k` batches.

    Raises:
        ValueError: With one line that names the file, for a case without a mask, files that cannot be read, masks on another
            grid, and images or labels that do not fit the network.

    Examples:
        `fit = quam_jax.fit_data(model, *quam_jax.read_pairs(model, "train/images", "train/masks"))`
    """
    plan = Plan.of(model.manifest, where="the model") if has_plan(model) else None
    if isinstance(preprocessing, Mapping):
        preprocessing = Preprocessing.from_dict({"channels": model.network.in_channels, **preprocessing})
    known, _, _ = read_known(
        model,
        Path(images),
        Path(masks),
        plan=plan,
        preprocessing=preprocessing,
        settings=mask_settings or MaskSettings(),
        config=config or Config(),
    )
    return Pairs(known.images, known.labels)
