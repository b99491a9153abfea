"""What a labelled case says, reduced to what a guarantee is made of: a few thousand numbers, however large the image.

Three questions are asked of a map, and answered by the same threshold rule, "look where the map is at or above it":
- `zone`: where may the prediction be wrong? The loss is the share of its wrong pixels that are not looked at.
- `outer:NAME`: how far may a structure reach beyond the prediction? The loss is the share of the structure that is missed.
- `inner:NAME`: what of the predicted structure is sure? The loss is the share of the prediction that is shown there falsely.

With several raters a loss is the mean over those for whom it is defined, so that a statement is about one of them at random; a
case for which it is defined by nobody (nothing is wrong, nobody shows the structure) does not count for that question.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Real

from ..evaluation.conformal import Losses
from ..evaluation.expected_dice import probable_dice, structure_dice
from ..evaluation.overlap import dice, in_structure

LEVELS = 1 - np.linspace(1, 0, 257) ** 2  # quantiles that a map is remembered by, dense where it is large
SUBSAMPLE = 2**18  # pixels that they are taken from
ZONE = "zone"
PROBABILITY = "probability"  # of the structure itself, beside the maps


class Findings(NamedTuple):
    """What a run found of one case, in classes of the search: the given network's classes, its maps and structures.

    `probs` are those of the structures, `structures` says which classes make up each; `volume_range` holds the fewest and the
    most pixels that the prediction and the kept adversarial models give a structure, and `scores` the scores that the Dice of
    the case is expected by.
    """

    segmentation: Int[np.ndarray, "*space"]
    maps: Mapping[str, Real[np.ndarray, "*space"]]
    probs: Real[np.ndarray, "*space s"]
    structures: Bool[np.ndarray, "s c"]
    names: tuple[str, ...]
    volume_range: Float[np.ndarray, "s 2"]
    scores: Mapping[str, float]


class Question(NamedTuple):
    """One question of a case: the share of the image that it is about, and for every map its losses and its quantiles there.

    Quantiles are distinct values of the map, and the share of the pixels below each.
    """

    share: float
    losses: dict[str, Losses]
    levels: dict[str, Float[np.ndarray, "2 q"]]

    def looked_at(self, name: str, threshold: float) -> float:
        """The share of the image at or above a threshold of a map, from its quantiles."""
        values, below = self.levels[name]
        if not values.size:
            return 0.0
        return self.share * (1 - float(np.interp(threshold, values, below, left=0.0, right=1.0)))


class Evidence(NamedTuple):
    """A labelled case: who it is, its questions by name, how often pixels of a value are wrong, its volumes and its Dice.

    `errors` holds for every map bins of pixels: their mean value, how many are wrong (for a rater at random), and their number.
    `volumes` holds for every structure the range of the models and the mean over raters, in pixels.
    """

    name: str
    sha256: str
    patient: str
    questions: dict[str, Question]
    errors: dict[str, Float[np.ndarray, "3 b"]]
    volumes: dict[str, tuple[float, float, float]]
    scores: dict[str, float]
    dice: float


def gather(
    findings: Findings, raters: Integer[np.ndarray, " a *space"], *, name: str = "", sha256: str = "", patient: str = ""
) -> Evidence:
    """What one case says; `raters` hold classes, -1 where one did not rate. ValueError for masks of another size."""
    if raters.shape[1:] != findings.segmentation.shape:
        raise ValueError(f"{name or 'case'}: expected masks of {findings.segmentation.shape} pixels, got {raters.shape[1:]}")
    rated = raters >= 0
    wrong = rated & (raters != findings.segmentation)
    whole = np.ones(findings.segmentation.shape, bool)
    questions: dict[str, Question] = {}
    _ask(questions, ZONE, findings.maps, wrong, wrong.reshape(len(raters), -1).sum(1), whole)
    volumes: dict[str, tuple[float, float, float]] = {}
    for s, structure in enumerate(findings.names):
        drawn = in_structure(raters, findings.structures[s])
        own = in_structure(findings.segmentation, findings.structures[s])
        share = np.asarray(findings.probs[..., s])
        maps = {**findings.maps, PROBABILITY: np.where(own, 1 - share, share)}
        sizes = drawn.reshape(len(raters), -1).sum(1)
        _ask(questions, f"outer:{structure}", maps, drawn & ~own, sizes, ~own)
        _ask(questions, f"inner:{structure}", maps, own & rated & ~drawn, (own & rated).reshape(len(raters), -1).sum(1), own)
        low, high = findings.volume_range[s]
        if rated.all():  # what somebody left out has no volume
            volumes[structure] = (float(low), float(high), float(sizes.mean()))
    counts = rated.sum(0)
    known = counts > 0
    share = wrong.sum(0)[known] / counts[known]
    errors = {name: _bins(np.asarray(values)[known], share) for name, values in findings.maps.items()}
    return Evidence(name, sha256, patient, questions, errors, volumes, dict(findings.scores), mean_dice(findings, raters))


def mean_dice(findings: Findings, raters: Integer[np.ndarray, " a *space"]) -> float:
    """The Dice of the prediction, mean over raters and structures that rater or prediction shows; NaN where there are none."""
    found = []
    for rater in raters:
        rated = rater >= 0
        for member in findings.structures:
            own = in_structure(findings.segmentation, member) & rated
            found.append(dice(own, in_structure(rater, member)))
    known = [value for value in found if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def scores_of(
    segmentation: Integer[np.ndarray, "*space"],
    models: Sequence[Integer[np.ndarray, "*space"]],
    probs: Float[np.ndarray, "*space s"],
    structures: Bool[np.ndarray, "s c"],
) -> dict[str, float]:
    """Scores of a case that its Dice is expected by, means over the structures that are shown; NaN where none is.

    `samples` is the mean Dice of every two of prediction and models, `probabilities` that of the prediction with its own
    probabilities.
    """
    found = {"probabilities": probable_dice(probs, segmentation, structures)}
    if len(models):
        found = {"samples": structure_dice([segmentation, *models], structures), **found}
    return {name: float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan") for name, values in found.items()}


def _ask(
    questions: dict[str, Question],
    key: str,
    maps: Mapping[str, np.ndarray],
    lost: Bool[np.ndarray, " a *space"],
    sizes: Int[np.ndarray, " a"],
    inside: Bool[np.ndarray, "*space"],
) -> None:
    """Add a question, where a rater's size is not 0: the loss is the share of it that is lost below a threshold."""
    asked = np.flatnonzero(sizes)
    if not asked.size:
        return
    weights = np.zeros(inside.shape)
    for rater in asked:
        weights[lost[rater]] += 1 / (sizes[rater] * asked.size)
    where = weights > 0
    losses = {name: Losses(np.asarray(values)[where].astype(np.float64), weights[where]) for name, values in maps.items()}
    levels = {name: _quantiles(np.asarray(values)[inside]) for name, values in maps.items()}
    questions[key] = Question(float(inside.mean()), losses, levels)


