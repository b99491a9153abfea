"""Image and mask files to arrays with their geometry; maps.py writes arrays back.

Images come as float32 [*space i], intensities as stored: nothing is scaled but by the file's own scl_slope. Large pictures may
be kept in the type that they are stored in.
Masks come as int32 [*space]. NIfTI axes are the file's i, j, k; raster axes are rows, columns. Bad files are
a ValueError of one line that names the file.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Num

from .files import IMAGE_SUFFIXES, ITK_SUFFIXES, NIFTI_SUFFIXES, RASTER_SUFFIXES, image_suffix, read_bytes
from .geometry import Geometry, require_same_grid
from .itk import decode_itk
from .nifti import decode_nifti
from .preprocess import LARGE
from .rasters import decode_raster, decode_raster_labels

DEFAULT_LIMIT = 2**29  # values of one file: 2 GiB as float32
_INTEGER_TOLERANCE = 1e-3  # labels stored as scaled or float values
_SHOWN = 8


class Image(NamedTuple):
    """An image as read: `array` holds raw intensities, `sha256` is that of the file's bytes."""

    array: Num[np.ndarray, "*space i"]
    geometry: Geometry
    path: Path
    sha256: str


def read_image(path: str | Path, *, limit: int = DEFAULT_LIMIT, small_types: bool = False) -> Image:
    """Read a NIfTI or raster image as float32 [*space i] with its geometry.

    A NIfTI image has the spatial axes of the file less trailing ones of length 1 (kept in the geometry),
    channels from axis 4; a raster one has one channel or three (see rasters.py). With `small_types` large pictures of 8 or 16
    bits stay integers, which take less memory. ValueError for a missing,
    damaged, truncated or misnamed file, more than `limit` values, and NaN or infinity.
    """
    path = Path(path)
    raw, suffix = _load(path, limit)
    if suffix in ITK_SUFFIXES:
        values, geometry = decode_itk(path, suffix=suffix, limit=limit)
    else:
        decode = decode_nifti if suffix in NIFTI_SUFFIXES else decode_raster
        values, geometry = decode(raw, path, suffix=suffix, limit=limit)
    kept = small_types and values.dtype.kind in "ui" and values.dtype.itemsize <= 2 and values.ndim == 3 and values.size > LARGE
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(values, None if kept else np.float32)
    if values.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        bad = array.size - int(np.count_nonzero(finite))
        raise ValueError(f"{path}: {bad:,} of {array.size:,} values are NaN or infinite")
    return Image(array, geometry, path, hashlib.sha256(raw).hexdigest())


def read_channels(paths: Sequence[str | Path], *, limit: int = DEFAULT_LIMIT, small_types: bool = False) -> Image:
    """Read one image whose channels lie in several files on one grid (one path: the same as read_image).

    `path` and `geometry` are those of the first file; `sha256` is taken over the files' digests in order.
    ValueError as for read_image, and for files on different grids.
    """
    images = [read_image(path, limit=limit, small_types=small_types) for path in paths]
    if not images:
        raise ValueError("an image needs at least one file, got none")
    if len(images) == 1:
        return images[0]
    for image in images[1:]:
        require_same_grid(image.geometry, images[0].geometry, where=str(image.path))
    digest = hashlib.sha256("".join(image.sha256 for image in images).encode()).hexdigest()
    return images[0]._replace(array=np.concatenate([image.array for image in images], axis=-1), sha256=digest)


