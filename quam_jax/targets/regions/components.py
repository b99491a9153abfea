"""Connected components of each class."""

import numpy as np
from jaxtyping import Float, Int
from skimage.measure import label

from ...config import TargetConfig
from ..partition import RegionMap

PLACE = 2


def partition(settings: TargetConfig, image: Float[np.ndarray, "*space i"], labels: Int[np.ndarray, "*space"]) -> list[RegionMap]:
    """The parts of every class."""
    return [components(labels)]


def components(labels: Int[np.ndarray, "*space"]) -> RegionMap:
    """Connected components of each class, background included; pixels touch at faces."""
    labels = np.asarray(labels)
    return (label(labels, background=int(labels.min()) - 1, connectivity=1) - 1).astype(np.int32)
