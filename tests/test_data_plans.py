"""nnU-Net plans: the way to the grid of the network and back for every kind of geometry, normalisation, millimetres."""

import dataclasses
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from quam_jax.data.plans import from_grid, labels_to_grid, to_grid
from quam_jax.data.volumes import read_image
from quam_jax.targets.wanted.dilate import dilate_mm
from quam_jax.targets.wanted.erode import erode_mm
from tests.planned import AFFINES, plan_of, write


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize("name", AFFINES)
def test_there_and_back_keeps_every_voxel(tmp_path: Path, name: str, reader: str, transpose: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(1, 99, (6, 7, 9)).astype(np.float32)
    array[0] = array[:, :, -2:] = 0  # the box is smaller than the image
    image = read_image(write(tmp_path / "a.nii.gz", array, AFFINES[name]))
    plan = plan_of(
        reader=reader,
        transpose_forward=list(transpose),
        normalisation=[{"scheme": "NoNormalization", "use_mask": False, "intensity": None}],
    )
    spacing = to_grid(image.array, image.geometry, plan)[1].native_spacing
    plan = dataclasses.replace(plan, spacing=spacing)
    volume, grid = to_grid(image.array, image.geometry, plan)
    assert sorted(volume.shape[:3]) == sorted((5, 7, 7))
    np.testing.assert_array_equal(from_grid(volume, grid, lambda slab: slab, outside=0)[..., 0], array)
    labels = (array > 50).astype(np.int32)
    back = from_grid(labels_to_grid(labels, grid)[..., None], grid, lambda slab: slab[..., 0], outside=0)
    np.testing.assert_array_equal(back, labels)
    if reader == "SimpleITKIO":
        zyx = image.geometry.spacing[::-1]
        np.testing.assert_allclose(spacing, [zyx[axis] for axis in transpose], rtol=1e-6)


def test_reoriented_axes_point_right_anterior_superior(tmp_path: Path) -> None:
    array = np.arange(1, 1 + 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    path = write(tmp_path / "a.nii.gz", array, AFFINES["permuted"])
    image = read_image(path)
    plan = plan_of(
        reader="NibabelIOWithReorient",
        spacing=[1.0, 1.0, 2.0],
        normalisation=[{"scheme": "NoNormalization", "use_mask": False, "intensity": None}],
    )
    volume, grid = to_grid(image.array, image.geometry, plan)
    canonical = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_array_equal(volume[..., 0], canonical.get_fdata().transpose(2, 1, 0))
    np.testing.assert_allclose(grid.native_spacing, canonical.header.get_zooms()[::-1], rtol=1e-6)


def test_a_slice_is_a_volume_of_one(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((9, 11)).astype(np.float32) + 1
    image = read_image(write(tmp_path / "a.nii.gz", array, np.diag([0.5, 2, 1, 1])))
    plan = plan_of(rank=2, spacing=[2.0, 0.5])
    volume, grid = to_grid(image.array, image.geometry, plan)
    assert volume.shape == (1, 11, 9, 1)
    assert from_grid(volume, grid, lambda slab: slab, outside=0).shape == (9, 11, 1)


def test_channels_of_one_file_and_a_channel_too_many(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((5, 6, 7, 2)).astype(np.float32) + 1
    image = read_image(write(tmp_path / "a.nii.gz", array, np.eye(4)))
    volume, _ = to_grid(image.array, image.geometry, plan_of(channels=2))
    assert volume.shape == (7, 6, 5, 2)
    np.testing.assert_allclose(volume.mean((0, 1, 2)), 0, atol=1e-6)
    with pytest.raises(ValueError, match="expected 1 channels as the model has, got 2"):
        to_grid(image.array, image.geometry, plan_of())


@pytest.mark.parametrize(
    ("scheme", "use_mask", "expected"),
    [
        ("CTNormalization", False, [-1.0, 0.5, 1.0, 3.0]),  # clipped to -2..6, then (x - 0) / 2
        ("RescaleTo01Normalization", False, [0.0, 4 / 12, 5 / 12, 1.0]),
        ("NoNormalization", False, [-3.0, 1, 2, 9]),
        ("ZScoreNormalization", False, (np.array([-3.0, 1, 2, 9]) - 2.25) / np.std([-3.0, 1, 2, 9])),
    ],
)
def test_normalisations(tmp_path: Path, scheme: str, use_mask: bool, expected: list[float]) -> None:
    values = np.array([-3.0, 1, 2, 9], np.float32).reshape(1, 1, 4)
    image = read_image(write(tmp_path / "a.nii.gz", values, np.eye(4)))
    intensity = {"mean": 0.0, "std": 2.0, "percentile_00_5": -2.0, "percentile_99_5": 6.0}
    plan = plan_of(normalisation=[{"scheme": scheme, "use_mask": use_mask, "intensity": intensity}])
    np.testing.assert_allclose(to_grid(image.array, image.geometry, plan)[0].reshape(-1), expected, rtol=1e-6)


def test_z_score_inside_the_mask_keeps_the_rest(tmp_path: Path) -> None:
    values = np.array([[4.0, 0, 8], [6, 0, 6]], np.float32).reshape(2, 1, 3)
    image = read_image(write(tmp_path / "a.nii.gz", values, np.eye(4)))
    plan = plan_of(normalisation=[{"scheme": "ZScoreNormalization", "use_mask": True, "intensity": None}])
    volume = to_grid(image.array, image.geometry, plan)[0][..., 0].transpose(2, 1, 0)
    inside = np.array([4.0, 8, 6, 6])
    np.testing.assert_allclose(volume[values != 0], (inside - 6) / inside.std(), rtol=1e-6)
    assert not volume[values == 0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reader": "SomeIO"}, "SomeIO"),
        ({"resampling": {"data": {"function": "resample_torch"}, "probabilities": {}}}, "resample_torch"),
        ({"normalisation": [{"scheme": "CTNormalization", "use_mask": False, "intensity": None}]}, "CTNormalization"),
    ],
)
def test_plans_that_are_not_supported_say_so(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plan_of(**change)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model: ")


def test_masks_move_by_millimetres() -> None:
    labels = np.zeros((7, 7, 7), np.int32)
    labels[2:5, 2:5, 1:6] = 1
    grown = dilate_mm(labels, radius=1.0, spacing=(4, 1, 0.5))
    assert grown[:, 3, 3].sum() == 3 and grown[3, :, 3].sum() == 5 and grown[3, 3].sum() == 7
    shrunk = erode_mm(labels, radius=1.0, spacing=(4, 1, 0.5))
    assert shrunk[:, 3, 3].sum() == 3 and shrunk[3, :, 3].sum() == 1 and not shrunk[3, 3, [2, 4]].any()
    full = np.ones((3, 3, 3), np.int32)
    assert erode_mm(full, radius=1, spacing=(1, 1, 1)).all()
    assert erode_mm(full, radius=1, spacing=(1, 1, 1), outside="background").sum() == 1


def test_touching_labels_grow_by_the_nearest_and_shrink_apart() -> None:
    line = np.array([0, 1, 1, 1, 2, 2, 2, 0]).reshape(1, 1, 8)
    assert dilate_mm(line, radius=1, spacing=(1, 1, 1)).reshape(-1).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert erode_mm(line, radius=1, spacing=(1, 1, 1)).reshape(-1).tolist() == [0, 0, 1, 0, 0, 2, 0, 0]
