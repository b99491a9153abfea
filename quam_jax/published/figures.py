"""The metrics of the published QUAM-SM code, number for number, for comparison with published results.

They differ from the metrics of this package in their smoothing, in what empty masks get and in how ties are
broken; use `overlap`, `surface` and `calibration` for new work. Binary figures take two masks, sample
figures take class probabilities with classes last.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, Real, Shaped
from scipy.spatial import cKDTree

from ..evaluation.reference_maps import consensus
from ..evaluation.surface import hausdorff, surface_distances

# Steps along an axis and along a diagonal of OpenCV's 3x3 chamfer approximation of L2 (Borgefors 1986).
CHAMFER_AXIS, CHAMFER_DIAGONAL = 0.955, 1.3693


class SampleStatistics(NamedTuple):
    """Statistics of one figure over the samples, in float32; std and variance are the population's."""

    mean: float
    median: float
    std: float
    variance: float
    min: float
    max: float


class SampleQuality(NamedTuple):
    """Quality of a set of samples: spread of Dice and Hausdorff distance, and the mean prediction's Dice."""

    dice: SampleStatistics
    hausdorff: SampleStatistics
    mean_prediction: Integer[np.ndarray, "*space"]
    consensus_dice: float


class SampleUncertainty(NamedTuple):
    """Maps and scalars of the published baseline uncertainty."""

    entropy: Float[np.ndarray, "*space"]
    variance: Float[np.ndarray, "*space"]
    mean_entropy: float
    mean_variance: float
    normalised_entropy_area: float
    normalised_entropy_fraction: float
    normalised_variance_area: float
    normalised_variance_fraction: float


