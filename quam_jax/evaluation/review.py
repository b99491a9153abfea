"""Which cases and which regions should a person look at or label next? Criteria of uncertainty, and an order by them.

Every criterion is a number that is larger where a look is expected to be worth more. Sums are over pixels, times the size of a
pixel where images have a spacing, so that cases of different grids compare. One criterion orders by its value, several by the
mean of their ranks, which needs no common unit. Whether an order is worth anything is measured by `retention_curve`: how much of
the error is left when the first cases have been corrected.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import stats

from .expected_dice import dice_of_labels, mean_pairwise_dice
from .regions import Region, slice_disagreement, smallest_cost

CASE_CRITERIA = {
    "epistemic": "sum of epistemic uncertainty (nats x size)",
    "aleatoric": "sum of aleatoric uncertainty (nats x size)",
    "total": "sum of total uncertainty (nats x size)",
    "softmax": "sum of the entropy of the given network's prediction (nats x size)",
    "changed": "size of what an adversarial model labels otherwise, mean over the models",
    "relative": "1 - Dice of the adversarial models with the prediction, mean over the models",
    "pairwise": "1 - mean pairwise Dice of the prediction and the adversarial models",
    "flip_cost": "minus the smallest cost of flipping a label (nats), where it was computed",
    "slices": "size of what differs from both neighbouring slices, where these agree",
    "size": "size of the predicted foreground",
}
REGION_CRITERIA = {
    "epistemic": "sum of epistemic uncertainty in the region (nats x size)",
    "peak": "largest epistemic uncertainty in the region (nats)",
    "share": "epistemic share of its total uncertainty",
    "flip_cost": "minus the smallest cost of flipping a label in it (nats), where it was computed",
    "slices": "share of it that differs from both neighbouring slices, where these agree",
    "size": "size of the region",
}


def case_criteria(arrays: Mapping[str, Num[np.ndarray, "..."]], *, voxel: float = 1.0) -> dict[str, float]:
    """Every criterion of CASE_CRITERIA for one case; NaN where an array that it needs is missing.

    `arrays` holds maps [*space] in nats (`epistemic`, `aleatoric`, `total`, `softmax`, `flipcost`), the label map
    `segmentation` [*space] and those of the `adversarial` models [n *space]; `voxel` is the size of a pixel.
    """
    found = dict.fromkeys(CASE_CRITERIA, float("nan"))
    for name in ("epistemic", "aleatoric", "total", "softmax"):
        if name in arrays:
            found[name] = float(np.nansum(np.asarray(arrays[name], np.float64)) * voxel)
    if "flipcost" in arrays:
        cost = smallest_cost(arrays["flipcost"])
        found["flip_cost"] = float("nan") if cost is None else -cost
    if "segmentation" in arrays:
        labels = arrays["segmentation"]
        found["size"] = float((labels > 0).sum() * voxel)
        if labels.ndim == 3:
            found["slices"] = float(slice_disagreement(labels).sum() * voxel)
        if len(arrays.get("adversarial", ())):
            models = arrays["adversarial"]
            found["changed"] = float(np.mean([(model != labels).sum() for model in models]) * voxel)
            found["relative"] = float(np.mean([1 - dice_of_labels(model, labels) for model in models]))
            found["pairwise"] = 1 - mean_pairwise_dice([labels, *models])
    return found


def region_criteria(region: Region, *, voxel: float = 1.0) -> dict[str, float]:
    """Every criterion of REGION_CRITERIA for one region; NaN where an array that it needs was missing."""
    known: dict[str, float | None] = {
        "epistemic": region.mass * voxel,
        "peak": region.largest,
        "share": region.share,
        "flip_cost": None if region.flip_cost is None else -region.flip_cost,
        "slices": region.alone,
        "size": region.pixels * voxel,
    }
    return {name: float("nan") if value is None else float(value) for name, value in known.items()}


def order_by(criteria: Sequence[Mapping[str, float]], by: Sequence[str]) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Indices, the most worthwhile first, and the score of every item: the mean over `by` of its rank share, from 0 to 1.

    The rank share of a criterion is (rank - 1) / (n - 1), ties sharing their mean rank; what has no value has share 0. Equal
    scores keep the order given. ValueError for an unknown criterion, or one that no item has.

    Examples:
        >>> cases = [{"epistemic": 1.0, "size": 5.0}, {"epistemic": 3.0, "size": 4.0}, {"epistemic": 2.0, "size": 9.0}]
        >>> order_by(cases, ["epistemic"])[0].tolist()
        [1, 2, 0]
        >>> order, scores = order_by(cases, ["epistemic", "size"])
        >>> order.tolist(), scores.tolist()
        ([2, 1, 0], [0.25, 0.5, 0.75])
    """
    if not by:
        raise ValueError("by: expected at least one criterion, got none")
    count = len(criteria)
    shares = np.zeros((len(by), count))
    for row, name in enumerate(by):
        if any(name not in item for item in criteria):
            raise ValueError(f"by: unknown criterion {name!r}; expected some of {', '.join(criteria[0])}")
        values = np.array([item[name] for item in criteria], np.float64)
        known = ~np.isnan(values)
        if count and not known.any():
            raise ValueError(f"by: no item has the criterion {name!r}")
        ranks = stats.rankdata(np.where(known, values, -np.inf))
        shares[row] = np.where(known, (ranks - 1) / max(count - 1, 1), 0.0)
    scores = shares.mean(0)
    return np.argsort(-scores, kind="stable"), scores


def retention_curve(errors: Float[np.ndarray, " n"], order: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n+1"]:
    """The share of all error that is left after the first 0, 1, ... n items of an order were corrected; NaN without any error.

    Examples:
        >>> retention_curve(np.array([1.0, 3.0, 0.0]), np.array([1, 0, 2])).tolist()
        [1.0, 0.25, 0.0, 0.0]
    """
    errors = np.asarray(errors, np.float64)
    total = errors.sum()
    if total == 0:
        return np.full(len(errors) + 1, np.nan)
    return 1 - np.concatenate([[0.0], np.cumsum(errors[np.asarray(order)])]) / total


def retention_area(curve: Float[np.ndarray, " places"], *, up_to: float = 1.0) -> float:
    """Mean height of a retention curve over the first share `up_to` of the items, joined by straight lines; lower is better.

    A random order has 1 - up_to/2 in expectation. ValueError unless 0 < up_to <= 1.
    """
    if not 0 < up_to <= 1:
        raise ValueError(f"up_to: expected a share in (0, 1], got {up_to}")
    places = np.linspace(0, 1, len(curve))
    ends = np.concatenate([places[places < up_to], [up_to]])
    return float(np.trapezoid(np.interp(ends, places, curve), ends) / up_to)
