"""A case from its files: the image with what its raters drew on it."""

import numpy as np
from jaxtyping import Int

from .datasets import Case
from .volumes import Image, read_channels, read_labels


def read_case_files(case: Case, *, classes: int, small_types: bool = False) -> tuple[Image, dict[str, Int[np.ndarray, "*space"]]]:
    """The image of a case, and the labels of every rater by name on its grid.

    With `small_types` large pictures stay in the type that they are stored in. ValueError, naming the file, for one that is
    missing or damaged, on another grid, or with labels of other classes.
    """
    image = read_channels(case.files, small_types=small_types)
    return image, {name: read_labels(path, classes=classes, like=image.geometry) for name, path in case.raters.items()}
