"""NIfTI-1 and NIfTI-2 bytes to an array with its geometry, and a map back to bytes under the copied header.

The header is parsed by nibabel and kept as it is; the voxels are taken from the bytes directly, so that a
file is read once, a compressed bomb is refused before it is inflated, and the stream's checksum is verified.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Num
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from .files import one_line
from .geometry import MILLIMETRES, Geometry

_GZIP_MAGIC = b"\x1f\x8b"


def decode_nifti(raw: bytes, path: Path, *, suffix: str, limit: int) -> tuple[Num[np.ndarray, "*space i"], Geometry]:
    """Values [*space i] and geometry of a NIfTI file's bytes.

    Values keep the stored type unless the header scales them (scl_slope, scl_inter; then float32). A fourth
    axis, or a fifth behind a fourth of length 1, holds channels; RGB voxels are three channels. ValueError,
    naming `path`, for anything that is not such a file, for more than `limit` values, and for a truncated or
    damaged stream.
    """
    packed = suffix == ".nii.gz"
    if packed != raw.startswith(_GZIP_MAGIC):
        state = "not gzip-compressed" if packed else "gzip-compressed"
        raise ValueError(f"{path}: the name ends in {suffix} but the content is {state}")
    try:
        header = _parse_header(inflate(raw[:65536], 1024, whole=False) if packed else raw[:1024], b"n+1", b"n+2")
        return _decode(raw, header, packed=packed, least=int(header["sizeof_hdr"]) + 4, suffix=suffix, limit=limit)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged header trips over is the file's fault
        raise ValueError(f"{path}: not a readable NIfTI file: {one_line(error)}") from error


def decode_pair(
    raw: bytes, others: Mapping[Path, bytes], path: Path, *, suffix: str, limit: int
) -> tuple[Num[np.ndarray, "*space i"], Geometry]:
    """The same of a .hdr/.img pair, of which `path` is one half and `others` the other; ValueError where there is none."""
    if not others:
        missing = ".hdr" if suffix == ".img" else ".img"
        raise ValueError(f"{path}: half of a .hdr/.img pair; expected {path.stem}{missing} beside it")
    (other,) = others.values()
    head, voxels = (raw, other) if suffix == ".hdr" else (other, raw)
    try:
        header = _parse_header(head[:1024], b"ni1", b"ni2")
        return _decode(voxels, header, packed=False, least=0, suffix=suffix, limit=limit)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a readable NIfTI pair: {one_line(error)}") from error


def _decode(
    raw: bytes, header: Nifti1Header, *, packed: bool, least: int, suffix: str, limit: int
) -> tuple[Num[np.ndarray, "*space i"], Geometry]:
    dtype, stored, space, shape = _layout(header)
    count = int(np.prod(stored, dtype=object))
    if count * (len(dtype.names or ()) or 1) > limit:
        raise ValueError(f"{count:,} values ({stored}) are more than the {limit:,} allowed")
    offset = _offset(header, least)
    end = offset + count * dtype.itemsize
    content = inflate(raw, end, whole=True) if packed else raw
    if len(content) < end:
        raise ValueError(f"truncated: {len(content):,} of {end:,} bytes")
    values = np.frombuffer(content, dtype, count, offset).reshape(stored, order="F")
    affine, spacing = _grid(header, len(space))
    values = _split_colours(values) if dtype.names else values
    values = _scale(values, header).reshape(*space, -1, order="F")
    return values, Geometry("nifti", space, shape, affine, spacing, suffix, str(dtype), header)


def encode_nifti(
    values: Num[np.ndarray, "..."],
    geometry: Geometry,
    *,
    packed: bool = True,
    intent: str,
    description: str,
    display: tuple[float, float],
) -> bytes:
    """Bytes of a single-file NIfTI whose header is that of `geometry`, with the data fields set for `values`.

    `values` [*space] or [*space c] gets the file's rank back (trailing axes of length 1; classes on axis 4).
    sform, qform, both codes, pixdim, dim_info and units are copied; scl_slope is 1; `display` fills cal_min
    and cal_max; free-text fields of the source, which may name a patient, are not kept. Equal input gives
    equal bytes.
    """
    if geometry.header is None:
        raise ValueError("a NIfTI map needs the geometry of a NIfTI image")
    header = geometry.header.as_byteswapped("<")
    if values.ndim == geometry.rank:
        shape = geometry.shape
    else:
        shape = (*geometry.shape, 1)[:3] + values.shape[-1:]
        header["pixdim"][4] = 1
        if len(geometry.shape) == 2 and not header["pixdim"][3] > 0:
            header["pixdim"][3] = 1  # a 2-D file may leave it 0, which a 4-D one must not
    header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    header.set_data_dtype(values.dtype.newbyteorder("<"))
    second = isinstance(header, Nifti2Header)
    header["vox_offset"] = 544 if second else 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"], header["cal_max"] = display
    header.set_intent(intent)
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header["aux_file"] = b""
    for text in {"db_name", "data_type"} & set(header.keys()):
        header[text] = b""
    # level 1 took .22 s where 6 took .54 s on a smooth 8 MB map, and came out no larger; labels gain from 4
    stream = zlib.compressobj(1 if values.dtype.kind == "f" else 4, zlib.DEFLATED, 31) if packed else None  # without a date
    parts = [header.binaryblock + bytes(4)]
    if stream is not None:
        parts = [stream.compress(parts[0])]
    for index in range(values.shape[-1]):  # the last axis changes slowest, so that a map is never held as bytes as a whole
        body = values[..., index].astype(values.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
        parts.append(body if stream is None else stream.compress(body))
    return b"".join([*parts, *([] if stream is None else [stream.flush()])])


def _parse_header(head: bytes, *magics: bytes) -> Nifti1Header:
    """The header, which has one of two magics: that of NIfTI-1, that of NIfTI-2."""
    for kind, size, wanted in ((Nifti1Header, 348, magics[0]), (Nifti2Header, 540, magics[1])):
        for mark in ("<", ">"):
            if len(head) < size or head[:4] != size.to_bytes(4, "little" if mark == "<" else "big"):
                continue
            header = kind(head[:size], endianness=mark, check=False)
            magic = bytes(header["magic"].item())
            if magic in (b"ni1", b"ni2") and magic != wanted:
                raise ValueError("it is half of a .hdr/.img pair; store it as one .nii file")
            if magic != wanted:
                raise ValueError("the header has no NIfTI magic (an ANALYZE file, which does not say left from right?)")
            return header
    raise ValueError("the content does not begin with a NIfTI header")


def _layout(header: Nifti1Header) -> tuple[np.dtype, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Type, stored axes, spatial axes of the array and axes of one channel in the file."""
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise ValueError(f"the header announces {rank} axes")
    stored = tuple(int(n) for n in header["dim"][1 : rank + 1])
    if min(stored) < 1:
        raise ValueError(f"the header announces an empty axis: {stored}")
    dtype = header.get_data_dtype()
    if dtype.kind not in "uif" and not dtype.names:
        raise ValueError(f"voxels of type {dtype} are not supported")
    axes = stored
    while len(axes) > 2 and axes[-1] == 1:
        axes = axes[:-1]
    if len(axes) == 5 and axes[3] == 1:
        axes = axes[:3] + axes[4:]
    if not 2 <= len(axes) <= 4:
        raise ValueError(f"axes {stored}: expected 2 or 3 spatial axes and at most one of channels")
    if len(axes) < 4:
        return dtype, stored, axes, stored
    if dtype.names:
        raise ValueError("RGB voxels and a channel axis in one file")
    return dtype, stored, axes[:2] if axes[2] == 1 else axes[:3], axes[:3]


