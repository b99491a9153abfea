"""One row of numbers for one case: segmentation, probabilities, samples and uncertainty maps against raters.

Every figure is defined in the module that computes it; here they are put together and named. A row is flat,
so rows make a table: `dice_consensus`, `ece_raters`, `total/pcc`, `total/pcc_band`, `total/auroc_image`.
- `_consensus` compares with the raters' most frequent label, `_raters` is the mean over raters, `_soft` takes
  the rater mean as label; overlap is the mean over the structures that exist.
- `_band` is computed on the pixels near the consensus contour alone, `partial_..._distance` after the
  distance to that contour is regressed out, `partial_..._boundary` after the map named "boundary" is; that
  map is the control which a useful map must beat.
- Pixels of -1 in a rater's mask are not rated: that rater has no say in them, and where nobody rated nothing counts. Agreement
  is about pixels with two raters or more, volumes and samples about those that all of them rated.
- `_image` marks failure detection within one image; pooled figures come from merging `ranking.ErrorCounts`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, Real

from . import agreement as agree
from . import calibration as calibrate
from . import distribution, ranking, volume
from .geometry import voxel_size
from .overlap import in_structure
from .reference_maps import (
    boundary_band,
    consensus,
    contour_distance,
    entropy_map,
    fill_unrated,
    rater_mean,
    scale_to_unit,
    variance_map,
)
from .segmentation import SegmentationSettings, mean_of_known, segmentation_figures

Row = dict[str, float | str]

MOST = 2**23  # pixels of a picture that figures of maps and probabilities are taken from
ONE_RATER = "one rater: agreement with rater disagreement is not defined"
NO_PAIR = "no pixel that two raters rated: agreement with rater disagreement is not defined"


class _Yardstick(NamedTuple):
    """What every map of a case is scored against, with ranks that would else be found again for each map."""

    reference: np.ndarray
    reference_ranks: np.ndarray
    near: np.ndarray
    distance: np.ndarray
    distance_ranks: np.ndarray


def evaluate(
    maps: Mapping[str, Real[np.ndarray, "*space"]],
    raters: Integer[np.ndarray, " a *space"] | Bool[np.ndarray, " a *space"],
    *,
    probabilities: Real[np.ndarray, "*space c"] | None = None,
    segmentation: Integer[np.ndarray, "*space"] | Bool[np.ndarray, "*space"] | None = None,
    classes: int = 2,
    structures: Bool[np.ndarray, "s c"] | None = None,
    samples: Integer[np.ndarray, " n *space"] | Bool[np.ndarray, " n *space"] | None = None,
    sample_weights: Real[np.ndarray, " n"] | None = None,
    spacing: Sequence[float] | None = None,
    reference: Literal["entropy", "variance"] = "entropy",
    band: float = 3.0,
    tolerance: float = 1.0,
    bins: int = 15,
    empty: float = float("nan"),
) -> Row:
    """All figures of one case, in 2-D or 3-D.

    `maps` are uncertainty maps by name, with controls such as "boundary" and "softmax" among them; `samples` are label maps
    of the model's draws. Figures of what is not given (samples, probabilities, segmentation) are left out; `classes` counts
    only without probabilities. `structures` says which classes make up what has an overlap and a volume (None: every class
    but 0). `band` and `tolerance` are in the unit of `spacing`, pixels without one. `empty` is what Dice, IoU and surface
    figures get where both masks are empty. With a single rater the agreement columns are left out and the row holds a text
    under "note". Of a picture of more than MOST pixels the figures of maps, probabilities and samples are those of every
    n-th row and column, which a text under "pixels" says; those of the segmentation are of all. Raises ValueError, naming
    the array, for shapes that do not fit, labels outside 0..c-1 (but for -1 in raters), or values that are not finite.
    """
    raters = _as_labels(raters, "raters")
    segmentation = None if segmentation is None else _as_labels(segmentation, "segmentation")
    samples = None if samples is None else _as_labels(samples, "samples")
    if probabilities is not None:
        probabilities = np.asarray(probabilities)
        classes = probabilities.shape[-1]
    _check_shapes(maps, raters, probabilities, segmentation, samples, classes, structures)
    row: Row = {"n_raters": float(len(raters))}
    settings = SegmentationSettings(classes, spacing, tolerance, empty, structures)
    truth = consensus(raters, classes=classes, ties="smallest")
    if segmentation is not None:
        _check_labels({"segmentation": segmentation}, classes)
        row |= segmentation_figures(segmentation, truth[None], settings=settings, suffix="consensus")
        row |= segmentation_figures(segmentation, raters, settings=settings, suffix="raters")
    step = _step(raters.shape[1:])
    if step > 1:
        some = (slice(None, None, step),) * 2
        truth, raters, maps = truth[some], raters[:, *some], {name: np.asarray(values)[some] for name, values in maps.items()}
        probabilities, segmentation = (None if one is None else one[some] for one in (probabilities, segmentation))
        samples = None if samples is None else samples[:, *some]
        spacing = [step * length for length in voxel_size(spacing, 2)]
        row["pixels"] = f"figures of maps and probabilities from every {_ordinal(step)} row and column"
    _check_values(maps, probabilities)
    _check_labels({} if samples is None else {"samples": samples}, classes)
    # Whatever the precision of the network, figures are float64 from here on.
    probabilities = None if probabilities is None else probabilities.astype(np.float64)
    voxel = float(voxel_size(spacing, truth.ndim).prod())
    distance = contour_distance(fill_unrated(truth), spacing=spacing)
    votes = len(raters) if raters.min(initial=0) >= 0 else np.count_nonzero(raters >= 0, axis=0)
    rated, shared, by_all = (_where(votes >= least) for least in (1, 2, len(raters)))
    several = len(raters) > 1 and truth[shared].size > 0
    mean, near = rater_mean(raters, classes=classes), boundary_band(distance, width=band)

    if probabilities is not None:
        row |= _calibration(probabilities[rated], raters[:, rated], mean[rated], near[rated], bins)
        row |= _expectation(probabilities, raters, settings.members, rated, by_all, voxel)
    if samples is not None and truth[by_all].size:
        row |= _distribution(samples[:, by_all], raters[:, by_all], settings.members, sample_weights, voxel)
    references = {"entropy": entropy_map, "variance": variance_map}
    if reference not in references:
        raise ValueError(f"reference: expected one of {sorted(references)}, got {reference!r}")
    disagreement = references[reference](mean[shared]) if several else np.zeros(0)
    yardstick = _yardstick(disagreement, near[shared], distance[shared]) if several else None
    for name, given in maps.items():
        values, figures = np.asarray(given), dict[str, float]()
        if yardstick is not None:
            figures |= _agreement(values[shared], yardstick)
            if "boundary" in maps and name != "boundary":
                control = np.asarray(maps["boundary"])[shared][None]
                figures["partial_pcc_boundary"] = agree.partial_pcc(values[shared], disagreement, control)
        if segmentation is not None:
            figures |= _failures(values[rated], near[rated], segmentation[rated], truth[rated], settings.members)
        row |= {f"{name}/{figure}": value for figure, value in figures.items()}
    if not several:
        row["note"] = ONE_RATER if len(raters) == 1 else NO_PAIR
    return row


def _calibration(
    probabilities: np.ndarray, raters: np.ndarray, mean: np.ndarray, near: np.ndarray, bins: int
) -> dict[str, float]:
    """Calibration per rater (averaged) and against the soft label, in the image and in the band."""
    tables = {
        "raters": calibrate.calibration(probabilities, raters, bins=bins),
        "soft": calibrate.calibration_soft(probabilities, mean, bins=bins),
        "raters_band": calibrate.calibration(probabilities[near], raters[:, near], bins=bins),
        "soft_band": calibrate.calibration_soft(probabilities[near], mean[near], bins=bins),
    }
    return {f"{figure}_{kind}": value for kind, table in tables.items() for figure, value in table.items()}


def _where(pixels: Bool[np.ndarray, "*space"] | bool) -> Any:
    """An index of some pixels: all of them as they lie, without a copy, or those alone one after the other."""
    return ... if np.all(pixels) else pixels


def _expectation(
    probabilities: np.ndarray, raters: np.ndarray, members: np.ndarray, rated: Any, by_all: Any, voxel: float
) -> dict[str, float]:
    """The QUBIQ score of the probabilities, and the expected volume against the raters' (CURVAS)."""
    crps, scores = [], []
    for member in members:
        shares = probabilities[..., member].sum(-1)
        drawn = _volumes(raters[:, by_all], member, voxel)
        expected = float(shares[by_all].sum()) * voxel
        exists = shares[by_all].size > 0
        crps.append(volume.crps_gaussian(expected, mean=float(np.mean(drawn)), sd=float(np.std(drawn))) if exists else math.nan)
        votes = in_structure(raters[:, rated], member).astype(np.int8)
        mean = rater_mean(np.where(raters[:, rated] < 0, np.int8(-1), votes), classes=2)[..., 1]
        scores.append(distribution.qubiq_score(shares[rated], mean) if mean.size else math.nan)
    return {"qubiq": mean_of_known(scores), "volume_crps_curvas": mean_of_known(crps)}


