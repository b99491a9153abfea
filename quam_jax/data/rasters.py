"""PNG, JPEG, BMP, TIFF, GIF, WebP, JPEG 2000 and PNM bytes to arrays of the stored intensities, and maps to PNG.

Pictures are decoded by pillow through the class of the one format that the suffix names, so that a misnamed
file is refused, and the size is compared with the caller's own limit before anything is decoded. Where pillow scales, inverts or
reinterprets the numbers of a file, that is undone: what stands in the file is what arrives.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Num, UInt8
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as PillowImage

from .files import one_line
from .geometry import Geometry

_PNM = PpmImagePlugin.PpmImageFile
_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    ".png": PngImagePlugin.PngImageFile,
    ".jpg": JpegImagePlugin.JpegImageFile,
    ".jpeg": JpegImagePlugin.JpegImageFile,
    ".bmp": BmpImagePlugin.BmpImageFile,
    ".tif": TiffImagePlugin.TiffImageFile,
    ".tiff": TiffImagePlugin.TiffImageFile,
    ".gif": GifImagePlugin.GifImageFile,
    ".ppm": _PNM,
    ".pgm": _PNM,
    ".pbm": _PNM,
    ".webp": WebPImagePlugin.WebPImageFile,
    ".jp2": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
_ONE_CHANNEL = ("1", "L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_COLOUR = {"LA": 1, "RGB": 3, "RGBA": 3, "RGBX": 3}  # channels that are kept; the rest is alpha or padding
_ALPHA = ("LA", "RGBA", "PA")
_SCALES = {2: 85, 4: 17}  # what pillow multiplies greys of so few bits by
_WHITE_IS_ZERO = "WhiteIsZero: the stored values are taken, whose 0 is shown as white"
_UNKNOWN_TYPE = "samples of a type that pillow does not read; store 8- or 16-bit grey, 32-bit float or 8-bit RGB"
_SIZ = b"\xff\x4f\xff\x51"  # the beginning of a JPEG 2000 codestream
_DEPTH = 42  # from there to the depth of the first component


class Picture(NamedTuple):
    """A decoded picture: stored values, their grid, which pixels are shown and how far, and what a reader should be told.

    `alpha` is the opacity, 0 to 255, None where all is opaque. `palette` are the colours that the values of a mask index.
    """

    values: Num[np.ndarray, "h w i"]
    geometry: Geometry
    alpha: UInt8[np.ndarray, "h w"] | None = None
    palette: UInt8[np.ndarray, "n 3"] | None = None
    notes: tuple[str, ...] = ()


def decode_raster(raw: bytes, path: Path, *, suffix: str, limit: int) -> Picture:
    """Stored values [h w i] and geometry of a picture's bytes.

    Grey and 1-bit pictures have one channel (1-bit: 0 and 1), RGB three, alpha is told apart; a palette gives
    its colours, as one channel where all of them are grey. The EXIF orientation is applied, so that the array
    is what viewers and annotators see. ValueError, naming `path`, for a damaged or misnamed file, more than
    `limit` values, several pages or frames, 16-bit colour (pillow would cut it to 8 bits) and other modes.
    """
    picture, notes = _open(raw, path, suffix=suffix, limit=limit)
    alpha = _alpha(picture)
    if picture.mode in ("P", "PA"):
        table = _palette(picture, path)
        table = table[:, :1] if _is_grey(table) else table
        values = _look_up(_indices(picture), table, path)
    else:
        values = _planes(picture, path)
    return Picture(values, _geometry(picture, suffix), alpha, notes=tuple(notes))


def decode_raster_labels(raw: bytes, path: Path, *, suffix: str, limit: int) -> Picture:
    """Stored values [h w 1] of a mask picture, or [h w 3] of one in colours, and its geometry; refusals as for images.

    The value is the grey value, also where three channels are equal; in a palette with colours it is the index (as label maps
    are commonly stored, and as this project writes them), unless some of its colours are transparent beside index 0.
    """
    picture, notes = _open(raw, path, suffix=suffix, limit=limit)
    alpha = _alpha(picture)
    if picture.mode in ("P", "PA"):
        table, indices = _palette(picture, path), _indices(picture)
        drawn = alpha is not None and bool((indices[alpha < 255] != 0).any())
        if not drawn and not _is_grey(table):
            return Picture(indices[..., None], _geometry(picture, suffix), palette=table)
        values = _look_up(indices, table, path)
    else:
        values = _planes(picture, path)
    seen: slice | Bool[np.ndarray, "h w"] = slice(None) if alpha is None else alpha > 0
    shown = values[seen]
    if np.array_equal(shown, np.broadcast_to(shown[..., :1], shown.shape)):
        values = values[..., :1]
    return Picture(values, _geometry(picture, suffix), alpha, notes=tuple(notes))


def encode_png(indices: UInt8[np.ndarray, "h w"], colours: UInt8[np.ndarray, "n 3"], *, title: str, description: str) -> bytes:
    """Bytes of a palette PNG, pixel = index into `colours`; text fields say what is shown in which range."""
    picture = PillowImage.fromarray(np.ascontiguousarray(indices, np.uint8)).convert("L")
    picture.putpalette(np.ascontiguousarray(colours, np.uint8).tobytes())
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", title)
    text.add_text("Description", description)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _open(raw: bytes, path: Path, *, suffix: str, limit: int) -> tuple[PillowImage.Image, list[str]]:
    """The decoded picture, upright, its values as stored, and what there is to tell of them."""
    try:
        if suffix == ".png":
            PngImagePlugin.PngImageFile(io.BytesIO(raw)).verify()  # compares the checksum of every chunk
        picture = _READERS[suffix](io.BytesIO(raw))
        count = picture.width * picture.height * len(picture.getbands())
        if count > limit:
            size = f"{picture.width} x {picture.height} pixels"
            raise ValueError(f"{size}, {count:,} values, are more than the {limit:,} allowed; cut it into parts")
        pages = getattr(picture, "n_frames", 1)
        if pages != 1:
            raise ValueError(f"it has {pages} pages; store one page a file, or the stack as NIfTI")
        _require_exact_depth(picture, suffix, raw)
        stored, notes = _storage(picture, suffix)
        picture.load()
        return _restored(ImageOps.exif_transpose(picture), stored), notes
    except MemoryError:
        raise
    except Exception as error:  # pillow's readers raise many types on damaged bytes
        reason = _UNKNOWN_TYPE if str(error) == "unknown pixel mode" else one_line(error)
        raise ValueError(f"{path}: not a readable {suffix[1:].upper()} picture: {reason}") from error


class _Stored(NamedTuple):
    """How the numbers of a file differ from pillow's: greys multiplied by `scale`, upside down, of a signed or a wider type."""

    scale: int = 1
    inverted: bool = False
    dtype: str = ""