def _offset(header: Nifti1Header, least: int) -> int:
    offset = float(header["vox_offset"])
    if not least <= offset < 2**40 or offset != int(offset):
        raise ValueError(f"the header puts the voxels at byte {offset:g}, expected {least} or more")
    return int(offset)


def _grid(header: Nifti1Header, rank: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """Affine in millimetres (sform before qform before pixdim, as nibabel chooses) and spacing."""
    trial = header.copy()
    if trial["pixdim"][0] not in (-1, 1):
        trial["pixdim"][0] = 1  # written as 0 by many tools; the standard reads that as 1
    if trial["sform_code"] <= 0 and trial["qform_code"] <= 0:
        if not np.all(np.isfinite(trial["pixdim"][1:4])):
            raise ValueError("the voxel spacing is not finite")
        affine = np.asarray(trial.get_base_affine(), np.float64)
    else:
        affine = np.asarray(trial.get_best_affine(), np.float64)
    factor = MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    affine = np.diag([factor, factor, factor, 1.0]) @ affine
    used = affine[:3, [*range(rank), 3]]
    spacing = tuple(float(s) for s in np.sqrt((affine[:3, :rank] ** 2).sum(axis=0)))
    if not np.all(np.isfinite(used)) or min(spacing) <= 0:
        raise ValueError(f"the affine gives a voxel spacing of {spacing}")
    return affine, spacing


def _split_colours(values: np.ndarray) -> np.ndarray:
    return np.stack([values[name] for name in ("R", "G", "B")], axis=-1)


def _scale(values: np.ndarray, header: Nifti1Header) -> np.ndarray:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return values  # by the standard 0 means "not scaled"; NaN is nibabel's way to write the same
    if not (np.isfinite(slope) and np.isfinite(inter)):
        raise ValueError(f"scl_slope {slope} with scl_inter {inter}")
    if (slope, inter) == (1, 0):
        return values
    scaled = np.empty(values.shape, np.float32, order="F")
    with np.errstate(over="ignore", invalid="ignore"):
        for index in range(values.shape[-1]):  # by slabs, so that float64 is never held for a whole volume
            scaled[..., index] = values[..., index] * np.float64(slope) + np.float64(inter)
    return scaled


def inflate(raw: bytes, size: int, *, whole: bool) -> bytes:
    """The first `size` bytes of a gzip stream of one or more members; never inflates much more than that.

    With `whole` the end of the stream is looked at too, which makes zlib compare the checksum.
    """
    parts, left, data = [], size, raw
    while left > 0 and data:
        stream = zlib.decompressobj(31)
        part = stream.decompress(data, left)
        parts.append(part)
        left -= len(part)
        if not stream.eof and left == 0 and whole:
            stream.decompress(stream.unconsumed_tail, 65536)
            if not stream.eof and not stream.unconsumed_tail:
                raise ValueError("truncated: the gzip stream has no end")
        if not stream.eof:
            break
        data = stream.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)  # joining would hold a large file twice
