"""Reading images and masks: values, geometry, refusals; every file is written here by nibabel or pillow."""

import gzip
import hashlib
import io
import itertools
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data.volumes import read_channels, read_image, read_labels

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


# NIfTI images


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


def test_bombs_are_refused_by_size_before_they_are_inflated(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((30000, 30000, 300))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(5_000_000)))
    with pytest.raises(ValueError, match=r"270,000,000,000 values .* 536,870,912 allowed"):
        read_image(tmp_path / "bomb.nii.gz")
    path = save_picture(tmp_path / "wide.png", np.zeros((100, 200), np.uint8))
    assert read_image(path, limit=20_000).array.shape == (100, 200, 1)
    with pytest.raises(ValueError, match=r"200 x 100 pixels, 20,000 values, are more than the 19,999 allowed"):
        read_image(path, limit=19_999)
    with pytest.raises(ValueError, match="bytes are more than"):
        read_image(save_nifti(tmp_path / "a.nii", np.zeros((100, 100, 100))), limit=100)


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


def test_a_flipped_bit_in_a_compressed_file_never_passes_as_other_values(tmp_path):
    rng = np.random.default_rng(5)
    volume = rng.integers(0, 200, (9, 8, 7)).astype(np.int16)
    packed = save_nifti(tmp_path / "a.nii.gz", volume).read_bytes()
    picture = save_picture(tmp_path / "a.png", rng.integers(0, 255, (30, 40)).astype(np.uint8)).read_bytes()
    refused = 0
    for suffix, content in ((".nii.gz", packed), (".png", picture)):
        wanted = read_image(tmp_path / f"a{suffix}").array
        for place in rng.integers(0, len(content), 150):
            damaged = bytearray(content)
            damaged[place] ^= 1 << rng.integers(8)
            (tmp_path / f"b{suffix}").write_bytes(damaged)
            try:
                got = read_image(tmp_path / f"b{suffix}").array
            except ValueError:
                refused += 1
            else:
                np.testing.assert_array_equal(got, wanted)  # a bit of the time stamp, say
    assert refused > 250


def test_nan_and_infinity_are_counted(tmp_path):
    values = np.ones((4, 3, 2), np.float32)
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=r"a\.nii: 3 of 24 values are NaN or infinite"):
        read_image(save_nifti(tmp_path / "a.nii", values))
    with pytest.raises(ValueError, match="1 of 8 values"):  # too large for float32
        read_image(save_nifti(tmp_path / "b.nii", np.array([1e300, *[0.0] * 7]).reshape(2, 2, 2)))
    with pytest.raises(ValueError, match="1 of 6 values"):
        read_image(save_picture(tmp_path / "c.tif", np.array([[1, 2, 3], [4, 5, np.nan]], np.float32)))


# raster images


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        *[("1", s, 1) for s in (".png", ".bmp", ".tif", ".pbm", ".ppm")],
        *[("L", s, 1) for s in (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".PNG")],
        *[("LA", s, 1) for s in (".png", ".tif")],
        *[("RGB", s, 3) for s in (".png", ".bmp", ".tif", ".ppm")],
        *[("RGBA", s, 3) for s in (".png", ".tif")],
        *[("P", s, 3) for s in (".png", ".bmp", ".tif", ".gif")],
        *[("I;16", s, 1) for s in (".png", ".tif", ".pgm")],
        *[("I", s, 1) for s in (".tif",)],
        *[("F", s, 1) for s in (".tif",)],
    ],
)
def test_every_raster_mode_keeps_its_values(tmp_path, mode, suffix, channels):
    rng = np.random.default_rng(3)
    size = (6, 9)
    if mode == "1":
        wanted = rng.integers(0, 2, (*size, 1))
        picture = PillowImage.fromarray(wanted[..., 0].astype(bool))
    elif mode == "P":
        table = rng.integers(0, 255, (200, 3)).astype(np.uint8)
        indices = rng.integers(0, 200, size).astype(np.uint8)
        wanted = table[indices]
        picture = PillowImage.fromarray(indices).convert("L")
        picture.putpalette(table.tobytes())
    elif mode in ("I;16", "I", "F"):
        top = {"I;16": 65535, "I": 2_000_000, "F": 0.5}[mode]
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        wanted = (rng.random((*size, 1)) * top).astype(dtype)
        picture = PillowImage.fromarray(wanted[..., 0])
    else:
        planes = rng.integers(0, 256, (*size, len(mode))).astype(np.uint8)
        picture = PillowImage.fromarray(planes[..., 0] if mode == "L" else planes)
        wanted = planes[..., :channels]
    assert picture.mode == mode
    picture.save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image.array, wanted.astype(np.float32))
    assert image.array.shape == (*size, channels) and image.array.dtype == np.float32
    assert image.geometry.kind == "raster" and image.geometry.size == size
    assert image.geometry.spacing == (1.0, 1.0) and image.geometry.suffix == suffix.lower()


