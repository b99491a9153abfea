"""What the report draws of a case: its arrays, reduced where the image is large, and then figures of the whole beside them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from ..case.quantified import Quantified
from ..data.large import row_blocks
from ..data.maps import pack_arrays
from ..data.volumes import Image
from ..report.figures import shrink, shrink_labels

EXACT = 2**21  # pixels of a picture up to which the report holds all of them
REDUCED = 2**20  # pixels that a larger picture is reduced to, at most


def reduction(space: Sequence[int]) -> int:
    """By which factor the sides of a picture are divided for the report; 1 for small pictures and for volumes.

    Examples:
        >>> reduction((1024, 811)), reduction((2048, 2048)), reduction((8192, 8192)), reduction((512, 512, 300))
        (1, 2, 8, 1)
    """
    if len(space) != 2 or math.prod(space) <= EXACT:
        return 1
    factor = math.ceil(math.sqrt(math.prod(space) / REDUCED))
    return factor if min(space) >= factor else 1


def pack_drawn(quantified: Quantified, image: Image) -> bytes:
    """The image as read, the maps, the label maps and the trajectories as an .npz archive, and what scores need besides maps.

    Of a large picture values are means of blocks, labels those in the middle of a block, costs the smallest of a block.
    """
    factor = reduction(quantified.segmentation.shape)
    picture = image.array[..., :3] if image.array.shape[-1] == 3 else image.array[..., 0]
    arrays: dict[str, Any] = dict(
        image=_means(picture, factor),
        segmentation=_middles(quantified.segmentation, factor).astype(np.int16),
        **{name: _means(values, factor) for name, values in quantified.maps.items()},
        adversarial=np.stack([_middles(labels, factor).astype(np.int8) for labels in quantified.adversarial]),
        adversarial_names=np.array(quantified.adversarial_names),
        **{name: getattr(quantified, name) for name in ("objective", "fit_loss", "bound", "penalty", "feasible")},
    )
    if "slack" in quantified.fragility:
        arrays["flipcost"] = _smallest(quantified.fragility["slack"], factor)
    if quantified.adversarial_classes is not None:
        arrays["adversarial_classes"] = quantified.adversarial_classes
    elif factor > 1 and image.geometry.kind == "nifti":  # volumes are counted in whole models
        arrays["adversarial_classes"] = quantified.adversarial
    if quantified.volumes is not None:
        arrays |= {"sample_ml": quantified.volumes.ml, "sample_weights": quantified.volumes.weights}
    return pack_arrays(**arrays)


def drawn_labels(raters: Mapping[str, np.ndarray], space: Sequence[int]) -> dict[str, np.ndarray]:
    """The masks of the raters as the report draws them, reduced as the maps are."""
    factor = reduction(space)
    masks = np.stack([_middles(mask, factor).astype(np.int16) for mask in raters.values()])
    return {"raters": masks, "rater_names": np.array(list(raters))}


def whole_figures(quantified: Quantified) -> dict[str, Any] | None:
    """What the report says of a picture that it holds reduced: the factor, and of every map the figures over all pixels.

    These are the mean, the mean inside the prediction and the largest value (nats). None for other pictures.
    """
    factor = reduction(quantified.segmentation.shape)
    if factor == 1:
        return None
    return {
        "factor": factor,
        "maps": {name: _figures(values, quantified.segmentation) for name, values in quantified.maps.items()},
    }


def _figures(values: np.ndarray, segmentation: np.ndarray) -> list[float]:
    total, within, count, largest = 0.0, 0.0, 0, -math.inf
    for rows in row_blocks(values.shape):
        inside = segmentation[rows] > 0
        total += float(values[rows].sum(dtype=np.float64))
        within += float(values[rows].sum(where=inside, dtype=np.float64))
        count += int(np.count_nonzero(inside))
        largest = max(largest, float(values[rows].max()))
    return [total / values.size, within / count if count else math.nan, largest]


def _means(values: Num[np.ndarray, "..."], factor: int) -> Num[np.ndarray, "..."]:
    if factor == 1:
        return values.astype(np.float32, copy=False)
    return np.concatenate([shrink(values[None, rows].astype(np.float32), factor)[0] for rows in _blocks(values.shape, factor)])


def _middles(labels: np.ndarray, factor: int) -> np.ndarray:
    return labels if factor == 1 else shrink_labels(labels[None], factor)[0]


def _smallest(costs: np.ndarray, factor: int) -> np.ndarray:
    """The smallest cost of every block; NaN where nobody asked in it."""
    if factor == 1:
        return costs
    for axis in (0, 1):
        costs = np.fmin.reduceat(costs, np.arange(0, costs.shape[axis], factor), axis=axis)
    return costs


def _blocks(shape: Sequence[int], factor: int) -> list[slice]:
    """Blocks of rows whose ends are ends of blocks of pixels."""
    rows = next(row_blocks(shape)).stop
    step = max(1, rows // factor) * factor
    return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
