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


@dataclass(frozen=True)
class Sharing:
    """How a process shares a run folder with others; without any, it simply finds nobody else there.

    `hosts` and `index` only say where in the list a process begins, so that they seldom meet. A process whose sign of life is
    older than `patience` seconds counts as dead, and its case is taken over. `stall` is how long the files of a case may
    keep a process waiting before the case counts as failed.
    """

    hosts: int = 1
    index: int = 0
    patience: float = 60.0
    stall: float = 600.0

    def __post_init__(self) -> None:
        if self.hosts < 1 or not 0 <= self.index < self.hosts:
            raise ValueError(f"hosts: expected an index from 0 to hosts - 1, got {self.index} of {self.hosts}")
        if not (self.patience > 0 and self.stall > 0):
            raise ValueError(f"patience and stall: expected seconds > 0, got {self.patience} and {self.stall}")


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to do; `masks` and the fit data follow the CASE.ext / CASE_RATER.ext convention.

    `only` names the cases to take, of those that are found; all where it is empty. A `strict` run is refused where the network
    does not explain its own fit data. `mask_settings` say what masks hold. With a `calibration` every case gets what its
    guarantee says of it. A `model` is a path, or in memory; of an nnU-Net folder `folds` are used, or all.
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
    sharing: Sharing = Sharing()
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
