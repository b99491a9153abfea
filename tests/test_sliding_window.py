"""Sliding windows: where patches lie, how much their voxels count, and that a pointwise network is not disturbed by them."""

import numpy as np
import pytest

from quam_jax.case.prediction import mirrorings, predict_logits
from quam_jax.data.patches import cut, importance, lay_patches, weight_sum
from tests.tiny import tiny_model, tiny_network


def test_evenly_spread_starts() -> None:
    assert [s[0] for s in lay_patches((49, 32, 32), (32, 32, 32)).starts] == [0, 8, 17]  # nnU-Net's own for 49 and 32


def test_a_small_grid_is_padded_around_its_centre() -> None:
    patches = lay_patches((5, 40, 3), (8, 40, 4))
    assert patches.padded == (8, 40, 4) and patches.before == (1, 0, 0)  # the odd voxel stands at the end
    patch = cut(np.ones((5, 40, 3, 1)), patches, 0)
    assert patch.shape == (8, 40, 4, 1) and patch.sum() == 600 and not patch[0].any() and not patch[:, :, 3].any()


def test_a_patch_of_two_axes_takes_every_slice() -> None:
    patches = lay_patches((3, 8, 12), (8, 8))
    assert patches.patch == (1, 8, 8) and len(patches.starts) == 3 * 2


def test_every_voxel_counts() -> None:
    weights = importance((32, 40, 32))
    assert weights.max() == weights[16, 20, 16] == 10 and weights.min() > 0
    assert weight_sum(lay_patches((49, 50, 33), (32, 40, 32))).min() > 0


def test_parts_of_patches_inside_the_grid_cover_it() -> None:
    patches = lay_patches((5, 21, 9), (8, 8, 8))
    seen = np.zeros(patches.shape)
    for index in range(len(patches.starts)):
        outer, inner = patches.overlap(index)
        assert seen[outer].shape == np.zeros(patches.patch)[inner].shape
        seen[outer] += 1
    assert seen.min() >= 1


def test_all_subsets_of_the_mirrored_axes() -> None:
    assert mirrorings((0, 2)) == [(), (0,), (2,), (0, 2)]


@pytest.mark.parametrize("together", [1, 10**6])
def test_one_patch_without_mirrors_is_the_network_itself(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr("quam_jax.case.prediction.TOGETHER", together)
    image = np.random.default_rng(0).standard_normal((2, 8, 12, 2)).astype(np.float32)
    with tiny_network():
        model = tiny_model()
        found = predict_logits([model], image, lay_patches((2, 8, 12), (8, 12)))
        np.testing.assert_allclose(found, model(image), rtol=1e-5, atol=1e-6)
        mirrored = predict_logits([model], image, lay_patches((2, 8, 12), (8, 12)), mirror_axes=(1,))
        expected = (model(image) + model(image[:, :, ::-1])[:, :, ::-1]) / 2
        np.testing.assert_allclose(mirrored, expected, rtol=1e-5, atol=1e-6)


def test_folds_are_averaged_as_logits() -> None:
    image = np.random.default_rng(0).standard_normal((1, 8, 12, 2)).astype(np.float32)
    with tiny_network():
        first, second = tiny_model(seed=0), tiny_model(seed=1)
        found = predict_logits([first, second], image, lay_patches((1, 8, 12), (8, 12)))
        np.testing.assert_allclose(found, (first(image) + second(image)) / 2, rtol=1e-5, atol=1e-6)
