"""What an nnU-Net plan does to an image before the network and to its prediction after it.

On the way in: axes as nnU-Net's reader has them (z y x), the plan's transposition, the box of non-zero voxels, one
normalisation a channel, the plan's voxel size. On the way back the same in reverse, slab by slab. Arrays are
`[*space i]`; a two-dimensional image is a volume of one slice.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import ndimage

from .files import one_line
from .geometry import Geometry
from .intensities import normalise_channel
from .large import release, zeros
from .resampling import Scheme, coarse_axis, resample_image, resample_labels, resample_rows, resampled_shape
from .spacing import orientation_of, stated_spacing

RESAMPLING = "resample_data_or_seg_to_shape"  # the only resampling that the rules of resampling.py are those of
FILE_READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "Tiff3DIO", None)
INTENSITIES = ("mean", "std", "percentile_00_5", "percentile_99_5")  # of the foreground
SLICE_SPACING = 999.0  # of the largest in-plane spacing: the third spacing of a two-dimensional image
SLAB = 2**24  # numbers of a slab on the way back: 64 MiB


@dataclass(frozen=True)
class Plan:
    """The plan of an nnU-Net model; axes are the reader's (z y x) after `transpose`.

    `normalisation` has one entry a channel of the image (`scheme`, `use_mask`, `intensity`). `labels` are those of masks and
    files, `regions` the labels of every region and `regions_order` what regions write in turn, None for a model of exclusive
    classes; `names` has one a channel of the network.
    """

    patch: tuple[int, ...]
    spacing: tuple[float, ...]
    transpose: tuple[int, ...]
    normalisation: tuple[Mapping[str, Any], ...]
    image_orders: tuple[int, int]
    logit_orders: tuple[int, int]
    mirror_axes: tuple[int, ...]
    reorient: bool
    units: bool
    labels: int
    ignore_label: int | None
    regions: tuple[tuple[int, ...], ...] | None
    regions_order: tuple[int, ...] | None
    names: tuple[str, ...] = ()

    @staticmethod
    def of(manifest: Mapping[str, Any], *, where: str) -> "Plan":
        """The plan in a model's manifest; ValueError naming `where` if it asks for something that is not known here."""
        try:
            return Plan._of(manifest["nnunet"], where=where)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            lack = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
            raise ValueError(f"{where}: its nnU-Net plan cannot be read: {lack}; convert the model again") from error

    @staticmethod
    def _of(record: Mapping[str, Any], *, where: str) -> "Plan":
        orders = {}
        for what in ("data", "probabilities"):
            settings = record["resampling"][what]
            function, apart = settings.get("function"), settings.get("force_separate_z")
            if function not in (RESAMPLING, None) or apart is not None:
                raise ValueError(
                    f"{where}: expected resampling by {RESAMPLING} that decides for itself which axis goes apart, "
                    f"got {function} with force_separate_z {apart}"
                )
            orders[what] = (int(settings.get("order", 3 if what == "data" else 1)), int(settings.get("order_z", 0)))
        if max(orders["probabilities"]) > 1:
            raise ValueError(f"{where}: expected probabilities resampled by order 0 or 1, got {orders['probabilities']}")
        if record.get("reader") not in FILE_READERS:
            raise ValueError(
                f"{where}: expected a model that read its images with one of "
                f"{', '.join(r for r in FILE_READERS if r)}, got {record['reader']}"
            )
        for channel in record["normalisation"]:
            lacks = [name for name in INTENSITIES if not isinstance((channel["intensity"] or {}).get(name), int | float)]
            if channel["scheme"] == "CTNormalization" and lacks:
                raise ValueError(
                    f"{where}: expected the intensities of the foreground for CTNormalization, got none for {', '.join(lacks)}; "
                    "copy plans.json again from where nnU-Net trained"
                )
        patch, spacing, transpose = (record[name] for name in ("patch_size", "spacing", "transpose_forward"))
        sound = (
            len(patch) == len(spacing) in (2, 3)
            and all(isinstance(n, int) and n > 0 for n in patch)
            and all(math.isfinite(s) and s > 0 for s in spacing)
            and sorted(transpose) == [0, 1, 2]
        )
        if not sound:
            raise ValueError(
                f"{where}: expected as many sides of the patch as of the voxels, all above 0, and an order of three axes, got "
                f"{patch}, {spacing} and {transpose}"
            )
        regions = record.get("regions")
        values = [int(v) for given in record["labels"].values() for v in (given if isinstance(given, list) else [given])]
        known = [v for v in values if v != record.get("ignore_label")]
        return Plan(
            patch=tuple(record["patch_size"]),
            spacing=tuple(record["spacing"]),
            transpose=tuple(record["transpose_forward"]),
            normalisation=tuple(record["normalisation"]),
            image_orders=orders["data"],
            logit_orders=orders["probabilities"],
            mirror_axes=tuple(record.get("mirror_axes", ())),
            reorient=record.get("reader") == "NibabelIOWithReorient",
            units=not str(record.get("reader")).startswith("Nibabel"),
            labels=max(*known, *(record.get("regions_class_order") or ()), 1) + 1,
            ignore_label=record.get("ignore_label"),
            regions=None if regions is None else tuple(map(tuple, regions)),
            regions_order=None if regions is None else tuple(record["regions_class_order"]),
            names=tuple(map(str, record.get("class_names") or ())),
        )

    @property
    def rank(self) -> int:
        """Spatial axes of the network."""
        return len(self.patch)

    def target_spacing(self, spacing: Sequence[float]) -> tuple[float, ...]:
        """The voxel size of the network's grid; a two-dimensional network keeps the distance of the slices."""
        return (*spacing[: 3 - len(self.spacing)], *self.spacing)


