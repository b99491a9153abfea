"""MetaImage and NRRD files (.mha, .mhd, .nrrd, .nhdr) to an array with its geometry, by SimpleITK, the extra `simpleitk`.

ITK places voxels in left-posterior-superior millimetres, NIfTI in right-anterior-superior: the first two axes change sign.
Such an image has the geometry of a NIfTI file, so that its maps are written as NIfTI.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from nibabel.nifti1 import Nifti1Header

from .files import one_line
from .geometry import Geometry
from .segments import flatten_segments, read_segments

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def decode_itk(
    path: Path, *, suffix: str, limit: int, mask: bool = False
) -> tuple[Num[np.ndarray, "*space i"], Geometry, dict[int, str] | None]:
    """Values [*space i] and geometry of a file that SimpleITK reads; array axes are the file's i, j, k.

    A segmentation of 3D Slicer read as a `mask` has one channel, and the names of its segments by value.

    ValueError, naming `path`, without SimpleITK, for a damaged file, more than `limit` values, or axes beyond three.
    """
    try:
        import SimpleITK as itk
    except ImportError:
        raise ValueError(
            f"{path}: expected SimpleITK to read {suffix} files, got none; install it with `pip install quam_jax[simpleitk]`"
        ) from None
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, rank, channels = reader.GetSize(), reader.GetDimension(), reader.GetNumberOfComponents()
        count = int(np.prod(size, dtype=object)) * channels
        if count > limit:
            raise ValueError(f"{path}: {count:,} values ({size}) are more than the {limit:,} allowed")
        if rank not in (2, 3):
            raise ValueError(f"{path}: expected 2 or 3 spatial axes, got {rank}")
        image = reader.Execute()
        values = itk.GetArrayFromImage(image)
    except RuntimeError as error:
        raise ValueError(f"{path}: not a readable {suffix} file: {_reason(error)}") from error
    if values.dtype.kind not in "uif":
        raise ValueError(f"{path}: expected numbers as voxels, got {image.GetPixelIDTypeAsString()}")
    values = values if channels > 1 else values[..., None]
    values = values.transpose(*range(rank)[::-1], rank)
    segments = read_segments(_texts(image)) if mask else []
    names = None
    if segments:
        values, names = flatten_segments(values, segments, where=str(path))
    affine = lps_affine(np.array(image.GetDirection()).reshape(rank, rank), image.GetSpacing(), image.GetOrigin())
    spacing = tuple(float(s) for s in image.GetSpacing())
    geometry = nifti_geometry(values.shape[:-1], affine, spacing=spacing, suffix=suffix, mode=str(values.dtype))
    return values.reshape(*geometry.size, -1), geometry, names


def lps_affine(direction: Float[np.ndarray, "d d"], spacing: Any, origin: Any) -> Float[np.ndarray, "4 4"]:
    """From voxel indices to right-anterior-superior millimetres; a third axis that is not there is a unit step along z."""
    rank = len(direction)
    affine = np.eye(4)
    affine[:rank, :rank] = direction * np.asarray(spacing)
    affine[:rank, 3] = origin
    return LPS_TO_RAS @ affine


def nifti_geometry(
    size: tuple[int, ...], affine: Float[np.ndarray, "4 4"], *, spacing: tuple[float, ...], suffix: str, mode: str
) -> Geometry:
    """The geometry of an image that is no NIfTI file, with the header that its maps get: sform and qform, in millimetres.

    A third axis of length 1 is a slice of a volume, as in NIfTI files: the array has two axes, and the grid keeps its thickness.
    """
    header = Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(size)
    header.set_zooms(spacing)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    rank = 2 if len(size) == 3 and size[2] == 1 else len(size)
    return Geometry("nifti", tuple(size[:rank]), tuple(size), affine, spacing[:rank], suffix, mode, header)


def _texts(image: Any) -> dict[str, str]:
    """What the header says beside the grid; damaged texts are left out."""
    found = {}
    for key in image.GetMetaDataKeys():
        try:
            found[key] = image.GetMetaData(key)
        except (TypeError, UnicodeError, RuntimeError):
            continue
    return found


def _reason(error: RuntimeError) -> str:
    """What SimpleITK complains of, without the place in its source."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(RuntimeError(lines[-1] if lines else "unknown"))
