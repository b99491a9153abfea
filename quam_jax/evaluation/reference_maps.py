"""What the raters say, as maps: their mean, consensus, disagreement, and the distance to a contour.

Uncertainty maps are scored against disagreement maps. Distance maps exist because most of
any agreement only says "there is a boundary here": they give the band, the covariate and the control row
that show it.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Real
from scipy import ndimage, special

from .geometry import bounding_box, voxel_size, wider, within

BLOCK = 2**22  # pixels that are worked on at a time
BOUNDARY_SIGMA = 2.0  # pixels, or the unit of the spacing: the control that stands beside the maps of a case


def rater_mean(raters: Integer[np.ndarray, " a *space"], *, classes: int) -> Float[np.ndarray, "*space c"]:
    """Share of raters for each class, p̄_k = (1/R) Σ_r 1[y_r = k], of those who rated the pixel; all 0 where nobody did.

    Raises ValueError without a rater or for a label outside 0..classes-1 but -1, which is "not rated".
    """
    raters = _checked(raters, classes)
    counts = np.stack([np.count_nonzero(raters == label, axis=0) for label in range(classes)], axis=-1)
    # One correctly rounded division, so that 3 raters of 10 compare equal to a threshold written 0.3.
    if np.min(raters, initial=0) >= 0:
        return counts / raters.shape[0]
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


def consensus(
    raters: Integer[np.ndarray, " a *space"], *, classes: int, ties: Literal["smallest", "foreground"]
) -> Int[np.ndarray, "*space"]:
    """The label most raters gave to each pixel, int32.

    A tie goes to the smallest of the labels that share it; with ties="foreground" (two classes) to 1, which
    is the rule "mean of the raters >= 1/2". -1 is "not rated": it has no vote, and stands where nobody rated. ValueError for
    other labels outside 0..classes-1 or no rater.
    """
    if ties not in ("smallest", "foreground"):
        raise ValueError(f"ties: expected smallest or foreground, got {ties!r}")
    if ties == "foreground" and classes != 2:
        raise ValueError(f"ties: foreground needs two classes, got {classes}")
    raters = _checked(raters, classes)
    found = np.full(raters.shape[1:], -1, np.int32)
    rows = max(1, BLOCK // max(1, found[:1].size))
    for start in range(0, len(found), rows):
        some = raters[:, start : start + rows]
        most = np.full(some.shape[1:], ties == "foreground", np.int32)  # with "foreground" as many votes do: at least one
        labels = found[start : start + rows]
        for label in range(classes):
            votes = np.count_nonzero(some == label, axis=0).astype(np.int32)
            ahead = votes >= most if ties == "foreground" else votes > most
            most = np.maximum(most, votes)
            labels[ahead] = label
    return found


def fill_unrated(labels: Integer[np.ndarray, "*space"]) -> Integer[np.ndarray, "*space"]:
    """Labels with that of the nearest rated pixel where they are -1, so that no contour runs there; all 0 where none is rated."""
    unrated = labels < 0
    if not unrated.any():
        return labels
    if unrated.all():
        return np.zeros_like(labels)
    nearest = ndimage.distance_transform_edt(unrated, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


def entropy_map(mean: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, "*space"]:
    """Entropy of the rater mean, v = -Σ_k p̄_k ln p̄_k, in nats."""
    return special.entr(np.asarray(mean, dtype=np.float64)).sum(axis=-1)


def variance_map(mean: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, "*space"]:
    """Variance of the rater mean: p̄(1-p̄) for two classes, 1 - Σ_k p̄_k² for more."""
    mean = np.asarray(mean, dtype=np.float64)
    if mean.shape[-1] == 2:
        return mean[..., 0] * mean[..., 1]
    return 1.0 - np.square(mean).sum(axis=-1)


def contour_distance(
    labels: Integer[np.ndarray, "*space"], *, spacing: Sequence[float] | None = None
) -> Float[np.ndarray, "*space"]:
    """Distance of every pixel to the contour: |signed distance|, taken to the nearest pixel of another label.

    The two pixels that share a piece of contour are therefore one voxel edge away from it, on either side
    alike. In the unit of `spacing` (pixels without one); infinite everywhere if there is only one label.
    """
    labels = np.asarray(labels)
    size = voxel_size(spacing, labels.ndim)
    names = np.unique(labels)
    if names.size < 2:
        return np.full(labels.shape, np.inf)
    index = np.searchsorted(names, labels) if names.size > 2**7 else np.zeros(labels.shape, np.int8)
    if names.size <= 2**7:
        for number, name in enumerate(names[1:], start=1):
            index[labels == name] = number
    distance = np.zeros(labels.shape)
    for number, box in enumerate(ndimage.find_objects(index.astype(np.int32) + 1)):
        # One pixel of margin is enough: what lies further out has a nearer pixel of another label in it.
        wide = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, length)) for part, length in zip(box, labels.shape, strict=True)
        )
        _add_distance(distance[wide], index[wide] == number, size)
    return distance


def _add_distance(total: Float[np.ndarray, "*space"], mask: Bool[np.ndarray, "*space"], size: Float[np.ndarray, " rank"]) -> None:
    """Add the distance of every set pixel to the nearest one that is not, by rows: SciPy's own takes many times the memory."""
    nearest = ndimage.distance_transform_edt(mask, sampling=size, return_distances=False, return_indices=True)
    rows = max(1, BLOCK // max(1, mask[:1].size))
    for start in range(0, len(mask), rows):
        places = np.indices((min(rows, len(mask) - start), *mask.shape[1:]), dtype=np.int32)
        places[0] += start
        offsets = (nearest[:, start : start + rows] - places).astype(np.float64)
        offsets *= size.reshape(-1, *(1,) * mask.ndim)
        total[start : start + rows] += np.sqrt(np.square(offsets).sum(0))


def contour_band(
    labels: Integer[np.ndarray, "*space"], width: float, *, spacing: Sequence[float] | None = None
) -> Int[np.ndarray, " n"]:
    """Flat indices of the pixels at most `width` from the contour (see `contour_distance`), some rows at a time.

    Memory is that of a block of rows: what decides lies within the width.
    """
    size = voxel_size(spacing, labels.ndim)
    reach = [int(width / length) + 1 for length in size]
    rows = max(1, BLOCK // max(1, math.prod(labels.shape[1:])))
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(labels), rows):
        stop = min(start + rows, len(labels))
        first = max(0, start - reach[0])
        seen = labels[first : min(len(labels), stop + reach[0])]
        other = seen != seen.reshape(-1)[0]
        if not other.any():
            continue
        box = wider(bounding_box(other), reach, seen.shape)
        near = np.argwhere(contour_distance(seen[box], spacing=size.tolist()) <= width) + [first, *[0] * (labels.ndim - 1)]
        near += [part.start for part in box]
        near = near[(near[:, 0] >= start) & (near[:, 0] < stop)]
        found.append(np.ravel_multi_index(tuple(near.T), labels.shape))
    return np.concatenate(found)


def boundary_band(distance: Float[np.ndarray, "*space"], *, width: float) -> Bool[np.ndarray, "*space"]:
    """Pixels at most `width` from the contour, in the unit of `distance`; empty where there is no contour."""
    return within(distance, width)


def boundary_map(distance: Float[np.ndarray, "*space"], *, sigma: float) -> Float[np.ndarray, "*space"]:
    """The control map exp(-d²/2s²), which knows only the distance to a contour; zero without a contour.

    Raises ValueError unless sigma is positive.
    """
    if not sigma > 0:
        raise ValueError(f"boundary map: expected sigma > 0, got {sigma}")
    return np.exp(-np.square(np.asarray(distance, dtype=np.float64) / sigma) / 2)


def scale_to_unit(values: Real[np.ndarray, "*space"]) -> Float[np.ndarray, "*space"]:
    """Min-max scaling to [0, 1]; NaN everywhere if the map is constant, since no scale can then be told."""
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        return values
    low, high = values.min(), values.max()
    if not high > low:
        return np.full(values.shape, np.nan)
    return (values - low) / (high - low)


def _checked(raters: Integer[np.ndarray, " a *space"], classes: int) -> Integer[np.ndarray, " a *space"]:
    raters = np.asarray(raters)
    if raters.ndim < 2 or raters.shape[0] < 1:
        raise ValueError(f"raters: expected labels of shape [a *space] with a >= 1, got {raters.shape}")
    if raters.size and (raters.min() < -1 or raters.max() >= classes):
        raise ValueError(f"raters: expected labels 0..{classes - 1}, got {raters.min()}..{raters.max()}")
    return raters
