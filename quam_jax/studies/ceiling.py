"""How far raters agree with raters: one part of them is scored against the rest, and so is every map.

The entropy of a few raters is a coarse yardstick (two raters give only 0 and ln 2), so figures against a part of the raters
compare with each other and with nothing else: `total/pcc_halves` of a method stands beside that of the row `raters_halves`.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from ..evaluation.agreement import pcc
from ..evaluation.ranking import aurc, auroc, count_errors
from ..evaluation.reference_maps import consensus, entropy_map, rater_mean
from .splits import take_evenly

MOST = 12  # divisions of the raters that are looked at, evenly spread over all of them


def halves(count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Divisions of `count` raters into half of them (rounded down) and the rest; at most 12. ValueError for fewer than two."""
    if count < 2:
        raise ValueError(f"raters: expected at least two to divide, got {count}")
    chosen = list(itertools.combinations(range(count), count // 2))
    return [(one, tuple(n for n in range(count) if n not in one)) for one in take_evenly(chosen, MOST)]


def pcc_halves(values: Float[np.ndarray, "*space"], raters: Integer[np.ndarray, " a *space"], *, classes: int) -> float:
    """Mean Pearson correlation of a map with the entropy of each part of the raters; NaN where no part disagrees.

    Pixels that some rater did not rate (-1) take no part.
    """
    raters, values = _by_all(raters, values)
    return _known([pcc(values, _entropy(raters, rest, classes)) for _, rest in halves(len(raters))])


def rater_figures(
    raters: Integer[np.ndarray, " a *space"], segmentation: Integer[np.ndarray, "*space"], *, classes: int
) -> dict[str, float]:
    """The entropy of one part of the raters as a map, judged by the rest: agreement, and errors against their consensus.

    Pixels that some rater did not rate (-1) take no part.
    """
    raters, segmentation = _by_all(raters, segmentation)
    figures: dict[str, list[float]] = {"total/pcc_halves": [], "total/auroc_image": [], "total/aurc_image": []}
    for part, rest in halves(len(raters)):
        values = _entropy(raters, part, classes)
        truth = consensus(raters[list(rest)], classes=classes, ties="smallest")
        counts = count_errors(values, segmentation != truth)
        figures["total/pcc_halves"].append(pcc(values, _entropy(raters, rest, classes)))
        figures["total/auroc_image"].append(auroc(counts))
        figures["total/aurc_image"].append(aurc(counts))
    return {name: _known(values) for name, values in figures.items()}


def _by_all(raters: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raters and another array of the image where all of them rated."""
    if np.min(raters, initial=0) >= 0:
        return raters, values
    rated = (raters >= 0).all(0)
    return raters[:, rated], values[rated]


def _entropy(raters: np.ndarray, chosen: Sequence[int], classes: int) -> np.ndarray:
    return entropy_map(rater_mean(raters[list(chosen)], classes=classes))


def _known(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")
