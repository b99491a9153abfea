"""FreeSurfer volumes (.mgh, .mgz) to an array with its geometry, by nibabel; maps of such an image are written as NIfTI."""

from pathlib import Path

import numpy as np
from jaxtyping import Num

from .files import one_line
from .geometry import Geometry
from .itk import nifti_geometry
from .nifti import inflate


def decode_mgh(raw: bytes, path: Path, *, suffix: str, limit: int) -> tuple[Num[np.ndarray, "*space i"], Geometry]:
    """Values [*space i] and geometry; a fourth axis holds channels, a last axis of length 1 is a slice of a volume.

    ValueError, naming `path`, for a damaged file and more than `limit` values.
    """
    from nibabel.freesurfer.mghformat import MGHImage

    try:
        content = inflate(raw, 8 * limit + 2**20, whole=True) if suffix == ".mgz" else raw
        image = MGHImage.from_bytes(content)
        shape = tuple(int(n) for n in image.shape)
        if np.prod(shape, dtype=object) > limit:
            raise ValueError(f"{np.prod(shape, dtype=object):,} values ({shape}) are more than the {limit:,} allowed")
        values = np.asarray(image.dataobj)
        affine = np.asarray(image.affine, np.float64)
        spacing = tuple(float(s) for s in np.sqrt((affine[:3, :3] ** 2).sum(0)))
        if not np.isfinite(affine).all() or min(spacing) <= 0:
            raise ValueError(f"the affine gives a voxel spacing of {spacing}")
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged header trips over is the file's fault
        raise ValueError(f"{path}: not a readable {suffix} file: {one_line(error)}") from error
    geometry = nifti_geometry(shape[:3], affine, spacing=spacing, suffix=suffix, mode=str(values.dtype))
    return values.reshape(*geometry.size, -1), geometry
