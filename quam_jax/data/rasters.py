"""PNG, JPEG, BMP, TIFF, GIF and PNM bytes to arrays of the stored intensities, and maps to PNG.

Pictures are decoded by pillow through the class of the one format that the suffix names, so that a misnamed
file is refused, and the size is compared with the caller's own limit before anything is decoded.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
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
}
_ONE_CHANNEL = ("1", "L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_COLOUR = {"LA": 1, "RGB": 3, "RGBA": 3, "RGBX": 3}  # channels that are kept; the rest is alpha or padding


def decode_raster(raw: bytes, path: Path, *, suffix: str, limit: int) -> tuple[Num[np.ndarray, "h w i"], Geometry]:
    """Stored values [h w i] and geometry of a picture's bytes.

    Grey and 1-bit pictures have one channel (1-bit: 0 and 1), RGB three, alpha is dropped; a palette gives
    its colours, as one channel where all of them are grey. The EXIF orientation is applied, so that the array
    is what viewers and annotators see. ValueError, naming `path`, for a damaged or misnamed file, more than
    `limit` values, several pages or frames, 16-bit colour (pillow would cut it to 8 bits) and other modes.
    """
    picture = _open(raw, path, suffix=suffix, limit=limit)
    if picture.mode == "P":
        table = _palette(picture, path)
        table = table[:, :1] if _is_grey(table) else table
        values = _look_up(np.asarray(picture), table, path)
    else:
        values = _planes(picture, path)
    return values, _geometry(picture, suffix)


def decode_raster_labels(raw: bytes, path: Path, *, suffix: str, limit: int) -> tuple[Num[np.ndarray, "h w"], Geometry]:
    """Stored values [h w] of a mask picture and its geometry; refusals as for images.

    The value is the grey value; in a palette with colours it is the index (as label maps are commonly stored,
    and as this project writes them). An RGB picture is a mask only where its three channels are equal.
    """
    picture = _open(raw, path, suffix=suffix, limit=limit)
    if picture.mode == "P":
        table, indices = _palette(picture, path), np.asarray(picture)
        values = _look_up(indices, table[:, 0], path) if _is_grey(table) else indices
    else:
        planes = _planes(picture, path)
        if not np.array_equal(planes, np.broadcast_to(planes[..., :1], planes.shape)):
            raise ValueError(f"{path}: a mask in colours (mode {picture.mode}); expected grey or a palette")
        values = planes[..., 0]
    return values, _geometry(picture, suffix)


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


def _open(raw: bytes, path: Path, *, suffix: str, limit: int) -> PillowImage.Image:
    """The decoded picture, upright."""
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
            raise ValueError(f"it has {pages} pages; store one page a file")
        _require_exact_depth(picture, suffix)
        picture.load()
        return ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as error:  # pillow's readers raise many types on damaged bytes
        raise ValueError(f"{path}: not a readable {suffix[1:].upper()} picture: {one_line(error)}") from error


def _require_exact_depth(picture: ImageFile.ImageFile, suffix: str) -> None:
    """ValueError where pillow would silently rescale the stored values to another depth."""
    for tile in picture.tile:
        options = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if suffix in (".png", ".tif", ".tiff") and picture.mode in _COLOUR and "16" in str(options[0]):
            raise ValueError("16 bits a channel in colour; store 8-bit colour, or 16-bit grey")
        scaled = tile.codec_name in ("ppm", "ppm_plain") and picture.mode != "1"
        if scaled and options[-1] != (65535 if picture.mode == "I" else 255):
            raise ValueError(f"a PNM file with maximum {options[-1]}; expected 255 or 65535")


def _planes(picture: PillowImage.Image, path: Path) -> np.ndarray:
    values = np.asarray(picture)
    if picture.mode in _ONE_CHANNEL:
        return (values.astype(np.uint8) if picture.mode == "1" else values)[..., None]
    if picture.mode in _COLOUR:
        return values[..., : _COLOUR[picture.mode]]
    raise ValueError(f"{path}: pictures of mode {picture.mode} are not supported; store grey or RGB")


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
