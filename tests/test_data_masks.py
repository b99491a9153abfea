"""Masks: every spelling of two values, labels behind scale factors and palettes, and the grid of their image."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as PillowImage

from quam_jax.data.volumes import read_image, read_labels
from tests.image_files import OBLIQUE, ramp, save_nifti, save_picture


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
        (
            {"classes": 3, "values": (0, 128, 254)},
            r"expected values 0 .label 0., 128 .label 1., 254 .label 2., found 0, 128, 255",
        ),
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
    near[0, 3] += 0.0080  # a hundredth of the smallest side, .87 mm, is the rounding of a header
    far[0, 3] += 0.0095
    assert read(zeros, near).shape == (4, 3, 2)
    with pytest.raises(ValueError, match="affine puts voxels up to 0.0095 mm beside the other's; resample"):
        read(zeros, far)
    with pytest.raises(ValueError, match="covers a part of its image only"):
        read(zeros, flipped)
    with pytest.raises(ValueError, match="3 x 4 x 2 voxels of the same lattice, the other 4 x 3 x 2"):
        read(zeros.transpose(1, 0, 2), OBLIQUE)
    with pytest.raises(ValueError, match="raster file beside a nifti file"):
        read_labels(save_picture(tmp_path / "m.png", zeros[..., 0]), classes=2, like=image)
    picture = read_image(save_picture(tmp_path / "p.png", np.zeros((5, 6), np.uint8))).geometry
    with pytest.raises(ValueError, match="size 6 x 5, the other 5 x 6"):
        read_labels(save_picture(tmp_path / "q.png", np.zeros((6, 5), np.uint8)), classes=2, like=picture)


def test_a_slice_and_its_mask_may_differ_in_trailing_axes_and_in_the_unused_column(tmp_path):
    image = read_image(save_nifti(tmp_path / "i.nii", ramp(4, 3, 1), np.diag([2.0, 2.0, 5.0, 1.0]))).geometry
    mask = save_nifti(tmp_path / "m.nii", np.zeros((4, 3), np.uint8), np.diag([2.0, 2.0, 1.0, 1.0]))
    assert read_labels(mask, classes=2, like=image).shape == (4, 3)
