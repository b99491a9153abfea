"""Any image file to what is stored in it: the format goes by the suffix."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num, UInt8

from .files import (
    IMAGE_SUFFIXES,
    ITK_SUFFIXES,
    MGH_SUFFIXES,
    PAIR_SUFFIXES,
    RASTER_SUFFIXES,
    companions,
    image_suffix,
    read_bytes,
)
from .geometry import Geometry
from .itk import decode_itk
from .mgh import decode_mgh
from .nifti import decode_nifti, decode_pair
from .rasters import decode_raster, decode_raster_labels

DEFAULT_LIMIT = 2**29  # values of one file: 2 GiB as float32


class Decoded(NamedTuple):
    """Stored values and their grid; `sha256` is that of the bytes, with those of companion files.

    Of a mask `palette` are the colours that its values are indices into, and `segments` the names of its values. `alpha` is the
    opacity of every pixel, None where all are opaque. `notes` say what of the file was not taken as it stands.
    """

    values: Num[np.ndarray, "*space i"]
    geometry: Geometry
    sha256: str
    alpha: UInt8[np.ndarray, "h w"] | None = None
    palette: UInt8[np.ndarray, "n 3"] | None = None
    segments: Mapping[int, str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_colour(self) -> bool:
        """Whether the channels are red, green and blue, going by the file's own storage type."""
        return is_colour(self.geometry, self.values.shape[-1])


def is_colour(geometry: Geometry, channels: int) -> bool:
    """Whether so many channels of a file are red, green and blue, going by its storage type."""
    stored = geometry.mode in ("RGB", "RGBA", "RGBX", "P", "PA") if geometry.kind == "raster" else "'R'" in geometry.mode
    return channels == 3 and stored


def decode(path: Path, *, limit: int = DEFAULT_LIMIT, mask: bool = False) -> Decoded:
    """The stored values of an image file, or of a `mask`, where palettes stay indices and segments are layers.

    ValueError, naming `path`, for a missing, damaged, truncated or misnamed file, and more than `limit` values.
    """
    suffix = image_suffix(path)
    if not suffix:
        raise ValueError(f"{path}: no known image suffix; expected one of {', '.join(IMAGE_SUFFIXES)}")
    # 8 bytes a value is the widest type; compressed or not, no readable file is much larger
    most = 8 * limit + 2**20
    raw = read_bytes(path, limit=most)
    digest = hashlib.sha256(raw)
    others = {other: read_bytes(other, limit=most) for other in companions(path)}
    for other in others.values():
        digest.update(other)
    if suffix in RASTER_SUFFIXES:
        picture = (decode_raster_labels if mask else decode_raster)(raw, path, suffix=suffix, limit=limit)
        values, geometry, alpha, palette, notes = picture
        return Decoded(values, geometry, digest.hexdigest(), alpha, palette, None, notes)
    segments = None
    if suffix in ITK_SUFFIXES:
        values, geometry, segments = decode_itk(path, suffix=suffix, limit=limit, mask=mask)
    elif suffix in PAIR_SUFFIXES:
        values, geometry = decode_pair(raw, others, path, suffix=suffix, limit=limit)
    elif suffix in MGH_SUFFIXES:
        values, geometry = decode_mgh(raw, path, suffix=suffix, limit=limit)
    else:
        values, geometry = decode_nifti(raw, path, suffix=suffix, limit=limit)
    return Decoded(values, geometry, digest.hexdigest(), segments=segments)
