"""From labelled cases to a guarantee.

A guarantee holds because its numbers come from cases that had no say in anything else. Which map is used is a choice, and so is
the curve that turns a score into a Dice: both are made on a part of the cases, and what is guaranteed is read off the others. The
parts are dealt by the hashes of the images, which nobody chose. Of a patient with several cases one is calibrated on, so that
cases may be exchanged for one another. The rate of wrong pixels by the value of a map carries no guarantee; it is fitted on all
cases, and its reliability is that of fits which left the case's fold out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression

from ..evaluation.conformal import (
    conformal_quantile,
    control_risk,
    least_cases,
    mean_risk_threshold,
    require_alpha,
    require_cases,
)
from .evidence import ZONE, Evidence
from .guarantee import Curve, DiceLimit, ErrorRates, Guarantee, Limit

PARTS = 3  # one of so many parts of the cases chooses, where there are so many times the cases that the level takes
FITTED = 10  # cases from which on the Dice is fitted to a score, else the score is taken as it is
FOLDS = 5
RATES = 10  # bins of the reliability diagram


class Statements(NamedTuple):
    """What is guaranteed: limits by question, widenings of volumes, the Dice; notes, and the cases that chose the maps."""

    limits: dict[str, Limit]
    volumes: dict[str, tuple[float, int]]
    dice: DiceLimit | None
    notes: list[str]
    choosing: list[Evidence]


def calibrate(
    cases: Sequence[Evidence], *, alpha: float = 0.1, map_name: str | None = None, known: Mapping[str, Any] | None = None
) -> Guarantee:
    """The guarantee that labelled cases give at a level; `map_name` fixes the map, so that all cases calibrate.

    Statements that have too few cases are left out and noted. ValueError, saying how many it takes, where there are too few for
    the review zone, and for a map that cases lack.
    """
    found = find_statements(cases, alpha=alpha, map_name=map_name)
    return Guarantee(
        alpha=alpha,
        limits=found.limits,
        errors=fit_errors(cases, found.limits[ZONE].map),
        volumes=found.volumes,
        dice=found.dice,
        known=dict(known or {}),
        cases=tuple((case.name, case.sha256, case.patient) for case in cases),
        chosen_on=tuple(case.name for case in found.choosing),
        notes=tuple(found.notes),
    )


def find_statements(cases: Sequence[Evidence], *, alpha: float, map_name: str | None = None) -> Statements:
    """All of a guarantee that is guaranteed; ValueError as `calibrate`."""
    require_alpha(alpha)
    names = [name for name in (cases[0].errors if cases else ()) if all(name in case.errors for case in cases)]
    if map_name is not None and map_name not in names:
        raise ValueError(f"map: expected one of {', '.join(names)}, got {map_name!r}")
    drawn = draw_patients(cases)
    with_errors = sum(ZONE in case.questions for case in drawn)
    of = "patients" if len(drawn) < len(cases) else "cases"
    require_cases(with_errors, alpha, what=f"calibration on {of} in which something is wrong")
    choosing, rest = deal(drawn, alpha) if map_name is None else ([], drawn)
    notes: list[str] = []
    limits: dict[str, Limit] = {}
    for key in dict.fromkeys(key for case in cases for key in case.questions):
        limit = _limit([case for case in choosing if key in case.questions], rest, key, alpha, map_name)
        if limit is None:
            shown = sum(key in case.questions for case in rest)
            notes.append(f"{key}: no statement; alpha {alpha:g} takes {least_cases(alpha)} cases that show it, got {shown}")
        else:
            limits[key] = limit
    if map_name is None and not choosing:
        least = PARTS * least_cases(alpha)
        notes.append(f"no map was chosen, which takes {least} cases at alpha {alpha:g}: all calibrate the map {_fixed(drawn)}")
    volumes: dict[str, tuple[float, int]] = {}
    for name in dict.fromkeys(name for case in drawn for name in case.volumes):
        ranges = [case.volumes[name] for case in drawn if name in case.volumes]
        if not any(truth > 0 for *_, truth in ranges):
            notes.append(f"{name}: no statement about its volume, since no rater shows it in any case")
        elif len(ranges) >= least_cases(alpha):
            missed = np.array([outside(*one) for one in ranges])
            volumes[name] = (
                max(conformal_quantile(missed, alpha), 0.0),
                len(ranges),
            )  # no range is narrower than that of the models
        else:
            notes.append(f"{name}: no statement about its volume; alpha {alpha:g} takes {least_cases(alpha)}, got {len(ranges)}")
    return Statements(limits, volumes, _dice_limit(choosing, rest, alpha), notes, choosing)


def draw_patients(cases: Sequence[Evidence]) -> list[Evidence]:
    """One case a patient, and one of cases with the same image, in the order of the images' hashes, which is that of chance."""
    drawn: dict[str, Evidence] = {}
    for case in sorted(cases, key=lambda case: (case.sha256, case.name)):
        drawn.setdefault(case.patient or case.sha256 or case.name, case)
    return list({case.sha256 or case.name: case for case in drawn.values()}.values())


def deal(drawn: Sequence[Evidence], alpha: float) -> tuple[list[Evidence], list[Evidence]]:
    """The cases that choose, none where there are few, and those that calibrate."""
    enough = sum(ZONE in case.questions for case in drawn) >= PARTS * least_cases(alpha)
    count = len(drawn) // PARTS if enough else 0
    if sum(ZONE in case.questions for case in drawn[count:]) < least_cases(alpha):
        count = 0  # by chance most of those in which something is wrong would choose
    return list(drawn[:count]), list(drawn[count:])