def read_labels(
    path: str | Path,
    *,
    classes: int,
    like: Geometry | None,
    values: Sequence[float] | None = None,
    threshold: float | None = None,
    ignore: int | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Int[np.ndarray, "*space"]:
    """Read a mask as int32 labels in 0..classes-1, on the grid of `like` where it is given.

    Without more, the file must hold the labels themselves; with two classes also the two values {0, X}, X
    becoming 1 (a mask of 255 alone is all foreground). `values[j]` is the stored value that stands for label
    j. `threshold` (two classes) makes every stored value above it foreground: for masks kept as JPEG or with
    soft edges. Where the file holds the value `ignore` the label is -1, not rated. ValueError for other values, listing those
    found, for another size or affine than the image's, and for bad files.
    """
    path = Path(path)
    if classes < 2:
        raise ValueError(f"classes: expected 2 or more, got {classes}")
    raw, suffix = _load(path, limit)
    stored: np.ndarray
    if suffix not in RASTER_SUFFIXES:
        stored, geometry = (
            decode_itk(path, suffix=suffix, limit=limit)
            if suffix in ITK_SUFFIXES
            else decode_nifti(raw, path, suffix=suffix, limit=limit)
        )
        if stored.shape[-1] != 1:
            raise ValueError(f"{path}: a mask of {stored.shape[-1]} channels; expected one channel of labels")
        stored = stored[..., 0]
    else:
        stored, geometry = decode_raster_labels(raw, path, suffix=suffix, limit=limit)
    if like is not None:
        require_same_grid(geometry, like, where=str(path))
    with np.errstate(invalid="ignore", over="ignore"):
        unrated = None if ignore is None else np.abs(stored - np.float64(ignore)) <= _INTEGER_TOLERANCE
        rated = stored if unrated is None else np.where(unrated, np.zeros((), stored.dtype), stored)
        labels = _assign(rated, classes=classes, values=values, threshold=threshold)
    if labels is None:
        wanted = f"values {list(values)}" if values is not None else _expectation(classes)
        raise ValueError(f"{path}: expected {wanted}, found {_found(stored)}")
    labels = np.ascontiguousarray(labels, np.int32)
    if unrated is not None:
        labels[unrated] = -1
    return labels


def _load(path: Path, limit: int) -> tuple[bytes, str]:
    suffix = image_suffix(path)
    if not suffix:
        raise ValueError(f"{path}: no known image suffix; expected one of {', '.join(IMAGE_SUFFIXES)}")
    # 8 bytes a value is the widest type; compressed or not, no readable file is much larger
    return read_bytes(path, limit=8 * limit + 2**20), suffix


def _assign(stored: np.ndarray, *, classes: int, values: Sequence[float] | None, threshold: float | None) -> np.ndarray | None:
    """Labels for the stored values, None where some value has no label."""
    if values is not None and threshold is not None:
        raise ValueError("give either values or a threshold, not both")
    if threshold is not None:
        if classes != 2:
            raise ValueError(f"a threshold makes two classes, got classes={classes}")
        return None if np.isnan(stored).any() else stored > threshold
    if values is not None:
        if len(values) != classes or len(set(values)) != classes:
            raise ValueError(f"values: expected {classes} different ones, got {list(values)}")
        hits = [np.abs(stored.astype(np.float64) - value) <= _INTEGER_TOLERANCE for value in values]
        covered = np.logical_or.reduce(hits)
        return np.select(hits, range(classes)) if covered.all() else None
    low, high = stored.min(), stored.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < -_INTEGER_TOLERANCE:
        return None
    whole = stored if stored.dtype.kind in "ui" else np.rint(stored)
    exact = whole is stored or np.abs(stored - whole).max() <= _INTEGER_TOLERANCE
    if exact and high <= classes - 1 + _INTEGER_TOLERANCE:
        return whole
    if classes == 2 and (low == 0 or high == 255) and np.all((stored == 0) | (stored == high)):
        return stored == high
    return None


def _expectation(classes: int) -> str:
    return "labels 0 and 1, or 0 and one other value" if classes == 2 else f"labels 0 to {classes - 1}"


def _found(stored: np.ndarray) -> str:
    found = np.unique(stored)
    shown = ", ".join(f"{value:g}" for value in found[:_SHOWN].tolist())
    return shown + (f", ... ({len(found)} values, the largest {found[-1]:g})" if len(found) > _SHOWN else "")
