"""The arrays of one case made ready for the page: what there is, on which grid, and on which colour scale."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from .figures import Scale
from .folder import SPATIAL, STACKS, Case, load_arrays, number

TITLES = {
    "flipcost": "Cost of flipping the label",
    "total": "Total uncertainty",
    "aleatoric": "Aleatoric uncertainty",
    "epistemic": "Epistemic uncertainty",
    "softmax": "Softmax entropy",
    "rater_entropy": "Rater entropy",
}


@dataclass(frozen=True)
class Scales:
    """What is fixed over the whole page: classes, the colour scales, and how many cases have pictures."""

    classes: int
    classes_known: bool
    total: Scale
    epistemic: Scale
    flipcost: Scale
    largest_epistemic: float
    pictured: int

    def of(self, layer: str) -> Scale:
        """The scale of a map: its own for epistemic and for the cost, that of an entropy for all others."""
        return {"epistemic": self.epistemic, "flipcost": self.flipcost}.get(layer, self.total)


@dataclass(frozen=True)
class Layers:
    """The arrays of a case on one grid of two or three axes, with the names of what is stacked in them.

    `problems` are sentences about arrays that cannot be used, `reduced` one about what is not shown. `unit` is "mm" where
    `spacing` is in millimetres and "pixels" where it is that of an image without any. A pixel of the arrays stands for
    `factor` x `factor` of the image, whose sides are `full`, and `spacing` is that of the arrays.
    """

    arrays: Mapping[str, np.ndarray]
    space: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: str
    adversarial: tuple[str, ...]
    raters: tuple[str, ...]
    problems: tuple[str, ...]
    reduced: str | None
    factor: int = 1
    full: tuple[int, ...] = ()

    @property
    def flipped_one_by_one(self) -> bool:
        """Whether the stored adversarial model is each pixel or region under the model that was searched for it alone."""
        return bool(self.adversarial) and all(re.fullmatch(r"(pixel|region)s? \d+", name) for name in self.adversarial)

    @property
    def maps(self) -> list[str]:
        """The maps there are, in the order of the page."""
        return [name for name in TITLES if name in self.arrays]

    @cached_property
    def mass(self) -> Float[np.ndarray, "*space"]:
        """Where a reader should look first: the epistemic map, else the total, else zeros."""
        values = self.arrays.get("epistemic", self.arrays.get("total"))
        return np.zeros(self.space) if values is None else np.nan_to_num(np.asarray(values, np.float64))


def read_layers(case: Case, *, raters: bool = True) -> Layers:
    """Read the report data of a case; without any, a record of empty arrays. With `raters` their entropy is a map too."""
    arrays, problems = load_arrays(case)
    arrays, reduced = _as_picture_or_volume(arrays)
    if raters and "raters" in arrays and len(arrays["raters"]) > 1:
        arrays["rater_entropy"] = rater_entropy(arrays["raters"])
    absent = [n for n in ("image", "segmentation", "total", "aleatoric", "epistemic") if n not in arrays]
    if arrays and absent:
        problems.append(f"Not in the report data: {', '.join(absent)}.")
    space = _space(arrays)
    spacing, unit = spacing_of(case, len(space))
    factor, full = reduction_of(case, space)
    if factor > 1:
        sides = " x ".join(map(str, full))
        reduced = (
            f"Shown at 1/{factor} of the image's {sides} pixels; the files keep every pixel. Figures are those of all pixels, "
            "regions those of the reduced map."
        )
    return Layers(
        arrays=arrays,
        space=space,
        spacing=tuple(factor * length for length in spacing),
        unit=unit,
        adversarial=_names(arrays, "adversarial", "model"),
        raters=_names(arrays, "raters", "rater"),
        problems=tuple(problems),
        reduced=reduced,
        factor=factor,
        full=full,
    )


def reduction_of(case: Case, space: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """How many pixels of the image, along each side, a pixel of the arrays of sides `space` stands for; the image's own sides."""
    record, image = case.record.get("reduced"), case.record.get("image")
    factor = record.get("factor") if isinstance(record, Mapping) else None
    sides = image.get("shape") if isinstance(image, Mapping) else None
    if isinstance(factor, int) and factor > 1 and isinstance(sides, list) and len(sides) == len(space):
        full = tuple(int(n) if isinstance(n, int) else 0 for n in sides)
        if tuple(-(-n // factor) for n in full) == space:
            return factor, full
    return 1, space


def largest_of(case: Case, name: str) -> float | None:
    """The largest value of a map over all pixels of an image that is shown reduced; None for others."""
    record = case.record.get("reduced")
    maps = record.get("maps") if isinstance(record, Mapping) else None
    stored = maps.get(name) if isinstance(maps, Mapping) else None
    value = number(stored[2]) if isinstance(stored, list) and len(stored) == 3 else math.nan
    return value if math.isfinite(value) else None


def rater_entropy(raters: Num[np.ndarray, " a *space"]) -> Float[np.ndarray, "*space"]:
    """Entropy in nats of the rater mean: -sum_k p_k ln p_k, p_k the share of label k among those who rated the pixel (not -1)."""
    entropy, rated = np.zeros(raters.shape[1:]), np.maximum((raters >= 0).sum(axis=0), 1)
    for label in range(int(raters.max(initial=0)) + 1):
        share = (raters == label).sum(axis=0) / rated
        entropy -= share * np.log(np.where(share > 0, share, 1.0))
    return entropy


def _space(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    return next((arrays[n].shape for n in ("segmentation", *SPATIAL) if n in arrays), ())


def _as_picture_or_volume(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str | None]:
    """Arrays of two or three spatial axes: a third axis of length 1 goes, further axes keep their middle."""
    space = _space(arrays)
    rank = len(space)
    if rank <= 2 or (rank == 3 and space[2] != 1):
        return dict(arrays), None
    keep = 2 if space[2] == 1 else 3
    picks = tuple(size // 2 for size in space[keep:])
    reduced: dict[str, Any] = {}
    for name, values in arrays.items():
        if name in STACKS:
            reduced[name] = values[(slice(None),) * (keep + 1) + picks]
        elif name in ("image", "segmentation", *SPATIAL):
            reduced[name] = values[(slice(None),) * keep + picks]
        else:
            reduced[name] = values[0] if values.ndim == 3 and len(values) == 1 else values
    if math.prod(space[keep:]) == 1:
        return reduced, None
    cuts = enumerate(zip(picks, space[keep:], strict=True))
    where = ", ".join(f"axis {keep + i} at index {pick} of {size}" for i, (pick, size) in cuts)
    return reduced, f"The data have {rank} axes; shown is {where}."


def _names(arrays: Mapping[str, np.ndarray], stack: str, word: str) -> tuple[str, ...]:
    """The stored names of a stack; numbered where there are too few, or where several share one."""
    if stack not in arrays:
        return ()
    stored = arrays.get("rater_names" if stack == "raters" else f"{stack}_names")
    given = [str(v) for v in stored] if stored is not None and stored.ndim == 1 else []
    names = [given[i] if i < len(given) else f"{word} {i}" for i in range(len(arrays[stack]))]
    return tuple(f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names))


def spacing_of(case: Case, rank: int) -> tuple[tuple[float, ...], str]:
    """Length of a pixel along every axis and its unit: "mm" as recorded, or 1 and "pixels"."""
    image = case.record.get("image")
    if not isinstance(image, Mapping):
        return (1.0,) * rank, "pixels"
    stored = image.get("spacing")
    if isinstance(stored, list) and len(stored) >= rank:
        values = tuple(number(v) for v in stored[:rank])
        if all(math.isfinite(v) and v > 0 for v in values):
            picture = all(v == 1 for v in values) and not image.get("orientation")  # millimetres may be 1 long too
            return values, "pixels" if picture else "mm"
    return (1.0,) * rank, "pixels"