def _fixed(cases: Sequence[Evidence]) -> str:
    names = list(cases[0].errors)
    return "total" if "total" in names else names[0]


def _limit(choosing: Sequence[Evidence], cases: Sequence[Evidence], key: str, alpha: float, map_name: str | None) -> Limit | None:
    """The threshold of one question; None where too few cases have it."""
    asked = [case.questions[key] for case in cases if key in case.questions]
    if len(asked) < least_cases(alpha):
        return None
    compared: dict[str, float] = {}
    if choosing:
        for name in asked[0].losses:
            if all(name in case.questions[key].losses for case in choosing):
                compared[name] = _area([case.questions[key] for case in choosing], name, alpha)
    chosen = map_name or (min(compared, key=lambda name: compared[name]) if compared else _fixed(cases))
    losses = [question.losses[chosen] for question in asked]
    if not any(loss.values.size for loss in losses):  # nothing is ever lost: no pixel has to be looked at
        return Limit(chosen, math.inf, len(asked), 0.0, compared)
    threshold = control_risk(losses, alpha)
    share = float(np.mean([question.looked_at(chosen, threshold) for question in asked]))
    return Limit(chosen, threshold, len(asked), share, compared)


def _area(questions: Sequence[Any], name: str, alpha: float) -> float:
    """The mean share of the image that a map has looked at for a mean loss of alpha."""
    losses = [question.losses[name] for question in questions]
    if not any(loss.values.size for loss in losses):
        return 0.0
    threshold = mean_risk_threshold(losses, alpha)
    return float(np.mean([question.looked_at(name, threshold) for question in questions]))


def outside(low: float, high: float, truth: float) -> float:
    """By which factor a range of pixels misses a volume, as a logarithm of numbers and one more; below 0 inside it."""
    return max(math.log((low + 1) / (truth + 1)), math.log((truth + 1) / (high + 1)))


def fit_curve(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"] | None = None) -> Curve:
    """The function that never falls with the smallest squared error (isotonic regression), by the points where it bends."""
    values, places = np.unique(np.asarray(x, np.float64), return_inverse=True)
    mass = np.bincount(places, np.ones(len(places)) if weights is None else weights)
    means = np.bincount(places, np.asarray(y, np.float64) * (1.0 if weights is None else weights)) / mass
    fitted = isotonic_regression(means, weights=mass).x
    bends = np.ones(len(fitted), bool)
    bends[1:-1] = (np.diff(fitted)[1:] != 0) | (np.diff(fitted)[:-1] != 0)
    return Curve(tuple(values[bends].tolist()), tuple(np.clip(fitted[bends], 0, 1).tolist()))


def fit_errors(cases: Sequence[Evidence], name: str) -> ErrorRates:
    """The rate of wrong pixels by the value of a map, every pixel counting once, with its reliability on cases left out."""
    bins = [case.errors[name] for case in cases]
    curve = _fit_bins(bins)
    patients = list(dict.fromkeys(case.patient or case.name for case in sorted(cases, key=lambda case: (case.sha256, case.name))))
    fold_of = {patient: place % FOLDS for place, patient in enumerate(patients)}
    folds = [fold_of[case.patient or case.name] for case in cases]
    sums = np.zeros((3, RATES))
    if len(set(folds)) == FOLDS:
        for fold in range(FOLDS):
            others = _fit_bins([one for one, own in zip(bins, folds, strict=True) if own != fold])
            for one, own in zip(bins, folds, strict=True):
                if own == fold:
                    predicted = others(one[0])
                    place = np.minimum((predicted * RATES).astype(int), RATES - 1)
                    for row, values in enumerate((predicted * one[2], one[1], one[2])):
                        sums[row] += np.bincount(place, values, minlength=RATES)
    filled = sums[2] > 0
    rows = [(p / n, o / n, n) for p, o, n in sums[:, filled].T.tolist()]
    gap = sum(abs(p - o) * n for p, o, n in rows) / sums[2].sum() if rows else math.nan
    return ErrorRates(name, curve, tuple(rows), float(gap))


def _fit_bins(bins: Sequence[Float[np.ndarray, "3 _"]]) -> Curve:
    value, wrong, count = np.concatenate(bins, 1)
    return fit_curve(value, wrong / count, count)


def _dice_limit(choosing: Sequence[Evidence], cases: Sequence[Evidence], alpha: float) -> DiceLimit | None:
    """The Dice by a score; which score, and its curve, come from the cases that choose."""
    names = [name for name in cases[0].scores if all(name in case.scores for case in (*choosing, *cases))]
    found: list[tuple[float, str, Curve]] = []
    plain = Curve((0.0, 1.0), (0.0, 1.0))
    for name in names:
        pairs = _pairs(choosing, name)
        curve = fit_curve(*pairs.T) if len(pairs) >= FITTED else plain
        found.append((float(np.mean(np.abs(curve(pairs[:, 0]) - pairs[:, 1]))) if len(pairs) else 0.0, name, curve))
    if not found:
        return None
    _, name, curve = min(found, key=lambda one: one[0])
    pairs = _pairs(cases, name)
    if len(pairs) < least_cases(alpha):
        return None
    return DiceLimit(name, curve, conformal_quantile(curve(pairs[:, 0]) - pairs[:, 1], alpha), len(pairs))


def _pairs(cases: Sequence[Evidence], name: str) -> Float[np.ndarray, "n 2"]:
    pairs = np.array([(case.scores[name], case.dice) for case in cases], np.float64).reshape(-1, 2)
    return pairs[~np.isnan(pairs).any(1)]
