"""Networks of other packages, converted live: their logits, their gradients, other batches and other sizes.

The weights are random and the running statistics too, so that every number of a network matters. This set has an
environment of its own (see `pyproject.toml`, extra `peers`) and is left out without it.
"""

import pytest

from benchmarks.peers import TOLERANCE, measure
from benchmarks.peers_networks import PEERS

pytest.importorskip("torch")
for package in ("monai", "segmentation_models_pytorch", "torchvision", "transformers"):
    pytest.importorskip(package, exc_type=(ImportError, RuntimeError))

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("name", PEERS)
def test_peer(name: str) -> None:
    found = measure(name)
    assert found["max_relative_difference"] <= TOLERANCE
    assert found["gradient_relative_difference"] <= TOLERANCE
    assert found["free"] == ("batch" if PEERS[name].dynamic == "batch" else "batch and sides")
    assert found["cuts"]