def _storage(picture: ImageFile.ImageFile, suffix: str) -> tuple[_Stored, list[str]]:
    rawmodes = {str((t.args if isinstance(t.args, tuple) else (t.args,))[0]) for t in picture.tile}
    rawmode = next(iter(rawmodes)) if len(rawmodes) == 1 else ""
    if suffix == ".png" and rawmode in ("L;2", "L;4"):
        return _Stored(_SCALES[int(rawmode[2])]), []
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or picture.mode not in _ONE_CHANNEL:
        return _Stored(), []
    tags = picture.tag_v2
    bits, sample = int(tags.get(258, (1,))[0]), int(tags.get(339, (1,))[0])
    white = tags.get(262) == 0
    dtype = {(8, 2): "i1", (32, 1): "u4"}.get((bits, sample), "")
    inverted = white and picture.mode in ("1", "L")  # pillow leaves wider types as they are
    return _Stored(_SCALES.get(bits, 1) if picture.mode == "L" else 1, inverted, dtype), [_WHITE_IS_ZERO] if white else []


def _restored(picture: PillowImage.Image, stored: _Stored) -> PillowImage.Image:
    """The picture with the file's own numbers; those of another type ride along in `info`."""
    if stored == _Stored():
        return picture
    values = np.asarray(picture)
    if stored.inverted:
        values = ~values if values.dtype == bool else 255 - values
    values = values // stored.scale if stored.scale > 1 else values
    picture.info["values"] = values.view(stored.dtype) if stored.dtype else values
    return picture


