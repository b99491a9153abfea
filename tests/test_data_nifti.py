"""NIfTI images: axes, stored types, scaling and geometry as nibabel has them, and damaged headers refused in one line."""

import gzip
import hashlib
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from quam_jax.data.volumes import read_image
from tests.image_files import OBLIQUE, ramp, save_nifti


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("stored", "size", "channels"),
    [
        ((5, 4), (5, 4), 1),
        ((5, 4, 1), (5, 4), 1),
        ((5, 4, 1, 1), (5, 4), 1),
        ((5, 4, 1, 3), (5, 4), 3),
        ((5, 4, 3), (5, 4, 3), 1),
        ((5, 1, 3), (5, 1, 3), 1),
        ((5, 4, 3, 1), (5, 4, 3), 1),
        ((5, 4, 3, 2), (5, 4, 3), 2),
        ((5, 4, 3, 1, 2), (5, 4, 3), 2),
        ((5, 4, 1, 1, 2), (5, 4), 2),
    ],
)
def test_nifti_axes_become_space_and_channels(tmp_path, suffix, stored, size, channels):
    values = ramp(*stored)
    image = read_image(save_nifti(tmp_path / f"a{suffix}", values))
    assert image.array.shape == (*size, channels)
    assert image.array.dtype == np.float32 and image.array.flags.c_contiguous
    np.testing.assert_array_equal(image.array, values.reshape(*size, channels, order="C"))
    assert image.geometry.size == size and image.geometry.rank == len(size)
    one_channel = stored if channels == 1 else (*size, 1)[:3]
    assert image.geometry.shape == one_channel


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "f4", ">f4", "f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_types_and_byte_orders_read_as_nibabel_reads_them(tmp_path, dtype, kind):
    values = ramp(4, 3, 2).astype(dtype) * (-1 if np.dtype(dtype).kind in "if" else 1)
    header = kind.header_class(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    nib.save(kind(values, OBLIQUE, header), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    other = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.array[..., 0], other.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(image.geometry.affine, other.affine)
    assert image.sha256 == hashlib.sha256((tmp_path / "a.nii.gz").read_bytes()).hexdigest()


def test_nifti_scaling_by_slope_and_intercept(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((2, 2, 1))
    header.set_slope_inter(0.5, -10)
    content = header.binaryblock[:] + bytes(4) + np.array([0, 1, 2, -4], "<i2").tobytes()
    content = bytearray(content)
    content[108:112] = struct.pack("<f", 352)  # vox_offset
    (tmp_path / "a.nii").write_bytes(content)
    # x runs fastest: stored 0, 1, 2, -4 -> -10, -9.5, -9, -12
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").array[..., 0], [[-10, -9], [-9.5, -12]])
    content[112:116] = struct.pack("<f", 0)  # slope 0 means no scaling
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").array[..., 0], [[0, 2], [1, -4]])


def test_nifti_rgb_voxels_are_three_channels(tmp_path):
    colours = np.zeros((3, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["G"], colours["B"] = 200, np.arange(12).reshape(3, 2, 2), 7
    image = read_image(save_nifti(tmp_path / "a.nii", colours))
    assert image.array.shape == (3, 2, 2, 3) and image.geometry.shape == (3, 2, 2)
    np.testing.assert_array_equal(image.array[..., 1], np.arange(12).reshape(3, 2, 2))
    assert (image.array[..., 0] == 200).all() and (image.array[..., 2] == 7).all()


def test_nifti_spacing_is_in_millimetres_from_the_affine(tmp_path):
    image = read_image(save_nifti(tmp_path / "a.nii", ramp(3, 3, 3), OBLIQUE))
    # column norms: sqrt(.64 + .1225 + .01), sqrt(.09 + 3.61 + .0625), sqrt(.01 + .04 + 9.61)
    np.testing.assert_allclose(image.geometry.spacing, [0.878920, 1.939716, 3.108054], rtol=1e-6)
    for unit, factor in (("meter", 1000.0), ("micron", 0.001), ("unknown", 1.0)):
        picture = nib.Nifti1Image(ramp(3, 4), np.diag([2.0, 5.0, 1.0, 1.0]))
        picture.header.set_xyzt_units(unit)
        nib.save(picture, tmp_path / f"{unit}.nii")
        got = read_image(tmp_path / f"{unit}.nii").geometry
        np.testing.assert_allclose(got.spacing, (2 * factor, 5 * factor))
        assert len(got.spacing) == 2


def test_nifti_affine_prefers_sform_then_qform_then_pixdim(tmp_path):
    rotated = np.array([[0, -2.0, 0, 5], [3.0, 0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]])
    for sform, qform in itertools.product((0, 1, 2), (0, 1)):
        picture = nib.Nifti1Image(ramp(3, 4, 5), None)
        picture.set_sform(OBLIQUE, sform)
        picture.set_qform(rotated, qform)
        nib.save(picture, tmp_path / "a.nii")
        got = read_image(tmp_path / "a.nii").geometry.affine
        np.testing.assert_array_equal(got, nib.load(tmp_path / "a.nii").affine)
        wanted = OBLIQUE if sform else rotated
        if sform or qform:
            np.testing.assert_allclose(got, wanted, atol=1e-6)
        else:
            np.testing.assert_allclose(np.abs(np.diag(got)[:3]), [3, 2, 4], atol=1e-6)


def test_nifti_qfac_zero_is_read_as_one(tmp_path):
    picture = nib.Nifti1Image(ramp(3, 4, 5), None)
    picture.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]), 1)
    nib.save(picture, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[76:80] = struct.pack("<f", 0)
    (tmp_path / "b.nii").write_bytes(content)
    np.testing.assert_allclose(read_image(tmp_path / "b.nii").geometry.affine, np.diag([2, 3, 4, 1]), atol=1e-6)


def patched(path: Path, place: int, layout: str, *values: float) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, place, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("place", "layout", "value", "says"),
    [
        (0, "<i", 17, "does not begin with a NIfTI header"),
        (344, "<4s", b"ni1\0", "hdr/.img"),
        (344, "<4s", b"\0\0\0\0", "ANALYZE"),
        (40, "<h", 0, "0 axes"),
        (40, "<h", 9, "9 axes"),
        (40, "<h", 1, "axes"),
        (42, "<h", 0, "empty axis"),
        (42, "<h", 30000, "truncated"),
        (70, "<h", 32, "complex64"),
        (70, "<h", 77, "77"),
        (108, "<f", 12.0, "byte 12"),
        (108, "<f", float("nan"), "byte nan"),
        (112, "<f", float("inf"), "scl_slope"),
        (280, "<f", float("nan"), "spacing"),
    ],
)
def test_damaged_nifti_headers_are_one_line_refusals(tmp_path, place, layout, value, says):
    path = patched(save_nifti(tmp_path / "bad.nii", ramp(5, 4, 3)), place, layout, value)
    with pytest.raises(ValueError, match=says) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_gzip_members_padding_and_trailing_bytes(tmp_path):
    plain = save_nifti(tmp_path / "a.nii", ramp(40, 30, 20)).read_bytes()
    wanted = read_image(tmp_path / "a.nii").array
    for name, content in {
        "members": gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]),
        "padding": gzip.compress(plain) + bytes(512),
        "longer": gzip.compress(plain + b"tail"),
    }.items():
        (tmp_path / f"{name}.nii.gz").write_bytes(content)
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.nii.gz").array, wanted)