def test_a_palette_of_greys_is_one_channel(tmp_path):
    picture = PillowImage.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("L")
    picture.putpalette([10, 10, 10, 50, 50, 50, 90, 90, 90])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array[..., 0], [[10, 50], [90, 50]])


def test_jpeg_is_read_near_its_values(tmp_path):
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    for name, array in (("grey.jpg", smooth), ("colour.jpeg", np.stack([smooth, smooth, smooth], -1))):
        got = read_image(save_picture(tmp_path / name, array, quality=95)).array
        assert got.shape == (32, 48, array.ndim * 2 - 3)
        assert np.abs(got[..., 0] - smooth).max() <= 4


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    wide = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))  # 16 rows, brighter to the right
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # the picture is to be turned a quarter to the right
    image = read_image(save_picture(tmp_path / f"a{suffix}", wide, exif=exif))
    assert image.geometry.size == (24, 16)
    np.testing.assert_allclose(image.array[..., 0], np.rot90(wide, -1), atol=3)


def test_pictures_that_would_lose_depth_or_pages_are_refused(tmp_path):
    def png(depth: int, colour: int, row: bytes) -> bytes:
        chunks = b""
        for name, body in (
            (b"IHDR", struct.pack(">IIBBBBB", 1, 1, depth, colour, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"\0" + row)),
            (b"IEND", b""),
        ):
            chunks += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        return b"\x89PNG\r\n\x1a\n" + chunks

    (tmp_path / "ok.png").write_bytes(png(16, 0, b"\x12\x34"))
    assert read_image(tmp_path / "ok.png").array.item() == 0x1234
    (tmp_path / "deep.png").write_bytes(png(16, 2, b"\x12\x34" * 3))
    with pytest.raises(ValueError, match="16 bits a channel"):
        read_image(tmp_path / "deep.png")
    for head in (b"P5 2 1 200\n\x05\x06", b"P2 2 1 200\n5 6\n", b"P6 1 1 100\n\x05\x06\x07"):
        (tmp_path / "a.ppm").write_bytes(head)
        with pytest.raises(ValueError, match="PNM file with maximum"):
            read_image(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").write_bytes(b"P2 2 1 255\n5 6\n")
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm").array[..., 0], [[5, 6]])
    page = PillowImage.new("L", (5, 4))
    for suffix in (".tif", ".gif", ".png"):
        other = PillowImage.new("L", (5, 4), 9)
        page.save(tmp_path / f"b{suffix}", save_all=True, append_images=[other])
        with pytest.raises(ValueError, match="it has 2 pages"):
            read_image(tmp_path / f"b{suffix}")
    PillowImage.new("CMYK", (4, 4)).save(tmp_path / "c.jpg")
    with pytest.raises(ValueError, match="mode CMYK"):
        read_image(tmp_path / "c.jpg")


# files that are not images


def test_missing_empty_and_misnamed_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    save_picture(tmp_path / "real.png", np.zeros((4, 4), np.uint8))
    picture = (tmp_path / "real.png").read_bytes()
    for suffix in (".jpg", ".bmp", ".tif", ".gif", ".ppm", ".nii", ".nii.gz"):
        (tmp_path / f"misnamed{suffix}").write_bytes(picture)
    plain = save_nifti(tmp_path / "plain.nii", ramp(3, 3, 3)).read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    (tmp_path / "unpacked.nii.gz").write_bytes(plain)
    (tmp_path / "volume.png").write_bytes(plain)
    says = {
        "nowhere.png": "no such file",
        "empty.png": "the file is empty",
        "empty.nii.gz": "the file is empty",
        "text.txt": "no known image suffix",
        "folder.png": "expected a file",
        "misnamed.nii": "does not begin with a NIfTI header",
        "misnamed.nii.gz": "not gzip-compressed",
        "packed.nii": "content is gzip-compressed",
        "unpacked.nii.gz": "not gzip-compressed",
        **{f"misnamed{s}": "not a readable" for s in (".jpg", ".bmp", ".tif", ".gif", ".ppm")},
        "volume.png": "not a readable PNG",
    }
    for name, text in says.items():
        for read in (read_image, lambda path: read_labels(path, classes=2, like=None)):
            with pytest.raises(ValueError, match=text) as caught:
                read(tmp_path / name)
            assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".gif", ".ppm", ".nii", ".nii.gz"])