def _require_exact_depth(picture: ImageFile.ImageFile, suffix: str, raw: bytes) -> None:
    """ValueError where pillow would silently rescale the stored values to another depth."""
    if suffix == ".jp2":
        start = raw.find(_SIZ)
        depth = raw[start + _DEPTH] if 0 <= start < len(raw) - _DEPTH else None
        if depth not in (7, 15):  # one less than the bits; 128 more where they are signed
            raise ValueError("a depth other than 8 or 16 bits without sign; store it as PNG or TIFF")
    for tile in picture.tile:
        options = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if suffix in (".png", ".tif", ".tiff") and picture.mode in _COLOUR and "16" in str(options[0]):
            raise ValueError("16 bits a channel in colour; store 8-bit colour, or 16-bit grey")
        scaled = tile.codec_name in ("ppm", "ppm_plain") and picture.mode != "1"
        if scaled and options[-1] != (65535 if picture.mode == "I" else 255):
            raise ValueError(f"a PNM file with maximum {options[-1]}; expected 255 or 65535")


def _planes(picture: PillowImage.Image, path: Path) -> np.ndarray:
    values = picture.info.get("values")
    values = np.asarray(picture) if values is None else values
    if picture.mode in _ONE_CHANNEL:
        return (values.astype(np.uint8) if values.dtype == bool else values)[..., None]
    if picture.mode in _COLOUR:
        return values[..., : _COLOUR[picture.mode]]
    raise ValueError(f"{path}: pictures of mode {picture.mode} are not supported; store grey or RGB")


def _alpha(picture: PillowImage.Image) -> UInt8[np.ndarray, "h w"] | None:
    """The opacity of every pixel, by an alpha channel or by colours that are transparent; None where all is opaque."""
    clear = picture.info.get("transparency")
    if picture.mode in _ALPHA:
        alpha = np.asarray(picture)[..., -1]
    elif clear is None:
        return None
    elif picture.mode == "P":
        table = np.full(256, 255, np.uint8)
        if isinstance(clear, bytes):
            table[: len(clear)] = np.frombuffer(clear, np.uint8)
        else:
            table[clear] = 0
        alpha = table[np.asarray(picture)]
    else:
        values = picture.info.get("values", np.asarray(picture))
        clear = bool(clear) if picture.mode == "1" else clear  # pillow says 255 of a 1-bit picture
        same = (values == np.asarray(clear)).reshape(*values.shape[:2], -1).all(-1)
        alpha = np.where(same, 0, 255).astype(np.uint8)
    return None if alpha.min() == alpha.max() > 0 else alpha  # the same everywhere says nothing


def _indices(picture: PillowImage.Image) -> UInt8[np.ndarray, "h w"]:
    values = np.asarray(picture)
    return values if values.ndim == 2 else values[..., 0]


def _palette(picture: PillowImage.Image, path: Path) -> np.ndarray:
    flat = picture.getpalette("RGB")
    if not flat:
        raise ValueError(f"{path}: a palette picture without a palette")
    return np.asarray(flat, np.uint8).reshape(-1, 3)


def _is_grey(table: np.ndarray) -> bool:
    return bool((table == table[:, :1]).all())


def _look_up(indices: np.ndarray, table: np.ndarray, path: Path) -> np.ndarray:
    if indices.size and int(indices.max()) >= len(table):
        raise ValueError(f"{path}: index {int(indices.max())} in a palette of {len(table)} colours")
    return table[indices]


def _geometry(picture: PillowImage.Image, suffix: str) -> Geometry:
    size = (picture.height, picture.width)
    return Geometry("raster", size, size, np.eye(4), (1.0, 1.0), suffix, picture.mode)
