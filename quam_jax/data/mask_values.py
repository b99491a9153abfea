"""Which values stand in masks: looked at one file at a time, before anybody decides what they mean."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .decoding import DEFAULT_LIMIT, Decoded, decode
from .large import row_blocks
from .mask_settings import hex_colour
from .spread import evenly_spread

MOST_FILES, LEAST_FILES = 1000, 32  # masks that are looked at before the first is used, evenly spread
MOST_NUMBERS = 2**31  # of all of them together, as the first one's size has it
MOST_VALUES = 256  # values of one mask that are kept; what has more is no mask
SHOWN = 8


class MaskValues(NamedTuple):
    """What stands in one mask: its distinct values where it is opaque, of `many` the first, and whether they are 0xrrggbb.

    `clear` says that some of it is transparent, `channels` counts its channels.
    """

    path: Path
    values: tuple[float, ...]
    many: bool = False
    colours: bool = False
    clear: bool = False
    channels: int = 1


def survey(paths: Iterable[Path], *, limit: int = DEFAULT_LIMIT) -> list[MaskValues]:
    """What stands in masks, one file in memory at a time; of many or large ones some, evenly spread.

    Files that cannot be read are passed over here: whoever reads them says so.
    """
    listed = list(dict.fromkeys(paths))
    seen: list[MaskValues] = []
    most = MOST_FILES
    while listed and not seen:
        one, size = _looked_at(listed.pop(0), limit)
        if one is not None:
            seen.append(one)
            most = min(MOST_FILES, max(LEAST_FILES, MOST_NUMBERS // size)) - 1
    for n in evenly_spread(len(listed), most) if listed else ():
        one, _ = _looked_at(listed[n], limit)
        seen += [] if one is None else [one]
    return seen


def _looked_at(path: Path, limit: int) -> tuple[MaskValues | None, int]:
    """What stands in a mask and how many numbers it has; nothing of one that cannot be read."""
    try:
        mask = decode(path, limit=limit, mask=True)
    except (ValueError, OSError):
        return None, 0
    return look(path, mask), mask.values.size


def look(path: Path, mask: Decoded) -> MaskValues:
    """What stands in one mask."""
    channels = mask.values.shape[-1]
    if channels > 1 and not mask.is_colour:
        return MaskValues(path, (), channels=channels)
    values = colours_of(mask) if mask.is_colour else mask.values[..., 0]
    distinct: np.ndarray = np.unique(values[:0])
    for rows in row_blocks(values.shape):  # no sorted copy of a whole volume
        some = values[rows] if mask.alpha is None else values[rows][mask.alpha[rows] > 0]
        distinct = np.union1d(distinct, np.unique(some))
        if len(distinct) > MOST_VALUES:
            break
    kept = tuple(float(value) for value in distinct[:MOST_VALUES])
    return MaskValues(path, kept, len(distinct) > MOST_VALUES, mask.is_colour, mask.alpha is not None)


def colours_of(mask: Decoded) -> Int[np.ndarray, "*space"]:
    """The colours of a mask as 0xrrggbb."""
    values = mask.values
    if mask.palette is not None:
        values = mask.palette[values[..., 0]]
    red, green, blue = (values[..., channel if values.shape[-1] == 3 else 0].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def shown(value: float, *, colours: bool) -> str:
    """A stored value in words."""
    return hex_colour(int(value)) if colours else f"{value:g}"


def found(values: np.ndarray, *, colours: bool = False) -> str:
    """The values of a mask in words, the first of them where there are many."""
    distinct = np.unique(values)
    listed = ", ".join(shown(value, colours=colours) for value in distinct[:SHOWN].tolist())
    if len(distinct) <= SHOWN:
        return listed
    return listed + f", ... ({len(distinct)} values, the largest {shown(distinct[-1].item(), colours=colours)})"
