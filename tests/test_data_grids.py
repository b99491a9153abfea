"""The grid of a plan in small cases: voxel sizes, which axis goes apart, the number of labels, and ties of labels."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from quam_jax.data.geometry import Geometry
from quam_jax.data.plans import Grid, points_on_grid, to_grid
from quam_jax.data.resampling import Scheme, resample_labels
from quam_jax.data.spacing import spacing_note, stated_spacing
from quam_jax.data.volumes import Image, read_image
from tests.planned import plan_of


def geometry(kind: str, size: tuple[int, ...], spacing: tuple[float, ...]) -> Geometry:
    affine = np.diag([*spacing, *(1.0,) * (3 - len(spacing)), 1.0])
    return Geometry(kind, size, size, affine, spacing, ".png" if kind == "raster" else ".nii.gz", "float32")  # type: ignore[arg-type]


def test_a_plan_of_two_axes_keeps_the_distance_of_the_slices() -> None:
    assert plan_of(rank=2, spacing=[2.0, 0.5]).target_spacing((4.0, 1.0, 3.0)) == (4.0, 2.0, 0.5)


def test_the_rows_of_a_picture_have_the_first_spacing() -> None:
    plan = plan_of(rank=2, spacing=[1.0, 1.0])
    values, grid = to_grid(np.ones((8, 6, 1), np.float32), geometry("raster", (8, 6), (2.0, 1.0)), plan)
    assert grid.native_spacing[1:] == (2.0, 1.0) and grid.native_shape == (1, 8, 6)
    assert values.shape == (1, 16, 6, 1)  # a row is two voxels high


def stored(tmp_path: Path, shape: tuple[int, ...], **header: object) -> Image:
    """A file with an affine of 2 x 3 x 4 mm, and what its header says besides."""
    image = nib.Nifti1Image(np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape), np.diag([2.0, 3, 4, 1]))
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, tmp_path / "a.nii")
    return read_image(tmp_path / "a.nii")


def test_the_sides_of_a_voxel_are_those_of_pixdim(tmp_path: Path) -> None:
    pixdim = [1, -0.5, np.nan, 1.5, 0, 0, 0, 0]
    image = stored(tmp_path, (4, 3, 2), pixdim=pixdim)
    assert image.geometry.spacing == (2, 3, 4)
    _, grid = to_grid(image.array, image.geometry, plan_of(spacing=[1.5, 1.0, 0.5]))
    assert grid.native_spacing == (1.5, 1.0, 0.5) and grid.shape == (2, 3, 4)
    note = spacing_note(image.geometry, reorient=False, units=True)
    assert note is not None and "2 x 3 x 4 mm, pixdim 0.5 x 1 x 1.5" in note
    told = stored(tmp_path, (4, 3, 2), pixdim=[1, 2, 3, 4, 0, 0, 0, 0])
    assert spacing_note(told.geometry, reorient=False, units=True) is None
    micron = stored(tmp_path, (4, 3, 2), xyzt_units=3)
    assert stated_spacing(micron.geometry, reorient=False, units=True) == pytest.approx((0.002, 0.003, 0.004))
    assert stated_spacing(micron.geometry, reorient=False, units=False) == (2, 3, 4)  # as readers of NiBabel


def test_one_slice_of_a_volume_keeps_its_thickness_and_its_axes(tmp_path: Path) -> None:
    image = stored(tmp_path, (4, 3, 1))
    assert image.array.shape == (4, 3, 1) and image.geometry.rank == 2
    assert image.geometry.thickness == 4 and image.geometry.voxel_sides == (2, 3, 4)
    values, grid = to_grid(image.array, image.geometry, plan_of(spacing=[4.0, 3.0, 2.0]))
    assert grid.native_spacing == (4, 3, 2) and values.shape == (1, 3, 4, 1)
    flat = stored(tmp_path, (4, 3))
    assert flat.geometry.thickness is None and flat.geometry.voxel_sides == (2, 3)
    _, grid = to_grid(flat.array, flat.geometry, plan_of(rank=2, spacing=[3.0, 2.0]))
    assert grid.native_spacing == (2997, 3, 2)  # 999 times the largest: nobody knows how thick it is


def test_a_slice_is_turned_as_a_volume_is(tmp_path: Path) -> None:
    values = np.arange(1, 13, dtype=np.float32).reshape(4, 3, 1)
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, 3, 4, 1])), tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    as_read = [{"scheme": "NoNormalization", "use_mask": False, "intensity": None}]
    plan = plan_of(spacing=[4.0, 3.0, 2.0], reader="NibabelIOWithReorient", normalisation=as_read)
    turned, _ = to_grid(image.array, image.geometry, plan)
    np.testing.assert_array_equal(turned[0, :, :, 0], values[::-1, :, 0].T)


def test_the_own_spacing_decides_on_either_way_which_axis_goes_apart() -> None:
    size = (4, 4, 4)
    box = (slice(0, 4),) * 3
    grid = Grid(geometry("nifti", size, (5.0, 1.0, 1.0)), plan_of(), size, box, (1.0, 1.0, 5.0), size, (5.0, 1.0, 1.0))
    assert (grid.image_scheme.apart, grid.logit_scheme.apart) == (2, 0)


def test_a_voxel_is_where_its_centre_lies() -> None:
    """The plan's voxels are half as large, four thirds as large and equal along x, y and z."""
    plan = plan_of(spacing=[1.0, 4 / 3, 0.5], normalisation=[{"scheme": "NoNormalization", "use_mask": False, "intensity": None}])
    _, grid = to_grid(np.ones((4, 4, 4, 1), np.float32), geometry("nifti", (4, 4, 4), (1.0, 1.0, 1.0)), plan)
    assert grid.shape == (4, 3, 8)
    points = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]])
    assert points_on_grid(points, grid).tolist() == [[0, 0, 1], [1, 1, 3], [2, 1, 5], [3, 2, 7]]


