"""Two dates of one patient: which changes are larger than what the adversarial models leave open. Arrays only.

The epistemic map bounds how far the models of one date spread. It is the mean divergence of their predictions p_m from a
centre q, and by Pinsker's inequality KL(p_m || q) >= 2 TV(p_m, q)^2 (nats), where the total variation distance TV is the
largest difference of the probability of any set A of labels. So for every set of labels

    mean over m of (p_m(A) - q(A))^2  <=  epistemic / 2,

and no more than 1/4, as a probability lies in [0, 1]. That holds in both settings of the decomposition, since
KL(q || p_m) has the same bound. Over several voxels nothing is assumed independent: the spread of a mean is at most the mean
of the spreads (Minkowski).

Let D be the difference of p(A) between a model of the second date and one of the first. Its mean is taken to be d, the
difference of the given network's own predictions, and its variance V the sum of the two bounds. The chance that
uncertainty alone explains the change is that of D <= least,

    chance = Phi(-(d - least) / sqrt(V))        for d > least, else 1,

with Phi the normal distribution: the bound of V is exact, the shape is an assumption. A change exceeds uncertainty where
its chance is small enough by Holm's rule, so that the level holds for all changes of a case together.

Sources: Pinsker's inequality as in Boucheron, Lugosi and Massart, Concentration Inequalities (2013), theorem 4.19; Holm 1979,
Scandinavian Journal of Statistics 6: 65.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import ndimage
from scipy.special import ndtr

from ..evaluation.statistics import holm

LEVEL = 0.95
LEAST = 0.1


class Date(NamedTuple):
    """One date on the common grid: the given network's probabilities and labels, and the epistemic map in nats."""

    probs: Float[np.ndarray, "*space c"]
    labels: Int[np.ndarray, "*space"]
    epistemic: Float[np.ndarray, "*space"]


class Change(NamedTuple):
    """One connected set of voxels that went from label `before` to label `after`.

    `shift` is the mean over its voxels of the change of (p(after) - p(before))/2, which is the change of probability where
    there are two labels; `spread` bounds its standard deviation under the models of both dates; `probability` is one less the
    chance that uncertainty alone explains it. `peak` is the voxel of largest probability of change.
    """

    number: int
    before: int
    after: int
    voxels: int
    shift: float
    spread: float
    probability: float
    exceeds: bool
    peak: tuple[int, ...]


class Compared(NamedTuple):
    """What came of two dates: the number of every voxel's change (0: none), probabilities of change, the changes."""

    numbers: Int[np.ndarray, "*space"]
    probability: Float[np.ndarray, "*space"]
    changes: tuple[Change, ...]

    @property
    def verdict(self) -> Int[np.ndarray, "*space"]:
        """0 no change of label, 1 a change that uncertainty explains, 2 one that exceeds it."""
        table = np.zeros(len(self.changes) + 1, np.int32)
        table[1:] = [2 if change.exceeds else 1 for change in self.changes]
        return table[self.numbers]


def variance_bound(epistemic: Float[np.ndarray, "*space"]) -> Float[np.ndarray, "*space"]:
    """How large the variance over models of the probability of any set of labels can be, given the epistemic map in nats."""
    return np.minimum(np.maximum(epistemic, 0.0) / 2, 0.25)


def explained(shift: Float[np.ndarray, "*n"], variance: Float[np.ndarray, "*n"], *, least: float) -> Float[np.ndarray, "*n"]:
    """The chance of D <= least for a normal D of this mean and variance; 1 where the mean itself is no more than that."""
    beyond = np.asarray(shift, np.float64) - least
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(beyond > 0, ndtr(-np.maximum(beyond, 0.0) / np.sqrt(variance)), 1.0)


