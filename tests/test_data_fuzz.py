"""A thousand damaged files of every format: each is read or refused by one ValueError, nothing else."""

import warnings
import zlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data.volumes import read_image, read_labels

FORMATS = (".png", ".jpg", ".bmp", ".tif", ".gif", ".ppm", ".nii", ".nii.gz")
MUTANTS = 128  # a format; 1,024 in all


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, repeat or insert bytes, near the head more often than not."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        reach = min(len(data), 400) if rng.random() < 0.7 else len(data)
        place = int(rng.integers(max(reach, 1)))
        match rng.integers(5):
            case 0 if data:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"])
            case 2:
                del data[int(rng.integers(len(data) + 1)) :]
            case 3:
                data[place:place] = data[place : place + int(rng.integers(64))]
            case _:
                data[place : place + 2] = rng.bytes(2)
    return bytes(data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_are_read_or_refused(tmp_path, suffix):
    rng = np.random.default_rng(zlib.crc32(suffix.encode()))
    values = rng.integers(0, 2, (12, 15)).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    if "nii" in suffix:
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    else:
        PillowImage.fromarray(values).save(path)
    content = path.read_bytes()
    read = refused = 0
    for _ in range(MUTANTS):
        path.write_bytes(mutate(content, rng))
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
