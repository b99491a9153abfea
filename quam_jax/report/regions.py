"""Where the epistemic mass lies: connected regions of a map with their size, shares and flip cost."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage


@dataclass(frozen=True)
class Region:
    """A connected region; `mass` is the sum of epistemic nats over its pixels, the other maps are means.

    `peak` is the index of its largest epistemic value, `inside` the share of it inside the prediction (None
    without one) and `flip_cost` the smallest flip cost in it (None where it was not computed).
    """

    number: int
    peak: tuple[int, ...]
    pixels: int
    mass: float
    total: float | None
    aleatoric: float | None
    epistemic: float
    inside: float | None
    flip_cost: float | None

    @property
    def share(self) -> float | None:
        """Epistemic share of the total uncertainty of the region, None without a total."""
        return None if not self.total else self.epistemic / self.total


def find_regions(
    arrays: Mapping[str, Num[np.ndarray, "*space"]], *, threshold: float, limit: int = 8
) -> tuple[list[Region], int]:
    """The `limit` regions of largest epistemic mass, and how many there are in all.

    A region is a set of pixels with epistemic uncertainty >= `threshold` nats (> 0) that touch along an edge
    or face.
    """
    epistemic = arrays.get("epistemic")
    if epistemic is None or not threshold > 0:
        return [], 0
    values: Float[np.ndarray, "*space"] = np.nan_to_num(np.asarray(epistemic, np.float64))
    labels, count = ndimage.label(values >= threshold)
    if count == 0:
        return [], 0
    index = np.arange(1, count + 1)
    mass = ndimage.sum_labels(values, labels, index)
    order = np.argsort(-mass, kind="stable")[:limit]
    boxes = ndimage.find_objects(labels)
    regions = []
    for number, place in enumerate(order.tolist(), start=1):
        box = boxes[place]
        member = labels[box] == place + 1
        inner = np.where(member, values[box], -np.inf)
        peak = np.unravel_index(int(np.argmax(inner)), inner.shape)
        regions.append(
            Region(
                number=number,
                peak=tuple(int(p) + s.start for p, s in zip(peak, box, strict=True)),
                pixels=int(member.sum()),
                mass=float(mass[place]),
                total=_mean(arrays.get("total"), box, member),
                aleatoric=_mean(arrays.get("aleatoric"), box, member),
                epistemic=float(values[box][member].mean()),
                inside=_inside(arrays.get("segmentation"), box, member),
                flip_cost=_smallest(arrays.get("flipcost"), box, member),
            )
        )
    return regions, count


def _mean(values: np.ndarray | None, box: tuple[slice, ...], member: np.ndarray) -> float | None:
    return None if values is None else float(np.asarray(values[box], np.float64)[member].mean())


def _inside(labels: np.ndarray | None, box: tuple[slice, ...], member: np.ndarray) -> float | None:
    return None if labels is None else float((labels[box][member] > 0).mean())


def _smallest(values: np.ndarray | None, box: tuple[slice, ...], member: np.ndarray) -> float | None:
    if values is None:
        return None
    picked = values[box][member]
    picked = picked[np.isfinite(picked)]
    return float(picked.min()) if picked.size else None
