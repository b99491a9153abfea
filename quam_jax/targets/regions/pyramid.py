"""Tiles of several sizes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ...config import TargetConfig
from ..partition import RegionMap
from .tiles import tiles

PLACE = 5


def partition(settings: TargetConfig, image: Float[np.ndarray, "*space i"], labels: Int[np.ndarray, "*space"]) -> list[RegionMap]:
    """`pyramid_levels` sizes of tiles, from `region_size` on, each twice the one before."""
    return pyramid(labels.shape, [settings.region_size * 2**level for level in range(settings.pyramid_levels)])


def pyramid(shape: Sequence[int], sizes: Sequence[int]) -> list[RegionMap]:
    """Tiles of several sizes; every pixel lies in one tile of each."""
    return [tiles(shape, size) for size in sizes]
