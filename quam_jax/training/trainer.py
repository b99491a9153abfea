"""A small trainer: cases in memory to a SegmentationModel, with augmentation, and resume that changes no number.

One step is one jitted function; a Python loop calls it, since XLA on CPU runs convolutions inside a scan many times slower.
Whatever is random at a step comes from the seed and the number of the step alone, so a run that was interrupted and goes
on from its state ends with the weights of an undisturbed one (bit for bit where the device computes reproducibly, as CPUs
do).

Targets are class probabilities `[*space c]` throughout: a label is a row with a single 1, a rater mean any row that sums
to 1, and an ignored pixel a row of zeros. Row sums therefore weigh the loss, also where augmentation mixes pixels.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import uuid
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, Num

from ..core.compilation import jit
from ..core.network import DrawnNoise, Mode
from ..data.preprocess import pad_to_shape
from ..evaluation.overlap import class_dice, confusion
from ..models.model import Network, Parameters, SegmentationModel
from .settings import TrainConfig as TrainConfig

Case = tuple[Float[np.ndarray, "*space i"], Num[np.ndarray, "..."]]
Loss = Callable[..., Any]
_LARGEST_NORM = 1.0  # of the gradient; Adam ignores its scale, so this only cuts bursts
_WARM_UP = 0.05  # of the steps


class State(NamedTuple):
    """What a step changes."""

    params: Parameters
    stats: Parameters
    optimizer: optax.OptState


class Numbers(NamedTuple):
    """The settings that a step takes as data, so that other values compile nothing anew."""

    learning_rate: float
    weight_decay: float
    dice_weight: float
    rotation: float
    scaling: float
    brightness: float
    contrast: float
    grain: float


def train(
    network: Network,
    cases: Sequence[Case],
    *,
    config: TrainConfig | None = None,
    checkpoint: Path | None = None,
    validation: Sequence[Case] = (),
    progress: Callable[[int, float], None] | None = None,
    loss: Loss | None = None,
) -> SegmentationModel:
    """Train a network from scratch, or go on from the state at `checkpoint`.

    A case is a prepared image `[*space i]` with labels `[*space]` (integers, -1: ignored) or class probabilities
    `[*space c]` (all zero: ignored). Sizes may differ: every image is padded to the largest size by its border values,
    without loss there. `progress` is called with the number of steps done and the loss of the last one. Dice on
    `validation` is measured whenever the state is written; it stands in the manifest under `training`, with the settings.
    `loss` replaces `segmentation_loss` (logits, targets and dice_weight to a number), as the evidential network needs; one with
    the attribute `of_network` takes network, weights and images instead of logits and gives the statistics too (prob_unet_loss).
    ValueError for cases that do not fit the network, a state of another run, and a loss that is not finite.
    """
    config, objective = config or TrainConfig(), loss or segmentation_loss
    prepared = check_cases(network, cases, what="training case")
    held_out = check_cases(network, validation, what="validation case") if validation else []
    shape = batch_shape(network, prepared, crop=config.crop)
    key = jax.random.key(config.seed)
    state, start = begin(network, config.seed), 0
    history: list[tuple[int, float]] = []
    identity = _identity(network, config, [prepared, held_out], objective)
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
    about = {"settings": dataclasses.asdict(config), "cases": len(prepared), "validation_dice": history}
    return SegmentationModel(network, state.params, state.stats, {"training": about})


def case_dice(model: SegmentationModel, cases: Sequence[Case]) -> Float[np.ndarray, " n"]:
    """Dice of the predicted labels of each case, averaged over the classes but the first; NaN where none occurs.

    Probabilities count as the label of the largest one (the first on a tie); ignored pixels do not count.
    """
    scores = []
    for image, target in check_cases(model.network, cases, what="case"):
        predicted = np.asarray(model(jnp.asarray(image[None]))[0]).argmax(-1)
        known = target.sum(-1) > 0
        counts = confusion(target.argmax(-1)[known], predicted[known], classes=model.network.classes)
        present = class_dice(counts)[1:]
        present = present[~np.isnan(present)]
        scores.append(float(present.mean()) if present.size else float("nan"))
    return np.array(scores)


def check_cases(network: Network, cases: Sequence[Case], *, what: str) -> list[Case]:
    """The cases with their targets as class probabilities; ValueError naming the first that does not fit the network."""
    if len(cases) == 0:
        raise ValueError(f"{what}s: expected at least one, got none")
    if network.classes < 2:
        raise ValueError(f"{network.architecture}: training expects at least 2 classes, got {network.classes}")
    return [_checked(network, image, labels, where=f"{what} {index}") for index, (image, labels) in enumerate(cases)]


def _checked(network: Network, image: Any, labels: Any, *, where: str) -> Case:
    image, labels, classes = np.asarray(image, np.float32), np.asarray(labels), network.classes
    if image.ndim != network.rank + 1 or image.shape[-1] != network.in_channels or 0 in image.shape:
        raise ValueError(
            f"{where}: image: expected {network.rank} spatial axes and {network.in_channels} channels, got shape {image.shape}"
        )
    if not np.isfinite(image).all():
        raise ValueError(f"{where}: image: expected finite values, got NaN or infinity")
    space = image.shape[:-1]
    if labels.dtype.kind in "iub" and labels.shape == space:
        if labels.min() < -1 or labels.max() >= classes:
            raise ValueError(
                f"{where}: labels: expected 0 to {classes - 1} (or -1 to ignore), got {labels.min()} to {labels.max()}"
            )
        return image, (labels[..., None] == np.arange(classes)).astype(np.float32)
    if labels.dtype.kind == "f" and labels.shape == (*space, classes):
        sums = labels.sum(-1)
        if not (labels.min() >= 0 and np.all((np.abs(sums - 1) < 1e-3) | (sums == 0))):
            raise ValueError(
                f"{where}: probabilities: expected values >= 0 that sum to 1 (or to 0, to ignore) over the "
                f"{classes} classes, got values from {labels.min():.4g} and sums up to {sums.max():.4g}"
            )
        return image, labels.astype(np.float32)
    raise ValueError(
        f"{where}: expected whole labels of shape {space} or probabilities of shape {(*space, classes)}, got "
        f"{labels.dtype} of shape {labels.shape}"
    )


def batch_shape(network: Network, cases: Sequence[Case], *, crop: int) -> tuple[int, ...]:
    """The one size of all batches: the largest of each side, or the crop if smaller, as the network can take it."""
    sides = np.max([image.shape[:-1] for image, _ in cases], axis=0)
    multiple = np.broadcast_to(network.size_multiple, sides.shape)
    sides = np.minimum(sides, crop) if crop else sides
    return tuple(int(-(-side // m) * m) for side, m in zip(sides, multiple, strict=True))


def batch(
    cases: Sequence[Case], config: TrainConfig, *, step: int, shape: Sequence[int]
) -> tuple[Float[np.ndarray, "b *space i"], Float[np.ndarray, "b *space c"]]:
    """The cases of one step, every case once before any comes again, cropped at random or padded to the shape."""
    places = range(step * config.batch_size, (step + 1) * config.batch_size)
    orders = {
        epoch: np.random.default_rng([config.seed, 0, epoch]).permutation(len(cases))
        for epoch in {place // len(cases) for place in places}
    }
    chosen = [cases[orders[place // len(cases)][place % len(cases)]] for place in places]
    rng = np.random.default_rng([config.seed, 1, step])
    images, targets = [], []
    for image, target in chosen:
        corner = [int(rng.integers(max(n - side, 0) + 1)) for n, side in zip(image.shape[:-1], shape, strict=True)]
        window = tuple(slice(c, c + side) for c, side in zip(corner, shape, strict=True))
        images.append(pad_to_shape(image[window], shape, "edge")[0])
        targets.append(pad_to_shape(target[window], shape, "constant")[0])
    return np.stack(images), np.stack(targets)


def begin(network: Network, seed: int) -> State:
    """Fresh weights and an optimiser that has seen nothing."""
    # this generator compiles five times faster than the default one, and initialisation compiles one function a shape
    params, stats = network.initialise(jax.random.key(seed, impl="rbg"))
    return State(params, stats, optax.scale_by_adam().init(params))


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step: a linear rise over the first 5 % of the steps, times half a cosine from 1 to 0."""
    rise = min(1.0, (step + 1) / max(1.0, _WARM_UP * config.steps))
    return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _numbers(config: TrainConfig, step: int) -> Numbers:
    return Numbers(learning_rate(config, step), *(getattr(config, name) for name in Numbers._fields[1:]))


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
    images, targets = jax.vmap(lambda k, x, y: augment(k, x, y, numbers=numbers, warp=warp, flips=flips))(keys, images, targets)

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