def _some(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    return values[:: -(-values.size // SUBSAMPLE) or 1]


def _quantiles(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "2 q"]:
    """Distinct values, and the share of pixels below each; of a value that many pixels have the first level that reaches it."""
    if not values.size:
        return np.zeros((2, 0))
    ordered = np.sort(_some(values)).astype(np.float64)
    found = ordered[np.round(LEVELS * (ordered.size - 1)).astype(int)]
    distinct = np.unique(found)
    return np.stack([distinct, np.searchsorted(ordered, distinct) / ordered.size])


def _bins(values: Float[np.ndarray, " n"], share: Float[np.ndarray, " n"]) -> Float[np.ndarray, "3 b"]:
    """Bins of pixels in the order of their values, fewer of them where values are large; equal values share a bin."""
    each = -(-values.size // SUBSAMPLE) or 1
    values, share = _some(values), _some(share)
    if not values.size:
        return np.zeros((3, 0))
    order = np.argsort(values)
    ordered = values[order].astype(np.float64)
    edges = np.unique(ordered[np.minimum((LEVELS * values.size).astype(int), values.size - 1)])
    index = np.searchsorted(edges, ordered, side="right") - 1
    count = np.bincount(index, minlength=edges.size).astype(np.float64)
    sums = [np.bincount(index, weights, minlength=edges.size) for weights in (ordered, share[order])]
    filled = count > 0
    return np.stack([sums[0][filled] / count[filled], each * sums[1][filled], each * count[filled]])