def compare(
    baseline: Date, followup: Date, *, seen: Bool[np.ndarray, "*space"] | None = None, level: float = LEVEL, least: float = LEAST
) -> Compared:
    """Every connected change between two dates on one grid, and whether uncertainty explains it.

    Changes are connected sets of voxels (across corners too) of one label before and one label after, largest first;
    only voxels that are `seen` on both dates take part. The map of probabilities asks the same of every voxel by itself, for
    the set of labels whose probability grew. ValueError for arrays of other shapes, or numbers outside (0, 1) and [0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    if not 0 <= least < 1:
        raise ValueError(f"least: expected a change of probability from 0 to below 1, got {least}")
    if baseline.probs.shape != followup.probs.shape:
        raise ValueError(
            f"comparison: expected two dates on one grid with the same labels, got {baseline.probs.shape} and "
            f"{followup.probs.shape}"
        )
    seen = np.ones(baseline.labels.shape, bool) if seen is None else seen
    bounds = [variance_bound(date.epistemic.astype(np.float64)) for date in (baseline, followup)]
    distance = (
        sum(np.abs(followup.probs[..., k].astype(np.float64) - baseline.probs[..., k]) for k in range(baseline.probs.shape[-1]))
        / 2
    )
    probability = np.where(seen, 1 - explained(np.asarray(distance), bounds[0] + bounds[1], least=least), 0.0)
    numbers = connected_changes(baseline.labels, followup.labels, seen=seen)
    places = _voxels_of(numbers)
    spreads = [np.sqrt(bound).reshape(-1) for bound in bounds]
    rows, chances = [], []
    for number, inside in enumerate(places, start=1):
        before, after = (int(date.labels.reshape(-1)[inside[0]]) for date in (baseline, followup))
        first, second = (_half_margin(date, before, after, inside) for date in (baseline, followup))
        shift = float(np.mean(second - first))
        variance = sum(float(np.mean(spread[inside])) ** 2 for spread in spreads)
        peak = np.unravel_index(inside[np.argmax(probability.reshape(-1)[inside])], numbers.shape)
        chances.append(float(explained(np.asarray(shift), np.asarray(variance), least=least)))
        rows.append((number, before, after, len(inside), shift, math.sqrt(variance), tuple(int(i) for i in peak)))
    exceeds = holm(np.array(chances)) <= 1 - level
    changes = [Change(*row[:6], 1 - chance, bool(more), row[6]) for row, chance, more in zip(rows, chances, exceeds, strict=True)]
    return Compared(numbers, probability.astype(np.float32), tuple(changes))


def connected_changes(
    before: Int[np.ndarray, "*space"], after: Int[np.ndarray, "*space"], *, seen: Bool[np.ndarray, "*space"]
) -> Int[np.ndarray, "*space"]:
    """Numbers from 1, largest first, of the connected sets of voxels with one label before and another after; 0 elsewhere."""
    most = int(max(before.max(), after.max())) + 1
    pairs = np.where((before != after) & seen, before.astype(np.int64) * most + after, -1)
    found = np.zeros(before.shape, np.int64)
    count = 0
    for pair in np.unique(pairs[pairs >= 0]):
        pieces, more = ndimage.label(pairs == pair, np.ones((3,) * before.ndim))
        found[pieces > 0] = pieces[pieces > 0] + count
        count += more
    sizes = np.bincount(found.reshape(-1), minlength=count + 1)[1:]
    rank = np.zeros(count + 1, np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    return rank[found]


def volume_change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Change of a volume with its interval, from (volume, low, high) of two dates.

    The distances to the limits of the dates add as squares (Zou and Donner 2008, Statistics in Medicine 27: 1693), which
    keeps the level of the intervals for dates that err independently.
    """
    (v, low, high), (w, lower, higher) = ((x, min(a, x), max(b, x)) for x, a, b in (before, after))
    change = w - v
    return change, change - math.hypot(w - lower, high - v), change + math.hypot(higher - w, v - low)


def resample(
    array: Num[np.ndarray, "*space"], index_map: Float[np.ndarray, "4 4"], shape: Sequence[int], *, outside: float
) -> Float[np.ndarray, "*out"]:
    """An array of three axes read linearly where `index_map` takes the indices of another grid; `outside` beyond it."""
    return ndimage.affine_transform(
        array.astype(np.float32, copy=False),
        index_map[:3, :3],
        index_map[:3, 3],
        tuple(shape),
        order=1,
        mode="constant",
        cval=outside,
    )


def resample_labels(
    labels: Int[np.ndarray, "*space"], index_map: Float[np.ndarray, "4 4"], shape: Sequence[int]
) -> Int[np.ndarray, "*out"]:
    """Labels read where `index_map` takes the indices of another grid: the one with the largest linear share; 0 beyond."""
    best, most = np.zeros(tuple(shape), np.int32), np.zeros(tuple(shape), np.float32)
    for label in np.unique(labels):
        share = resample((labels == label).astype(np.float32), index_map, shape, outside=0.0)
        best, most = np.where(share > most, np.int32(label), best), np.maximum(most, share)
    return best


def inside_grid(index_map: Float[np.ndarray, "4 4"], shape: Sequence[int], size: Sequence[int]) -> Bool[np.ndarray, "*out"]:
    """Which voxels of a grid of this shape `index_map` takes to indices inside a grid of that size."""
    places = np.indices(tuple(shape), np.float32)
    mapped = np.tensordot(index_map[:3, :3], places, 1) + index_map[:3, 3].reshape(-1, *(1,) * len(shape))
    return np.all([(axis > -1e-3) & (axis < n - 1 + 1e-3) for axis, n in zip(mapped, size, strict=True)], 0)


def _half_margin(date: Date, before: int, after: int, inside: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    flat = date.probs.reshape(-1, date.probs.shape[-1])
    return (flat[inside, after].astype(np.float64) - flat[inside, before]) / 2


def _voxels_of(numbers: Int[np.ndarray, "*space"]) -> list[Int[np.ndarray, " _"]]:
    """Flat indices of the voxels of every number from 1."""
    flat = numbers.reshape(-1)
    changed = np.flatnonzero(flat)
    order = changed[np.argsort(flat[changed], kind="stable")]
    ends = np.cumsum(np.bincount(flat[order], minlength=int(flat.max()) + 1)[1:])
    return np.split(order, ends[:-1]) if len(order) else []
