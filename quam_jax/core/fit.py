"""Fit data: what an adversarial model must still explain, and the given network's loss on it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .compilation import jit
from .loss import Loss
from .network import Parameters, check_network, pad_to_multiple
from .types import FitData

AT_ONCE = 2**19  # pixels of a forward pass over fit data


def fit_data(
    network: Any,
    params: Parameters,
    stats: Parameters,
    images: Float[ArrayLike, "k b *space i"],
    labels: Int[ArrayLike, "k b *space"],
) -> FitData:
    """Fit batches as a search takes them, checked.

    Sides that the network cannot take are padded by repeating the edge, with the ignored label -1. ValueError if there is
    no batch, a batch without any label, or a label that the network does not have.
    """
    images, labels = jnp.asarray(images), np.asarray(labels, np.int32)
    if images.ndim != labels.ndim + 1 or images.shape[:-1] != labels.shape:
        raise ValueError(
            f"fit data: expected images [k b *space i] and labels [k b *space], got {tuple(images.shape)} and {labels.shape}"
        )
    if images.shape[0] == 0:
        raise ValueError("fit data: expected at least one fit batch, got none")
    classes = check_network(network, params, stats, images[0, 0])
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high >= classes:
        raise ValueError(f"fit labels: expected 0..{classes - 1} (or -1 to ignore), got values from {low} to {high}")
    if not (labels >= 0).any(axis=tuple(range(1, labels.ndim))).all():
        raise ValueError("fit data: expected labelled pixels in every fit batch, got a batch without any")
    images = pad_to_multiple(images, network, leading=2)
    padding = [(0, p - n) for p, n in zip(images.shape[2:-1], labels.shape[2:], strict=True)]
    return FitData(images, jnp.asarray(np.pad(labels, [(0, 0), (0, 0), *padding], constant_values=-1)))


def reference_losses(network: Any, params: Parameters, stats: Parameters, fit: FitData, loss: Loss) -> Float[Array, " k"]:
    """The given network's loss on every fit batch in eval mode, in nats a labelled pixel; large batches go through in parts."""
    size = part_size(fit.labels.shape[1:]) if loss.adds_up else fit.labels.shape[1]
    return jnp.stack([_in_parts(network, loss, params, stats, x, y, size) for x, y in zip(*fit, strict=True)])


def part_size(batch: Sequence[int]) -> int:
    """How many images of a batch `[b *space]` go through a forward pass at once: parts of one size, of some AT_ONCE pixels."""
    count, *side = batch
    return largest_divisor(count, AT_ONCE // max(1, math.prod(side)))


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor that is not above `most` (1 at least): parts of a batch are all of one size."""
    return max(n for n in range(1, max(1, min(number, most)) + 1) if number % n == 0)


def _in_parts(
    network: Any, loss: Loss, params: Parameters, stats: Parameters, images: Array, labels: Array, size: int
) -> Float[Array, ""]:
    if size == len(images):
        return _batch_loss(network, loss, params, stats, images, labels)
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    counts = jnp.stack([jnp.sum(labels[part] >= 0) for part in parts])
    losses = jnp.stack([_batch_loss(network, loss, params, stats, images[part], labels[part]) for part in parts])
    return jnp.sum(losses * counts) / jnp.sum(counts)


@jit(static_argnames=("network", "loss"))
def _batch_loss(network: Any, loss: Loss, params: Parameters, stats: Parameters, images: Array, labels: Array) -> jax.Array:
    return loss.mean(network.apply(params, stats, images)[0], labels)
