"""A small trainer: examples in memory to a SegmentationModel, with augmentation, and resume that changes no number.

One step is one jitted function; a Python loop calls it, since XLA on CPU runs convolutions inside a scan many times slower.
Whatever is random at a step comes from the seed and the number of the step alone, so a run that was interrupted and goes
on from its state ends with the weights of an undisturbed one (bit for bit where the device computes reproducibly, as CPUs
do).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..core.compilation import jit
from ..core.network import DrawnNoise, Mode
from ..evaluation.overlap import class_dice, confusion
from ..models.model import Network, Parameters, SegmentationModel
from .augmentation import Strengths, augment
from .examples import Example, batch, batch_shape, check_examples
from .losses import Loss, segmentation_loss
from .settings import TrainConfig
from .state import State, begin, read_state, run_identity, write_state

_LARGEST_NORM = 1.0  # of the gradient; Adam ignores its scale, so this only cuts bursts
_WARM_UP = 0.05  # of the steps


class Numbers(NamedTuple):
    """The settings that a step takes as data, so that other values compile nothing anew."""

    learning_rate: float
    weight_decay: float
    dice_weight: float
    strengths: Strengths


def train(
    network: Network,
    cases: Sequence[Example],
    *,
    config: TrainConfig | None = None,
    checkpoint: Path | None = None,
    validation: Sequence[Example] = (),
    progress: Callable[[int, float], None] | None = None,
    loss: Loss | None = None,
) -> SegmentationModel:
    """Train a network from scratch, or go on from the state at `checkpoint`.

    A case is a prepared image `[*space i]` with labels `[*space]` (integers, -1: ignored) or class probabilities
    `[*space c]` (all zero: ignored). Sizes may differ: every image is padded to the largest size by its border values,
    without loss there. `progress` is called with the number of steps done and the loss of the last one. Dice on
    `validation` is measured whenever the state is written; it stands in the manifest under `training`, with the settings.
    `loss` replaces `segmentation_loss`, as networks of another kind need (losses.Loss).
    ValueError for cases that do not fit the network, a state of another run, and a loss that is not finite.
    """
    config, objective = config or TrainConfig(), loss or segmentation_loss
    prepared = check_examples(network, cases, what="training case")
    held_out = check_examples(network, validation, what="validation case") if validation else []
    shape = batch_shape(network, prepared, crop=config.crop)
    key = jax.random.key(config.seed)
    state, start = begin(network, config.seed), 0
    history: list[tuple[int, float]] = []
    identity = run_identity(network, config, [prepared, held_out], objective)
    if checkpoint is not None and Path(checkpoint).exists():
        state, start, history = read_state(Path(checkpoint), like=state, identity=identity)
    for step in range(start, config.steps):
        images, targets = batch(prepared, config, step=step, shape=shape)
        state, value, norm = _update(
            network,
            _warps(config),
            config.flips,
            objective,
            state,
            images,
            targets,
            _numbers(config, step),
            jax.random.fold_in(key, step),
        )
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise ValueError(
                f"training: step {step + 1}: expected a finite loss and gradient, got {float(value):.4g} and "
                f"{float(norm):.4g}; lower the learning rate ({config.learning_rate:g})"
            )
        done = step + 1
        if done % config.checkpoint_every == 0 or done == config.steps:
            if held_out:
                model = SegmentationModel(network, state.params, state.stats)
                history = [*history, (done, float(np.nanmean(case_dice(model, held_out))))]
            if checkpoint is not None:
                write_state(Path(checkpoint), state, step=done, history=history, identity=identity)
        if progress is not None:
            progress(done, float(value))
    about = {"settings": dataclasses.asdict(config), "cases": len(prepared), "size": list(shape), "validation_dice": history}
    return SegmentationModel(network, state.params, state.stats, {"training": about})


def case_dice(model: SegmentationModel, cases: Sequence[Example]) -> Float[np.ndarray, " n"]:
    """Dice of the predicted labels of each case, averaged over the classes but the first; NaN where none occurs.

    Probabilities count as the label of the largest one (the first on a tie); ignored pixels do not count.
    """
    scores = []
    for image, target in check_examples(model.network, cases, what="case"):
        predicted = np.asarray(model(jnp.asarray(image[None]))[0]).argmax(-1)
        known = target.sum(-1) > 0
        counts = confusion(target.argmax(-1)[known], predicted[known], classes=model.network.classes)
        present = class_dice(counts)[1:]
        present = present[~np.isnan(present)]
        scores.append(float(present.mean()) if present.size else float("nan"))
    return np.array(scores)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step: a linear rise over the first 5 % of the steps, times half a cosine from 1 to 0."""
    rise = min(1.0, (step + 1) / max(1.0, _WARM_UP * config.steps))
    return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _numbers(config: TrainConfig, step: int) -> Numbers:
    strengths = Strengths(*(getattr(config, name) for name in Strengths._fields))
    return Numbers(learning_rate(config, step), config.weight_decay, config.dice_weight, strengths)


def _warps(config: TrainConfig) -> bool:
    return config.rotation > 0 or config.scaling > 0


@jit(static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _update(
    network: Network,
    warp: bool,
    flips: bool,
    loss: Loss,
    state: State,
    images: Array,
    targets: Array,
    numbers: Numbers,
    key: Key[Array, ""],
) -> tuple[State, Array, Array]:
    """One AdamW step (Loshchilov & Hutter 2019); the loss and the gradient's norm are those before it."""
    noise, changes = jax.random.split(key)
    keys = jax.vmap(functools.partial(jax.random.fold_in, changes))(jnp.arange(images.shape[0]))
    view = functools.partial(augment, strengths=numbers.strengths, warp=warp, flips=flips)
    images, targets = jax.vmap(view)(keys, images, targets)

    def objective(params: Parameters) -> tuple[Array, Parameters]:
        mode = Mode(batch_statistics=True, noise=DrawnNoise(noise))
        if getattr(loss, "of_network", False):
            return loss(network, params, state.stats, images, targets, key=noise, mode=mode, dice_weight=numbers.dice_weight)
        logits, stats = network.apply(params, state.stats, images, mode)
        return loss(logits, targets, dice_weight=numbers.dice_weight), stats

    (value, stats), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    gradient = jax.tree.map(lambda g: g * jnp.minimum(1.0, _LARGEST_NORM / jnp.maximum(norm, 1e-12)), gradient)
    direction, optimizer = optax.scale_by_adam().update(gradient, state.optimizer)
    params = jax.tree.map(lambda x, d: x - numbers.learning_rate * (d + numbers.weight_decay * x), state.params, direction)
    return State(params, stats, optimizer), value, norm
