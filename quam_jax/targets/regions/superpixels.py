"""Super-pixels."""

import math

import numpy as np
from jaxtyping import Float, Int
from skimage.segmentation import slic

from ...config import TargetConfig
from ..partition import RegionMap, renumbered

PLACE = 4


def partition(settings: TargetConfig, image: Float[np.ndarray, "*space i"], labels: Int[np.ndarray, "*space"]) -> list[RegionMap]:
    """As many super-pixels as there are cubes of `region_size` pixels a side."""
    count = max(1, round(math.prod(labels.shape) / settings.region_size**labels.ndim))
    return [superpixels(image, count, settings.compactness)]


def superpixels(image: Float[np.ndarray, "*space i"], count: int, compactness: float = 1.0) -> RegionMap:
    """About `count` connected regions of similar values: scikit-image's SLIC (Achanta et al. 2012), at most 10 rounds.

    Pixels are clustered by value and place around seeds on a grid. A distance of one grid cell counts as `compactness` standard
    deviations of the image, over all its channels. Pieces smaller than a quarter of a cell join a neighbour. ValueError if
    `count` is not between 1 and the number of pixels, for values that are not finite, and for images of another rank than 2 or 3.
    """
    image = np.asarray(image, np.float64)
    space = image.shape[:-1]
    if not 1 <= count <= math.prod(space):
        raise ValueError(f"superpixels: expected a count from 1 to {math.prod(space)} pixels, got {count}")
    if len(space) not in (2, 3):
        raise ValueError(f"superpixels: expected two or three spatial axes, got {len(space)}")
    if not np.isfinite(image).all():
        raise ValueError(f"superpixels: expected finite values, got {int((~np.isfinite(image)).sum())} that are not")
    # slic scales the values to a range of 1 and takes compactness in that unit
    spread = image.std() / (np.ptp(image) or 1.0)
    regions = slic(
        image,
        n_segments=count,
        compactness=compactness * (spread or 1.0),
        max_num_iter=10,
        convert2lab=False,
        min_size_factor=0.25,
        start_label=0,
        channel_axis=-1,
    )
    return renumbered(regions)