def smoothed_dice(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"], *, smooth: float = 1e-6) -> float:
    """(2|A∩B| + s) / (|A| + |B| + s): 1 for two empty masks, nearly 0 for one."""
    first, second = np.asarray(mask) != 0, np.asarray(other) != 0
    both = np.count_nonzero(first & second)
    return float((2 * both + smooth) / (np.count_nonzero(first) + np.count_nonzero(second) + smooth))


def class_smoothed_dice(
    labels: Integer[np.ndarray, "*space"],
    other: Integer[np.ndarray, "*space"],
    *,
    classes: int,
    smooth: float = 1e-6,
) -> Float[np.ndarray, " c"]:
    """Smoothed Dice of every class, background included."""
    return np.array([smoothed_dice(labels == label, other == label, smooth=smooth) for label in range(classes)])


def border_hausdorff(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"]) -> float:
    """Hausdorff distance of the borders, in pixels: 0 for two empty masks, the image diagonal for one."""
    diagonal = float(np.linalg.norm(np.shape(mask)))
    return hausdorff(surface_distances(mask, other), both_empty=0.0, one_empty=diagonal)


def macro_border_hausdorff(labels: Integer[np.ndarray, "*space"], other: Integer[np.ndarray, "*space"], *, classes: int) -> float:
    """Mean over all classes, background included, of `border_hausdorff`."""
    return float(np.mean([border_hausdorff(labels == label, other == label) for label in range(classes)]))


def directed_hausdorff(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"]) -> float:
    """Largest distance from any pixel of the first mask to the second; 0 if one is empty."""
    points, targets = np.argwhere(np.asarray(mask) != 0), np.argwhere(np.asarray(other) != 0)
    return float(cKDTree(targets).query(points)[0].max()) if len(points) and len(targets) else 0.0


def point_hausdorff(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"]) -> float:
    """Hausdorff distance between all pixels of two masks; infinite if one of them, or each, is empty.

    It exceeds `border_hausdorff` where one mask fills a hole of the other.
    """
    if not np.any(mask) or not np.any(other):
        return float("inf")
    return max(directed_hausdorff(mask, other), directed_hausdorff(other, mask))


def hamming(mask: Shaped[np.ndarray, "*space"], other: Shaped[np.ndarray, "*space"]) -> float:
    """Share of pixels in which two masks differ."""
    return float(np.mean((np.asarray(mask) != 0) != (np.asarray(other) != 0)))


def binary_cross_entropy(
    target: Real[np.ndarray, "*space"], prediction: Real[np.ndarray, "*space"], *, clamp: float = 1e-7
) -> float:
    """Pixel mean of -[t ln p + (1-t) ln(1-p)] in nats, with p clamped to [clamp, 1-clamp]."""
    t, p = np.asarray(target, np.float64), np.clip(np.asarray(prediction, np.float64), clamp, 1 - clamp)
    return float(-np.mean(t * np.log(p) + (1 - t) * np.log(1 - p)))


def chamfer_distance(mask: Shaped[np.ndarray, "h w"], other: Shaped[np.ndarray, "h w"]) -> float:
    """Mean over the pixels of the first mask of the 3x3 chamfer distance to the second.

    0 if the first mask is empty, else infinite if the second is.
    """
    pixels = np.asarray(mask) != 0
    return float(chamfer_map(other)[pixels].mean()) if pixels.any() else 0.0


def chamfer_map(mask: Shaped[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Length of the shortest path to the mask in steps of .955 along an axis and 1.3693 along a diagonal.

    A downward and an upward sweep, as in Borgefors 1986; each row is relaxed at once by a running minimum.
    """
    distance = np.where(np.asarray(mask) != 0, 0.0, np.inf)
    return _sweep(_sweep(distance)[::-1])[::-1]


def sample_statistics(values: Real[np.ndarray, " s"]) -> SampleStatistics:
    """Mean, median, population deviation and variance, smallest and largest, in float32 throughout."""
    v = np.asarray(values, dtype=np.float32)
    return SampleStatistics(*(float(f(v)) for f in (np.mean, np.median, np.std, np.var, np.min, np.max)))


def sample_quality(samples: Float[np.ndarray, "s *space c"], raters: Integer[np.ndarray, " a *space"]) -> SampleQuality:
    """Macro Dice and border Hausdorff of each sample against the mean, and the Dice of that with the raters.

    The mean prediction is the argmax of the mean (ties: the first class); the consensus is the most
    frequent label (ties: the smallest). All classes count, background included; Dice is smoothed by 1e-6.
    """
    classes = samples.shape[-1]
    mean = samples.mean(axis=0).argmax(axis=-1)
    labels = samples.argmax(axis=-1)
    dice = [class_smoothed_dice(label, mean, classes=classes).mean() for label in labels]
    distance = [macro_border_hausdorff(label, mean, classes=classes) for label in labels]
    final = class_smoothed_dice(mean, consensus_by_mode(raters), classes=classes).mean()
    return SampleQuality(sample_statistics(np.array(dice)), sample_statistics(np.array(distance)), mean, float(final))


def sample_quality_binary(samples: Float[np.ndarray, "s *space 2"], raters: Integer[np.ndarray, " a *space"]) -> SampleQuality:
    """Foreground figures of the binary variant: Dice against the raters, Hausdorff against the mean.

    The consensus is foreground where at least half of the raters say so (ties: foreground); Dice is
    smoothed by 1e-7.
    """
    mean = samples.mean(axis=0).argmax(axis=-1)
    labels = samples.argmax(axis=-1)
    truth = consensus_by_mean(raters)
    dice = [smoothed_dice(label, truth, smooth=1e-7) for label in labels]
    distance = [border_hausdorff(label, mean) for label in labels]
    final = smoothed_dice(mean, truth, smooth=1e-7)
    return SampleQuality(sample_statistics(np.array(dice)), sample_statistics(np.array(distance)), mean, final)


def consensus_by_mode(raters: Integer[np.ndarray, " a *space"]) -> Int[np.ndarray, "*space"]:
    """The most frequent label, a tie going to the smallest."""
    return consensus(raters, classes=int(np.max(raters)) + 1, ties="smallest")


def consensus_by_mean(raters: Integer[np.ndarray, " a *space"]) -> Int[np.ndarray, "*space"]:
    """1 where the mean of binary raters is at least .5, so a tie goes to the foreground."""
    return consensus(raters, classes=2, ties="foreground")


def sample_uncertainty(samples: Float[np.ndarray, "s *space c"]) -> SampleUncertainty:
    """The published uncertainty of a baseline's samples: entropy, "variance" and their "normalised" scalars.

    Entropy is -Σ_c p̄ ln(p̄ + 1e-9). The published variance is Σ_c mean_s p(1-p), an expected Bernoulli
    variance and not the spread between samples. The published normalisation divides by the class mean of p̄
    plus 1e-6, which is 1/C everywhere, so it only multiplies by C; "area" is the sum over pixels,
    "fraction" the mean.
    """
    p = np.asarray(samples, dtype=np.float64)
    mean = p.mean(axis=0)
    entropy = -(mean * np.log(mean + 1e-9)).sum(axis=-1)
    variance = (p * (1 - p)).mean(axis=0).sum(axis=-1)
    scaled_entropy, scaled_variance = (part / (mean.mean(axis=-1) + 1e-6) for part in (entropy, variance))
    return SampleUncertainty(
        entropy,
        variance,
        float(entropy.mean()),
        float(variance.mean()),
        float(scaled_entropy.sum()),
        float(scaled_entropy.mean()),
        float(scaled_variance.sum()),
        float(scaled_variance.mean()),
    )


def _sweep(distance: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    ramp = np.arange(distance.shape[1]) * CHAMFER_AXIS
    rows = np.empty_like(distance)
    for number, start in enumerate(distance):
        row = start.copy()
        if number:
            above = rows[number - 1]
            row = np.minimum(row, above + CHAMFER_AXIS)
            row[1:] = np.minimum(row[1:], above[:-1] + CHAMFER_DIAGONAL)
            row[:-1] = np.minimum(row[:-1], above[1:] + CHAMFER_DIAGONAL)
        # min over k of row[k] + .955|j - k|: a running minimum of row - ramp from each side.
        from_left = np.minimum.accumulate(row - ramp) + ramp
        from_right = np.minimum.accumulate((row + ramp)[::-1])[::-1] - ramp
        rows[number] = np.minimum(from_left, from_right)
    return rows
