"""Pixels and regions on a grid: the band in millimetres, and what flips cost in several folds."""

import numpy as np
import pytest

from quam_jax.case.points import _cheapest, _special_pixels, owners, share_out
from quam_jax.config import Config, TargetConfig
from quam_jax.core.fragility import Fragility
from quam_jax.data.patches import lay_patches
from quam_jax.data.plans import Grid
from tests.planned import plan_of
from tests.volume_by_hand import geometry_of


@pytest.mark.parametrize(("axis", "layers"), [(0, 0), (1, 2), (2, 1)])
def test_the_band_counts_steps_of_the_middle_voxel_side(axis: int, layers: int) -> None:
    """Voxels of 4, 1 and 2 mm, and a band of one step of 2 mm: no layer of the first, two of the second, one of the third."""
    labels = np.moveaxis((np.arange(12) >= 6).astype(int)[None, :, None] * np.ones((6, 1, 6), int), 1, axis)
    config = Config(targets=TargetConfig(target="pixel", pixels="band", band_width=1))
    shape, spacing = labels.shape, (4.0, 1.0, 2.0)
    box = tuple(slice(0, n) for n in shape)
    grid = Grid(geometry_of(labels, spacing), plan_of(), shape, box, spacing, shape, spacing)
    found = _special_pixels(grid, labels, config=config)
    assert found is not None and len(found) == 2 * layers * 36
    assert sorted(set(np.unravel_index(found, labels.shape)[axis].tolist())) == list(range(6 - layers, 6 + layers))


def test_the_cheapest_fold_says_what_a_flip_costs() -> None:
    inf = np.inf
    costs = [
        Fragility(*map(np.array, ([[True, False]], [[2.0, inf]], [[0.5, inf]], [0.3], [0.5], [inf], [inf]))),
        Fragility(*map(np.array, ([[True, True]], [[3.0, 4.0]], [[0.1, 0.2]], [0.4], [0.2], [5.0], [0.7]))),
    ]
    found = _cheapest(costs)
    told = [np.asarray(leaf).tolist() for leaf in found]
    assert told == [[[True, True]], [[2.0, 4.0]], [[0.1, 0.2]], [0.3], [0.5], [5.0], [0.7]]


@pytest.mark.parametrize(
    ("region", "owner"),
    [((0, 1), 0), ((5, 6), 0), ((6, 7), 1), ((4, 11), 1), ((0, 7), 0), ((7, 8), 1)],
    ids=[
        "at the start",
        "nearer to the first",
        "nearer to the second",
        "all of the second",
        "all of the first",
        "in the second alone",
    ],
)
def test_a_region_goes_to_the_patch_that_holds_it_nearest_to_its_middle(region: tuple[int, int], owner: int) -> None:
    """Patches of eight from 0 and from 4 on a line of twelve; their middles are 4 and 8."""
    patches = lay_patches((12,), (8,))
    pixels = np.arange(region[0], region[1] + 1)
    shared = share_out([pixels], patches, owners(patches))
    assert [len(parts) for parts in shared] == [int(owner == n) for n in (0, 1)]
    np.testing.assert_array_equal(shared[owner][0], pixels)


def test_a_region_that_no_patch_holds_goes_to_the_owners_of_its_pixels() -> None:
    patches = lay_patches((12,), (8,))
    assert owners(patches).tolist() == [0] * 7 + [1] * 5  # halfway between two middles the first keeps it
    (first,), (second,) = share_out([np.arange(2, 11)], patches, owners(patches))
    assert (first.tolist(), second.tolist()) == ([2, 3, 4, 5, 6], [7, 8, 9, 10])
