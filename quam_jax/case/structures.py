"""How large every structure of a volume is, in millilitres, and between which sizes the models leave it.

Three volumes of a structure: of the segmentation; expected, the sum of its probabilities; and of each adversarial model.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..evaluation.volume import crps_empirical, volume_interval
from .quantified import SampledVolumes

LEVEL = 0.95


def structure_volumes(
    segmentation: Int[np.ndarray, "*space"],
    reference: Float[np.ndarray, "*space labels"],
    adversarial: Int[np.ndarray, " n *space"],
    *,
    names: Sequence[str],
    spacing: Sequence[float],
    samples: SampledVolumes | None = None,
    raters: Mapping[str, Int[np.ndarray, "*space"]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Volumes in ml of every label but 0, by its name.

    `adversarial_ml` lists the kept models, `adversarial_interval` is the smallest and the largest of them and the
    segmentation. `sample_interval` is the central 95 % interval of the expected volumes of the `samples` under their weights, and
    `crps` the mean over raters of their continuous ranked probability score; without samples the segmentation and the kept
    models count as such.
    """
    voxel = math.prod(spacing) / 1000
    rows: dict[str, dict[str, Any]] = {}
    for label, name in enumerate(names[1:], start=1):
        own = np.count_nonzero(segmentation == label) * voxel
        kept = [np.count_nonzero(model == label) * voxel for model in adversarial]
        row: dict[str, Any] = {
            "volume_ml": own,
            "expected_ml": float(reference[..., label].sum(dtype=np.float64)) * voxel,
            "adversarial_ml": kept,
            "adversarial_interval": [min(own, *kept), max(own, *kept)] if kept else [own, own],
        }
        values = np.array([*kept, own]) if samples is None else samples.ml[:, label]
        weights = None if samples is None else samples.weights
        row["sample_interval"] = list(volume_interval(values, weights=weights, level=LEVEL))
        if raters:
            row["raters_ml"] = {who: np.count_nonzero(mask == label) * voxel for who, mask in raters.items()}
            row["crps"] = float(np.mean([crps_empirical(v, values, weights=weights) for v in row["raters_ml"].values()]))
        rows[name] = row
    return rows


def volume_columns(volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures of `structure_volumes` as columns of a table."""
    columns: dict[str, float] = {}
    for name, row in volumes.items():
        columns[f"volume_ml:{name}"] = float(row["volume_ml"])
        columns[f"volume_low_ml:{name}"], columns[f"volume_high_ml:{name}"] = map(float, row["adversarial_interval"])
        if "crps" in row:
            columns[f"volume_crps_ml:{name}"] = float(row["crps"])
    return columns