def _volumes(classes: np.ndarray, member: np.ndarray, voxel: float) -> np.ndarray:
    return np.array([np.count_nonzero(in_structure(one, member)) * voxel for one in classes])


def _distribution(
    samples: np.ndarray,
    raters: np.ndarray,
    members: np.ndarray,
    weights: np.ndarray | None,
    voxel: float,
) -> dict[str, float]:
    """How the drawn label maps and their volumes are distributed, against the raters'."""
    row = dict(distribution.distribution_figures(samples, raters, weights=weights, structures=members))
    empirical, gaussian, covered = [], [], []
    for number, member in enumerate(members, 1):
        volumes, truth = _volumes(samples, member, voxel), _volumes(raters, member, voxel)
        centre = float(np.average(volumes, weights=weights))
        sd = float(np.sqrt(np.average(np.square(volumes - centre), weights=weights)))
        empirical.append(mean_of_known([volume.crps_empirical(one, volumes, weights=weights) for one in truth]))
        gaussian.append(mean_of_known([volume.crps_gaussian(one, mean=centre, sd=sd) for one in truth]))
        low, high = volume.volume_interval(volumes, weights=weights)
        covered.append(mean_of_known([float(low <= one <= high) for one in truth]))
        name = "volume" if len(members) == 1 else f"volume_class{number}"
        row |= {f"{name}_low": low, f"{name}_high": high}
    return row | {
        "volume_crps_empirical": mean_of_known(empirical),
        "volume_crps_gaussian": mean_of_known(gaussian),
        "volume_covered": mean_of_known(covered),
    }


