"""From one voxel grid to another by nnU-Net's rules: images by cubic splines, logits linearly, both with half-pixel centres.

Where one axis is much coarser than the others (its spacing more than `ANISOTROPY` times the smallest), the other two are
resampled slice by slice and the coarse one takes the nearest slice. Arrays are `[*space i]` with three spatial axes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import ndimage

ANISOTROPY = 3.0


class Scheme(NamedTuple):
    """How an array is resampled: the order of the spline, the axis taken apart (None: all together) and its order."""

    order: int
    apart: int | None
    order_apart: int


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """The number of voxels of size `target` that covers the same extent, rounded half to even."""
    return tuple(int(round(s / t * n)) for n, s, t in zip(shape, spacing, target, strict=True))


def coarse_axis(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    """The axis that is resampled apart from the others, None where they go together.

    The current spacing decides before the target's; with two coarse axes none is taken apart.
    """
    for sizes in (spacing, target):
        if max(sizes) / min(sizes) > ANISOTROPY:
            coarse = [axis for axis, size in enumerate(sizes) if max(sizes) / size == 1]
            return coarse[0] if len(coarse) == 1 else None
    return None


def resample_image(image: Num[np.ndarray, "*space i"], shape: Sequence[int], scheme: Scheme) -> Float[np.ndarray, "*out i"]:
    """An image on a grid of another shape over the same extent, float32.

    Values beyond the border are those of the border, and a spline does not leave the range of what it interpolates: that
    of the channel, or of the slice where one axis is taken apart.
    """
    shape = tuple(shape)
    if image.shape[:-1] == shape:
        return image.astype(np.float32, copy=False)
    resampled = np.empty((*shape, image.shape[-1]), np.float32)
    for channel in range(image.shape[-1]):
        values = _floats(image[..., channel])
        if scheme.apart is None:
            _spline(values, resampled[..., channel], scheme.order)
            continue
        pieces = np.moveaxis(values, scheme.apart, 0)
        if scheme.order_apart == 0 or len(pieces) == shape[scheme.apart]:
            nearest = _taps(len(pieces), shape[scheme.apart], 0)[0]
            last = -1
            for number, result in zip(nearest, np.moveaxis(resampled[..., channel], scheme.apart, 0), strict=True):
                if number != last:  # a slice may be taken several times, one after the other
                    last, resized = number, np.empty(result.shape, np.float32)
                    _spline(pieces[number], resized, scheme.order)
                result[...] = resized
        else:
            plane = tuple(n for axis, n in enumerate(shape) if axis != scheme.apart)
            slices = np.empty((len(pieces), *plane))
            for piece, result in zip(pieces, slices, strict=True):
                _spline(piece, result, scheme.order)
            resampled[..., channel] = _zoom(np.moveaxis(slices, 0, scheme.apart), np.empty(shape), scheme.order_apart)
    return resampled


def resample_rows(
    array: Num[np.ndarray, "*space c"], shape: Sequence[int], scheme: Scheme, *, rows: slice
) -> Float[np.ndarray, "*rows c"]:
    """Some rows (of the first axis) of an array on a grid of another shape; order 0 or 1.

    A volume of logits is brought to its image's grid slab by slab, so that it never exists there for all classes.
    """
    chosen = range(shape[0])[rows]
    orders = [scheme.order_apart if axis == scheme.apart else scheme.order for axis in range(3)]
    out = np.asarray(array)
    for axis, (n, m, order) in enumerate(zip(array.shape[:-1], shape, orders, strict=True)):
        if n == m:
            out = out[rows] if axis == 0 else out
            continue
        low, high, share = _taps(n, m, order)
        if axis == 0:
            low, high, share = (taps[chosen.start : chosen.stop] for taps in (low, high, share))
        share = share.reshape([-1 if a == axis else 1 for a in range(out.ndim)])
        first = np.take(out, low, axis)
        out = first if order == 0 else first + share * (np.take(out, high, axis) - first)
    return np.asarray(out, np.float32)


def resample_labels(labels: Int[np.ndarray, "*space"], shape: Sequence[int], scheme: Scheme) -> Int[np.ndarray, "*out"]:
    """Labels on a grid of another shape: the label whose linearly resampled indicator is the largest (ties: the smallest)."""
    shape = tuple(shape)
    if labels.shape == shape:
        return labels.astype(np.int32)
    best, most = np.zeros(shape, np.int32), np.full(shape, -1, np.float32)
    for label in np.unique(labels):
        share = resample_rows((labels == label)[..., None].astype(np.float32), shape, scheme, rows=slice(None))[..., 0]
        best, most = np.where(share > most, np.int32(label), best), np.maximum(most, share)
    return best


def _floats(values: Num[np.ndarray, "*space"]) -> Float[np.ndarray, "*space"]:
    """Values that splines of float64 are computed of; float32 is exact in it and takes half as much while it waits."""
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _spline(values: Float[np.ndarray, "*space"], result: Float[np.ndarray, "*out"], order: int) -> None:
    """A spline of float64 within the range of its values, into `result`; in float32 it is the same rounded before or after."""
    if values.shape == result.shape:
        result[...] = values
        return
    _zoom(values, result, order)
    np.clip(result, values.min(), values.max(), out=result)


def _zoom(values: Float[np.ndarray, "*space"], result: Float[np.ndarray, "*out"], order: int) -> Float[np.ndarray, "*out"]:
    factors = [m / n for n, m in zip(values.shape, result.shape, strict=True)]
    return ndimage.zoom(values, factors, output=result, order=order, mode="nearest", grid_mode=True)


def _taps(n: int, m: int, order: int) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The two source cells of every new cell along an axis and the share of the second; order 0: the nearest, twice."""
    centres = np.clip(n / m * (np.arange(m) + 0.5) - 0.5, 0, n - 1)
    low = np.floor(centres + (0.5 if order == 0 else 0)).astype(np.int64)
    return low, np.minimum(low + 1, n - 1), (centres - low).astype(np.float32)
