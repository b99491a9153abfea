"""A guarantee: what was read off calibration cases, as a record that goes into a file and back, and what it says of a case."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from ..evaluation.overlap import in_structure
from .evidence import PROBABILITY, ZONE, Findings

FORMAT = "guarantee 1"
OUTSIDE, BETWEEN, INSIDE = 0, 1, 2  # of the masks that bound a structure


@dataclass(frozen=True)
class Limit:
    """A threshold of a map that controls a loss: what is at or above it is looked at.

    `cases` were calibrated on; `share` is the mean share of the image that is looked at there, and `compared` that of every map
    on the cases that the map was chosen on (empty where it was not chosen).
    """

    map: str
    threshold: float
    cases: int
    share: float
    compared: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """A function that never falls, by the points between which it is a line; constant beyond them."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, values: Any) -> Float[np.ndarray, "..."]:
        """Its values."""
        return np.asarray(np.interp(values, self.x, self.y))


@dataclass(frozen=True)
class ErrorRates:
    """The rate of wrong pixels by the value of a map, and its reliability on cases that were left out of the fit in turn.

    `reliability` has a row a bin of predicted rates: the mean prediction, the rate that came out, and the number of pixels.
    """

    map: str
    curve: Curve
    reliability: tuple[tuple[float, float, float], ...] = ()
    gap: float = math.nan


@dataclass(frozen=True)
class DiceLimit:
    """The Dice expected by a score of a case, and how far below it the Dice is at most (but for alpha)."""

    score: str
    curve: Curve
    below: float
    cases: int


