"""Arrays to small pictures: palette PNGs of maps, pictures of images, and outlines of masks as paths.

A map becomes ONE palette PNG whose index is the value on a fixed scale, so that the page can lay it over the
image with any opacity and read the value back. Volumes become one sheet of tiles a plane. Pictures larger
than the limit are averaged in whole blocks of pixels; labels take the pixel in the middle of the block.
"""

import base64
import io
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, Num, UInt8
from PIL import Image as PillowImage

LEVELS = 128  # steps of a colour scale; index LEVELS marks NaN
TINY = 160  # pixels of the longer side up to which pictures are stored exactly, where a page has few
FADE = 0.12  # share of the scale over which colours fade in: the image shows where a map is near 0
LOWEST = 0.15  # of a falling scale: the place of its largest cost
NOT_A_NUMBER = (148, 148, 148, 200)


class Scale(NamedTuple):
    """A fixed colour scale from 0 to `high` nats; a `falling` one has its brightest colour at 0, for costs."""

    high: float
    colours: str  # name of a perceptually uniform matplotlib colour map
    falling: bool = False


def round_up(value: float) -> float:
    """The next number of two digits that is not smaller; 0 for what is not positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.6g}")


@cache
def colour_table(colours: str) -> UInt8[np.ndarray, "levels 4"]:
    """RGBA of every level of a colour map and, last, of NaN; the lowest levels fade in from transparent."""
    import matplotlib  # here, because importing it takes longer than writing a small report

    place = np.linspace(0, 1, LEVELS)
    table = np.rint(255 * matplotlib.colormaps[colours](place)).astype(np.uint8)
    table[:, 3] = np.rint(255 * np.clip(place / FADE, 0, 1))
    table = np.concatenate([table, np.array([NOT_A_NUMBER], np.uint8)])
    table.setflags(write=False)
    return table


def map_share(values: Float[np.ndarray, "..."], scale: Scale) -> Float[np.ndarray, "..."]:
    """Where on a colour scale values lie, from 0 to 1, clipped at both ends; NaN for NaN.

    On a falling scale costs from `high` down to 0 take the places LOWEST to 1, so that the dearest is still seen; a cost that is
    infinite (nothing flipped) or NaN (nobody asked) has place 0, which is transparent.
    """
    with np.errstate(invalid="ignore"):
        place = np.clip(values / scale.high if scale.high > 0 else np.zeros_like(values), 0, 1)
        if scale.falling:
            return np.where(np.isfinite(values), 1 - (1 - LOWEST) * place, 0.0)
        return np.where(np.isnan(values), np.nan, place)


def map_levels(values: Float[np.ndarray, "..."], scale: Scale) -> UInt8[np.ndarray, "..."]:
    """Levels 0 to LEVELS-1 along a colour scale; LEVELS for NaN."""
    place = map_share(values, scale)
    return np.where(np.isnan(place), LEVELS, np.rint(np.nan_to_num(place) * (LEVELS - 1))).astype(np.uint8)


def encode_levels(levels: UInt8[np.ndarray, "h w"], colours: str) -> str:
    """Data URI of a palette PNG of levels."""
    table = colour_table(colours)
    picture = PillowImage.frombytes("P", (levels.shape[1], levels.shape[0]), np.ascontiguousarray(levels).tobytes())
    picture.putpalette(table[:, :3].tobytes())
    return _data_uri(picture, "PNG", transparency=table[:, 3].tobytes())


def encode_image(values: UInt8[np.ndarray, "h w *c"], *, exact: bool = True) -> str:
    """Data URI of a PNG, or of a JPEG (quality 85) where that saves a third and the picture is not tiny, or not to be `exact`."""
    size = (values.shape[1], values.shape[0])
    picture = PillowImage.frombytes("L" if values.ndim == 2 else "RGB", size, np.ascontiguousarray(values).tobytes())
    stored = _data_uri(picture, "PNG")
    if exact and max(size) < TINY:
        return stored
    lossy = _data_uri(picture, "JPEG", quality=85, subsampling=0)
    return lossy if 3 * len(lossy) < 2 * len(stored) else stored


def display_range(image: Num[np.ndarray, "..."], *, colour: bool) -> tuple[float, float]:
    """Intensities shown as black and white: those of 8-bit or unit colours, else 0.5 and 99.5 percentiles."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    if colour and finite.min() >= 0 and finite.max() <= 255:
        return 0.0, 1.0 if finite.max() <= 1 else 255.0
    low, high = (float(v) for v in np.percentile(finite, [0.5, 99.5]))
    return (low, high) if high > low else (float(finite.min()), max(float(finite.max()), float(finite.min()) + 1e-6))


def to_bytes(image: Num[np.ndarray, "..."], limits: tuple[float, float]) -> UInt8[np.ndarray, "..."]:
    """Intensities between the two limits as 0 to 255; what is not finite becomes black."""
    low, high = limits
    return np.rint(255 * np.clip(np.nan_to_num((image - low) / (high - low)), 0, 1)).astype(np.uint8)