def _yardstick(disagreement: np.ndarray, near: np.ndarray, distance: np.ndarray) -> _Yardstick:
    known = np.isfinite(distance).all()
    return _Yardstick(
        disagreement,
        agree.average_ranks(disagreement),
        near,
        distance,
        agree.average_ranks(distance) if known else distance,
    )


def _agreement(values: np.ndarray, yardstick: _Yardstick) -> dict[str, float]:
    """Agreement of a map with the raters' disagreement: in the image, in the band, beyond the distance."""
    reference, reference_ranks, near, distance, distance_ranks = yardstick
    values = np.asarray(values, dtype=np.float64)
    ranks = agree.average_ranks(values)
    figures = agree.agreement(values, reference, ranks=(ranks, reference_ranks))
    inside = agree.agreement(values[near], reference[near])
    figures |= {f"{figure}_band": value for figure, value in inside.items()}
    figures["partial_pcc_distance"] = agree.partial_pcc(values, reference, distance[None])
    figures["partial_spearman_distance"] = agree.partial_pcc(ranks, reference_ranks, distance_ranks[None])
    figures["partial_pcc_distance_band"] = agree.partial_pcc(values[near], reference[near], distance[None, near])
    figures["partial_spearman_distance_band"] = agree.partial_spearman(values[near], reference[near], distance[None, near])
    return figures


