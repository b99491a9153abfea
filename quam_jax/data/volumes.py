"""Image and mask files to arrays with their geometry; maps.py writes arrays back.

Images come as float32 [*space i], intensities as stored: nothing is scaled but by the file's own scl_slope. Large pictures may
be kept in the type that they are stored in.
Masks come as int32 [*space], -1 where nobody rated. NIfTI axes are the file's i, j, k; raster axes are rows, columns. Bad files
are a ValueError of one line that names the file.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Num

from .alignment import align
from .decoding import DEFAULT_LIMIT, decode, is_colour
from .files import SEGMENT_SUFFIX, image_suffix
from .geometry import Geometry
from .mask_settings import NONE, MaskSettings
from .mask_values import look
from .masks import MaskCoding, settle
from .preprocess import IGNORED, LARGE


class Image(NamedTuple):
    """An image as read: `array` holds raw intensities, `sha256` is that of the file's bytes.

    `notes` say what of its files, and of its masks', was not taken as it stands.
    """

    array: Num[np.ndarray, "*space i"]
    geometry: Geometry
    path: Path
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def is_colour(self) -> bool:
        """Whether its channels are red, green and blue."""
        return is_colour(self.geometry, self.array.shape[-1])


def read_image(path: str | Path, *, limit: int = DEFAULT_LIMIT, small_types: bool = False) -> Image:
    """Read an image as float32 [*space i] with its geometry.

    A NIfTI image has the spatial axes of the file less trailing ones of length 1 (kept in the geometry),
    channels from axis 4; a raster one has one channel or three (see rasters.py). With `small_types` large pictures of 8 or 16
    bits stay integers, which take less memory. ValueError for a missing,
    damaged, truncated or misnamed file, more than `limit` values, and NaN or infinity.
    """
    path = Path(path)
    stored = decode(path, limit=limit)
    values = stored.values
    kept = small_types and values.dtype.kind in "ui" and values.dtype.itemsize <= 2 and values.ndim == 3 and values.size > LARGE
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(values, None if kept else np.float32)
    if values.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        bad = array.size - int(np.count_nonzero(finite))
        raise ValueError(f"{path}: {bad:,} of {array.size:,} values are NaN or infinite")
    clear = ("transparency is not looked at: the stored values are taken, also where nothing is shown",)
    return Image(array, stored.geometry, path, stored.sha256, stored.notes + (clear if stored.alpha is not None else ()))


def read_channels(paths: Sequence[str | Path], *, limit: int = DEFAULT_LIMIT, small_types: bool = False) -> Image:
    """Read one image whose channels lie in several files (one path: the same as read_image).

    `path` and `geometry` are those of the first file, on whose grid the others are brought where that is exact; `sha256` is
    taken over the files' digests in order. ValueError as for read_image, and for files whose voxels do not meet.
    """
    images = [read_image(path, limit=limit, small_types=small_types) for path in paths]
    if not images:
        raise ValueError("an image needs at least one file, got none")
    first = images[0]
    if len(images) == 1:
        return first
    arrays, notes = [], [note for image in images for note in image.notes]
    for image in images:
        array, done = align(image.array, image.geometry, first.geometry, where=str(image.path))
        arrays.append(array)
        notes += [f"{image.path.name} was brought to the grid of {first.path.name}: {done}"] if done else []
    digest = hashlib.sha256("".join(image.sha256 for image in images).encode()).hexdigest()
    return first._replace(array=np.concatenate(arrays, axis=-1), sha256=digest, notes=tuple(dict.fromkeys(notes)))


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
    soft edges. Where the file holds the value `ignore` the label is -1, not rated. ValueError for other values, listing
    those found, for voxels that do not meet the image's, and for bad files. Masks of a data set belong together: masks.py decides
    over all of them.
    """
    path = Path(path)
    if values is not None and threshold is not None:
        raise ValueError("give either values or a threshold, not both")
    if values is not None and (len(values) != classes or len(set(values)) != classes):
        raise ValueError(f"values: expected {classes} different ones, got {list(values)}")
    if values is not None:
        table = {float(value): label for label, value in enumerate(values)} | ({} if ignore is None else {float(ignore): IGNORED})
        coding: MaskCoding | None = MaskCoding(classes, table)
    else:
        coding = None if threshold is None else settle([], classes=classes, settings=MaskSettings(threshold=threshold))
    return read_mask(path, coding, classes=classes, like=like, ignore=ignore, limit=limit)[0]


def _alone(ignore: float | None) -> MaskSettings:
    """What is said of a mask that is judged by itself."""
    return MaskSettings(ignore_label=NONE if ignore is None else f"{ignore:g}")


def read_mask(
    path: Path,
    coding: MaskCoding | None,
    *,
    classes: int,
    like: Geometry | None,
    ignore: float | None = None,
    limit: int = DEFAULT_LIMIT,
) -> tuple[Int[np.ndarray, "*space"], list[str]]:
    """The labels of a mask by the coding of its data set, -1 where nobody rated, and what a reader should be told of it.

    Without a coding the file is judged by itself, and `ignore` is not rated. Where a mask lies on another grid than `like` it is
    turned or cut, if that is exact; what a segmentation of 3D Slicer does not reach is background. ValueError as for read_labels.
    """
    stored = decode(path, limit=limit, mask=True)
    if coding is None:
        coding = settle([look(path, stored)], classes=classes, settings=_alone(ignore))
    with np.errstate(invalid="ignore", over="ignore"):
        labels = coding.labels(stored, path)
    notes = [f"mask {path.name}: {note}" for note in stored.notes]
    if like is not None:
        outside = 0 if image_suffix(path) == SEGMENT_SUFFIX else None
        labels, done = align(labels, stored.geometry, like, where=str(path), outside=outside)
        notes += [f"mask {path.name} was brought to the image's grid: {done}"] if done else []
    if stored.segments:
        named = ", ".join(f"{name} is {value}" for value, name in sorted(stored.segments.items()))
        notes.append(f"segments of {path.name}: {named}")
    return np.ascontiguousarray(labels, np.int32), notes
