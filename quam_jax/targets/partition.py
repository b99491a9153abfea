"""Partitions of an image into regions, and the targets that they make.

A partition is a region map: the number of its region for every pixel, from 0 in the order in which regions first appear, and
-1 in none. `regions/` holds the kinds, a file each. All functions are deterministic and take images of any spatial rank.
"""

import importlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ..config import TargetConfig
from ..core.types import Targets
from .masks import ranked_classes

RegionMap = Int[np.ndarray, "*space"]


def region_maps(
    settings: TargetConfig, image: Float[np.ndarray, "*space i"], labels: Int[np.ndarray, "*space"]
) -> list[RegionMap]:
    """The partitions that the settings ask for, by the name of a file in `regions/`: one, or one a level of a pyramid."""
    return importlib.import_module(f".regions.{settings.regions}", __package__).partition(settings, image, labels)


def region_targets(
    maps: Sequence[RegionMap],
    labels: Int[np.ndarray, "*space"],
    wanted: Sequence[Int[np.ndarray, "*space"]],
    *,
    probs: Float[np.ndarray, "*space c"],
    members: int,
) -> Targets:
    """One target a region, of the first map's regions first; its members want the given masks in turn, inside the region.

    Where a mask asks for nothing new in a region (it equals `labels` there), the member wants the most probable other class
    of each pixel instead, so every member asks for a change. Regions are padded to the longest by repeating their first
    point with weight 0; the other weights are 1/size. Maps without any region give no target (t = 0). ValueError for a map
    of another shape.
    """
    labels = np.asarray(labels)
    for region_map in maps:
        if region_map.shape != labels.shape:
            raise ValueError(f"region map: expected the shape of the labels {labels.shape}, got {region_map.shape}")
    return part_targets(
        [part for region_map in maps for part in region_points(region_map)], labels, wanted, probs=probs, members=members
    )


def part_targets(
    parts: Sequence[Int[np.ndarray, " _"]],
    labels: Int[np.ndarray, "*space"],
    wanted: Sequence[Int[np.ndarray, "*space"]],
    *,
    probs: Float[np.ndarray, "*space c"],
    members: int,
    length: int = 0,
) -> Targets:
    """`region_targets` of regions given by their pixels as flat indices; `length` is what they are padded to (0: the longest)."""
    present, flat = labels.reshape(-1), np.asarray(probs).reshape(-1, probs.shape[-1])
    sizes = np.array([len(part) for part in parts], int)
    column = np.arange(length or max(sizes, default=1))
    inside = column < sizes[:, None]
    starts = np.cumsum(sizes) - sizes
    joined = np.concatenate([*parts, np.zeros(0, int)])
    points = joined[starts[:, None] + np.where(inside, column, 0)]
    first, second = np.moveaxis(ranked_classes(flat[points])[..., :2], -1, 0)
    other = np.where(first == present[points], second, first)
    asked = np.stack([np.asarray(wanted[m % len(wanted)]).reshape(-1)[points] for m in range(members)], 1)
    nothing_new = np.all(asked == present[points][:, None], -1, keepdims=True)
    labels_wanted = np.where(nothing_new, other[:, None], asked).astype(np.int32)
    weights = (inside / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    return Targets(points.astype(np.int32), labels_wanted, weights)  # type: ignore[arg-type]  # NumPy: nothing to compile for a shape


def region_points(region_map: RegionMap) -> list[Int[np.ndarray, " _"]]:
    """Flat indices of the pixels of every region, in order."""
    flat = region_map.reshape(-1)
    order = np.argsort(flat, kind="stable")
    numbers, starts = np.unique(flat[order], return_index=True)
    return [part for number, part in zip(numbers, np.split(order, starts[1:]), strict=True) if number >= 0]


def renumbered(regions: Int[np.ndarray, "*space"]) -> RegionMap:
    """The same regions with numbers from 0 in the order of their first pixels; -1 stays."""
    numbers, first, inverse = np.unique(regions.reshape(-1), return_index=True, return_inverse=True)
    new = np.full(len(numbers), -1, np.int32)
    kept = np.flatnonzero(numbers >= 0)
    new[kept[np.argsort(first[kept])]] = np.arange(len(kept))
    return new[inverse.reshape(-1)].reshape(regions.shape)