def segmentation_loss(
    logits: Float[Array, "b *space c"], targets: Float[Array, "b *space c"], *, dice_weight: float | Array
) -> Float[Array, ""]:
    """Cross-entropy in nats a labelled pixel, plus `dice_weight` times 1 - soft Dice of the classes but the first.

    Soft Dice is (2 sum(p y) + 1) / (sum p + sum y + 1) over the whole batch (the linear form of Drozdzal et al. 2016;
    the 1 keeps classes that are absent quiet). Rows of zeros in `targets` do not count.
    """
    logs = jax.nn.log_softmax(logits)
    row = jnp.sum(targets, -1, keepdims=True)
    cross_entropy = -jnp.sum(targets * logs) / jnp.maximum(jnp.sum(row), 1.0)
    probs, axes = jnp.exp(logs) * row, tuple(range(targets.ndim - 1))
    overlap = 2 * jnp.sum(probs * targets, axes) + 1
    dice = overlap / (jnp.sum(probs, axes) + jnp.sum(targets, axes) + 1)
    return cross_entropy + dice_weight * jnp.mean(1 - dice[1:])


def augment(
    key: Key[Array, ""],
    image: Float[Array, "*space i"],
    target: Float[Array, "*space c"],
    *,
    numbers: Numbers,
    warp: bool,
    flips: bool,
) -> tuple[Float[Array, "*space i"], Float[Array, "*space c"]]:
    """A random view of one case: image and target move together, brightness, contrast and noise are the image's alone.

    What a warp brings in from outside continues the border in the image and is ignored in the target.
    """
    flip, turn, move, light = jax.random.split(key, 4)
    rank = image.ndim - 1
    if flips:
        both = jnp.concatenate([image, target], -1)
        for axis, chosen in enumerate(jax.random.bernoulli(flip, shape=(rank,))):
            both = jnp.where(chosen, jnp.flip(both, axis), both)
        if image.shape[0] == image.shape[1]:  # a transposition with the flips makes all quarter turns
            both = jnp.where(jax.random.bernoulli(turn), jnp.swapaxes(both, 0, 1), both)
        image, target = both[..., : image.shape[-1]], both[..., image.shape[-1] :]
    if warp:
        angle, size = jax.random.uniform(move, (2,), minval=-1.0)
        places = _warped(image.shape[:-1], angle * jnp.deg2rad(numbers.rotation), size * jnp.log1p(numbers.scaling))
        image, target = _read(image, places, mode="nearest"), _read(target, places, mode="constant")
    a, b, c, d = jax.random.split(light, 4)
    mean = jnp.mean(image, tuple(range(rank)))
    factor = jnp.exp(jnp.log1p(numbers.contrast) * jax.random.uniform(a, minval=-1.0))
    offset = numbers.brightness * jax.random.uniform(b, minval=-1.0)
    grain = numbers.grain * jax.random.uniform(c) * jax.random.normal(d, image.shape)
    return (image - mean) * factor + mean + offset + grain, target


