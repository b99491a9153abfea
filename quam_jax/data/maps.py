"""Maps to files and back: NIfTI under the image's own header, or a PNG with the exact numbers beside it."""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Num, UInt8

from .colours import label_colours, sequential_colours
from .decoding import decode
from .files import one_line, read_bytes, write_atomic
from .geometry import Geometry
from .large import release, row_blocks
from .nifti import encode_nifti
from .rasters import encode_png

Kind = Literal["label", "probability", "uncertainty"]
_UNITS = {"label": "label", "probability": "probability", "uncertainty": "nats"}
_INTENT = {"label": "label", "probability": "estimate", "uncertainty": "estimate"}
_READ_LIMIT = 2**31
SMALL = 8192  # bytes


def write_map(
    stem: str | Path,
    array: Num[np.ndarray, "*space"] | Num[np.ndarray, "*space c"],
    geometry: Geometry,
    *,
    kind: Kind,
    vmax: float | None = None,
    units: str | None = None,
    colours: Sequence[Sequence[int]] | None = None,
) -> list[Path]:
    """Write a map on the grid of an image; returns the files written, the one with the numbers first.

    - NIfTI image: `stem.nii.gz`, float32 (labels uint8, or int16 above 255) under the image's header; a last
      axis of classes becomes axis 4.
    - Raster image: `stem.npz` with `data` and `units`, and `stem.png` to look at, whose pixel is an index
      into its palette: the label itself, or rint(255 * value / vmax). Of class probabilities the last of two
      is shown; of more, each but class 0 in its own `stem_class-K.png`.

    `vmax` is the upper end of the displayed range (default: 1 for probabilities, the largest finite value for
    uncertainties); values are never clipped in the numbers. `units` defaults to nats for uncertainties.
    `colours` are RGB triples 0..255: one a label, or 256 for a map. Files appear whole or not at all, equal
    input gives equal bytes. ValueError for a shape that is not the image's, labels that are not integers in
    0..32767 (raster: 0..255), or a bad range.
    """
    stem, array = Path(stem), np.asarray(array)
    _require_fit(array, geometry, kind=kind, stem=stem)
    values = _as_labels(array, stem) if kind == "label" else array.astype(np.float32, copy=False)
    low, high = _display_range(values, kind=kind, vmax=vmax)
    unit = _UNITS[kind] if units is None else units
    if geometry.kind == "nifti":
        description = f"quam_jax {kind}" + (f" ({unit})" if unit != kind else "")
        content = encode_nifti(values, geometry, intent=_INTENT[kind], description=description, display=(low, high))
        release(array)
        return [write_atomic(_beside(stem, ".nii.gz"), content)]
    table = _colour_table(values, kind=kind, colours=colours, stem=stem)
    written = [write_atomic(_beside(stem, ".npz"), pack_arrays(data=values, units=np.array(unit)))]
    for ending, plane in _planes(values, geometry):
        if kind == "label":
            indices, range_text = plane.astype(np.uint8), "pixel index = label"
        else:
            indices = np.empty(plane.shape, np.uint8)
            for rows in row_blocks(plane.shape):
                with np.errstate(invalid="ignore"):
                    share = np.nan_to_num(np.clip(plane[rows] / high, 0, 1), nan=0.0)
                indices[rows] = np.rint(255 * share)
            range_text = f"0 to {high:.6g} {unit}; pixel index / 255 * {high:.6g}"
        picture = encode_png(indices, table, title=kind, description=range_text)
        written.append(write_atomic(_beside(stem, ending), picture))
    return written


def read_map(stem: str | Path) -> Num[np.ndarray, "..."]:
    """Read back the numbers that write_map stored under `stem`: [*space] or [*space c], NaN allowed."""
    packed = _beside(Path(stem), ".nii.gz")
    return read_map_file(packed if packed.exists() else _beside(Path(stem), ".npz"))[0]


def read_map_file(path: Path) -> tuple[Num[np.ndarray, "..."], Geometry | None]:
    """The numbers of a map file, an image of any kind or an .npz, and their grid; an .npz has none."""
    if path.suffix != ".npz":
        stored = decode(path, limit=_READ_LIMIT)
        values = stored.values[..., 0] if stored.values.shape[-1] == 1 else stored.values
        return np.ascontiguousarray(values), stored.geometry
    raw = read_bytes(path, limit=8 * _READ_LIMIT)
    try:
        _require_size(raw, "data.npy")
        with np.load(io.BytesIO(raw), allow_pickle=False) as stored_arrays:
            values = stored_arrays["data"]
    except Exception as error:
        raise ValueError(f"{path}: not a readable map: {one_line(error)}") from error
    if values.dtype.kind not in "buif" or values.ndim not in (2, 3, 4):
        raise ValueError(f"{path}: expected numbers with 2 to 4 axes in `data`, got {values.dtype} of shape {values.shape}")
    return values, None


