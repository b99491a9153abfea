"""Two thousand damaged files of every format: each is read or refused by one ValueError, nothing else."""

import warnings
import zlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data.volumes import read_image, read_labels
from tests.changed_bytes import mutate_head
from tests.image_files import FORMATS

MORE = (".webp", ".jp2", ".img", ".hdr", ".mgz", ".mgh", ".mha", ".nrrd", ".seg.nrrd")
MUTANTS = 128  # a format


@pytest.mark.parametrize("suffix", [*FORMATS, *MORE])
def test_damaged_files_are_read_or_refused(tmp_path, suffix):
    rng = np.random.default_rng(zlib.crc32(suffix.encode()))
    values = rng.integers(0, 2, (12, 15)).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    if suffix in (".img", ".hdr"):
        nib.save(nib.Nifti1Pair(values, np.eye(4)), tmp_path / "a.img")
    elif suffix in (".mgz", ".mgh"):
        nib.save(nib.MGHImage(values[..., None], np.eye(4)), path)
    elif "nii" in suffix:
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    elif suffix in (".mha", ".nrrd", ".seg.nrrd"):
        itk = pytest.importorskip("SimpleITK")
        itk.WriteImage(itk.GetImageFromArray(values), str(path))
    else:
        PillowImage.fromarray(values).save(path)
    content = path.read_bytes()
    read = refused = 0
    for _ in range(MUTANTS):
        path.write_bytes(mutate_head(content, rng))
        for reader in (
            lambda: read_image(path, limit=100_000).array,
            lambda: read_labels(path, classes=2, like=None, limit=100_000),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pillow warns of odd metadata and goes on
                try:
                    array = reader()
                except ValueError as error:
                    assert str(path) in str(error) and "\n" not in str(error)
                    refused += 1
                else:
                    assert np.isfinite(array).all() and array.size <= 100_000
                    read += 1
    assert refused > MUTANTS // 4 and read + refused == 2 * MUTANTS
