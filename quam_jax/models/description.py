"""What a model is: the digest of its numbers, how its images are prepared, and what a person is told of it."""

import reprlib
from typing import Any

from ..data.preprocess import Preprocessing
from ..data.records import digest, digest_arrays
from .model import SegmentationModel


def model_digest(model: SegmentationModel) -> str:
    """SHA-256 of a network's description and numbers."""
    network = model.network
    sums = () if network.sums is None else (network.sums,)
    description = digest(network.architecture, dict(network.arguments), *sums)
    return digest(description, digest_arrays({**model.params, **model.stats}))


def preprocessing_of(model: SegmentationModel) -> Preprocessing:
    """How a model's images are prepared, by its manifest; z-score where it does not say."""
    said = model.manifest.get("preprocessing", {})
    if not isinstance(said, dict):
        raise ValueError(f"preprocessing of the model: expected an object, got {reprlib.repr(said)}")
    return Preprocessing.from_dict({"normalise": "zscore", "channels": model.network.in_channels, **said})


def trained_size(model: SegmentationModel) -> tuple[int, ...]:
    """The sides of the images that a network was trained on, by its manifest; empty where it does not say."""
    record = model.manifest.get("training")
    size = record.get("size") if isinstance(record, dict) else None
    known = isinstance(size, list | tuple) and len(size) == model.network.rank and all(isinstance(n, int) and n > 0 for n in size)
    return tuple(size) if known and size else ()


def describe_model(model: SegmentationModel) -> dict[str, Any]:
    """Architecture, size and manifest of a model as plain values, without the weights that conversion set aside."""
    return {
        "architecture": model.network.architecture,
        "arguments": dict(model.network.arguments),
        "weights": model.parameter_count,
        "sides multiple of": model.network.size_multiple,
        "cuts": list(model.network.cuts),
        **{k: v for k, v in model.manifest.items() if k != "set_aside"},
    }