def shrink(tiles: Float[np.ndarray, "n h w ..."], block: int) -> Float[np.ndarray, "n hb wb ..."]:
    """Means over blocks of block x block pixels; blocks at the far edges hold what is left."""
    if block == 1:
        return tiles
    n, tall, wide = tiles.shape[:3]
    high, broad = -(-tall // block), -(-wide // block)
    missing = [(0, 0), (0, high * block - tall), (0, broad * block - wide), *[(0, 0)] * (tiles.ndim - 3)]
    full = np.pad(tiles, missing).reshape(n, high, block, broad, block, *tiles.shape[3:])
    heights = np.minimum(block, tall - block * np.arange(high))
    widths = np.minimum(block, wide - block * np.arange(broad))
    counts = np.outer(heights, widths).reshape(1, high, broad, *[1] * (tiles.ndim - 3))
    return (full.sum(axis=(2, 4), dtype=np.float64) / counts).astype(np.float32)


def shrink_labels(tiles: Integer[np.ndarray, "n h w"], block: int) -> Integer[np.ndarray, "n hb wb"]:
    """The label in the middle of every block."""
    if block == 1:
        return tiles
    middles = [np.minimum(np.arange(0, size, block) + block // 2, size - 1) for size in tiles.shape[1:3]]
    return tiles[:, middles[0]][:, :, middles[1]]


def sheet_layout(count: int) -> tuple[int, int]:
    """Columns and rows of a sheet of tiles."""
    columns = int(np.ceil(np.sqrt(count)))
    return columns, int(np.ceil(count / columns))


def make_sheet(tiles: Num[np.ndarray, "n h w ..."]) -> Num[np.ndarray, "rows columns ..."]:
    """All tiles in one picture, row by row."""
    columns, rows = sheet_layout(len(tiles))
    n, h, w = tiles.shape[:3]
    full = np.zeros((rows * columns, *tiles.shape[1:]), tiles.dtype)
    full[:n] = tiles
    grid = full.reshape(rows, columns, h, w, *tiles.shape[3:])
    return np.swapaxes(grid, 1, 2).reshape(rows * h, columns * w, *tiles.shape[3:])


def outline(labels: Integer[np.ndarray, "h w"]) -> str:
    """SVG path along the pixel edges of every label above 0; one unit a pixel, outlines and holes closed."""
    return "".join(_outline(labels == label) for label in range(1, int(labels.max(initial=0)) + 1))


def _outline(mask: Bool[np.ndarray, "h w"]) -> str:
    # Directed edges with the inside on their right: 0 right, 1 down, 2 left, 3 up (rows grow downwards).
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    starts: dict[tuple[int, int], list[int]] = {}
    sides = (  # direction, the neighbour across the edge, and where the edge of pixel (row, column) starts
        (0, padded[:-2, 1:-1], 0, 0),
        (1, padded[1:-1, 2:], 0, 1),
        (2, padded[2:, 1:-1], 1, 1),
        (3, padded[1:-1, :-2], 1, 0),
    )
    for direction, neighbour, down, across in sides:
        for row, column in np.argwhere(inner & ~neighbour).tolist():
            starts.setdefault((row + down, column + across), []).append(direction)
    parts = []
    while starts:
        first = vertex = next(iter(starts))
        direction = starts[vertex][0]
        path, run = [f"M{vertex[1]} {vertex[0]}"], 0
        heading = direction
        while True:
            choices = starts[vertex]
            # Where two pixels touch at a corner, turning right stays on the same pixel.
            step = choices[0] if len(choices) == 1 else (heading + 1) % 4
            step = step if step in choices else choices[0]
            choices.remove(step)
            if not choices:
                del starts[vertex]
            if step != heading and run:
                path.append(_stroke(heading, run))
                run = 0
            heading, run = step, run + 1
            vertex = (vertex[0] + (0, 1, 0, -1)[step], vertex[1] + (1, 0, -1, 0)[step])
            if vertex == first and (vertex not in starts or (step + 1) % 4 not in starts[vertex]):
                break
        parts.append("".join(path) + "z")
    return "".join(parts)


def _stroke(direction: int, length: int) -> str:
    return f"{'hvhv'[direction]}{length if direction < 2 else -length}"


def thumbnail(
    image: UInt8[np.ndarray, "h w *c"],
    levels: UInt8[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    colours: str,
) -> str:
    """Data URI of a small WebP picture: the image, a map over it, the inner border of the mask in white."""
    table = colour_table(colours)[levels].astype(np.float32)
    base = (image[..., None] if image.ndim == 2 else image).astype(np.float32)
    alpha = 0.8 * table[..., 3:] / 255
    mixed = base * (1 - alpha) + table[..., :3] * alpha
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    mixed[mask & ~inside] = 255
    picture = PillowImage.frombytes("RGB", (levels.shape[1], levels.shape[0]), np.rint(mixed).astype(np.uint8).tobytes())
    return _data_uri(picture, "WEBP", quality=82)


def _data_uri(picture: PillowImage.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def gradient(colours: str, *, falling: bool = False) -> Sequence[tuple[float, str]]:
    """Stops (place 0 to 1, CSS colour) of a colour scale, for the bar beside a picture."""
    table = colour_table(colours)[:LEVELS]
    picks = np.unique(np.linspace(0, LEVELS - 1, 17).round().astype(int))
    if falling:
        table = table[np.rint(np.linspace(1, LOWEST, LEVELS) * (LEVELS - 1)).astype(int)]
    return [
        (i / (LEVELS - 1), f"rgba({r},{g},{b},{a / 255:.2f})")
        for i, (r, g, b, a) in zip(picks, table[picks].tolist(), strict=True)
    ]
