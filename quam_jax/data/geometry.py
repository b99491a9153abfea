"""Where the values of an array lie: the grid of the file they came from, kept exactly for writing maps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # nibabel takes its time to import, and arrays without a file need none of it
    from nibabel.nifti1 import Nifti1Header

MILLIMETRES = {1: 1e3, 3: 1e-3}  # NIfTI unit codes for metre and micron; all else is taken as millimetre


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of an image file.

    - `kind`: "nifti" (array axes are the file's i, j, k) or "raster" (array axes are rows, columns).
    - `size`: the spatial axes of the array, 2 or 3 of them.
    - `shape`: the axes of one channel in the file; `size` plus trailing axes of length 1 (a slice stored as
      x, y, 1).
    - `affine`: voxel indices (i, j, k, 1) to millimetres; for a raster the identity (pixels).
    - `spacing`: length of a voxel along each axis of `size`, in millimetres; 1 per pixel for a raster.
    - `suffix`, `mode`: the file's suffix and its storage type (NIfTI data type, pillow mode).
    - `header`: the NIfTI header as read (sform, qform and both codes, dim_info, units), None for a raster.
    """

    kind: Literal["nifti", "raster"]
    size: tuple[int, ...]
    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]
    spacing: tuple[float, ...]
    suffix: str
    mode: str
    header: "Nifti1Header | None" = None

    @property
    def rank(self) -> int:
        """Number of spatial axes of the array."""
        return len(self.size)

    @property
    def orientation(self) -> str | None:
        """Where the axes of a NIfTI array point, such as "RAS"; None for a raster or a degenerate affine."""
        from nibabel.orientations import aff2axcodes

        codes = aff2axcodes(self.affine) if self.kind == "nifti" else ()
        return "".join(map(str, codes)) if codes and None not in codes else None

    @property
    def thickness(self) -> float | None:
        """How thick a single slice of a volume is, in millimetres, as its file says; None of anything else."""
        one_slice = self.kind == "nifti" and self.rank == 2 and len(self.shape) > 2
        return float(np.linalg.norm(self.affine[:3, 2])) if one_slice else None

    @property
    def voxel_sides(self) -> tuple[float, ...]:
        """`spacing`, with the thickness of a single slice of a volume."""
        return self.spacing if self.thickness is None else (*self.spacing, self.thickness)
