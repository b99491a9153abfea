"""Segmentations of 3D Slicer (.seg.nrrd): each segment is a value in one layer of the file, which its header names."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Num

_FIELD = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")


class Segment(NamedTuple):
    """A segment: its name, its value, and the layer (channel) in which the value stands for it."""

    name: str
    value: int
    layer: int


def read_segments(header: Mapping[str, str]) -> list[Segment]:
    """The segments that a header describes, in its order; none of a file that is no segmentation."""
    found: dict[int, dict[str, str]] = {}
    for key, text in header.items():
        if field := _FIELD.fullmatch(key):
            found.setdefault(int(field[1]), {})[field[2]] = text.strip()
    return [
        Segment(about.get("Name", f"segment {n}"), _number(about.get("LabelValue", ""), 1), _number(about.get("Layer", ""), 0))
        for n, about in sorted(found.items())
    ]


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdecimal() else otherwise


def flatten_segments(
    layers: Num[np.ndarray, "*space l"], segments: Sequence[Segment], *, where: str
) -> tuple[Num[np.ndarray, "*space 1"], dict[int, str]]:
    """One channel in which every segment has a value of its own, and the name of every value.

    Values are the file's own where no two segments share one, as segments of different layers may; else segments are numbered
    from 1 in the header's order. ValueError, saying `where`, for segments that overlap.
    """
    values = [segment.value for segment in segments]
    own = len(set(values)) == len(values) and 0 not in values
    if own and layers.shape[-1] == 1:
        return layers, {segment.value: segment.name for segment in segments}
    flat = np.zeros((*layers.shape[:-1], 1), np.int32)
    names = {}
    for number, segment in enumerate(segments, start=1):
        if not 0 <= segment.layer < layers.shape[-1]:
            raise ValueError(f"{where}: segment {segment.name!r} lies in layer {segment.layer} of {layers.shape[-1]}")
        inside = layers[..., segment.layer] == segment.value
        if (flat[inside] > 0).any():
            raise ValueError(f"{where}: segment {segment.name!r} overlaps another; expected one label a voxel")
        written = segment.value if own else number
        flat[inside], names[written] = written, segment.name
    return flat, names
