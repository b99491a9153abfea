"""Common ways in which a network may have seen its images: intensities, places, labels and sizes, to be tried on fit images."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.ndimage import zoom

from ..data.preprocess import LARGE, Preprocessing

SIDE = {2: 512, 3: 96}  # of the part of an image that other preparations are tried on
LARGE_SIDE = 2048  # of the part of a large picture that is prepared for it
SHRUNK = (2, 4, 8)  # by how much images are shrunk to be tried,
LEAST_SIDE = 16  # as long as so many pixels are left of a side
ENLARGED = 2**21  # pixels of an enlarged image, at most
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its channels, values from 0 to 1


def limited(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A part of a very large picture."""
    if labels.ndim > 2 or image.size <= LARGE:
        return image, labels
    part = window_of(labels, (LARGE_SIDE, LARGE_SIDE))
    return image[part], labels[part]


def other_ways(
    image: np.ndarray, labels: np.ndarray, preprocessing: Preprocessing | None, largest: float, classes: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The image and its labels as they are prepared, and in other ways, with words for each."""
    prepared = np.asarray(image, np.float32) if preprocessing is None else preprocessing.apply(image)
    yield "", prepared, labels
    yield from _other_places(prepared, labels)
    yield from _other_labels(prepared, labels, classes)
    for words, resized, marks in other_sizes(image, labels):
        yield words, np.asarray(resized, np.float32) if preprocessing is None else preprocessing.apply(resized), marks
    if preprocessing is not None:
        for other in common_preparations(largest, preprocessing.channels):
            if other != preprocessing:
                yield f"with --preprocessing '{json.dumps(_short(other))}'", other.apply(image), labels


def window_of(labels: Int[np.ndarray, "*space"], sides: Sequence[int]) -> tuple[slice | int, ...]:
    """A part of an image around the middle of its foreground; of a volume with two sides, in the slice that shows most."""
    if labels.ndim > len(sides):
        shown = int(np.argmax((labels > 0).sum((0, 1))))
        return (*window_of(labels[..., shown], sides), shown)
    middle = [int(np.median(axis)) for axis in np.nonzero(labels > 0)]
    starts = [min(max(m - s // 2, 0), max(n - s, 0)) for m, s, n in zip(middle, sides, labels.shape, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _other_places(prepared: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The image lying otherwise beside its mask, and its channels in reverse."""
    for axis in range(labels.ndim):
        yield f"flipped along axis {axis} beside its mask,", np.flip(prepared, axis), labels
    if labels.shape[0] == labels.shape[1]:
        yield "with its first two axes exchanged beside its mask,", np.swapaxes(prepared, 0, 1), labels
    if prepared.shape[-1] == 3 and (np.ptp(prepared, -1) > 0).any():
        yield "with its channels in reverse order (BGR for RGB),", prepared[..., ::-1], labels


def _other_labels(prepared: np.ndarray, labels: np.ndarray, classes: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Labels counted otherwise."""
    shifts = (
        {1: "with labels 0 and 1 exchanged,"} if classes == 2 else {1: "with labels one higher,", -1: "with labels one lower,"}
    )
    for shift, words in shifts.items():
        yield words, prepared, np.where(labels >= 0, (labels + shift) % classes, labels)


def other_sizes(image: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The image with larger or smaller pixels, in the plane of its first two axes, or in space where all three are as long.

    Values are means of blocks or lie on lines between pixels, labels are those in the middle of a block. Nothing is made so small
    that little is left of it, or so large that a pass takes long.
    """
    axes = [a for a in range(labels.ndim) if labels.ndim < 3 or a < 2 or 2 * labels.shape[a] >= min(labels.shape[:2])]
    for factor in SHRUNK:
        if min(labels.shape[a] for a in axes) >= factor * LEAST_SIDE:
            cut = tuple(slice(n // factor * factor if a in axes else n) for a, n in enumerate(labels.shape))
            small = image[cut].astype(np.float32)
            for axis in axes:
                blocks = (*small.shape[:axis], small.shape[axis] // factor, factor, *small.shape[axis + 1 :])
                small = small.reshape(blocks).mean(axis + 1)
            middle = tuple(slice(factor // 2, None, factor) if a in axes else slice(None) for a in range(labels.ndim))
            yield f"with images shrunk {' by '.join([str(factor)] * len(axes))},", small, labels[cut][middle]
    if labels.size * 2 ** len(axes) <= ENLARGED:
        sizes = [2 if a in axes else 1 for a in range(labels.ndim)]
        marks = labels
        for axis in axes:
            marks = np.repeat(marks, 2, axis)
        larger = zoom(image.astype(np.float32), [*sizes, 1], order=1)
        yield f"with images enlarged {' by '.join(['2'] * len(axes))},", larger, marks


def common_preparations(largest: float, channels: int) -> Sequence[Preprocessing]:
    """What people do to the intensities of an image whose largest value this is."""
    full = 255.0 if largest <= 255 else 65535.0
    known = [Preprocessing("zscore", channels), Preprocessing("minmax", channels), Preprocessing("none", channels)]
    if largest <= 1:
        return [*known, Preprocessing("none", channels, scale=1 / 255)]
    known += [
        Preprocessing("none", channels, scale=full),
        Preprocessing("fixed", channels, scale=full, mean=(0.5,) * channels, std=(0.5,) * channels),
    ]
    return [*known, Preprocessing("fixed", 3, full, *IMAGENET)] if channels == 3 else known


def _short(settings: Preprocessing) -> dict[str, Any]:
    """The settings that are not those of a plain Preprocessing, and how values are normalised."""
    plain = Preprocessing().to_dict()
    return {name: value for name, value in settings.to_dict().items() if name == "normalise" or value != plain[name]}
