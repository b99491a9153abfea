"""Small image files for the tests of reading them, written by nibabel and pillow."""

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image as PillowImage

FORMATS = (".png", ".jpg", ".bmp", ".tif", ".gif", ".ppm", ".nii", ".nii.gz")
OBLIQUE = np.array(
    [[0.8, -0.3, 0.1, -12.5], [0.35, 1.9, -0.2, 30.25], [-0.1, 0.25, 3.1, 7.0], [0, 0, 0, 1]],
    dtype=np.float64,
)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(array, np.eye(4) if affine is None else affine), path)
    return path


def save_picture(path: Path, array: np.ndarray, **options) -> Path:
    PillowImage.fromarray(array).save(path, **options)
    return path


def ramp(*shape: int, dtype: type = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)
