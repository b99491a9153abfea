"""Passes through the network under moved weights: which mode each has, and the fit batch whole or in parts.

A fit batch goes through together with the image in one program, or in parts, whose losses and gradients add up: memory then
grows with a part, not with the batch.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .network import EVAL, DrawnNoise, GivenNoise, Mode, Parameters, recomputed_blocks, weight_products
from .setup import Frozen, Setup, State, StepInputs
from .solvers import Moving
from .space import Activation


def pass_modes(setup: Setup, inputs: StepInputs) -> tuple[Mode, Mode, Mode]:
    """Modes of the fit pass, the image pass and the recording pass."""
    if not setup.train:
        return EVAL, EVAL, EVAL
    if inputs.noise is None:
        return (Mode(batch_statistics=True),) * 3
    if isinstance(inputs.noise, tuple):
        fit, image, record = (Mode(True, GivenNoise(masks)) for masks in inputs.noise)
        return fit, image, record
    keys = jax.random.split(inputs.noise, 3)
    fit, image, record = (Mode(True, DrawnNoise(keys[i])) for i in range(3))
    return fit, image, record


def run_pass(
    setup: Setup, z: Moving, stats: Parameters, frozen: Frozen, activation: Activation, mode: Mode
) -> tuple[Array, Parameters]:
    """One pass under `z`; in bfloat16, where asked, between float32 weights and float32 logits."""
    with recomputed_blocks(setup.recompute), weight_products(setup.products):
        if not setup.half:
            return setup.space.logits(setup.network, z, frozen.params, stats, activation, mode)
        half = partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x)
        logits, after = setup.space.logits(setup.network, half(z), half(frozen.params), half(stats), half(activation), mode)
        return logits.astype(jnp.float32), jax.tree.map(lambda x, old: x.astype(old.dtype), after, stats)


def at_points(setup: Setup, logits: Float[Array, "1 *padded c"], points: Int[Array | np.ndarray, " p"]) -> Float[Array, "p c"]:
    """The logits of an image at the points of a target."""
    image = logits[(0, *(slice(n) for n in setup.shape))].reshape(-1, logits.shape[-1])
    if points.shape[0] == math.prod(setup.shape) > 1:
        return image  # a target of all pixels lists them in order; a gather would only cost time
    return image[points]


def may_skip_fit(setup: Setup) -> bool:
    """Whether the fit batch has no part in a step from weights that keep the bound.

    The solver must say so, and the image's pass must not depend on it either, as it does in train mode through running
    statistics.
    """
    return setup.space.constrained and not setup.patches and not setup.train and setup.solver.spares_fit


def may_split_fit(setup: Setup) -> bool:
    """Whether the fit batch may go through the network in parts: its loss is a mean over pixels, and no image sees another."""
    return setup.space.constrained and not setup.patches and not setup.train and setup.loss.adds_up


def fit_loss_of(setup: Setup, frozen: Frozen, state: State, inputs: StepInputs) -> Float[Array, ""]:
    """The fit loss at the state's weights in eval mode, in nats a pixel."""
    batch = jax.tree.map(lambda x: x[inputs.batch], frozen.fit)
    logits, _ = run_pass(setup, state.z, state.stats, frozen, batch, EVAL)
    return setup.loss.mean(logits, frozen.fit_labels[inputs.batch])


def fit_part(
    setup: Setup, frozen: Frozen, state: State, batch: Int[Array, ""], start: Int[Array, ""], *, gradient: bool
) -> tuple[Float[Array, ""], Moving | None]:
    """What `setup.micro` fit cases from `start` on contribute to the fit loss in eval mode, and to its gradient where asked.

    A mean over all labelled pixels is the sum of the parts' means times their shares of these pixels.
    """

    def cut(x: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x[batch], start, setup.micro)

    part, labels = jax.tree.map(cut, (frozen.fit, frozen.fit_labels))
    share = jnp.sum(labels >= 0) / jnp.maximum(jnp.sum(frozen.fit_labels[batch] >= 0), 1)

    def contribution(z: Moving) -> Float[Array, ""]:
        return share * setup.loss.mean(run_pass(setup, z, state.stats, frozen, part, EVAL)[0], labels)

    return jax.value_and_grad(contribution)(state.z) if gradient else (contribution(state.z), None)


def part_starts(setup: Setup, frozen: Frozen) -> range:
    """Where the parts of a fit batch begin."""
    return range(0, frozen.fit_labels.shape[1], setup.micro)


def no_parts(z: Moving, *, gradient: bool) -> tuple[Float[Array, ""], Moving | None]:
    """The sums of `add_part` before the first part, with a gradient where asked."""
    return jnp.zeros(()), jax.tree.map(jnp.zeros_like, z) if gradient else None


def add_part(
    setup: Setup,
    frozen: Frozen,
    state: State,
    batch: Int[Array, ""],
    start: Int[Array, ""],
    sums: tuple[Float[Array, ""], Moving | None],
) -> tuple[Float[Array, ""], Moving | None]:
    """The sums with what the fit cases from `start` on contribute."""
    return jax.tree.map(jnp.add, sums, fit_part(setup, frozen, state, batch, start, gradient=sums[1] is not None))


def with_fit(setup: Setup, frozen: Frozen, state: State, inputs: StepInputs, *, gradient: bool) -> StepInputs:
    """The inputs with the fit loss of a batch that is taken in parts, one after the other inside the program."""
    if not setup.micro or inputs.fit_loss is not None:
        return inputs
    sums, starts = no_parts(state.z, gradient=gradient), part_starts(setup, frozen)
    if jax.default_backend() == "cpu":  # convolutions inside a scan are slow there
        for start in starts:
            sums = add_part(setup, frozen, state, inputs.batch, jnp.asarray(start), sums)
    else:
        sums, _ = jax.lax.scan(
            lambda some, start: (add_part(setup, frozen, state, inputs.batch, start, some), None), sums, jnp.asarray(starts)
        )
    return inputs._replace(fit_loss=sums[0], fit_gradient=sums[1])
