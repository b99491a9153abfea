"""The sides of voxels as nnU-Net's readers take them, where a file says them twice."""

import numpy as np

from .files import NIFTI_SUFFIXES
from .geometry import MILLIMETRES, Geometry


def stated_spacing(geometry: Geometry, *, reorient: bool, units: bool) -> tuple[float, ...]:
    """The sides of the voxels along the file's axes as nnU-Net's reader gives them, in millimetres.

    Of a NIfTI file these are pixdim, whatever sform or qform say; readers of NiBabel take no notice of units, and where they turn
    the image they take the sides from the affine, in single precision.
    """
    sides = geometry.voxel_sides
    if geometry.header is None or geometry.suffix not in (*NIFTI_SUFFIXES, ".hdr", ".img"):
        return sides
    factor = MILLIMETRES.get(int(geometry.header["xyzt_units"]) & 7, 1.0)
    pixdim = np.abs(geometry.header["pixdim"][1 : len(sides) + 1].astype(np.float64))
    stated = np.where(np.isfinite(pixdim) & (pixdim > 0), pixdim, 1.0)
    if reorient and len(sides) == 3 and (orientation_of(geometry) != [[0, 1], [1, 1], [2, 1]]).any():
        turned = np.asarray(sides) / factor
        stated = np.where(np.abs(stated - turned) <= 1e-4 * turned, stated, turned.astype(np.float32))
    return tuple((stated * (factor if units else 1.0)).tolist())


def spacing_note(geometry: Geometry, *, reorient: bool, units: bool) -> str | None:
    """A sentence where nnU-Net's reader takes other sides of the voxels than the affine says, on which volumes in ml rest."""
    sides = geometry.voxel_sides
    stated = stated_spacing(geometry, reorient=reorient, units=units)
    if np.allclose(stated, sides, rtol=1e-3, atol=0):
        return None
    affine, pixdim = (" x ".join(f"{side:.4g}" for side in one) for one in (sides, stated))
    return (
        f"the affine (sform or qform) says voxels of {affine} mm, pixdim {pixdim}; the model takes {pixdim} as nnU-Net does, and "
        "volumes are by the affine; store the image with one voxel size"
    )


def orientation_of(geometry: Geometry) -> np.ndarray:
    """From the file's axes to the nearest right-anterior-superior ones."""
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform  # late, as in geometry.py

    return ornt_transform(io_orientation(geometry.affine), axcodes2ornt("RAS"))
