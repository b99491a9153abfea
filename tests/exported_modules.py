"""PyTorch modules for the tests of imported graphs: a function of a batch compared with its graph in values and gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters.exported import from_torch
from converters.mapping import to_torch

torch = pytest.importorskip("torch")
F = torch.nn.functional


class Function(torch.nn.Module):
    """A function of an image batch as a module, with the weights it asks for by shape."""

    def __init__(self, function: Callable[..., Any], weights: dict[str, tuple[int, ...]] | None = None) -> None:
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(0)
        for name, shape in (weights or {}).items():
            self.register_parameter(name, torch.nn.Parameter(0.5 * torch.randn(shape, generator=generator)))

    def forward(self, x: Any) -> Any:
        return self.function(x, **dict(self.named_parameters()))


def images(*shape: int, seed: int = 0) -> Any:
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape), dtype=torch.float32)


def check(module: Any, shape: tuple[int, ...]) -> Any:
    """Convert a module for one shape, and compare values and weight gradients on another image."""
    module = module.eval()
    model = from_torch(module, images(*shape), dynamic=False, resize_logits=False)
    x = images(*shape, seed=1)
    theirs = module(x)
    ours = model(jnp.asarray(x.movedim(1, -1).numpy()))
    scale = float(theirs.detach().max() - theirs.detach().min())
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().movedim(1, -1).numpy(), rtol=0, atol=2e-5 * scale)
    weight = images(*theirs.shape, seed=2)
    parameters = dict(module.named_parameters())
    if parameters:
        gradients = torch.autograd.grad((theirs * weight).sum(), list(parameters.values()))

        def loss(params: Any) -> Any:
            y = model.network.apply(params, model.stats, jnp.asarray(x.movedim(1, -1).numpy()))[0]
            return jnp.sum(y * weight.movedim(1, -1).numpy())

        found = to_torch(model.network, jax.jit(jax.grad(loss))(model.params), model.stats)
        limit = 1e-5 * float(torch.stack([g.norm() for g in gradients]).norm())
        for name, gradient in zip(parameters, gradients, strict=True):
            np.testing.assert_allclose(found[name], gradient.numpy(), rtol=0, atol=limit, err_msg=name)
    return model


def same_size(values: list[Any], size: tuple[int, ...]) -> Any:
    return torch.cat([v if v.shape[2:] == size else F.interpolate(v, size) for v in values], 1)
