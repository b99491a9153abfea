"""Examples to learn from, in memory: what fits a network, and which of them a step sees in which crop.

Targets are class probabilities `[*space c]` throughout: a label is a row with a single 1, a rater mean any row that sums
to 1, and an ignored pixel a row of zeros. Row sums therefore weigh the loss, also where augmentation mixes pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from ..data.preprocess import pad_to_shape
from ..models.model import Network
from .settings import TrainConfig

Example = tuple[Float[np.ndarray, "... i"], Num[np.ndarray, "..."] | Bool[np.ndarray, "..."]]  # each of a size of its own


def check_examples(network: Network, cases: Sequence[Example], *, what: str) -> list[Example]:
    """The cases with their targets as class probabilities; ValueError naming the first that does not fit the network."""
    if len(cases) == 0:
        raise ValueError(f"{what}s: expected at least one, got none")
    if network.classes < 2:
        raise ValueError(f"{network.architecture}: training expects at least 2 classes, got {network.classes}")
    return [_checked(network, image, labels, where=f"{what} {index}") for index, (image, labels) in enumerate(cases)]


def _checked(network: Network, image: Any, labels: Any, *, where: str) -> Example:
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


def batch_shape(network: Network, cases: Sequence[Example], *, crop: int) -> tuple[int, ...]:
    """The one size of all batches: the largest of each side, or the crop if smaller, as the network can take it."""
    sides = np.max([image.shape[:-1] for image, _ in cases], axis=0)
    multiple = np.broadcast_to(network.size_multiple, sides.shape)
    sides = np.minimum(sides, crop) if crop else sides
    return tuple(int(-(-side // m) * m) for side, m in zip(sides, multiple, strict=True))


def batch(
    cases: Sequence[Example], config: TrainConfig, *, step: int, shape: Sequence[int]
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
