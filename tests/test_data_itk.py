"""MHA and NRRD by SimpleITK: values and millimetres as nibabel has them, and what wrong files say."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from quam_jax.data.alignment import require_same_grid
from quam_jax.data.maps import write_map
from quam_jax.data.volumes import read_image, read_labels

AFFINE = np.array([[0.9, -0.3, 0, 4], [0.3, 0.9, 0.0, 5], [0, 0, 2.5, -6], [0, 0, 0, 1]])


def as_nifti(path: Path, array: np.ndarray) -> Path:
    image = nib.Nifti1Image(array, AFFINE)
    image.set_qform(AFFINE, code=1)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_the_same_image_as_its_nifti_file(tmp_path: Path, suffix: str) -> None:
    itk = pytest.importorskip("SimpleITK")
    array = np.random.default_rng(0).integers(-500, 900, (4, 5, 6)).astype(np.int16)
    nifti = as_nifti(tmp_path / "a.nii.gz", array)
    itk.WriteImage(itk.ReadImage(str(nifti)), str(tmp_path / f"a{suffix}"))  # SimpleITK's own reading of NIfTI
    one, other = read_image(nifti), read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.geometry.affine, other.geometry.affine, atol=1e-5)
    np.testing.assert_allclose(one.geometry.spacing, other.geometry.spacing, rtol=1e-6)
    assert one.geometry.orientation == other.geometry.orientation
    require_same_grid(other.geometry, one.geometry, where="a")
    written = write_map(tmp_path / "map", other.array[..., 0] / 1000, other.geometry, kind="uncertainty")[0]
    back = nib.load(written)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
    assert (back.header["sform_code"], back.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(back.get_fdata(), array / 1000, rtol=1e-6)


def test_channels_slices_and_masks(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    values = np.random.default_rng(0).random((6, 5, 4, 2)).astype(np.float32)  # z y x c
    itk.WriteImage(itk.GetImageFromArray(values, isVector=True), str(tmp_path / "c.mha"))
    np.testing.assert_array_equal(read_image(tmp_path / "c.mha").array, values.transpose(2, 1, 0, 3))
    labels = (values[..., 0] > 0.5).astype(np.uint8)
    mask = itk.GetImageFromArray(labels)
    itk.WriteImage(mask, str(tmp_path / "m.nrrd"))
    image = read_image(tmp_path / "c.mha")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.nrrd", classes=2, like=image.geometry), labels.transpose(2, 1, 0))
    mask.SetSpacing((1, 1, 2))
    itk.WriteImage(mask, str(tmp_path / "wrong.nrrd"))
    with pytest.raises(ValueError, match="wrong.nrrd: not on the grid of its image: its affine puts"):
        read_labels(tmp_path / "wrong.nrrd", classes=2, like=image.geometry)
    itk.WriteImage(itk.GetImageFromArray(values[0, ..., 0]), str(tmp_path / "s.mha"))
    flat = read_image(tmp_path / "s.mha")
    np.testing.assert_array_equal(flat.array[..., 0], values[0, ..., 0].T)
    assert flat.geometry.rank == 2


def test_bad_files_and_no_simpleitk_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    itk = pytest.importorskip("SimpleITK")
    itk.WriteImage(itk.GetImageFromArray(np.ones((4, 5, 6), np.float32)), str(tmp_path / "a.mha"))
    whole = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "cut.mha").write_bytes(whole[:-200])
    (tmp_path / "bad.nrrd").write_bytes(b"NRRD0004\nno header\n")
    for name in ("cut.mha", "bad.nrrd"):
        with pytest.raises(ValueError, match=name) as error:
            read_image(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="120 values .* more than the 100 allowed"):
        read_image(tmp_path / "a.mha", limit=100)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ValueError, match=r"expected SimpleITK to read .mha files, got none; .*quam_jax\[simpleitk\]`"):
        read_image(tmp_path / "a.mha")
