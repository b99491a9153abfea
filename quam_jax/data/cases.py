"""A case from its files: the image with what its raters drew on it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from .datasets import Case
from .large import label_type
from .mask_settings import MaskSettings
from .mask_values import survey
from .masks import MaskCoding, settle
from .preprocess import LARGE
from .volumes import Image, read_channels, read_mask


def settle_masks(cases: Sequence[Case], *, classes: int, settings: MaskSettings, where: object) -> tuple[list[Case], MaskCoding]:
    """The cases with what their masks' values mean, decided over all of them, and that coding; `where` names them in notes.

    ValueError for masks that contradict each other.
    """
    seen = survey(path for case in cases for path in case.raters.values())
    coding = settle(seen, classes=classes, settings=settings, where=str(where))
    return [case._replace(coding=coding) for case in cases], coding


def read_case_files(
    case: Case, *, classes: int, ignore: int | None = None, small_types: bool = False
) -> tuple[Image, dict[str, Int[np.ndarray, "*space"]]]:
    """The image of a case, and the labels of every rater by name on its grid, -1 where one did not rate.

    Without a coding of its masks each is judged by itself, and only the value `ignore` is not rated.

    With `small_types` large pictures stay in the type that they are stored in, and labels have the smallest that holds them.
    ValueError, naming the file, for one that is missing or damaged, on another grid, or with labels of other classes.
    """
    image = read_channels(case.files, small_types=small_types)
    raters, notes = {}, list(image.notes)
    for name, path in case.raters.items():
        raters[name], told = read_mask(path, case.coding, classes=classes, like=image.geometry, ignore=ignore)
        notes += told
    if small_types and image.array.ndim == 3 and image.array.size > LARGE:
        raters = {name: labels.astype(label_type(classes)) for name, labels in raters.items()}
    return image._replace(notes=tuple(dict.fromkeys(notes))), raters