def _failures(
    values: np.ndarray, near: np.ndarray, classes: np.ndarray, truth: np.ndarray, members: np.ndarray
) -> dict[str, float]:
    """Failure detection: where the segmentation differs from the consensus."""
    wrong = classes != truth
    counts = ranking.count_errors(values, wrong)
    figures = {
        "auroc_image": ranking.auroc(counts),
        "ap_image": ranking.average_precision(counts),
        "aurc_image": ranking.aurc(counts),
        "e_aurc_image": ranking.e_aurc(counts),
        "augrc_image": ranking.augrc(counts),
        "pavpu_image": ranking.pavpu_sweep(counts),
        "auroc_image_band": ranking.auroc(ranking.count_errors(np.asarray(values)[near], wrong[near])),
    }
    scaled = scale_to_unit(values)
    if np.isnan(scaled).any():
        figures["qu_brats_image"] = float("nan")
    else:
        pairs = [(in_structure(classes, member), in_structure(truth, member)) for member in members]
        curves = [ranking.filtered_dice(scaled, *pair) for pair in pairs]
        figures["qu_brats_image"] = mean_of_known([ranking.qu_brats_score(curve) for curve in curves])
    return figures


def _as_labels(array: np.ndarray, name: str) -> np.ndarray:
    labels = np.asarray(array)
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name}: expected integer labels, got {labels.dtype}")
    return labels


def _step(space: Sequence[int]) -> int:
    """Every how many rows and columns of a picture are taken; all of small ones and of volumes."""
    return 1 if len(space) != 2 or math.prod(space) <= MOST else math.ceil(math.sqrt(math.prod(space) / MOST))


def _ordinal(number: int) -> str:
    return f"{number}{ {2: 'nd', 3: 'rd'}.get(number, 'th') }"


def _check_shapes(
    maps: Mapping[str, np.ndarray],
    raters: np.ndarray,
    probabilities: np.ndarray | None,
    segmentation: np.ndarray | None,
    samples: np.ndarray | None,
    classes: int,
    structures: np.ndarray | None,
) -> None:
    given: dict[str, tuple[int, ...]] = {}
    if segmentation is not None:
        given["segmentation"] = segmentation.shape
    given["raters"] = raters.shape[1:]
    if probabilities is not None:
        given["probabilities"] = probabilities.shape[:-1]
    given |= {f"map {name}": np.shape(values) for name, values in maps.items()}
    if samples is not None:
        given["samples"] = np.shape(samples)[1:]
    first, space = next(iter(given.items()))
    for name, got in given.items():
        if got != space:
            raise ValueError(f"{name}: expected pixels of shape {space} as the {first} has, got {got}")
    if structures is not None and structures.shape[1] != classes:
        raise ValueError(f"structures: expected a column for each of {classes} classes, got {structures.shape[1]}")
    if classes < 2:
        raise ValueError(f"probabilities: expected at least 2 classes in the last axis, got {classes}")


def _check_values(maps: Mapping[str, np.ndarray], probabilities: np.ndarray | None) -> None:
    numbers = {f"map {name}": values for name, values in maps.items()}
    for name, values in (numbers if probabilities is None else {"probabilities": probabilities, **numbers}).items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite numbers, got {np.count_nonzero(~np.isfinite(values))} that are not")
    if probabilities is not None:
        sums = probabilities.sum(axis=-1, dtype=np.float64)
        if probabilities.min() < 0 or np.abs(sums - 1).max() > 1e-3:
            raise ValueError(f"probabilities: expected >= 0 with sum 1 a pixel, got sums {sums.min():.4g}..{sums.max():.4g}")


def _check_labels(given: Mapping[str, np.ndarray], classes: int) -> None:
    for name, labels in given.items():
        if np.size(labels) and (np.min(labels) < 0 or np.max(labels) >= classes):
            raise ValueError(f"{name}: expected labels 0..{classes - 1}, got {np.min(labels)}..{np.max(labels)}")
