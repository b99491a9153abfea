"""Image files of any format: bombs, damage, truncation and values that are no numbers refused, several channels joined."""

import gzip
import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data.volumes import read_channels, read_image, read_labels
from tests.image_files import OBLIQUE, ramp, save_nifti, save_picture


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
    with pytest.raises(ValueError, match=r"b\.nii.*its affine puts"):
        read_channels([first, moved])
    with pytest.raises(ValueError, match="at least one file"):
        read_channels([])


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
