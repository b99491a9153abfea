"""Golden numbers of the published metrics: Dice and Hausdorff of samples, pairs of masks, sample uncertainty.

The other entries of the index (morphology, test-time augmentation, ensembles, dropout) belong elsewhere.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quam_jax.evaluation import surface
from quam_jax.published import figures as published

INDEX = "E_metrics/index.json"
COVERED = ("E_metrics/dice_hd.npz", "E_metrics/pairwise.npz", "E_metrics/sample_uncertainty.npz")

# Statistics are float32 in the reference, where the deviation of equal values may be 1e-7; other values
# are float64 and differ by rounding alone.
RELATIVE, FLOOR = 1e-5, 1e-6

Pair = Callable[[np.ndarray, np.ndarray], float]


def cases(golden: Path) -> list[str]:
    """Ids `file:case` of everything in the index that is covered here; none where the folder is absent."""
    names = {COVERED[0]: _sample_cases, COVERED[1]: _pair_columns, COVERED[2]: lambda arrays: ["all"]}
    return [f"{entry}:{name}" for entry in _index(golden) if entry in COVERED for name in names[entry](_load(golden, entry))]


def not_covered(golden: Path) -> list[str]:
    """Index entries that this section leaves to others."""
    return [entry for entry in _index(golden) if entry not in COVERED]


def check(golden: Path, case: str) -> None:
    """Compare one case, raising AssertionError with the largest difference."""
    entry, name = case.split(":")
    arrays = _load(golden, entry)
    checks = {COVERED[0]: _check_samples, COVERED[1]: _check_pairs, COVERED[2]: _check_uncertainty}
    checks[entry](arrays, name)


def _index(golden: Path) -> list[str]:
    path = golden / INDEX
    return json.loads(path.read_text()) if path.is_file() else []


def _load(golden: Path, entry: str) -> dict[str, np.ndarray]:
    with np.load(golden / entry) as file:
        return dict(file)


def _sample_cases(arrays: dict[str, np.ndarray]) -> list[str]:
    return sorted(key.removesuffix("/pred") for key in arrays if key.endswith("/pred"))


def _pair_columns(arrays: dict[str, np.ndarray]) -> list[str]:
    return [key for key in arrays if key not in ("A", "B")]


def _close(got: object, expected: object, what: str, *, relative: float = RELATIVE, floor: float = FLOOR) -> None:
    np.testing.assert_allclose(
        np.asarray(got, np.float64), np.asarray(expected, np.float64), rtol=relative, atol=floor, err_msg=what
    )


def _check_samples(arrays: dict[str, np.ndarray], name: str) -> None:
    samples = np.moveaxis(arrays[f"{name}/pred"], 1, -1)
    raters = arrays[f"{name}/gt"]
    raters = raters[None] if raters.ndim == 2 else raters
    classes = samples.shape[-1]
    values = {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
    truth = published.consensus_by_mode(raters)
    left = set(values) - {"pred", "gt"}

    def compare(key: str, got: object) -> None:
        _close(got, values[key], f"{name}/{key}")
        left.discard(key)

    if "majority" in values:
        np.testing.assert_array_equal(truth, values["majority"], err_msg=f"{name}/majority")
        left.discard("majority")
    variants = {"multi": published.sample_quality, "binary": published.sample_quality_binary}
    for variant, function in variants.items():
        keys = [key for key in left if key.startswith(f"{variant}/")]
        if not keys:
            continue
        quality = function(samples, raters)
        statistics = {"Dice_Statistics": quality.dice, "Hausdorff_Distance_Statistics": quality.hausdorff}
        own = {"GT_Dice": quality.consensus_dice}
        if variant == "multi":
            mean = quality.mean_prediction
            own["GT_Dice_per_class"] = published.class_smoothed_dice(mean, truth, classes=classes)
            own["pred_sum_per_class"] = np.bincount(mean.ravel(), minlength=classes)
            own["gt_sum_per_class"] = np.bincount(truth.ravel(), minlength=classes)[:classes]
        for key in sorted(keys):
            _, *path = key.split("/")
            if path == ["pred_mean_argmax"]:
                np.testing.assert_array_equal(quality.mean_prediction, values[key], err_msg=f"{name}/{key}")
                left.discard(key)
            elif path[0] in statistics:
                compare(key, getattr(statistics[path[0]], path[1]))
            else:
                compare(key, own[path[0]])
    assert not left, f"{name}: nothing computes {sorted(left)}"


def _pair_function(column: str) -> Pair:
    """The function of a column of pairwise.npz; constants are read from its name."""
    constant = re.search(r"(?:smooth|eps)([0-9.]+(?:e-?[0-9]+)?)", column)
    number = float(constant.group(1)) if constant else 0.0
    table: dict[str, Pair] = {
        "dice": lambda a, b: published.smoothed_dice(a, b, smooth=number),
        "hd_binary_np": published.border_hausdorff,
        "hausdorff_distance_np": published.border_hausdorff,
        "hausdorff_distance_pointset": published.point_hausdorff,
        "compute_hd_forward": published.directed_hausdorff,
        "compute_hd_backward": lambda a, b: published.directed_hausdorff(b, a),
        "hamming": published.hamming,
        "bce": lambda a, b: published.binary_cross_entropy(a, b, clamp=number),
        "medpy_hd_or_nan": lambda a, b: surface.hausdorff(surface.surface_distances(a, b)),
        "chamfer_1to2": published.chamfer_distance,
        "chamfer_2to1": lambda a, b: published.chamfer_distance(b, a),
    }
    found = [start for start in table if column.startswith(start)]
    assert found, f"pairwise: nothing computes {column}"
    return table[max(found, key=len)]


def _check_pairs(arrays: dict[str, np.ndarray], column: str) -> None:
    function = _pair_function(column)
    got = [function(a, b) for a, b in zip(arrays["A"], arrays["B"], strict=True)]
    _close(got, arrays[column], column, relative=RELATIVE if column.startswith("chamfer") else 1e-9, floor=1e-12)


def _check_uncertainty(arrays: dict[str, np.ndarray], name: str) -> None:
    samples = np.moveaxis(arrays["class_probabilities"], 1, -1)
    got = published.sample_uncertainty(samples)
    _close(np.moveaxis(samples.mean(axis=0), -1, 0), arrays["mean_class_probabilities"], "mean", floor=1e-6)
    names = {key: key.replace("normalized", "normalised") for key in arrays}
    for key in set(arrays) - {"class_probabilities", "mean_class_probabilities"}:
        _close(getattr(got, names[key]), arrays[key], f"{name}/{key}", floor=1e-6)
