"""Section H: real pretrained weights, from the checkpoint file to the reference's logits."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converters.readers import read_weights
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks import NETWORKS, guess_architecture, infer_arguments

from .forward import from_torch

FOLDER = "H_weights"
# the stored logits are float32, so their own rounding is part of the error
RELATIVE = 1e-5


def cases(golden: Path) -> list[str]:
    """Names of the files that `check` takes."""
    return [case["file"] for case in _index(golden) if case["arch"] in NETWORKS]


def not_covered(golden: Path) -> list[str]:
    """Names of the files whose architecture is not known here."""
    return [case["file"] for case in _index(golden) if case["arch"] not in NETWORKS]


def check(golden: Path, case: str) -> None:
    """Assert that the logits of a pretrained network are the reference's."""
    meta = next(c for c in _index(golden) if c["file"] == case)
    weights = read_weights(golden / meta["checkpoint"]).tensors
    shapes = {name: value.shape for name, value in weights.items()}
    assert guess_architecture(shapes) == meta["arch"]
    network = Network.create(meta["arch"], **infer_arguments(meta["arch"], shapes))
    assert network.classes == meta["classes"]
    model = SegmentationModel(network, *from_torch(network, weights))
    with np.load(golden / FOLDER / case) as io:
        images, expected = io["input"], io["logits"]
    with jax.default_matmul_precision("highest"):
        logits = np.moveaxis(np.asarray(model(np.moveaxis(images, 1, -1))), -1, 1)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=RELATIVE * float(np.abs(expected).max()))


def _index(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / FOLDER / "index.json").read_text())["cases"]
