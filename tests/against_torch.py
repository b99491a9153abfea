"""Ours against PyTorch's: values and vector-Jacobian products of two functions at the same arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")


def channels_first(x: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


def plain(x: Any) -> np.ndarray:
    return np.asarray(x)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def assert_close(found: Any, expected: Any, what: str) -> None:
    scale = max(1.0, float(np.abs(expected).max())) if expected.size else 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * scale, err_msg=what)


def compare(
    pairs: list[tuple[Callable, Callable]], arguments: list[np.ndarray], orders: list[Callable], *, out: Callable = channels_first
) -> None:
    """Outputs and vector-Jacobian products of pairs (ours, PyTorch's) at the same arguments.

    `orders` bring arguments of ours into PyTorch's axis order, `out` an output.
    """
    theirs = [
        torch.tensor(np.ascontiguousarray(order(a)), requires_grad=True) for a, order in zip(arguments, orders, strict=True)
    ]

    @jax.jit
    def values(*arguments):
        results = []
        for ours, _ in pairs:
            y, pull = jax.vjp(ours, *arguments)
            weight = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
            results.append((y, weight, pull(weight)))
        return results

    for index, ((y, weight, gradients), (_, reference)) in enumerate(zip(values(*arguments), pairs, strict=True)):
        expected = reference(*theirs)
        pulled = torch.autograd.grad(expected, theirs, torch.tensor(np.ascontiguousarray(out(weight))))
        assert_close(out(y), expected.detach().numpy(), f"value of pair {index}")
        for number, (mine, theirs_, order) in enumerate(zip(gradients, pulled, orders, strict=True)):
            assert_close(order(mine), theirs_.numpy(), f"gradient {number} of pair {index}")


def called(layer: nnx.Module) -> Callable:
    """A layer as a function of input, weight and bias."""
    graph, state = nnx.split(layer)

    def call(x, weight, *bias):
        values = jax.tree.map(lambda v: v, state)
        nnx.replace_by_pure_dict(values, {**nnx.to_pure_dict(state), "weight": weight, **({"bias": bias[0]} if bias else {})})
        return nnx.merge(graph, values)(x)

    return call


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)