def test_truncated_files_are_refused_at_any_length(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 255, (24, 25)).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    save_nifti(path, values) if "nii" in suffix else save_picture(path, values)
    content = path.read_bytes()
    read_image(path)
    for length in (1, 3, 10, len(content) // 3, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a readable|content is"):
            read_image(path)


# several files of one image


def test_channels_of_several_files_are_joined_on_one_grid(tmp_path):
    first = save_nifti(tmp_path / "a_0000.nii", ramp(4, 3, 2), OBLIQUE)
    second = save_nifti(tmp_path / "a_0001.nii", -ramp(4, 3, 2), OBLIQUE)
    joined = read_channels([first, second])
    assert joined.array.shape == (4, 3, 2, 2) and joined.path == first
    np.testing.assert_array_equal(joined.array[..., 1], -joined.array[..., 0])
    assert joined.sha256 != read_channels([second, first]).sha256
    alone, same = read_channels([first]), read_image(first)
    np.testing.assert_array_equal(alone.array, same.array)
    assert alone.sha256 == same.sha256
    moved = save_nifti(tmp_path / "b.nii", ramp(4, 3, 2), OBLIQUE + np.diag([0.01, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"b\.nii.*affine"):
        read_channels([first, moved])
    with pytest.raises(ValueError, match="at least one file"):
        read_channels([])


# masks


def test_binary_masks_in_all_their_spellings(tmp_path):
    truth = np.array([[0, 1, 1], [0, 0, 1]])
    for name, array in {
        "bool.png": truth.astype(bool),
        "ones.png": truth.astype(np.uint8),
        "full.png": (255 * truth).astype(np.uint8),
        "half.bmp": (128 * truth).astype(np.uint8),
        "deep.tif": (65535 * truth).astype(np.uint16),
        "float.tif": truth.astype(np.float32),
        "rgb.png": np.stack([255 * truth] * 3, -1).astype(np.uint8),
        "alpha.png": np.stack([255 * truth, 77 + 0 * truth], -1).astype(np.uint8),
        "drive.gif": (255 * truth).astype(np.uint8),
    }.items():
        labels = read_labels(save_picture(tmp_path / name, array), classes=2, like=None)
        np.testing.assert_array_equal(labels, truth)
        assert labels.dtype == np.int32
    for name, array in {
        "a.nii": 255 * truth,
        "b.nii.gz": truth.astype(float),
        "c.nii": truth[..., None],
    }.items():
        array = array.astype(np.int16 if array.dtype.kind == "i" else array.dtype)
        np.testing.assert_array_equal(read_labels(save_nifti(tmp_path / name, array), classes=2, like=None), truth)


@pytest.mark.parametrize(("value", "label"), [(0, 0), (1, 1), (255, 1)])
def test_masks_of_one_value(tmp_path, value, label):
    path = save_picture(tmp_path / "a.png", np.full((3, 4), value, np.uint8))
    assert (read_labels(path, classes=2, like=None) == label).all()


def test_masks_with_other_values_list_what_was_found(tmp_path):
    def check(array: np.ndarray, classes: int, says: str) -> None:
        path = save_nifti(tmp_path / "mask.nii", array)
        with pytest.raises(ValueError, match=says):
            read_labels(path, classes=classes, like=None)

    check(np.array([[0, 3, 7]], np.int16), 2, "0 and one other value, found 0, 3, 7")
    check(np.array([[0, 255, 0]], np.int16), 3, "labels 0 to 2, found 0, 255")
    check(np.array([[0, 1, 3]], np.int16), 3, "labels 0 to 2, found 0, 1, 3")
    check(np.array([[0, -1, 1]], np.int16), 2, "found -1, 0, 1")
    check(np.array([[7, 7, 7]], np.int16), 2, "found 7")
    check(np.array([[1, 255, 1]], np.int16), 2, "found 1, 255")
    check(np.array([[0.0, 0.4, 1.0]]), 2, "found 0, 0.4, 1")
    check(np.array([[0.0, np.nan, 1.0]]), 2, "found 0, 1, nan")
    check(np.arange(30, dtype=np.int16).reshape(5, 6), 3, r"found 0, 1, 2, 3, 4, 5, 6, 7, \.\.\. \(30 values")
    with pytest.raises(ValueError, match="mask of 2 channels"):
        read_labels(save_nifti(tmp_path / "two.nii", np.zeros((3, 3, 3, 2))), classes=2, like=None)
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[0, 0, 0] = 9
    with pytest.raises(ValueError, match="mask in colours"):
        read_labels(save_picture(tmp_path / "c.png", colours), classes=2, like=None)
    with pytest.raises(ValueError, match="classes: expected 2 or more, got 1"):
        read_labels(save_picture(tmp_path / "d.png", colours), classes=1, like=None)


def test_labels_behind_a_scale_factor_are_whole_again(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_slope_inter(2 / 32767, 0)
    picture = nib.Nifti1Image(np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]), np.eye(4), header)
    nib.save(picture, tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").dataobj.slope != 1
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii", classes=3, like=None), [[0, 1, 2], [2, 1, 0]])


def test_stored_values_and_thresholds(tmp_path):
    stored = np.array([[0, 128, 255], [255, 128, 0]], np.uint8)
    path = save_picture(tmp_path / "a.png", stored)
    # the REFUGE challenge stores the cup as 0, the disc as 128, the rest as 255
    got = read_labels(path, classes=3, like=None, values=(255, 128, 0))
    np.testing.assert_array_equal(got, [[2, 1, 0], [0, 1, 2]])
    np.testing.assert_array_equal(read_labels(path, classes=2, like=None, threshold=130), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(  # above, not equal
        read_labels(path, classes=2, like=None, threshold=128), [[0, 0, 1], [1, 0, 0]]
    )
    for options, says in (
        ({"classes": 3, "values": (0, 128)}, "expected 3 different ones"),
        ({"classes": 3, "values": (0, 128, 128)}, "expected 3 different ones"),
        ({"classes": 3, "values": (0, 128, 254)}, r"expected values \[0, 128, 254\], found 0, 128, 255"),
        ({"classes": 3, "threshold": 5}, "makes two classes"),
        ({"classes": 2, "threshold": 5, "values": (0, 1)}, "either values or a threshold"),
    ):
        with pytest.raises(ValueError, match=says):
            read_labels(path, like=None, **options)
    soft = np.add.outer(np.arange(16) * 8, np.zeros(16)).astype(np.uint8)
    jpeg = save_picture(tmp_path / "b.jpg", soft, quality=95)
    np.testing.assert_array_equal(read_labels(jpeg, classes=2, like=None, threshold=60), soft > 60)


def test_palette_masks_are_indices_in_colour_and_greys_in_grey(tmp_path):
    indices = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
    picture = PillowImage.fromarray(indices).convert("L")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "voc.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "voc.png", classes=3, like=None), indices)
    turned = PillowImage.fromarray(np.array([[0, 1, 1]], np.uint8)).convert("L")
    turned.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white: what is seen counts
    turned.save(tmp_path / "white.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "white.png", classes=2, like=None), [[1, 0, 0]])


def test_masks_must_lie_on_the_grid_of_their_image(tmp_path):
    image = read_image(save_nifti(tmp_path / "i.nii", ramp(4, 3, 2), OBLIQUE)).geometry
    zeros = np.zeros((4, 3, 2), np.uint8)

    def read(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
        return read_labels(save_nifti(tmp_path / "m.nii", array, affine), classes=2, like=image)

    assert read(zeros, OBLIQUE).shape == (4, 3, 2)
    near, far, flipped = OBLIQUE.copy(), OBLIQUE.copy(), OBLIQUE @ np.diag([-1, 1, 1, 1])
    near[0, 3] += 0.0009
    far[0, 3] += 0.0012
    assert read(zeros, near).shape == (4, 3, 2)
    for affine in (far, flipped):
        with pytest.raises(ValueError, match="affine is not that of its image"):
            read(zeros, affine)
    with pytest.raises(ValueError, match="size 3 x 4 x 2, its image 4 x 3 x 2"):
        read(zeros.transpose(1, 0, 2), OBLIQUE)
    with pytest.raises(ValueError, match="raster mask for a nifti image"):
        read_labels(save_picture(tmp_path / "m.png", zeros[..., 0]), classes=2, like=image)
    picture = read_image(save_picture(tmp_path / "p.png", np.zeros((5, 6), np.uint8))).geometry
    with pytest.raises(ValueError, match="size 6 x 5, its image 5 x 6"):
        read_labels(save_picture(tmp_path / "q.png", np.zeros((6, 5), np.uint8)), classes=2, like=picture)


def test_a_slice_and_its_mask_may_differ_in_trailing_axes_and_in_the_unused_column(tmp_path):
    image = read_image(save_nifti(tmp_path / "i.nii", ramp(4, 3, 1), np.diag([2.0, 2.0, 5.0, 1.0]))).geometry
    mask = save_nifti(tmp_path / "m.nii", np.zeros((4, 3), np.uint8), np.diag([2.0, 2.0, 1.0, 1.0]))
    assert read_labels(mask, classes=2, like=image).shape == (4, 3)


def test_given_files_read_as_nibabel_and_pillow_read_them(shared):
    volumes = sorted((shared / "data" / "hippocampus" / "images").glob("*.nii.gz"))
    assert volumes
    for path in volumes[:10]:
        image, other = read_image(path), nib.load(path)
        np.testing.assert_array_equal(image.array[..., 0], other.get_fdata(dtype=np.float32))
        labels = read_labels(path.parent.parent / "labels" / path.name, classes=3, like=image.geometry)
        assert set(np.unique(labels)) == {0, 1, 2} and labels.shape == image.array.shape[:-1]
    tomogram = read_image(shared / "data" / "ct_small" / "example_ct_sm.nii.gz")
    assert tomogram.geometry.spacing == (3.0, 3.0, 3.0) and tomogram.array.min() < -1000
    organs = shared / "data" / "ct_small" / "example_ct_sm_T300_output.nii.gz"
    np.testing.assert_array_equal(read_labels(organs, classes=2, like=tomogram.geometry), nib.load(organs).get_fdata())
    for folder in ("bubil", "lidc_crops"):
        pictures = sorted((shared / "data" / folder / "images").glob("*.png"))
        assert pictures
        for path in pictures[:4]:
            image = read_image(path)
            with PillowImage.open(io.BytesIO(path.read_bytes())) as other:
                np.testing.assert_array_equal(image.array[..., 0], np.asarray(other))
            for mask in sorted((shared / "data" / folder / "masks").glob(f"{path.stem}_*.png")):
                assert set(np.unique(read_labels(mask, classes=2, like=image.geometry))) <= {0, 1}