@pytest.mark.parametrize(
    ("labels", "ignore", "count"),
    [
        ({"background": 0, "a": 1, "b": 2}, None, 3),
        ({"background": 0, "a": 1, "b": 3}, None, 4),
        ({"background": 0, "a": 1, "ignore": 2}, 2, 2),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3]}, None, 4),
    ],
)
def test_labels_are_counted_up_to_the_largest(labels: dict, ignore: int | None, count: int) -> None:
    assert plan_of(labels=labels, ignore_label=ignore).labels == count


@pytest.mark.parametrize(("line", "expected"), [([1, 0], [1, 0, 0]), ([0, 1], [0, 0, 1]), ([2, 1], [2, 1, 1])])
def test_a_tie_between_labels_goes_to_the_smaller(line: list[int], expected: list[int]) -> None:
    """Of three voxels over two the middle one is half of either."""
    found = resample_labels(np.array(line).reshape(1, 1, 2), (1, 1, 3), Scheme(1, None, 0))
    assert found.reshape(-1).tolist() == expected


FOREGROUND = {"mean": 1.0, "std": 2.0, "percentile_00_5": 0.0, "percentile_99_5": 5.0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spacing": [0.0, 1.0, 1.0]}, "all above 0"),
        ({"spacing": [float("nan"), 1.0, 1.0]}, "all above 0"),
        ({"spacing": [1.0, 1.0]}, "as many sides"),
        ({"patch_size": [8, 0, 8]}, "all above 0"),
        ({"patch_size": [8, 8.5, 8]}, "all above 0"),
        ({"transpose_forward": [0, 1, 1]}, "an order of three axes"),
        ({"patch_size": 8}, "cannot be read"),
        ({"labels": {"background": "none"}}, "invalid literal|cannot be read"),
        ({"labels": [0, 1]}, "cannot be read"),
        ({"resampling": {}}, "it lacks 'data'; convert the model again"),
        *(
            (
                {"normalisation": [{"scheme": "CTNormalization", "use_mask": False, "intensity": intensity}]},
                f"got none for .*{lack}",
            )
            for intensity, lack in ((None, "std"), ({**FOREGROUND, "std": None}, "std"), ({"mean": 1}, "percentile_00_5"))
        ),
    ],
    ids=repr,
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan_of(**changes)
    assert plan_of(normalisation=[{"scheme": "CTNormalization", "use_mask": False, "intensity": FOREGROUND}]).patch == (8, 8, 8)
