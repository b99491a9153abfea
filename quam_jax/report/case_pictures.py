"""The pictures and outlines of one case on every plane, within a budget that keeps the page quick."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from . import figures
from .folder import Case
from .layers import Layers, Scales
from .planes import Plane, orthogonal_planes

THUMBS = ((120, 192), (math.inf, 144))  # cases of a page up to which thumbnails have this longer side, in pixels
FEW = 60  # cases of a page whose pictures may be stored without loss
SIDE = 512  # largest side of a picture on the page
LEAST_SIDE = 112
PAGE_PIXELS = 3.2e6  # of one layer over the whole page; about 1.3 bytes each with all layers and base64
VOLUME_DETAIL = (  # slices a plane and largest side, from the finest down
    (96, 256), (64, 256), (48, 256), (32, 256), (32, 192), (24, 160), (16, 128), (12, 96), (8, 64),
)  # fmt: skip


def choose_planes(case: Case, layers: Layers, scales: Scales) -> list[Plane]:
    """One plane for a picture, three for a volume, as fine as the case's share of the page allows."""
    space = layers.space
    share = PAGE_PIXELS / max(scales.pictured, 1)
    if len(space) == 2:
        side = min(SIDE, max(LEAST_SIDE, int(math.sqrt(share)) // 16 * 16))
        return [Plane(None, (0,), 0, 1, block=-(-max(space) // side))]
    image = case.record.get("image")
    stored = image.get("orientation") if isinstance(image, dict) else None
    orientation = stored if isinstance(stored, str) else None
    planes: list[Plane] = []
    for slices, side in VOLUME_DETAIL:
        planes = orthogonal_planes(layers.mass, orientation=orientation, limit=side, slices=slices)
        tiles = [(len(p.slices), space[p.down] / p.block, space[p.across] / p.block) for p in planes]
        if sum(math.prod(tile) for tile in tiles) <= share:
            break
    return planes


def draw_plane(plane: Plane, layers: Layers, scales: Scales, *, limits: tuple[float, float]) -> dict[str, Any]:
    """Pictures, outlines and geometry of a plane, as the script of the page reads them."""
    tall, wide = layers.space[plane.down], layers.space[plane.across]
    columns, rows = figures.sheet_layout(len(plane.slices))
    spacing = layers.spacing
    return {
        "axis": plane.axis,
        "slices": list(plane.slices),
        "columns": columns,
        "rows": rows,
        "height": -(-tall // plane.block),
        "width": -(-wide // plane.block),
        "block": plane.block * layers.factor,
        "down": plane.down,
        "across": plane.across,
        "flip_down": plane.flip_down,
        "flip_across": plane.flip_across,
        "full": [layers.full[plane.down], layers.full[plane.across]],
        "aspect": round(wide * spacing[plane.across] / (tall * spacing[plane.down]), 5),
        "letters": plane.letters,
        "images": _images(plane, layers, scales, limits),
        "contours": _contours(plane, layers),
    }


def first_tile(plane: Plane, mass: Float[np.ndarray, "*space"]) -> int:
    """The tile to show first: the one with the largest epistemic mass."""
    if plane.axis is None:
        return 0
    rest = tuple(a for a in range(3) if a != plane.axis)
    return int(np.argmax(mass.sum(axis=rest)[list(plane.slices)]))


def place_mark(peak: tuple[int, ...], plane: Plane, space: tuple[int, ...]) -> dict[str, Any]:
    """Where on a plane a pixel lies: the tile, and percent from the left and from the top."""
    row, column = peak[plane.down], peak[plane.across]
    tall, wide = space[plane.down], space[plane.across]
    row = tall - 1 - row if plane.flip_down else row
    column = wide - 1 - column if plane.flip_across else column
    tile = 0
    if plane.axis is not None:
        tile = int(np.argmin(np.abs(np.array(plane.slices) - peak[plane.axis])))
    return {
        "tile": tile,
        "left": round(100 * (column + 0.5) / wide, 2),
        "top": round(100 * (row + 0.5) / tall, 2),
    }


def draw_thumbnail(plane: Plane, layers: Layers, scales: Scales, *, limits: tuple[float, float]) -> str:
    """Data URI of the picture on the sheet of cases: the slice of largest epistemic mass, or where flips are cheapest."""
    arrays, space = layers.arrays, layers.space
    tile = first_tile(plane, layers.mass)
    side = next(side for count, side in THUMBS if scales.pictured <= count)
    block = -(-max(space[plane.down], space[plane.across]) // side)
    one = Plane(
        plane.axis, plane.slices[tile : tile + 1], plane.down, plane.across,
        flip_down=plane.flip_down, flip_across=plane.flip_across, block=block,
    )  # fmt: skip
    shape = (-(-space[plane.down] // block), -(-space[plane.across] // block))
    image = np.full(shape, 90, np.uint8)
    if "image" in arrays:
        image = figures.to_bytes(_shrunk(one, arrays["image"])[0], limits)
    levels = np.zeros(shape, np.uint8)
    name = "flipcost" if "flipcost" in arrays else "epistemic"
    if name in arrays:
        levels = figures.map_levels(_shrunk(one, arrays[name], scales.of(name))[0], scales.of(name))
    mask = np.zeros(shape, bool)
    if "segmentation" in arrays:
        mask = figures.shrink_labels(one.tiles(arrays["segmentation"]), block)[0] > 0
    return figures.thumbnail(image, levels, mask, colours=scales.of(name).colours)


def _images(plane: Plane, layers: Layers, scales: Scales, limits: tuple[float, float]) -> dict[str, str]:
    images: dict[str, str] = {}
    if "image" in layers.arrays:
        tiles = figures.to_bytes(_shrunk(plane, layers.arrays["image"]), limits)
        images["image"] = figures.encode_image(figures.make_sheet(tiles), exact=scales.pictured <= FEW)
    for name in layers.maps:
        scale = scales.of(name)
        levels = figures.map_levels(_shrunk(plane, layers.arrays[name], scale), scale)
        images[name] = figures.encode_levels(figures.make_sheet(levels), scale.colours)
    return images


def _contours(plane: Plane, layers: Layers) -> dict[str, list[str]]:
    """Outlines by name, one path a tile; those of all raters are one path."""
    arrays = layers.arrays

    def draw(labels: Integer[np.ndarray, "*space"]) -> list[str]:
        tiles = figures.shrink_labels(plane.tiles(labels), plane.block)
        return [figures.outline(tile) for tile in tiles]

    contours: dict[str, list[str]] = {}
    if "segmentation" in arrays:
        contours["reference"] = draw(arrays["segmentation"])
    for index in range(len(layers.adversarial)):
        contours[f"adversarial{index}"] = draw(arrays["adversarial"][index])
    if "raters" in arrays:
        drawn = [draw(rater) for rater in arrays["raters"]]
        contours["raters"] = ["".join(paths) for paths in zip(*drawn, strict=True)]
    return contours


def _shrunk(plane: Plane, values: np.ndarray, scale: figures.Scale | None = None) -> np.ndarray:
    """Means of blocks; of costs the smallest, as one cheap pixel makes a place fragile."""
    tiles = plane.tiles(values).astype(np.float32)
    if scale is None or not scale.falling or plane.block == 1:
        return figures.shrink(tiles, plane.block)
    for axis in (1, 2):
        tiles = np.fmin.reduceat(tiles, np.arange(0, tiles.shape[axis], plane.block), axis=axis)
    return tiles
