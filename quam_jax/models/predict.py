"""What the given network says, in eval mode, and fit data as its searches take them."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ..core import fit as core_fit
from ..core.types import FitData
from ..data.preprocess import batch_fit
from .arrays import as_images, as_numpy
from .model import SegmentationModel


@jax.jit
def _softmax(logits: Array) -> Array:
    return jax.nn.softmax(logits)[0]


def predict(model: SegmentationModel, image: Float[Array | np.ndarray, "*space i"]) -> Float[Array, "*space c"]:
    """Class probabilities of one prepared image."""
    return _softmax(model(image[None]))


def fit_data(model: SegmentationModel, images: Any, labels: Any) -> FitData:
    """Known images with their labels, which an adversarial model must still explain, checked and in batches.

    Args:
        model: The model whose search they are for.
        images: Prepared images (`preprocessing_of(model).apply(...)`): a list of `[*space i]` of any sides, one image
            `[*space i]`, a batch `[b *space i]`, or batches `[k b *space i]` as `read_pairs` returns them. Arrays of NumPy, JAX,
            PyTorch or MONAI; channels first are moved, with a warning; the axis of one channel may be missing.
        labels: Their classes, whole numbers from 0, in the same form without the axis of channels; -1: not rated.

    Returns:
        Batches: `images` `[k b *space i]`, `labels` `[k b *space]`, padded to what the network takes. A list, an image and a
        batch make one batch, so that the bound is kept on all of it. Padding repeats the image's edge and has the label -1.

    Raises:
        ValueError: For images and labels that do not belong together or do not fit the network (the axis, and what to do), no
            batch, a batch without any label, or a label that the network does not have.
    """
    network, rank = model.network, model.network.rank
    if isinstance(images, list | tuple) and all(np.ndim(label) in (rank, rank + 1) for label in labels):
        if len(images) != len(labels):
            raise ValueError(f"fit data: expected labels for every image, got {len(images)} images and {len(labels)} labels")
        pairs = []
        for number, (one, label) in enumerate(zip(images, labels, strict=True)):
            image = np.asarray(as_images(one, network, what=f"fit image {number}"), np.float32)
            pairs.append((image, _labels(label, image.shape[:-1], what=f"fit labels {number}")))
        images, labels = batch_fit(pairs, multiple=network.size_multiple)
    else:
        leading = np.ndim(labels) - rank
        if leading not in (0, 1, 2):
            raise ValueError(
                f"fit labels: expected [k b *space], [b *space] or [*space], {rank} spatial axes, got shape {np.shape(labels)}"
            )
        found = as_images(images, network, what="fit images", leading=leading)
        classes = _labels(labels, found.shape[:-1], what="fit labels")
        images, labels = (x[(None,) * (2 - leading)] for x in (found, classes))
    return core_fit.fit_data(model.network, model.params, model.stats, images, labels)


def _labels(values: Any, shape: tuple[int, ...], *, what: str) -> Int[np.ndarray, "..."]:
    """Labels of so many pixels as whole numbers; ValueError that says what is wrong with them."""
    array = as_numpy(values, what=what)
    array = array[0] if array.ndim == len(shape) + 1 and array.shape[0] == 1 else array
    if array.shape != shape:
        turned = array.ndim == len(shape) and sorted(array.shape) == sorted(shape)
        sides = enumerate(zip(array.shape, shape, strict=False))
        wrong = next((f"axis {n} has {own}, the image {other}" for n, (own, other) in sides if own != other), "")
        remedy = "; its axes are in another order" if turned else ""
        if array.ndim == len(shape) + 1:
            remedy = "; labels have no axis of channels: of one-hot masks take np.argmax(labels, -1)"
        raise ValueError(f"{what}: expected shape {shape} as the image has, got {array.shape}: {wrong or 'other axes'}{remedy}")
    if array.dtype.kind == "f" and not (array == np.round(array)).all():
        raise ValueError(f"{what}: expected whole numbers, got {array.dtype} with fractions; are images and labels swapped?")
    return array.astype(np.int32)
