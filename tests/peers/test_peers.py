"""Networks of other packages, converted live: their logits, their gradients, other batches and other sizes.

The weights are random and the running statistics too, so that every number of a network matters. This set has an
environment of its own (see `pyproject.toml`, extra `peers`) and is left out without it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from converters.exported import from_torch
from converters.exported.capture import select_output
from converters.mapping import to_torch

from .networks import PEERS

torch = pytest.importorskip("torch")
for package in ("monai", "segmentation_models_pytorch", "torchvision", "transformers"):
    pytest.importorskip(package, exc_type=(ImportError, RuntimeError))

pytestmark = pytest.mark.peers


def randomised(module: Any) -> Any:
    """The module in eval mode with statistics and affine weights that are not at their start."""
    torch.manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        kind = name.rsplit(".", 1)[-1]
        with torch.no_grad():
            if kind == "running_var":
                value.uniform_(0.5, 2.0)
            elif kind == "running_mean" or (kind == "bias" and value.ndim == 1):
                value.normal_(std=0.1)
            elif kind == "weight" and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    return module.eval()


def torch_logits(module: Any, images: Any) -> Any:
    logits = select_output(module(images), None)
    if logits.shape[2:] != images.shape[2:]:
        logits = torch.nn.functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
    return logits


def images_of(shape: tuple[int, ...], seed: int) -> Any:
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape), dtype=torch.float32)


@pytest.mark.parametrize("name", PEERS)
def test_peer(name: str) -> None:
    peer = PEERS[name]
    torch.manual_seed(0)
    module = randomised(peer.make())
    example = images_of(peer.shape, 0)
    model = from_torch(module, example, dynamic=peer.dynamic)
    assert model.network.classes == 3

    for shape, seed in ((peer.shape, 1), (peer.other, 2)):
        images = images_of(shape, seed)
        with torch.no_grad():
            theirs = torch_logits(module, images).movedim(1, -1).numpy()
        ours = np.asarray(model(jnp.asarray(images.movedim(1, -1).numpy())))
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.ptp(theirs))

    labels = np.random.default_rng(3).integers(0, 3, (peer.shape[0], *peer.shape[2:]))
    # in float64: the float32 gradients of PyTorch itself are 4e-4 off them for fcn_resnet50
    module.double().zero_grad()
    torch.nn.functional.cross_entropy(torch_logits(module, example.double()), torch.as_tensor(labels)).backward()
    wanted = {n: p.grad.numpy() for n, p in module.named_parameters() if p.grad is not None}

    def loss(params: Any) -> Any:
        logits = model.network.apply(params, model.stats, jnp.asarray(example.movedim(1, -1).numpy()))[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient = to_torch(model.network, jax.jit(jax.grad(loss))(model.params), model.stats)
    assert set(model.params) >= set(wanted)
    norm = np.sqrt(sum(float((g**2).sum()) for g in wanted.values()))
    error = np.sqrt(sum(float(((gradient[n] - g) ** 2).sum()) for n, g in wanted.items()))
    assert norm > 0 and error <= 1e-4 * norm
