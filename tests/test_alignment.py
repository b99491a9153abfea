"""Grids side by side: every order and direction of axes is undone, rounding is none, and what does not meet is refused."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from quam_jax.data.alignment import align, lie_on_one_grid, placement, require_same_grid
from quam_jax.data.geometry import Geometry
from quam_jax.data.volumes import read_channels, read_image, read_labels
from tests.image_files import OBLIQUE, ramp, save_nifti

TURNS = [(axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)]


def turned(
    array: np.ndarray, affine: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels in another order: the array, and the affine that places it where it was."""
    into = np.zeros((4, 4))
    into[3, 3] = 1
    for new, (old, back) in enumerate(zip(axes, flips, strict=True)):
        into[old, new] = -1 if back else 1
        into[old, 3] += array.shape[old] - 1 if back else 0
    array = array.transpose(*axes, *range(3, array.ndim))
    return array[tuple(slice(None, None, -1 if back else 1) for back in flips)], affine @ into


def grid(shape: tuple[int, ...], affine: np.ndarray) -> Geometry:
    size = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, : len(size)], axis=0))
    return Geometry("nifti", size, shape, affine, spacing, ".nii", "int16")


@pytest.mark.parametrize(("axes", "flips"), TURNS)
def test_every_order_and_direction_of_axes_is_undone(axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    array = ramp(4, 5, 6, 2)
    other, affine = turned(array, OBLIQUE, axes, flips)
    own, into = grid(other.shape[:3], affine), grid((4, 5, 6), OBLIQUE)
    back, done = align(other, own, into, where="a")
    np.testing.assert_array_equal(back, array)
    same = axes == (0, 1, 2) and not any(flips)
    assert (done == "") == same == lie_on_one_grid(own, into)
    if not same:
        assert done.startswith("its axes run ")
        with pytest.raises(
            ValueError, match="b: not on the grid of its image: its axes run .*; bring one to the grid of the other"
        ):
            require_same_grid(own, into, where="b")


@pytest.mark.parametrize(("axes", "flips"), TURNS[::5])
def test_what_lies_inside_a_larger_array_is_cut_out(axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    array = ramp(6, 7, 8)
    box = (slice(1, 5), slice(2, 7), slice(0, 6))
    corner = OBLIQUE.copy()
    corner[:3, 3] += OBLIQUE[:3, :3] @ (1, 2, 0)
    other, affine = turned(array, OBLIQUE, axes, flips)
    into = grid((4, 5, 6), corner)
    cut, done = align(other, grid(other.shape, affine), into, where="a")
    np.testing.assert_array_equal(cut, array[box])
    assert "voxels of the same lattice, the other 4 x 5 x 6" in done
    # and the other way round: what the small one does not reach has to be known
    small, its = turned(array[box], corner, axes, flips)
    own = grid(small.shape, its)
    with pytest.raises(ValueError, match="covers a part of its image only"):
        align(small, own, grid((6, 7, 8), OBLIQUE), where="a")
    for axis in range(3):  # along one axis alone
        short = tuple(slice(0, n - (a == axis)) for a, n in enumerate(array.shape))
        with pytest.raises(ValueError, match="covers a part of its image only"):
            align(array[short], grid(array[short].shape, OBLIQUE), grid((6, 7, 8), OBLIQUE), where="a")
    filled, _ = align(small, own, grid((6, 7, 8), OBLIQUE), where="a", outside=-3)
    np.testing.assert_array_equal(filled[box], array[box])
    assert (filled == -3).sum() == array.size - array[box].size


def test_headers_round_and_voxels_that_do_not_meet_are_refused() -> None:
    own = grid((40, 50, 60), OBLIQUE)
    rng = np.random.default_rng(0)
    rounded = OBLIQUE + np.vstack([rng.uniform(-5e-5, 5e-5, (3, 4)), np.zeros(4)])  # four decimals
    assert lie_on_one_grid(grid((40, 50, 60), rounded), own)
    for wrong in (
        OBLIQUE @ np.diag([1.01, 1, 1, 1]),
        OBLIQUE + np.eye(4)[:, [3, 0, 1, 2]] * 0.01,
        OBLIQUE @ np.diag([2, 1, 1, 1]),
    ):
        assert isinstance(placement(grid((40, 50, 60), wrong), own), str)
        with pytest.raises(ValueError, match="its affine puts voxels up to"):
            align(np.zeros((40, 50, 60)), grid((40, 50, 60), wrong), own, where="a")
    half = OBLIQUE.copy()
    half[:3, 3] += OBLIQUE[:3, 0] / 2
    assert "affine puts voxels" in str(placement(grid((40, 50, 60), half), own))


def test_one_slice_keeps_its_place_its_thickness_and_its_axes(tmp_path: Path) -> None:
    thick = np.diag([0.5, 0.5, 8.0, 1.0])
    image = read_image(save_nifti(tmp_path / "i.nii", ramp(4, 3, 1), thick)).geometry
    assert (image.thickness, image.voxel_sides, image.spacing) == (8.0, (0.5, 0.5, 8.0), (0.5, 0.5))
    mask = (ramp(4, 3, 1) % 2).astype(np.uint8)
    for axes, flips in TURNS:
        if axes[2] != 2:
            continue
        other, affine = turned(mask, thick, axes, flips)
        path = save_nifti(tmp_path / "m.nii", np.ascontiguousarray(other), affine)
        np.testing.assert_array_equal(read_labels(path, classes=2, like=image), mask[..., 0])
    moved = thick.copy()
    moved[2, 3] = 8.0
    with pytest.raises(ValueError, match="its affine puts voxels up to 8 mm"):
        read_labels(save_nifti(tmp_path / "m.nii", mask, moved), classes=2, like=image)
    assert read_image(save_nifti(tmp_path / "flat.nii", ramp(4, 3), thick)).geometry.thickness is None


def test_a_slice_has_its_thickness_in_every_format(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    thick = np.diag([-0.5, -0.5, 8.0, 1.0])
    nib.save(nib.Nifti1Image(ramp(4, 3, 1), thick), tmp_path / "a.nii")
    nib.save(nib.MGHImage(ramp(4, 3, 1), thick), tmp_path / "a.mgz")
    itk.WriteImage(itk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / "a.mha"))
    one = read_image(tmp_path / "a.nii")
    for name in ("a.mha", "a.mgz"):
        other = read_image(tmp_path / name)
        np.testing.assert_array_equal(other.array, one.array)
        assert lie_on_one_grid(other.geometry, one.geometry) and other.geometry.thickness == pytest.approx(8.0)


def test_channels_of_one_image_may_have_axes_of_their_own(tmp_path: Path) -> None:
    first = save_nifti(tmp_path / "a_0000.nii", ramp(4, 5, 6), OBLIQUE)
    other, affine = turned(ramp(4, 5, 6), OBLIQUE, (2, 0, 1), (True, False, True))
    joined = read_channels([first, save_nifti(tmp_path / "a_0001.nii", np.ascontiguousarray(-other), affine)])
    np.testing.assert_array_equal(joined.array[..., 1], -joined.array[..., 0])
    assert len(joined.notes) == 1 and "a_0001.nii was brought to the grid of a_0000.nii" in joined.notes[0]