def _require_size(raw: bytes, name: str) -> None:
    """Compare what an entry of an archive announces with what it holds, before anything is unpacked or allocated."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, archive.open(name) as entry:
        version = np.lib.format.read_magic(entry)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(entry)
        count, held = math.prod(shape), archive.getinfo(name).file_size - entry.tell()
    if count > _READ_LIMIT:
        raise ValueError(f"{count:,} values are more than the {_READ_LIMIT:,} allowed")
    if count * dtype.itemsize != held:
        raise ValueError(f"announces {count:,} values of {dtype.itemsize} bytes, holds {held:,} bytes")


def pack_arrays(**arrays: np.ndarray) -> bytes:
    """An .npz archive with fixed time stamps; level 1 took half the time of numpy's 6 on a smooth map.

    Small arrays are stored as they are: beginning to compress takes longer than they are worth.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            plain = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, and stored, unless told otherwise
            with archive.open(plain if array.nbytes < SMALL else plain.filename, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return buffer.getvalue()


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)  # with_suffix would cut a name such as case1.5


def _require_fit(array: np.ndarray, geometry: Geometry, *, kind: str, stem: Path) -> None:
    if kind not in _UNITS:
        raise ValueError(f"kind: expected one of {', '.join(_UNITS)}, got {kind!r}")
    per_class = kind == "probability" and array.ndim == geometry.rank + 1 and array.shape[-1] > 0
    if (array.shape[:-1] if per_class else array.shape) != geometry.size:
        raise ValueError(f"{stem}: a {kind} map of shape {array.shape} for an image of size {geometry.size}")


def _as_labels(array: np.ndarray, stem: Path) -> np.ndarray:
    if array.dtype.kind not in "bui" or array.min() < 0 or array.max() > np.iinfo(np.int16).max:
        raise ValueError(f"{stem}: expected integers in 0..32767, got {array.dtype} up to {array.max()}")
    return array.astype(np.uint8 if array.max() <= 255 else np.int16)


def _display_range(values: np.ndarray, *, kind: str, vmax: float | None) -> tuple[float, float]:
    if vmax is None:
        if kind == "label":
            vmax = max(1, int(values.max()))
        elif kind == "probability":
            vmax = 1.0
        else:
            vmax = float(np.max(values, where=np.isfinite(values), initial=0.0)) or 1.0
    if not (np.isfinite(vmax) and vmax > 0):
        raise ValueError(f"vmax: expected a positive number, got {vmax}")
    return 0.0, float(vmax)


def _colour_table(
    values: np.ndarray, *, kind: str, colours: Sequence[Sequence[int]] | None, stem: Path
) -> UInt8[np.ndarray, "n 3"]:
    least = int(values.max()) + 1 if kind == "label" else 256
    if least > 256:
        raise ValueError(f"{stem}: label {least - 1} does not fit a palette picture, which ends at 255")
    if colours is None:
        return label_colours(max(2, least)) if kind == "label" else sequential_colours()
    table = np.asarray(colours)
    if table.ndim != 2 or table.shape[1] != 3 or not least <= len(table) <= 256:
        raise ValueError(f"colours: expected {least} to 256 RGB triples, got shape {table.shape}")
    if table.dtype.kind not in "ui" or table.min() < 0 or table.max() > 255:
        raise ValueError("colours: expected integers in 0..255")
    if kind == "label" and len(table) > 2 and (table == table[:, :1]).all():
        raise ValueError("colours: greys alone would be read back as grey values, not as labels")
    return table.astype(np.uint8)


def _planes(values: np.ndarray, geometry: Geometry) -> list[tuple[str, np.ndarray]]:
    if values.ndim == geometry.rank:
        return [(".png", values)]
    if values.shape[-1] <= 2:
        return [(".png", values[..., -1])]
    return [(f"_class-{k}.png", values[..., k]) for k in range(1, values.shape[-1])]
