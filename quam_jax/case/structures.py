"""How large every structure of a volume is, in millilitres, and between which sizes the models leave it.

Three volumes of a structure: of the segmentation; expected, the sum of its probabilities; and of each adversarial model.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from ..data.large import row_blocks
from ..evaluation.volume import crps_empirical, volume_interval
from .quantified import SampledVolumes

LEVEL = 0.95

Volumes = Float[np.ndarray, "n s"]


def structure_volumes(
    segmentation: Int[np.ndarray, "*space"],
    probs: Float[np.ndarray, "*space s"],
    adversarial: Int[np.ndarray, " n *space"],
    *,
    structures: Bool[np.ndarray, "s c"],
    names: Sequence[str],
    voxel: float,
    samples: SampledVolumes | None = None,
    raters: Mapping[str, Int[np.ndarray, "*space"]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Volumes in ml of every structure, by its name; `voxel` is that of one voxel.

    `structures` says which classes make up each of them, and `segmentation`, `adversarial` and `raters` hold classes (see
    models/coding.py). `adversarial_ml` lists the kept models, `adversarial_interval` is the smallest and the largest of them and
    the segmentation. `sample_interval` is the central 95 % interval of the expected volumes of the `samples` under their weights,
    and `crps` the mean over raters of their continuous ranked probability score; without samples the segmentation and the kept
    models count as such. With a rater who left voxels out (-1), `rated_ml` is the volume of the segmentation in what that rater
    rated, and the score is that of the segmentation and the kept models there.
    """
    classes = structures.shape[1]

    def volumes(masks: Iterable[Int[np.ndarray, "*space"]], rated: Int[np.ndarray, "*space"] | None = None) -> Volumes:
        counts = [structures @ class_counts(mask, classes, rated=rated) for mask in masks]
        return np.array(counts, np.float64).reshape(-1, len(structures)) * voxel

    own, kept = volumes([segmentation])[0], volumes(adversarial)
    drawn = {who: volumes([mask])[0] for who, mask in (raters or {}).items()}
    partly = {who: mask for who, mask in (raters or {}).items() if (mask < 0).any()}
    there = {who: volumes([*adversarial, segmentation], rated=mask) for who, mask in partly.items()}
    rows: dict[str, dict[str, Any]] = {}
    for s, name in enumerate(names):
        ends = [own[s], *kept[:, s]]
        values = np.array([*kept[:, s], own[s]]) if samples is None else samples.ml[:, s]
        weights = None if samples is None else samples.weights
        row: dict[str, Any] = {
            "volume_ml": float(own[s]),
            "expected_ml": float(probs[..., s].sum(dtype=np.float64)) * voxel,
            "adversarial_ml": kept[:, s].tolist(),
            "adversarial_interval": [float(min(ends)), float(max(ends))],
            "sample_interval": list(volume_interval(values, weights=weights, level=LEVEL)),
        }
        if raters:
            row["raters_ml"] = {who: float(ml[s]) for who, ml in drawn.items()}
            scores = [
                crps_empirical(ml[s], there[who][:, s]) if who in there else crps_empirical(ml[s], values, weights=weights)
                for who, ml in drawn.items()
            ]
            row["crps"] = float(np.mean(scores))
            if there:
                row["rated_ml"] = {who: float(ml[-1, s]) for who, ml in there.items()}
        rows[name] = row
    return rows


def structure_pixels(
    segmentation: Int[np.ndarray, "*space"],
    adversarial: Int[np.ndarray, " n *space"],
    raters: Mapping[str, Int[np.ndarray, "*space"]],
    *,
    structures: Bool[np.ndarray, "s c"],
) -> dict[str, Any]:
    """Pixels of every structure in the prediction, in each kept model and for each rater, whose maps hold classes."""

    def pixels(mask: Int[np.ndarray, "*space"]) -> list[int]:
        return (structures @ class_counts(mask, structures.shape[1])).tolist()

    return {
        "prediction": pixels(segmentation),
        "adversarial": [pixels(model) for model in adversarial],
        "raters": {who: pixels(mask) for who, mask in raters.items()},
    }


def class_counts(
    classes: Integer[np.ndarray, "*space"], count: int, *, rated: Integer[np.ndarray, "*space"] | None = None
) -> Int[np.ndarray, " c"]:
    """Pixels of each of so many classes, some rows at a time; those of -1, or where `rated` is, in none."""
    total = np.zeros(count, np.int64)
    for rows in row_blocks(classes.shape):
        some = classes[rows]
        known = some >= 0 if rated is None else (some >= 0) & (rated[rows] >= 0)
        total += np.bincount(some[known], minlength=count)
    return total


def volume_columns(volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures of `structure_volumes` as columns of a table."""
    columns: dict[str, float] = {}
    for name, row in volumes.items():
        columns[f"volume_ml:{name}"] = float(row["volume_ml"])
        columns[f"volume_low_ml:{name}"], columns[f"volume_high_ml:{name}"] = map(float, row["adversarial_interval"])
        if "crps" in row:
            columns[f"volume_crps_ml:{name}"] = float(row["crps"])
    return columns
