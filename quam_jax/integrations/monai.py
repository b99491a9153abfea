"""Maps inside a MONAI pipeline: a dictionary transform and an inferer; results are MetaTensors with the affine of the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..case.quantify import quantify_images
from ..case.shared import CaseModel, whole_image_model
from ..config import Config
from ..core.types import FitData
from ..models.arrays import as_numpy
from ..models.model import SegmentationModel

MAPS = ("total", "aleatoric", "epistemic")


class UncertaintyInferer:
    """`inferer(batch)`: maps `[b 3 *space]` of an image batch `[b c *space]`: total, aleatoric and epistemic, in nats.

    `batch` went through the transforms of the network, channels first. Where it is a MetaTensor the result is one with its
    metadata. The search is prepared once. ValueError for images that do not fit the network.
    """

    def __init__(self, model: SegmentationModel, fit: FitData, *, config: Config | None = None, maps: Sequence[str] = MAPS):
        unknown = sorted(set(maps) - set(MAPS))
        if unknown or not maps:
            raise ValueError(f"maps: expected some of {', '.join(MAPS)}, got {', '.join(unknown) or 'none'}")
        self.config, self.maps = config or Config(), tuple(maps)
        self.shared: CaseModel = whole_image_model(model, fit, self.config.search)
        self.model = model

    def __call__(self, inputs: Any, network: Any = None) -> Any:
        """The maps of a batch; `network` is what an inferer of MONAI is called with, and not looked at."""
        network = self.model.network
        batch = as_numpy(inputs, what="inputs")
        if batch.ndim != network.rank + 2 or batch.shape[1] != network.in_channels:
            raise ValueError(
                f"inputs: expected [b {network.in_channels} *space] with {network.rank} spatial axes, channels first, got shape "
                f"{batch.shape}"
            )
        found = quantify_images(self.shared, list(np.moveaxis(batch, 1, -1).astype(np.float32)), config=self.config)
        return _like(np.stack([[getattr(one, name) for name in self.maps] for one in found]), inputs)


class Uncertaintyd:
    """A dictionary transform that adds `KEY_total`, `KEY_aleatoric` and `KEY_epistemic`, each `[1 *space]`, to a case.

    `keys` name prepared images `[c *space]`; arguments and errors are those of `UncertaintyInferer`. KeyError, which `Compose`
    reports with its own words, for a key that a case lacks.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        model: SegmentationModel,
        fit: FitData,
        *,
        config: Config | None = None,
        maps: Sequence[str] = MAPS,
    ):
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.inferer = UncertaintyInferer(model, fit, config=config, maps=maps)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The case with the maps of its images."""
        case = dict(data)
        for key in self.keys:
            image = case[key]
            found = self.inferer(image[None])[0]
            for number, name in enumerate(self.inferer.maps):
                case[f"{key}_{name}"] = _like(as_numpy(found[number : number + 1]), image)
        return case


def _like(values: np.ndarray, image: Any) -> Any:
    """Values as the image is held: NumPy, PyTorch, or a MetaTensor with its metadata."""
    if not hasattr(image, "detach"):
        return values
    tensor = image.new_tensor(values)
    if not hasattr(image, "meta"):
        return tensor
    from monai.data import MetaTensor

    return MetaTensor(tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor, meta=image.meta)
