"""A case from its files: the image with what its raters drew on it."""

import numpy as np
from jaxtyping import Int

from .datasets import Case
from .large import label_type
from .preprocess import LARGE
from .volumes import Image, read_channels, read_labels


def read_case_files(
    case: Case, *, classes: int, ignore: int | None = None, small_types: bool = False
) -> tuple[Image, dict[str, Int[np.ndarray, "*space"]]]:
    """The image of a case, and the labels of every rater by name on its grid, -1 where a mask holds the value `ignore`.

    With `small_types` large pictures stay in the type that they are stored in, and labels have the smallest that holds them.
    ValueError, naming the file, for one that is missing or damaged, on another grid, or with labels of other classes.
    """
    image = read_channels(case.files, small_types=small_types)
    raters = {name: read_labels(path, classes=classes, like=image.geometry, ignore=ignore) for name, path in case.raters.items()}
    if small_types and image.array.ndim == 3 and image.array.size > LARGE:
        raters = {name: labels.astype(label_type(classes)) for name, labels in raters.items()}
    return image, raters
