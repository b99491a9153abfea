"""The volume of a case as the viewer of the page takes it: small NIfTI files of its layers, and what they are called.

Every layer is on one grid: the case's own, cropped and reduced as far as the case's share of the page demands. Grey values have
4096 or 256 levels between their 0.1 and 99.9 percentiles, maps 255 levels of their fixed scale. What was done is said in words.
"""

import base64
import gzip
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Num, Shaped

from ..evaluation.regions import find_regions
from . import figures
from .folder import UNREADABLE, Case, Run
from .layers import TITLES, Layers, Scales
from .plots import member_class

PAGE_CHARACTERS = 9e6  # of all volumes of a page, as base64
LEAST_CHARACTERS = 2e5  # of one case, however many there are
MARGINS = (2.0, 1.0, 0.3)  # of a structure's box, on each side, where the volume is cropped: as wide as there is room
STEPS = 254  # of a map's scale in a byte
FADE = 0.35  # share of a scale over which colours fade in; on a volume's dark ground less would blacken it
SLOPE_AT = 112  # bytes into a NIfTI header, with the intercept behind it
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
OUTLINES = {"dilated": (240, 160, 48), "eroded": (86, 180, 233)}
OTHER_OUTLINE = (61, 219, 168)


class Grid(NamedTuple):
    """Which part of a case is in the page, in steps of `factors` voxels, and where its voxels lie in millimetres."""

    box: tuple[slice, ...]
    factors: tuple[int, ...]
    deep: bool
    affine: Float[np.ndarray, "4 4"]

    @property
    def steps(self) -> int:
        """Grey levels above the lowest."""
        return 4095 if self.deep else 255

    def count(self, space: tuple[int, ...]) -> int:
        """Voxels of a layer."""
        return math.prod(-(-(b.stop - b.start) // f) for b, f in zip(self.box, self.factors, strict=True))


class Volume(NamedTuple):
    """What the page says of a volume: its layers (key, title, kind, colours, range), regions in millimetres, and remarks."""

    layers: list[dict[str, Any]]
    colours: dict[str, dict[str, list[int]]]
    remarks: list[str]
    millimetres: bool
    data: dict[str, str]


def pack_volume(run: Run, case: Case, layers: Layers, scales: Scales, *, regions: int, threshold: float) -> Volume | None:
    """The layers of a volume within its share of the page; None for a picture, or without an image or segmentation."""
    arrays = layers.arrays
    if len(layers.space) != 3 or "image" not in arrays or "segmentation" not in arrays or arrays["image"].ndim != 3:
        return None
    share = max(PAGE_CHARACTERS / max(scales.pictured, 1), LEAST_CHARACTERS)
    affine, millimetres = affine_of(run.folder, case, layers)
    limits = _limits(arrays["image"])
    parts = None
    if "epistemic" in arrays and threshold > 0:
        parts = find_regions(arrays, threshold=threshold, limit=regions).labels
    data: dict[str, str] = {}
    for grid in _grids(layers, affine):
        if _expected(grid, layers) > share:
            continue
        scaled = ((limits[1] - limits[0]) / grid.steps, limits[0])
        data = {"image": _encode(_grey(arrays["image"], grid, limits), grid, scaled=scaled, shown=limits)}
        if len(data["image"]) > share:
            continue
        data |= _maps(layers, scales, grid) | _labels(layers, grid)
        if parts is not None:
            data["regions"] = _encode(_middle(parts, grid).astype(np.uint8), grid, labels=True)
        if sum(map(len, data.values())) <= share:
            break
    else:
        if not data:
            return None
    listed = _listed(case, layers, scales, data, limits)
    used = {entry["colours"] for entry in listed if entry["kind"] == "map"}
    colours = {name: _colour_map(name) for name in sorted(used)}
    return Volume(listed, colours, _remarks(layers, grid, limits), millimetres, data)


def affine_of(folder: Path, case: Case, layers: Layers) -> tuple[Float[np.ndarray, "4 4"], bool]:
    """Voxel index to millimetres, from the segmentation's own header, else from spacing and orientation; whether it is known."""
    import nibabel  # here: importing it takes long

    outputs = case.record.get("outputs")
    name = outputs.get("segmentation") if isinstance(outputs, Mapping) else None
    if isinstance(name, str) and name.endswith((".nii.gz", ".nii")):
        path = (folder / name).resolve()
        try:
            if path.is_relative_to(folder.resolve()):
                stored = nibabel.load(path)
                if stored.shape[:3] == layers.space:  # type: ignore[attr-defined]
                    return np.asarray(stored.affine, np.float64), True  # type: ignore[attr-defined]
        except (*UNREADABLE, nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError):
            pass  # the file is damaged, and the record says how long a voxel is
    image = case.record.get("image")
    letters = image.get("orientation") if isinstance(image, Mapping) else None
    affine = np.eye(4)
    axes = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    known = isinstance(letters, str) and len(letters) == 3 and {axes[c][0] for c in letters if c in axes} == {0, 1, 2}
    for axis, length in enumerate(layers.spacing):
        place, sign = axes[letters[axis]] if known else (axis, 1)  # type: ignore[index]
        affine[:3, axis] = 0
        affine[place, axis] = sign * length
    return affine, layers.unit == "mm"


def _grids(layers: Layers, affine: Float[np.ndarray, "4 4"]) -> list[Grid]:
    """From the finest down: all of it, with fewer grey levels, cropped around the structures, then in larger voxels."""
    whole = tuple(slice(0, n) for n in layers.space)
    boxes = [_box(layers, margin) for margin in MARGINS]
    thin = min(layers.spacing)
    inside = tuple(1 if length > 1.5 * thin else 2 for length in layers.spacing)  # thick slices stay
    one = (1, 1, 1)
    chosen: list[tuple[tuple[slice, ...], tuple[int, ...], bool]] = [
        *((part, one, deep) for part in (whole, *boxes) for deep in (True, False))
    ]
    chosen += [(part, inside, False) for part in (whole, boxes[-1])]
    chosen += [(part, (k, k, k), False) for k in (2, 3, 4, 6, 8, 12) for part in (whole, boxes[-1])]
    grids = []
    for part, factors, deep in chosen:
        moved = affine.copy()
        corner = np.array([b.start + (f - 1) / 2 for b, f in zip(part, factors, strict=True)])
        moved[:3, 3] += affine[:3, :3] @ corner
        moved[:3, :3] *= np.array(factors)
        grids.append(Grid(part, factors, deep, moved))
    return grids


def _box(layers: Layers, margin: float) -> tuple[slice, ...]:
    """Around everything that is segmented by anyone, or uncertain, with a margin."""
    arrays = layers.arrays
    there = arrays["segmentation"] > 0
    for name in ("adversarial", "raters"):
        for labels in arrays.get(name, ()):
            there = there | (labels > 0)
    if "epistemic" in arrays:
        values = np.nan_to_num(arrays["epistemic"])
        there = there | (values > 0.05 * float(values.max(initial=0.0)))
    if not there.any():
        return tuple(slice(0, n) for n in layers.space)
    box = []
    for axis, size in enumerate(layers.space):
        seen = np.flatnonzero(there.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = int(seen[0]), int(seen[-1]) + 1
        edge = max(8, round(margin * (high - low)))
        box.append(slice(max(0, low - edge), min(size, high + edge)))
    return tuple(box)


def _expected(grid: Grid, layers: Layers) -> float:
    """Characters that the image will take at least: noise compresses little."""
    return grid.count(layers.space) * (0.8 if grid.deep else 0.4)


def _limits(image: Num[np.ndarray, "x y z"]) -> tuple[float, float]:
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite[:: max(1, finite.size // 2_000_000)], [0.1, 99.9]))
    return (low, high) if high > low else (float(finite.min()), max(float(finite.max()), float(finite.min()) + 1e-6))


def _grey(image: Num[np.ndarray, "x y z"], grid: Grid, limits: tuple[float, float]) -> Integer[np.ndarray, "i j k"]:
    low, high = limits
    place = np.clip((np.nan_to_num(_mean(image, grid), nan=low) - low) / (high - low), 0, 1)
    return np.rint(grid.steps * place).astype(np.int16 if grid.deep else np.uint8)


def _maps(layers: Layers, scales: Scales, grid: Grid) -> dict[str, str]:
    found = {}
    for name in layers.maps:
        scale = scales.of(name)
        share = figures.map_share(_mean(layers.arrays[name], grid, scale=scale), scale)
        levels = np.rint(STEPS * np.nan_to_num(share)).astype(np.uint8)
        found[name] = _encode(levels, grid, scaled=(scale.high / STEPS, 0.0), shown=(0.0, scale.high))
    return found


def _labels(layers: Layers, grid: Grid) -> dict[str, str]:
    stacks = {"segmentation": layers.arrays["segmentation"]}
    stacks |= {f"adversarial{i}": layers.arrays["adversarial"][i] for i in range(len(layers.adversarial))}
    stacks |= {f"rater{i}": layers.arrays["raters"][i] for i in range(len(layers.raters))}
    return {
        key: _encode(np.clip(_middle(labels, grid), 0, 255).astype(np.uint8), grid, labels=True) for key, labels in stacks.items()
    }


def _mean(values: Num[np.ndarray, "x y z"], grid: Grid, *, scale: figures.Scale | None = None) -> Float[np.ndarray, "i j k"]:
    """Means of blocks; of costs, of which the smallest counts, the smallest."""
    part = values[grid.box].astype(np.float32, copy=False)
    for axis, factor in enumerate(grid.factors):
        if factor == 1:
            continue
        starts = np.arange(0, part.shape[axis], factor)
        if scale is not None and scale.falling:
            part = np.fmin.reduceat(part, starts, axis=axis)
            continue
        sizes = np.minimum(factor, part.shape[axis] - starts).reshape([-1 if a == axis else 1 for a in range(3)])
        part = np.add.reduceat(part, starts, axis=axis) / sizes.astype(np.float32)
    return part


def _middle(labels: Shaped[np.ndarray, "x y z"], grid: Grid) -> Shaped[np.ndarray, "i j k"]:
    part = labels[grid.box]
    for axis, factor in enumerate(grid.factors):
        places = np.minimum(np.arange(0, part.shape[axis], factor) + factor // 2, part.shape[axis] - 1)
        part = np.take(part, places, axis=axis)
    return part


def _encode(
    values: Integer[np.ndarray, "i j k"],
    grid: Grid,
    *,
    scaled: tuple[float, float] | None = None,
    shown: tuple[float, float] | None = None,
    labels: bool = False,
) -> str:
    """A gzipped NIfTI file as base64."""
    plain = nifti_bytes(values, grid.affine, scaled=scaled, shown=shown, labels=labels)
    return base64.b64encode(gzip.compress(plain, 6, mtime=0)).decode("ascii")


def nifti_bytes(
    values: Num[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    *,
    scaled: tuple[float, float] | None = None,
    shown: tuple[float, float] | None = None,
    labels: bool = False,
) -> bytes:
    """A NIfTI file in millimetres; number n stands for slope * n + intercept, where these two are given.

    A viewer that is told the range `shown` need not look for one in a histogram.
    """
    import nibabel  # here: importing it takes long

    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    if labels:
        image.header.set_intent("label")
    if shown is not None:
        image.header["cal_min"], image.header["cal_max"] = shown
    plain = bytearray(image.to_bytes())
    if scaled is not None:  # in the header itself, as nibabel would scale the numbers
        struct.pack_into("<2f", plain, SLOPE_AT, *scaled)
    return bytes(plain)


def _listed(
    case: Case, layers: Layers, scales: Scales, data: Mapping[str, str], limits: tuple[float, float]
) -> list[dict[str, Any]]:
    """What the viewer can show, the lowest layer first; `most` is the largest label of a layer."""
    names = case.record.get("labels")
    labels = [str(n) for n in names] if isinstance(names, list) else []
    low, high = figures.display_range(layers.arrays["image"], colour=False)
    listed: list[dict[str, Any]] = [
        {"key": "image", "title": "Image", "kind": "image", "low": max(low, limits[0]), "high": min(high, limits[1])}
    ]
    first = "flipcost" if "flipcost" in layers.maps else "epistemic"
    for name in layers.maps:
        scale = scales.of(name)
        listed.append(
            {
                "key": name, "title": TITLES[name], "kind": "map", "colours": scale.colours, "high": scale.high,
                "falling": scale.falling, "on": name == first,
            }
        )  # fmt: skip
    most = _most(layers.arrays["segmentation"])
    known = [labels[k] if k < len(labels) else f"class {k}" for k in range(1, most + 1)]
    single = [(255, 255, 255)] if most == 1 else [COLOURS[(k - 1) % len(COLOURS)] for k in range(1, most + 1)]
    shown = {"key": "segmentation", "title": "Prediction", "kind": "labels", "names": known, "rgb": single, "most": most}
    listed.append({**shown, "on": True})
    for i, name in enumerate(layers.adversarial):
        rgb = OUTLINES.get(member_class(name, i), OTHER_OUTLINE)
        listed.append(_outlined(f"adversarial{i}", f"Adversarial: {name}", name, rgb, _most(layers.arrays["adversarial"][i])))
    for i, name in enumerate(layers.raters):
        listed.append(_outlined(f"rater{i}", f"Rater: {name}", name, (242, 154, 200), _most(layers.arrays["raters"][i])))
    if "regions" in data:
        listed.append(_outlined("regions", "Regions to look at", "region", (255, 255, 0), 255))
    return listed


def _outlined(key: str, title: str, name: str, rgb: tuple[int, int, int], most: int) -> dict[str, Any]:
    return {"key": key, "title": title, "kind": "labels", "names": [name], "rgb": [rgb], "most": most}


def _most(labels: Integer[np.ndarray, "x y z"]) -> int:
    """The largest label that a byte holds, at least 1."""
    return min(255, max(1, int(labels.max(initial=1))))


def _colour_map(name: str) -> dict[str, list[int]]:
    """A colour scale as the viewer takes it: red, green, blue and alpha at places from 0 to 255, clear near 0."""
    table = figures.colour_table(name)[: figures.LEVELS]
    places = np.unique(np.linspace(0, figures.LEVELS - 1, 33).round().astype(int))
    share = places / (figures.LEVELS - 1)
    channels = {letter: table[places, k].tolist() for k, letter in enumerate("RGB")}
    alpha = np.rint(255 * np.minimum(share / FADE, 1)).astype(int)
    return {**channels, "A": alpha.tolist(), "I": np.rint(255 * share).astype(int).tolist()}


def _remarks(layers: Layers, grid: Grid, limits: tuple[float, float]) -> list[str]:
    said = []
    if any(b.stop - b.start < n for b, n in zip(grid.box, layers.space, strict=True)):
        ranges = ", ".join(f"{b.start} to {b.stop - 1}" for b in grid.box)
        said.append(
            f"Cropped to voxels {ranges} of {' × '.join(map(str, layers.space))}: where something is segmented or uncertain."
        )
    if max(grid.factors) > 1:
        said.append(f"Reduced: a voxel here is the mean of {' × '.join(map(str, grid.factors))} (labels: the middle one).")
    said.append(
        f"Grey values in {grid.steps + 1} steps from {limits[0]:.4g} to {limits[1]:.4g}; the files keep every voxel and value."
    )
    return said
