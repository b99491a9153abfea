"""What a training from files is asked to do, apart from the trainer so that it is there before JAX is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.mask_settings import MaskSettings
from .settings import TrainConfig

LossName = Literal["segmentation", "evidential", "prob_unet"]


@dataclass(frozen=True)
class TrainRequest:
    """A network to train on images with masks of one or several raters (CASE.ext, CASE_RATER.ext), and where to save it.

    `arguments` are those of the architecture's constructor. `loss` says of what kind the network is: an ordinary one, an
    evidential one, or a Probabilistic U-Net, which learns from one rater's mask at a time. `mask_settings` say what masks hold.
    The state that an interrupted training goes on from lies beside `out`.
    """

    images: Path
    masks: Path
    out: Path
    arch: str = "att_unet"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 2
    loss: LossName = "segmentation"
    config: TrainConfig = TrainConfig()
    mask_settings: MaskSettings = MaskSettings()

    @property
    def state(self) -> Path:
        """The file of the training state."""
        return self.out.parent / f"{self.out.name}.training"
