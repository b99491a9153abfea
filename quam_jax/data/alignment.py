"""Two arrays side by side: do they lie on one grid, and if not, does turning or cutting one bring it there exactly?

Nothing is interpolated here. Grids are compared by where their voxels lie in millimetres, so that trailing axes of length 1, the
order and the direction of axes, and the rounding of a header make no difference.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from .geometry import Geometry

TOLERANCE = 0.01  # of the smallest side of a voxel: how far apart the same voxel of two files may lie


class Placement(NamedTuple):
    """How an array lies on a grid: which of its axes is each of the grid's, whether backwards, and its index at the grid's 0."""

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    start: tuple[int, ...]

    @property
    def is_turned(self) -> bool:
        """Whether axes run backwards or in another order."""
        return any(self.flipped) or self.axes != tuple(range(len(self.axes)))


def placement(own: Geometry, grid: Geometry) -> Placement | str:
    """How an array of the grid `own` lies on another one, or in what way the voxels of the two do not meet."""
    if own.kind != grid.kind:
        return f"a {own.kind} file beside a {grid.kind} file: their axes are in a different order; give both in one format"
    rank = grid.rank
    if own.rank != rank:
        return f"{own.rank} axes ({times(own.size)}) beside {rank} ({times(grid.size)})"
    if own.kind == "raster":
        start = (0,) * rank
        return Placement((0, 1), (False, False), start) if own.size == grid.size else _sizes(own, grid)
    basis, offset = own.affine[:3, :rank], grid.affine[:3, 3] - own.affine[:3, 3]
    turn = np.linalg.lstsq(basis, grid.affine[:3, :rank], rcond=None)[0]
    shift = np.linalg.lstsq(basis, offset, rcond=None)[0]
    axes = tuple(int(a) for a in np.abs(turn).argmax(0))
    signs = np.sign(turn[axes, range(rank)])
    start = tuple(int(n) for n in np.rint(shift))
    exact = np.zeros((rank, rank))
    exact[axes, range(rank)] = signs
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.size], indexing="ij")).reshape(rank, -1)
    there = grid.affine[:3, :rank] @ corners + offset[:, None]
    gap = float(np.linalg.norm(there - basis @ (exact @ corners + np.array(start)[:, None]), axis=0).max())
    if sorted(axes) != list(range(rank)) or not gap <= TOLERANCE * min(own.spacing):
        sizes = "" if own.size == grid.size else f"{_sizes(own, grid)}; "
        return f"{sizes}its affine puts voxels up to {gap:.4g} mm beside the other's; resample one onto the other"
    return Placement(axes, tuple(bool(s < 0) for s in signs), start)


def lie_on_one_grid(own: Geometry, grid: Geometry) -> bool:
    """Whether two files have the same voxels in the same order."""
    placed = placement(own, grid)
    return not isinstance(placed, str) and not placed.is_turned and not any(placed.start) and own.size == grid.size


def require_same_grid(own: Geometry, grid: Geometry, *, where: str) -> None:
    """ValueError, naming `where`, unless a file has the voxels of another one, in the same order."""
    if not lie_on_one_grid(own, grid):
        placed = placement(own, grid)
        fault = placed if isinstance(placed, str) else f"{_turned(own, grid, placed)}; bring one to the grid of the other"
        raise ValueError(f"{where}: not on the grid of its image: {fault}")


def align(
    array: Num[np.ndarray, "..."], own: Geometry, grid: Geometry, *, where: str, outside: float | None = None
) -> tuple[Num[np.ndarray, "..."], str]:
    """An array `[*own ...]` on another grid `[*grid ...]`, and in words what was done for that, "" for nothing.

    Axes are put in order, turned and cut where that is exact; `outside` stands where the array does not reach. ValueError,
    naming `where`, for voxels that do not meet, and for an array that does not reach everywhere without an `outside`.
    """
    placed = placement(own, grid)
    if isinstance(placed, str):
        raise ValueError(f"{where}: not on the grid of its image: {placed}")
    if lie_on_one_grid(own, grid):
        return array, ""
    rest = range(grid.rank, array.ndim)
    turned = array.transpose(*placed.axes, *rest)[tuple(slice(None, None, -1 if back else 1) for back in placed.flipped)]
    result = np.full((*grid.size, *array.shape[grid.rank :]), 0 if outside is None else outside, array.dtype)
    into, taken, reaches = [], [], True
    for n, m, axis, back in zip(grid.size, turned.shape, placed.axes, placed.flipped, strict=False):
        first = own.size[axis] - 1 - placed.start[axis] if back else placed.start[axis]
        low, high = max(0, -first), min(n, m - first)
        into.append(slice(low, max(low, high)))
        taken.append(slice(low + first, max(low, high) + first))
        reaches = reaches and low == 0 and high == n
    if not reaches and (outside is None or any(s.start == s.stop for s in into)):
        raise ValueError(f"{where}: covers a part of its image only ({_turned(own, grid, placed)}); expected all of it")
    result[tuple(into)] = turned[tuple(taken)]
    return result, _turned(own, grid, placed)


def _turned(own: Geometry, grid: Geometry, placed: Placement) -> str:
    done = []
    if placed.is_turned:
        done.append(f"its axes run {own.orientation}, the other's {grid.orientation}")
    if sorted(own.size) != sorted(grid.size) or not (done or own.size == grid.size):
        done.append(f"it has {times(own.size)} voxels of the same lattice, the other {times(grid.size)}")
    if not done:
        done.append(f"it begins {np.linalg.norm(grid.affine[:3, 3] - own.affine[:3, 3]):.4g} mm away from the other")
    return " and ".join(done)


def _sizes(own: Geometry, grid: Geometry) -> str:
    return f"it has size {times(own.size)}, the other {times(grid.size)}"


def times(size: tuple[int, ...]) -> str:
    """A size in words."""
    return " x ".join(map(str, size))
