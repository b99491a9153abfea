"""What a run is asked to do, and what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Config
from ..data.mask_settings import MaskSettings
from ..data.preprocess import Preprocessing
from ..models.loading import load_models
from ..models.model import SegmentationModel
from .guaranteeing import Calibration
from .part import Part


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to do; `masks` and the fit data follow the CASE.ext / CASE_RATER.ext convention.

    `only` names the cases to take, of those that are found; all where it is empty. A `strict` run is refused where the network
    does not explain its own fit data. `mask_settings` say what masks hold. With a `calibration` every case gets what its
    guarantee says of it. A `model` is a path, or in memory; of an nnU-Net folder `folds` are used, or all. Of the cases those of
    a `part` are done, where there is one. `stall` is how long the files of a case may keep a process waiting before the case
    counts as failed, in seconds.
    """

    model: Path | SegmentationModel
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
    part: Part | None = None
    stall: float = 600.0
    only: tuple[str, ...] = ()
    strict: bool = False
    mask_settings: MaskSettings = MaskSettings()
    folds: tuple[str, ...] = ()
    calibration: Calibration | None = None

    @property
    def model_name(self) -> str:
        """The model's path, or what it is called where it is in memory."""
        return self.model.network.architecture if isinstance(self.model, SegmentationModel) else str(self.model)

    def load(self) -> list[SegmentationModel]:
        """The model, in all folds that it has; ValueError as `load_models`."""
        if isinstance(self.model, SegmentationModel):
            return [self.model]
        return load_models(self.model, arch=self.arch, folds=self.folds)


class RunResult(NamedTuple):
    """What came of a run: one row a finished case, the reason of every failed one, the summary and the report.

    `rows` are those of results.csv, with the `seconds` that a case took where they are known. `unused` are the files and folders
    beside the images and masks that no case uses.
    """

    rows: list[dict[str, Any]]
    failed: dict[str, str]
    notes: list[str]
    summary: dict[str, Any]
    report: Path
    unused: list[str] = []
