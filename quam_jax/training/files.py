"""A training from files to a model folder: read the cases, train, save."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..baselines.evidential import evidential_loss
from ..baselines.prob_unet import prob_unet_loss
from ..data.cases import read_case_files, settle_masks
from ..data.channels import require_channels
from ..data.datasets import find_cases
from ..data.left_out import find_left_out
from ..data.notes import gathered
from ..data.preprocess import Preprocessing, to_slices
from ..data.volumes import read_channels
from ..evaluation.reference_maps import rater_mean
from ..models.folder import save_model
from ..models.model import Network, SegmentationModel
from .examples import Example
from .losses import Loss, segmentation_loss
from .request import LossName, TrainRequest
from .trainer import train

LOSSES: dict[LossName, Loss] = {
    "segmentation": segmentation_loss,
    "evidential": evidential_loss,
    "prob_unet": prob_unet_loss,
}


class TrainResult(NamedTuple):
    """The model as saved, how many examples it learned from, and notes on their files."""

    model: SegmentationModel
    examples: int
    notes: list[str]


def train_from_files(request: TrainRequest, *, progress: Callable[[int, float], None] | None = None) -> TrainResult:
    """Train a network on the cases of two folders and save it; the same request goes on after an interruption.

    Images are prepared by z-score. A network of two axes learns from the slices of a volume. `progress` is called with the
    number of steps done and the loss of the last one. ValueError for an image without a mask, files that do not fit, a loss of
    another kind of network, and as for `trainer.train`.
    """
    cases = find_cases(request.images, request.masks)
    unlabelled = [c.name for c in cases if not c.raters]
    if unlabelled:
        raise ValueError(f"{request.masks}: expected a mask for every image, got none for {', '.join(unlabelled[:5])}")
    left_out = find_left_out(cases, request.images, request.masks)
    cases, coding = settle_masks(cases, classes=request.classes, settings=request.mask_settings, where=request.masks)
    channels = read_channels(cases[0].files).array.shape[-1]
    network = Network.create(request.arch, **{"in_channels": channels, "n_classes": request.classes, **request.arguments})
    if (request.loss == "prob_unet") != (network.architecture == "prob_unet"):
        raise ValueError(
            f"--loss prob_unet: expected together with --arch prob_unet, got --loss {request.loss} --arch {request.arch}"
        )
    preprocessing = Preprocessing(normalise="zscore", channels=channels)
    examples: list[Example] = []
    told: list[str] = []
    for case in cases:
        image, masks = read_case_files(case, classes=request.classes)
        raters = np.stack(list(masks.values()))
        groups = raters[:, None] if request.loss == "prob_unet" else raters[None]
        told += [f"{case.name}: {note}" for note in (*image.notes, *require_channels(image, channels))]
        picture = preprocessing.apply(image.array)
        for group in groups:
            examples += _examples(picture, rater_mean(group, classes=request.classes).astype(np.float32), rank=network.rank)
    model = train(
        network,
        examples,
        config=request.config,
        checkpoint=request.state,
        loss=LOSSES[request.loss],
        progress=progress,
    )
    model.manifest["training"]["loss"] = request.loss
    model.manifest["preprocessing"] = preprocessing.to_dict()
    save_model(request.out, model)
    notes = [*left_out.notes, *coding.notes, *gathered(told, [case.name for case in cases])]
    return TrainResult(model, len(examples), notes)


def _examples(picture: np.ndarray, wanted: np.ndarray, *, rank: int) -> list[Example]:
    if picture.ndim - 1 > rank:
        return list(zip(to_slices(picture), to_slices(wanted), strict=True))
    return [(picture, wanted)]
