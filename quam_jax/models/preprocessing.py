"""How a model's images are prepared, by what its manifest says."""

import reprlib

from ..data.preprocess import Preprocessing
from .model import SegmentationModel


def preprocessing_of(model: SegmentationModel) -> Preprocessing:
    """How a model's images are prepared, by its manifest; z-score where it does not say."""
    said = model.manifest.get("preprocessing", {})
    if not isinstance(said, dict):
        raise ValueError(f"preprocessing of the model: expected an object, got {reprlib.repr(said)}")
    return Preprocessing.from_dict({"normalise": "zscore", "channels": model.network.in_channels, **said})
