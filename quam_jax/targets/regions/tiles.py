"""Square tiles."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ...config import TargetConfig
from ..partition import RegionMap

PLACE = 1


def partition(settings: TargetConfig, image: Float[np.ndarray, "*space i"], labels: Int[np.ndarray, "*space"]) -> list[RegionMap]:
    """Tiles of `region_size` pixels a side."""
    return [tiles(labels.shape, settings.region_size)]


def tiles(shape: Sequence[int], size: int) -> RegionMap:
    """Squares (cubes) of `size` pixels a side, cut off at the far borders."""
    cells = [np.arange(side) // size for side in shape]
    counts = [int(cell[-1]) + 1 for cell in cells]
    return np.ravel_multi_index(np.meshgrid(*cells, indexing="ij"), counts).astype(np.int32)
