"""Blocks that are run again in the backward pass: the same numbers in less memory, for every architecture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core.compilation import compiler_options
from quam_jax.core.network import EVAL, DrawnNoise, Mode, are_blocks_recomputed, recomputed_blocks
from quam_jax.models.model import Network
from quam_jax.networks import NETWORKS
from tests.small_networks import TINY, example
from tests.test_exported_graph import PROGRAM
from tests.test_exported_graph import network as graph


def prob_unet() -> tuple[Network, dict, dict, jax.Array]:
    network = Network.create("prob_unet", in_channels=3, n_classes=2, features=(3, 4))
    return network, *network.initialise(jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 8, 12, 3))


def imported() -> tuple[Network, dict, dict, jax.Array]:
    network = graph(PROGRAM)
    return network, *network.initialise(jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 8, 12, network.in_channels))


EXAMPLES: dict[str, Any] = {**{name: lambda name=name: example(name) for name in TINY}, "prob_unet": prob_unet, "graph": imported}


def loss(network: Network, params: Any, stats: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
    mode = Mode(batch_statistics=True, noise=DrawnNoise(jax.random.key(5))) if train else EVAL
    logits, after = network.apply(params, stats, x, mode)
    return jnp.mean(jnp.sin(logits)), (logits, after)


def gradient(recomputed: bool, network: Network, *values: Any, train: bool = False) -> Any:
    with recomputed_blocks(recomputed):
        return jax.value_and_grad(loss, argnums=(1, 3), has_aux=True)(network, *values, train)


def test_every_architecture_is_tried() -> None:
    names = {TINY[name][0] if name in TINY else name for name in EXAMPLES}
    assert names == set(NETWORKS)


QUICK = ("nnunet_residual_3d", "prob_unet", "graph")  # of each kind of block one; all of them take minutes to compile


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in EXAMPLES])
def test_recomputed_blocks_change_no_number(name: str) -> None:
    network, *values = EXAMPLES[name]()
    trains = (False, True) if name != "graph" else (False,)

    def both(*values: Any) -> Any:
        return [[gradient(recomputed, network, *values, train=train) for train in trains] for recomputed in (False, True)]

    plain, again = jax.jit(both)(*values)
    for expected, found in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * (1 + float(jnp.abs(expected).max())))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_architecture_has_blocks(name: str) -> None:
    network, *values = EXAMPLES[name]()

    def marked(recomputed: bool) -> int:
        def forward(*values: Any) -> Any:
            with recomputed_blocks(recomputed):
                return loss(network, *values, False)

        text = str(jax.make_jaxpr(forward)(*values))
        return text.count("checkpoint[") + text.count("remat2[") + text.count("remat[")

    assert marked(False) == 0 and marked(True) >= 3


def test_the_context_ends() -> None:
    assert not are_blocks_recomputed()
    with recomputed_blocks():
        assert are_blocks_recomputed()
        with recomputed_blocks(False):
            assert not are_blocks_recomputed()
        assert are_blocks_recomputed()
    assert not are_blocks_recomputed()


def temporary(recomputed: bool, network: Network, side: int) -> int:
    """Bytes that the gradient of an image takes, compiled for this backend."""
    params, stats = jax.eval_shape(network.initialise, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, side, side, network.in_channels), jnp.float32)

    def of_params(params: Any, stats: Any, x: jax.Array) -> Any:
        with recomputed_blocks(recomputed):
            return jax.grad(lambda p: loss(network, p, stats, x, False)[0])(params)

    compiled = jax.jit(of_params, compiler_options=compiler_options()).lower(params, stats, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the figures are those of XLA on CPU")
@pytest.mark.long
def test_memory_of_a_gradient() -> None:
    network, side = Network.create("att_unet", in_channels=1, n_classes=2, channels=16), 320
    one = side * side * 16 * 4  # bytes of a map at full resolution
    plain, again = (temporary(recomputed, network, side) for recomputed in (False, True))
    assert plain <= 25 * one  # 40 with padded copies, and inputs of activations beside their outputs
    assert again <= 0.65 * plain