@dataclass(frozen=True)
class Guarantee:
    """Statements about the next case, at the level `alpha`, each on its own.

    `limits` has those of the review zone and of every structure (see evidence.py), `volumes` by which factor the range of a
    structure's volume is widened, as a logarithm, with the number of cases. `known` says which network, settings and
    preparation it is about, `cases` (name, sha256, patient) what it was made of, `chosen_on` which of them chose the maps.
    """

    alpha: float
    limits: dict[str, Limit]
    errors: ErrorRates | None
    volumes: dict[str, tuple[float, int]]
    dice: DiceLimit | None
    known: dict[str, Any]
    cases: tuple[tuple[str, str, str], ...]
    chosen_on: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As guarantee.json has it."""
        return {
            "format": FORMAT,
            "alpha": self.alpha,
            "limits": {name: vars(limit) for name, limit in self.limits.items()},
            "errors": None
            if self.errors is None
            else {
                "map": self.errors.map,
                "x": list(self.errors.curve.x),
                "y": list(self.errors.curve.y),
                "reliability": [list(row) for row in self.errors.reliability],
                "gap": self.errors.gap,
            },
            "volumes": {name: {"widening": widening, "cases": cases} for name, (widening, cases) in self.volumes.items()},
            "dice": None
            if self.dice is None
            else {
                "score": self.dice.score,
                "x": list(self.dice.curve.x),
                "y": list(self.dice.curve.y),
                "below": self.dice.below,
                "cases": self.dice.cases,
            },
            "known": self.known,
            "cases": [{"case": name, "sha256": sha256, "patient": patient} for name, sha256, patient in self.cases],
            "chosen_on": list(self.chosen_on),
            "notes": list(self.notes),
        }


def guarantee_of(record: Mapping[str, Any], *, where: object) -> Guarantee:
    """A guarantee from what its file holds; ValueError, saying `where`, for anything else."""
    if record.get("format") != FORMAT:
        raise ValueError(f"{where}: expected a guarantee that `quam-jax calibrate` has written, got another file")
    try:
        errors, dice = record["errors"], record["dice"]
        return Guarantee(
            alpha=float(record["alpha"]),
            limits={
                name: Limit(
                    str(one["map"]),
                    math.inf if one["threshold"] is None else float(one["threshold"]),
                    int(one["cases"]),
                    float(one["share"]),
                    {key: float(value) for key, value in one["compared"].items()},
                )
                for name, one in record["limits"].items()
            },
            errors=None
            if errors is None
            else ErrorRates(
                str(errors["map"]),
                _curve(errors),
                tuple((float(p), float(o), float(n)) for p, o, n in errors["reliability"]),
                math.nan if errors["gap"] is None else float(errors["gap"]),
            ),
            volumes={name: (float(one["widening"]), int(one["cases"])) for name, one in record["volumes"].items()},
            dice=None if dice is None else DiceLimit(str(dice["score"]), _curve(dice), float(dice["below"]), int(dice["cases"])),
            known=dict(record["known"]),
            cases=tuple((str(one["case"]), str(one["sha256"]), str(one["patient"])) for one in record["cases"]),
            chosen_on=tuple(map(str, record["chosen_on"])),
            notes=tuple(map(str, record["notes"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: a damaged guarantee ({type(error).__name__}: {error}); calibrate again") from None


def _curve(record: Mapping[str, Any]) -> Curve:
    x, y = ([float(value) for value in record[key]] for key in ("x", "y"))
    if len(x) != len(y) or not x or any(b <= a for a, b in zip(x, x[1:], strict=False)):
        raise ValueError("expected points of a curve in order")
    return Curve(tuple(x), tuple(y))


class Guaranteed(NamedTuple):
    """What a guarantee says of a case: maps on its grid, and figures as its JSON has them.

    `error` is the rate of wrong pixels, `zone` what to look at, and `bounds` holds for every structure OUTSIDE its outer mask,
    BETWEEN the two, or INSIDE its inner mask.
    """

    error: Float[np.ndarray, "*space"] | None
    zone: Bool[np.ndarray, "*space"] | None
    bounds: dict[str, Integer[np.ndarray, "*space"]]
    figures: dict[str, Any]


def apply_guarantee(guarantee: Guarantee, findings: Findings, *, least_dice: float | None = None) -> Guaranteed:
    """What a guarantee says of one case; `look` in its figures says whether its Dice may be below `least_dice`.

    ValueError for a map that the case does not have.
    """
    figures: dict[str, Any] = {"alpha": guarantee.alpha}
    error = None
    if guarantee.errors is not None:
        error = guarantee.errors.curve(_values(findings, guarantee.errors.map)).astype(np.float32)
        figures["error_rate"] = float(error.mean(dtype=np.float64))
    zone = None
    if ZONE in guarantee.limits:
        zone = _at_or_above(findings, guarantee.limits[ZONE])
        figures["review_share"] = float(zone.mean())
    bounds, structures = {}, {}
    for s, name in enumerate(findings.names):
        own = in_structure(findings.segmentation, findings.structures[s])
        told: dict[str, Any] = {}
        outer, inner = guarantee.limits.get(f"outer:{name}"), guarantee.limits.get(f"inner:{name}")
        if outer is not None and inner is not None:
            share = np.asarray(findings.probs[..., s])
            reached = own | _at_or_above(findings, outer, share)
            sure = own & ~_at_or_above(findings, inner, 1 - share)
            bounds[name] = np.where(sure, INSIDE, np.where(reached, BETWEEN, OUTSIDE)).astype(np.uint8)
            told |= {"outer_pixels": int(reached.sum()), "inner_pixels": int(sure.sum())}
        if name in guarantee.volumes:
            fewest, most = map(float, findings.volume_range[s])
            low, high = widened(fewest, most, guarantee.volumes[name][0])
            told["pixels"] = [low, high]
        structures[name] = told
    figures["structures"] = structures
    if guarantee.dice is not None and not math.isnan(score := findings.scores.get(guarantee.dice.score, math.nan)):
        expected = float(guarantee.dice.curve(score))
        lower = min(max(expected - guarantee.dice.below, 0.0), 1.0)
        figures |= {"expected_dice": expected, "dice_lower": lower}
        if least_dice is not None:
            figures["look"] = lower < least_dice
    return Guaranteed(error, zone, bounds, figures)


def widened(low: float, high: float, widening: float) -> tuple[float, float]:
    """A range of pixels, widened by a factor on both sides, of the number and one more, so that 0 has a range too."""
    return max((low + 1) * math.exp(-widening) - 1, 0.0), (high + 1) * math.exp(widening) - 1


def _values(findings: Findings, name: str) -> np.ndarray:
    if name not in findings.maps:
        raise ValueError(f"calibration: the guarantee is about the map {name}, and a case has {', '.join(findings.maps)}")
    return np.asarray(findings.maps[name])


def _at_or_above(findings: Findings, limit: Limit, own: np.ndarray | None = None) -> Bool[np.ndarray, "*space"]:
    """Where the map of a limit is at or above its threshold; `own` are the values of the structure's probability."""
    values = own if limit.map == PROBABILITY and own is not None else _values(findings, limit.map)
    return values.astype(np.float64) >= limit.threshold
