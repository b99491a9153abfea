"""Quality of a segmentation against one or more reference segmentations: overlap, volume and surface figures.

Figures are computed for every structure (a foreground class, or several together), averaged over those that exist (in
either map), and then over the references. Names end with a suffix that says what the references are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, Real

from . import overlap, surface
from .geometry import voxel_size


class SegmentationSettings(NamedTuple):
    """Number of classes, voxel size, tolerance of the surface Dice, and what a structure in neither map gets.

    `structures` says which classes make up each structure; None where every class but 0 is one.
    """

    classes: int
    spacing: Sequence[float] | None = None
    tolerance: float = 1.0
    empty: float = float("nan")
    structures: Bool[np.ndarray, "s c"] | None = None

    @property
    def members(self) -> Bool[np.ndarray, "s c"]:
        """The classes of every structure."""
        return np.eye(self.classes, dtype=bool)[1:] if self.structures is None else self.structures


def segmentation_figures(
    labels: Integer[np.ndarray, "*space"],
    references: Integer[np.ndarray, " a *space"],
    *,
    settings: SegmentationSettings,
    suffix: str,
) -> dict[str, float]:
    """Dice, IoU, volume errors, HD, HD95 (two variants) and surface Dice, averaged over the references.

    Pixels of -1 in a reference are not rated and do not count. With several structures the Dice of each is given too. Distances
    between a mask and an empty mask do not exist; such a pair is left out of the mean over references and the figure is NaN if no
    pair is left.
    """
    tables = [compare_labels(labels, reference, settings=settings) for reference in references]
    row: dict[str, float] = {}
    for figure in tables[0]:
        values = np.stack([table[figure] for table in tables])
        row[f"{figure}_{suffix}"] = mean_of_known([mean_of_known(classes) for classes in values])
        if figure == "dice" and values.shape[1] > 1:
            for number in range(values.shape[1]):
                row[f"dice_{suffix}_class{number + 1}"] = mean_of_known(values[:, number])
    return row


def compare_labels(
    labels: Integer[np.ndarray, "*space"],
    reference: Integer[np.ndarray, "*space"],
    *,
    settings: SegmentationSettings,
) -> dict[str, np.ndarray]:
    """The figures of two maps of classes by name, a value for each structure; `reference` is -1 where it is not rated."""
    spacing, tolerance, empty = settings.spacing, settings.tolerance, settings.empty
    both, first, size = overlap.structure_counts(overlap.confusion(labels, reference, classes=settings.classes), settings.members)
    voxel = voxel_size(spacing, np.ndim(labels)).prod()
    rated = None if np.min(reference, initial=0) >= 0 else reference >= 0
    excess = (first - size).astype(np.float64) if rated is None or rated.any() else np.full(len(size), np.nan)
    # what is not rated is as in the labels: no contour ends there, and borders there are not measured
    whole = reference if rated is None else np.where(rated, reference, labels)
    distances = [
        surface.surface_distances(
            overlap.in_structure(labels, member), overlap.in_structure(whole, member), spacing=spacing, counted=rated
        )
        for member in settings.members
    ]
    return {
        "dice": overlap.ratio(2 * both, first + size, empty=empty),
        "iou": overlap.ratio(both, first + size - both, empty=empty),
        "volume_error": excess * voxel,
        "relative_volume_error": np.where(size > 0, excess / np.maximum(size, 1), np.nan),
        "hd": np.array([surface.hausdorff(one, both_empty=empty) for one in distances]),
        "hd95": np.array([surface.hausdorff95(one, both_empty=empty) for one in distances]),
        "hd95_pooled": np.array([surface.hausdorff95_pooled(one, both_empty=empty) for one in distances]),
        "nsd": np.array([surface.surface_dice(one, tolerance=tolerance, both_empty=empty) for one in distances]),
    }


def mean_of_known(values: Sequence[float] | Real[np.ndarray, " n"]) -> float:
    """Mean of the numbers that exist; NaN if there are none."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if numbers.size else float("nan")
