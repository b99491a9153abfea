"""Small image files for the tests of reading them, written by nibabel and pillow."""

import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image as PillowImage

FORMATS = (".png", ".jpg", ".bmp", ".tif", ".gif", ".ppm", ".nii", ".nii.gz")
OBLIQUE = np.array(
    [[0.8, -0.3, 0.1, -12.5], [0.35, 1.9, -0.2, 30.25], [-0.1, 0.25, 3.1, 7.0], [0, 0, 0, 1]],
    dtype=np.float64,
)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(array, np.eye(4) if affine is None else affine), path)
    return path


def save_picture(path: Path, array: np.ndarray, **options) -> Path:
    PillowImage.fromarray(array).save(path, **options)
    return path


def ramp(*shape: int, dtype: type = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def png_bytes(values: np.ndarray, *, depth: int, transparent: int | None = None) -> bytes:
    """A grey PNG of so many bits a pixel, packed by hand; the grey of one value may be transparent."""
    height, width = values.shape
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))]
    if transparent is not None:
        chunks.append((b"tRNS", struct.pack(">H", transparent)))
    rows = b"".join(b"\0" + row for row in packed_rows(values, depth, ">"))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff_bytes(values: np.ndarray, *, bits: int, white_is_zero: bool = False, order: str = "<") -> bytes:
    """A grey TIFF of one strip, written by hand; the type of `values` says whether samples are unsigned, signed or real."""
    height, width = values.shape
    sample = {"u": 1, "i": 2, "f": 3, "b": 1}[values.dtype.kind]
    strip = b"".join(packed_rows(values, bits, order))
    strip += b"\0" * (len(strip) % 2)
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 0 if white_is_zero else 1), (273, 4, 8),
            (277, 3, 1), (278, 4, height), (279, 4, len(strip)), (339, 3, sample)]  # fmt: skip
    entries = b""
    for tag, kind, value in tags:
        field = struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
        entries += struct.pack(order + "HHI", tag, kind, 1) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(strip))
    return head + strip + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def packed_rows(values: np.ndarray, bits: int, order: str) -> list[bytes]:
    """The rows of a picture as bytes, several pixels in one below 8 bits, the first in the highest bits."""
    if bits >= 8:
        return [row.astype(row.dtype.newbyteorder(order)).tobytes() for row in values]
    digits = (values[..., None].astype(int) >> np.arange(bits)[::-1]) & 1
    return [np.packbits(row.reshape(-1)).tobytes() for row in digits]
