"""The grid of a plan in small cases: voxel sizes, which axis goes apart, the number of labels, and ties of labels."""

import numpy as np
import pytest

from quam_jax.data.geometry import Geometry
from quam_jax.data.plans import Grid, points_on_grid, to_grid
from quam_jax.data.resampling import Scheme, resample_labels
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
