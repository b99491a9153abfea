"""Where the epistemic mass lies: the connected regions of a map, with what the other maps say inside them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num, Shaped
from scipy import ndimage


class Region(NamedTuple):
    """A connected region: its label in the label map, where its epistemic uncertainty is largest, and its pixels.

    `mass` and `total` are sums over the pixels of epistemic and total uncertainty (nats), `largest` is the value at the peak,
    `inside` the share of pixels inside the predicted foreground, `alone` the share that differs from both neighbouring slices
    (`slice_disagreement`), `flip_cost` the smallest finite one. None where an array that it needs is missing.
    """

    label: int
    peak: tuple[int, ...]
    pixels: int
    mass: float
    largest: float
    total: float | None
    inside: float | None
    alone: float | None
    flip_cost: float | None

    @property
    def share(self) -> float | None:
        """Epistemic share of the total uncertainty of the region; None without a total, or with one of 0."""
        return None if not self.total else self.mass / self.total


class FoundRegions(NamedTuple):
    """The regions listed, their number in all, and the label map of those listed (0 elsewhere)."""

    listed: list[Region]
    number: int
    labels: Int[np.ndarray, "*space"]


def find_regions(
    arrays: Mapping[str, Num[np.ndarray, "..."]], *, threshold: float, least: int = 1, limit: int | None = None
) -> FoundRegions:
    """Regions of at least `least` pixels whose epistemic uncertainty reaches `threshold` nats; pixels touch at edges or faces.

    `arrays` holds maps [*space] in nats (`epistemic`, `total`, `flipcost`) and the label map `segmentation` [*space]. All regions
    come in the order of their first pixels; with `limit` only those of largest mass, largest first. ValueError without an
    epistemic map, or for a threshold that is not positive.
    """
    if "epistemic" not in arrays:
        raise ValueError("regions: expected an epistemic map, got none")
    if not threshold > 0:
        raise ValueError(f"threshold: expected a number of nats > 0, got {threshold}")
    values: Float[np.ndarray, "*space"] = np.nan_to_num(np.asarray(arrays["epistemic"], np.float64))
    parts, found = ndimage.label(values >= threshold)
    chosen = 1 + np.flatnonzero(np.bincount(parts.reshape(-1), minlength=found + 1)[1:] >= least)
    count = len(chosen)
    if limit is not None and count:
        chosen = chosen[np.argsort(-ndimage.sum_labels(values, parts, chosen), kind="stable")[:limit]]
    labels = np.zeros(found + 1, np.int32)
    labels[chosen] = np.arange(1, len(chosen) + 1)
    maps: dict[str, np.ndarray] = {name: arrays[name] for name in ("total", "segmentation", "flipcost") if name in arrays}
    if "segmentation" in maps and values.ndim == 3:
        maps["alone"] = slice_disagreement(maps["segmentation"])
    boxes = ndimage.find_objects(parts)
    regions = []
    for label, part in enumerate(chosen.tolist(), start=1):
        box = boxes[part - 1]
        member = parts[box] == part
        regions.append(_describe(label, box, member, values[box], {name: array[box][member] for name, array in maps.items()}))
    return FoundRegions(regions, count, labels[parts])


def enlarged(region: Region, factor: int) -> Region:
    """A region of a picture whose sides were divided by `factor`, in pixels of the picture; its peak is the first of a block."""
    if factor == 1:
        return region
    return region._replace(
        peak=tuple(place * factor for place in region.peak),
        pixels=region.pixels * factor**2,
        mass=region.mass * factor**2,
        total=None if region.total is None else region.total * factor**2,
    )


def enlarged_labels(labels: Int[np.ndarray, "*reduced"], factor: int, full: Sequence[int]) -> Int[np.ndarray, "*space"]:
    """A label map of a picture whose sides were divided by `factor`, back in its `full` size."""
    if factor == 1:
        return labels
    for axis, size in enumerate(full):
        labels = np.repeat(labels, factor, axis)[(slice(None),) * axis + (slice(size),)]
    return labels


def slice_disagreement(labels: Integer[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    """Voxels whose label differs from both neighbours along the last axis, while these two agree; never in the end slices."""
    alone = np.zeros(labels.shape, bool)
    before, here, after = labels[..., :-2], labels[..., 1:-1], labels[..., 2:]
    alone[..., 1:-1] = (before == after) & (here != before)
    return alone


def smallest_cost(costs: Num[np.ndarray, "..."]) -> float | None:
    """The smallest finite flip cost; None where there is none."""
    finite = np.asarray(costs, np.float64)[np.isfinite(costs)]
    return float(finite.min()) if finite.size else None


def _describe(
    label: int,
    box: tuple[slice, ...],
    member: Bool[np.ndarray, "*box"],
    values: Float[np.ndarray, "*box"],
    inside: Mapping[str, Shaped[np.ndarray, " pixels"]],
) -> Region:
    inner = np.where(member, values, -np.inf)
    peak = np.unravel_index(int(inner.argmax()), inner.shape)
    return Region(
        label=label,
        peak=tuple(int(p) + s.start for p, s in zip(peak, box, strict=True)),
        pixels=int(member.sum()),
        mass=float(values[member].sum()),
        largest=float(inner.max()),
        total=float(np.nansum(np.asarray(inside["total"], np.float64))) if "total" in inside else None,
        inside=float((inside["segmentation"] > 0).mean()) if "segmentation" in inside else None,
        alone=float(inside["alone"].mean()) if "alone" in inside else None,
        flip_cost=smallest_cost(inside["flipcost"]) if "flipcost" in inside else None,
    )