def _warped(shape: tuple[int, ...], angle: Array, log_size: Array) -> Float[Array, " r *space"]:
    """Where each output pixel is read from: turned about the centre in the first two axes, and scaled in all."""
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))
    grid = grid * jnp.exp(-log_size)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.concatenate([jnp.stack([cos * grid[0] - sin * grid[1], sin * grid[0] + cos * grid[1]]), grid[2:]])
    return turned + jnp.array([(n - 1) / 2 for n in shape]).reshape(-1, *(1,) * len(shape))


def _read(values: Float[Array, "*space c"], places: Float[Array, " r *space"], *, mode: str) -> Float[Array, "*space c"]:
    """Multilinear interpolation of every channel."""
    return jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(channel, list(places), order=1, mode=mode), in_axes=-1, out_axes=-1
    )(values)


def write_state(path: Path, state: State, *, step: int, history: Sequence[tuple[int, float]], identity: str) -> None:
    """Write a training state as one .npz file, complete or not at all."""
    arrays: dict[str, Any] = {f"{index}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}
    arrays["about"] = np.array(json.dumps({"step": step, "history": history, "identity": identity}))
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with staging.open("xb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def read_state(path: Path, *, like: State, identity: str) -> tuple[State, int, list[tuple[int, float]]]:
    """State, steps done and validation history; ValueError if the file is damaged or belongs to another run."""
    leaves, tree = jax.tree.flatten(like)
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            same = about["identity"] == identity
            values = [jnp.asarray(stored[f"{index}"]) for index in range(len(leaves))] if same else []
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a training state, got {type(error).__name__}: {error}; delete it to begin anew"
        ) from error
    if not same:
        raise ValueError(
            f"{path}: expected the state of this run, got that of another network, other settings or other "
            "cases; delete it or name another file"
        )
    return jax.tree.unflatten(tree, values), about["step"], [(int(s), float(d)) for s, d in about["history"]]


def _identity(network: Network, config: TrainConfig, groups: Sequence[Sequence[Case]], loss: Loss) -> str:
    """A hash of what decides the weights: architecture, settings and cases."""
    settings = {**dataclasses.asdict(config), "checkpoint_every": None}
    digest = hashlib.sha256(repr((network, sorted(settings.items()))).encode())
    if loss is not segmentation_loss:
        digest.update(loss.__name__.encode())
    for group in groups:
        digest.update(f"{len(group)} cases".encode())
        for array in (array for case in group for array in case):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
