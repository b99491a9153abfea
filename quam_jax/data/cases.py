"""A case from its files: the image with what its raters drew on it."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from .datasets import Case
from .geometry import Geometry
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


def read_case_files(case: Case, *, classes: int, ignore: int | None = None) -> tuple[Image, dict[str, Int[np.ndarray, "*space"]]]:
    """The image of a case with `read_raters` of it; its notes are those of the masks too."""
    image = read_channels(case.files)
    raters, notes = read_raters(case, image.geometry, classes=classes, ignore=ignore)
    return image._replace(notes=tuple(dict.fromkeys((*image.notes, *notes)))), raters


def read_raters(
    case: Case, grid: Geometry, *, classes: int, ignore: int | None = None, small_types: bool = False
) -> tuple[dict[str, Int[np.ndarray, "*space"]], list[str]]:
    """The labels of every rater by name on the grid of the image, -1 where one did not rate, and notes.

    Without a coding of its masks each is judged by itself, and only the value `ignore` is not rated. With `small_types` the
    labels of large pictures have the smallest type that holds them. ValueError, naming the file, for one that is missing or
    damaged, on another grid, or with labels of other classes.
    """
    raters: dict[str, np.ndarray] = {}
    notes: list[str] = []
    small = small_types and grid.rank == 2 and math.prod(grid.size) > LARGE
    for name, path in case.raters.items():
        labels, told = read_mask(path, case.coding, classes=classes, like=grid, ignore=ignore)
        raters[name] = labels.astype(label_type(classes)) if small else labels
        notes += told
    return raters, notes