class Grid(NamedTuple):
    """Where the network's grid lies in an image; `shape` and `spacing` are those of the network's grid."""

    geometry: Geometry
    plan: Plan
    full: tuple[int, ...]
    box: tuple[slice, ...]
    native_spacing: tuple[float, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @property
    def native_shape(self) -> tuple[int, ...]:
        """The shape of the box in the image's own voxels."""
        return tuple(s.stop - s.start for s in self.box)

    @property
    def image_scheme(self) -> Scheme:
        """How the image is resampled to the network's grid."""
        apart = coarse_axis(self.native_spacing, self.spacing)
        return Scheme(self.plan.image_orders[0], apart, self.plan.image_orders[1])

    @property
    def logit_scheme(self) -> Scheme:
        """How logits are resampled back; here the network's spacing is the current one."""
        apart = coarse_axis(self.spacing, self.native_spacing)
        return Scheme(self.plan.logit_orders[0], apart, self.plan.logit_orders[1])


def to_grid(image: Float[np.ndarray, "*space i"], geometry: Geometry, plan: Plan) -> tuple[Float[np.ndarray, "*grid i"], Grid]:
    """An image as the network takes it, on the plan's grid, and the way back.

    ValueError for another number of channels than the plan has.
    """
    if image.shape[-1] != len(plan.normalisation):
        raise ValueError(f"image: expected {len(plan.normalisation)} channels as the model has, got {image.shape[-1]}")
    volume, spacing = _forward(image, geometry, plan), _spacing(geometry, plan)
    full = volume.shape[:-1]
    inside = (volume != 0).any(-1)
    inside = inside if inside.all() else ndimage.binary_fill_holes(inside)
    box = _bounding_box(inside)
    volume, inside = volume[box], inside[box]
    normalised = np.empty(volume.shape, np.float32)
    for c, channel in enumerate(plan.normalisation):
        normalise_channel(volume[..., c], inside, normalised[..., c], **channel)
    volume = normalised
    target = plan.target_spacing(spacing)
    shape = resampled_shape(volume.shape[:-1], spacing, target)
    if min(shape) < 1:
        raise ValueError(
            f"image: {geometry.size} voxels of {geometry.spacing} mm are less than one voxel of the model's {target} mm"
        )
    grid = Grid(geometry, plan, full, box, spacing, shape, target)
    return resample_image(volume, shape, grid.image_scheme), grid


def grid_shape(image: Float[np.ndarray, "*space i"], geometry: Geometry, plan: Plan) -> tuple[int, ...]:
    """The shape of an image on the plan's grid, unless empty margins are cut off: for estimates, without resampling it."""
    spacing = _spacing(geometry, plan)
    return resampled_shape(_forward(image, geometry, plan).shape[:-1], spacing, plan.target_spacing(spacing))


def labels_to_grid(labels: Int[np.ndarray, "*space"], grid: Grid) -> Int[np.ndarray, "*grid"]:
    """Labels of the image on the network's grid."""
    volume = _forward(labels[..., None], grid.geometry, grid.plan)[..., 0][grid.box]
    return resample_labels(volume, grid.shape, grid.logit_scheme._replace(apart=grid.image_scheme.apart))


def from_grid(
    array: Num[np.ndarray, "*grid c"],
    grid: Grid,
    finish: Callable[[np.ndarray], np.ndarray],
    *,
    outside: float | Sequence[float],
    dtype: Any = np.float32,
    nearest: bool = False,
) -> np.ndarray:
    """An array of the network's grid on the image's own, `finish`ed slab by slab; `outside` stands beyond the box.

    `finish` takes resampled slabs `[*slab c]` and gives what is kept of them, with any last axes. Values are resampled as
    logits are, or taken from the `nearest` voxel where they are infinite, NaN or numbers of things.
    """
    kept = finish(np.zeros((1, 1, 1, array.shape[-1]), array.dtype)).shape[3:]
    result = zeros((*grid.geometry.size, *kept), dtype)
    to_image(array, grid, finish, result, outside=outside, nearest=nearest)
    return result


def to_image(
    array: Num[np.ndarray, "*grid c"],
    grid: Grid,
    finish: Callable[[np.ndarray], np.ndarray],
    result: Num[np.ndarray, "..."],
    *,
    outside: float | Sequence[float],
    nearest: bool = False,
) -> None:
    """`from_grid` into an array of the image's own axes that is there already."""
    view = _forward(result, grid.geometry, grid.plan)
    if grid.native_shape != grid.full:
        result[...] = outside
    scheme, native = grid.logit_scheme, grid.native_shape
    scheme = scheme._replace(order=0, order_apart=0) if nearest else scheme
    start = grid.box[0].start
    for rows in _slabs(native, array.shape[-1]):
        slab = finish(resample_rows(array, native, scheme, rows=rows))
        view[start + rows.start : start + rows.stop, grid.box[1], grid.box[2]] = slab
        release(array)
        release(result)


def points_on_grid(points: Int[np.ndarray, "n rank"], grid: Grid) -> Int[np.ndarray, "n 3"]:
    """The voxels of the network's grid that hold the centres of some of the image's voxels.

    ValueError for voxels outside the image, or outside the box that the plan cuts out.
    """
    size = grid.geometry.size
    fits = points.shape[1] == len(size)
    inside = ((points >= 0) & (points < np.array(size))).all(1) if fits else np.zeros(len(points), bool)
    if not inside.all():
        raise ValueError(
            f"pixel list: expected {len(size)} indices inside the image ({' x '.join(map(str, size))}), got "
            f"{','.join(map(str, points[np.argmin(inside)]))}"
        )
    found = np.zeros((len(points), 3), np.int64)
    for axis, n in enumerate(size):
        along = np.arange(n).reshape([n if a == axis else 1 for a in range(len(size) + 1)])
        places = _forward(np.broadcast_to(along, (*size, 1)), grid.geometry, grid.plan)
        if n > 1:  # the numbers change along one axis of the grid alone, upwards or downwards
            there = int(np.flatnonzero(places.strides[:3])[0])
            found[:, there] = points[:, axis] if places[0, 0, 0, 0] == 0 else n - 1 - points[:, axis]
    found -= [s.start for s in grid.box]
    outside = ((found < 0) | (found >= np.array(grid.native_shape))).any(1)
    if outside.any():
        raise ValueError(
            f"pixel list: expected voxels inside the box of non-zero voxels, got {','.join(map(str, points[np.argmax(outside)]))}"
        )
    return np.floor((found + 0.5) * np.array(grid.shape) / np.array(grid.native_shape)).astype(np.int64)


def _slabs(shape: Sequence[int], channels: int) -> Iterator[slice]:
    rows = max(1, SLAB // (math.prod(shape[1:]) * channels))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _turn(volume: Num[np.ndarray, "x y z *rest"], orientation: np.ndarray) -> Num[np.ndarray, "..."]:
    from nibabel.orientations import apply_orientation

    return apply_orientation(volume, orientation)


def _forward(array: Num[np.ndarray, "..."], geometry: Geometry, plan: Plan) -> Num[np.ndarray, "z y x *rest"]:
    """A view of an array of the image with the axes that the plan has, any last axes behind them."""
    volume = array if geometry.rank == 3 else array[:, :, None] if geometry.kind == "nifti" else array.swapaxes(0, 1)[:, :, None]
    if plan.reorient and len(geometry.voxel_sides) == 3:
        volume = _turn(volume, orientation_of(geometry))
    rest = tuple(range(3, volume.ndim))
    return volume.transpose(2, 1, 0, *rest).transpose(*plan.transpose, *rest)


def _spacing(geometry: Geometry, plan: Plan) -> tuple[float, ...]:
    """The spacing of the plan's axes, as nnU-Net's reader gives it."""
    spacing = list(stated_spacing(geometry, reorient=plan.reorient, units=plan.units))
    if geometry.kind == "raster":
        spacing = spacing[::-1]
    if len(spacing) == 2:
        spacing = [*spacing, max(spacing) * SLICE_SPACING]
    elif plan.reorient:
        order = np.argsort(orientation_of(geometry)[:, 0])
        spacing = [spacing[int(axis)] for axis in order]
    zyx = spacing[::-1]
    return tuple(zyx[axis] for axis in plan.transpose)


def _bounding_box(inside: Bool[np.ndarray, "*space"]) -> tuple[slice, ...]:
    """The smallest box around the set voxels; everything where none is set."""
    box = []
    for axis in range(inside.ndim):
        found = np.flatnonzero(inside.any(tuple(a for a in range(inside.ndim) if a != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, inside.shape[axis]))
    return tuple(box)
