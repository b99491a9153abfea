"""Quality of a segmentation against one or more reference segmentations: overlap, volume and surface figures.

Figures are computed for every foreground class, averaged over the classes that exist (in either map), and
then over the references. Names end with a suffix that says what the references are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Real

from . import overlap, surface
from .geometry import voxel_size


class SegmentationSettings(NamedTuple):
    """Number of classes, voxel size, tolerance of the surface Dice, and what a class in neither map gets."""

    classes: int
    spacing: Sequence[float] | None = None
    tolerance: float = 1.0
    empty: float = float("nan")


def segmentation_figures(
    labels: Integer[np.ndarray, "*space"],
    references: Integer[np.ndarray, " a *space"],
    *,
    settings: SegmentationSettings,
    suffix: str,
) -> dict[str, float]:
    """Dice, IoU, volume errors, HD, HD95 (two variants) and surface Dice, averaged over the references.

    With more than two classes the Dice of every foreground class is given too. Distances between a mask and
    an empty mask do not exist; such a pair is left out of the mean over references and the figure is NaN if
    no pair is left.
    """
    tables = [compare_labels(labels, reference, settings=settings) for reference in references]
    row: dict[str, float] = {}
    for figure in tables[0]:
        values = np.stack([table[figure] for table in tables])
        row[f"{figure}_{suffix}"] = mean_of_known([mean_of_known(classes) for classes in values])
        if figure == "dice" and settings.classes > 2:
            for label in range(1, settings.classes):
                row[f"dice_{suffix}_class{label}"] = mean_of_known(values[:, label - 1])
    return row


def compare_labels(
    labels: Integer[np.ndarray, "*space"],
    reference: Integer[np.ndarray, "*space"],
    *,
    settings: SegmentationSettings,
) -> dict[str, np.ndarray]:
    """The figures of two label maps by name, a value for each foreground class."""
    classes, spacing, tolerance, empty = settings
    counts = overlap.confusion(labels, reference, classes=classes)
    voxel = voxel_size(spacing, np.ndim(labels)).prod()
    excess = (counts.sum(axis=1) - counts.sum(axis=0))[1:].astype(np.float64)
    size = counts.sum(axis=0)[1:]
    distances = [surface.surface_distances(labels == label, reference == label, spacing=spacing) for label in range(1, classes)]
    return {
        "dice": overlap.class_dice(counts, empty=empty)[1:],
        "iou": overlap.class_iou(counts, empty=empty)[1:],
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
