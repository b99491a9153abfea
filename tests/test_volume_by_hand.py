"""Volumes against loops over voxels: overlapping patches, two folds, regions, and what samples say of volumes."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import entr

from quam_jax.case.quantified import Quantified, SampledVolumes
from quam_jax.case.quantify import quantify_images
from quam_jax.case.shared import CaseModel
from quam_jax.config import Config, SampleConfig, SearchConfig, TargetConfig
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import Targets
from quam_jax.data.plans import to_grid
from tests.planned import REGIONS, model_of
from tests.tiny import tiny_network
from tests.volume_by_hand import Expected, Kind, Shape, by_hand, folds_of, geometry_of, softmax, tiny_fold


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def quantified(
    shared: CaseModel, image: np.ndarray, spacing: tuple[float, ...], config: Config
) -> tuple[Quantified, SampledVolumes]:
    """The result of one scan, and the volumes under its samples."""
    (found,) = quantify_images(shared, [image], config=config, geometries=[geometry_of(image, spacing)])
    assert found.volumes is not None
    return found, found.volumes


def zyx(array: np.ndarray) -> np.ndarray:
    """A map of the scan on the network's grid."""
    return array.transpose(2, 1, 0, *range(3, array.ndim))


def assert_as_expected(found: Quantified, volumes: SampledVolumes, expected: Expected) -> None:
    channels = found.reference if found.channels is None else found.channels
    np.testing.assert_allclose(zyx(channels), expected.channels, atol=1e-5)
    np.testing.assert_array_equal(zyx(found.segmentation), expected.segmentation)
    own = entr(expected.channels) + (0 if found.channels is None else entr(1 - expected.channels))
    np.testing.assert_allclose(zyx(found.softmax), own.sum(-1), atol=1e-5)
    for name, values in zip(("total", "aleatoric", "epistemic"), np.moveaxis(expected.maps, -1, 0), strict=True):
        np.testing.assert_allclose(zyx(getattr(found, name)), values, rtol=1e-3, atol=2e-5, err_msg=name)
    assert expected.maps[..., 2].max() > 1e-3
    np.testing.assert_array_equal(np.stack([zyx(a) for a in found.adversarial]), expected.adversarial)
    assert (expected.adversarial != expected.segmentation).any()
    np.testing.assert_allclose(volumes.ml, expected.sample_ml, rtol=1e-5)
    moved = np.abs(expected.sample_ml[:-1] - expected.sample_ml[-1]).max(1)
    assert moved.max() > 1e-3 * expected.sample_ml[-1].sum()
    np.testing.assert_allclose(volumes.weights, expected.sample_weights, rtol=1e-4, atol=1e-7)
    assert volumes.weights.sum() == pytest.approx(1) and np.ptp(volumes.weights) > 0.01
    assert len(found.audit) == len(expected.rows)
    for row, told in zip(found.audit, expected.rows, strict=True):
        for name, value in told.items():
            assert getattr(row, name) == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name
    np.testing.assert_allclose(found.objective, np.stack(expected.objective), rtol=1e-4)
    counts = [row["feasible_steps"] for row in expected.rows]
    assert 0 < sum(counts) < sum(row["steps"] for row in expected.rows)  # some samples count and some do not


def test_regions_on_slices_with_noise_in_two_folds() -> None:
    """Patches of two axes, the middle slice empty so that nothing is asked there, and dropout drawn for every patch and fold."""
    config = Config(
        targets=TargetConfig(),
        seed=5,
        samples=SampleConfig(views="none", given="sample", weighting="softmax", temperature=0.1),
        search=SearchConfig(members=3, steps=2, learning_rate=0.03, slack=0.05, mode="train"),
    )
    spacing = (4.0, 1.0, 0.8)
    folds = [tiny_fold(seed, classes=2, drop=0.3) for seed in (0, 1)]
    shared = folds_of(folds, config, patch=(4, 4), spacing=spacing[1:], mirror_axes=[1], **REGIONS)
    image = np.random.default_rng(3).standard_normal((2, 7, 3, 1)).astype(np.float32)
    image[:, :, 1] = 0
    # of 2 voxels the patch of 4 sees one more on either side; over 7 the patches are 1.5 apart, rounded to even
    shape = Shape((1, 4, 4), ((0, 1, 2), (0, 2, 3), (0,)), (0, 0, 1), flips=(1,))
    expected = by_hand(shared, zyx(image), Kind(True), shape, spacing=spacing, config=config)
    found, volumes = quantified(shared, image, spacing[::-1], config)
    assert_as_expected(found, volumes, expected)
    searched = len({row["patch"] for row in expected.rows})
    assert (found.searched_patches, found.patches) == (searched, 9) and searched < 9


def test_labels_in_overlapping_cubes() -> None:
    """Patches of three axes that overlap along two of them; the head alone moves."""
    search = SearchConfig(space="head", members=2, steps=3, learning_rate=0.1, slack=0.1)
    config = Config(search=search, samples=SampleConfig(views="none", given="sample"))
    spacing = (1.5, 1.0, 0.7)
    folds = [model_of(seed=seed, patch_size=[4, 4, 4]) for seed in (0, 1)]
    shared = folds_of(folds, config, patch=(4, 4, 4), spacing=spacing, mirror_axes=[])
    image = np.random.default_rng(4).standard_normal((5, 6, 4, 1)).astype(np.float32)
    shape = Shape((4, 4, 4), ((0,), (0, 2), (0, 1)), (0, 0, 0), flips=())
    expected = by_hand(shared, zyx(image), Kind(False), shape, spacing=spacing, config=config)
    found, volumes = quantified(shared, image, spacing[::-1], config)
    assert_as_expected(found, volumes, expected)
    assert found.patches == 4


@pytest.mark.parametrize(
    ("own", "planned", "rows"), [(1.0, 2.0, 4), (1.0, 0.5, 16), (1.0, 1.0, 8)], ids=["coarser", "finer", "equal"]
)
def test_samples_change_volumes_by_the_voxels_of_the_network(own: float, planned: float, rows: int) -> None:
    """What a model moves is counted on the network's grid, whose voxels are larger or smaller than the scan's."""
    config = Config(
        targets=TargetConfig(shapes=("all_one", "all_zero")),
        search=SearchConfig(space="head", members=2, steps=2, learning_rate=0.05, slack=1.0),
        samples=SampleConfig(views="none", given="sample"),
    )
    labels = {"labels": {"background": 0, "a": 1}, "class_names": ["background", "a"]}
    shared = folds_of([tiny_fold(0, classes=2)], config, patch=(rows, 4), spacing=(planned, 1.0), mirror_axes=[], **labels)
    image = np.random.default_rng(2).standard_normal((4, 8, 2, 1)).astype(np.float32) + 3
    found, volumes = quantified(shared, image, (1.0, own, 3.0), config)
    assert found.patches == found.searched_patches == 2
    from_models = volumes.ml[:-1, 0].reshape(2, 2) - volumes.ml[-1, 0]
    assert (from_models[0] > 1e-3).all() and (from_models[1] < -1e-3).all()  # more of it is wanted, then less
    np.testing.assert_allclose(volumes.ml[-1, 0], found.reference[..., 1].sum() * own * 3 / 1000, rtol=1e-5)
    assert shared.plan is not None
    slices, grid = to_grid(image, geometry_of(image, (1.0, own, 3.0)), shared.plan)
    assert grid.shape == (2, rows, 4)
    moved, size, (fold,) = np.zeros((2, 2)), rows * 4, shared.folds
    wanted = jnp.stack([jnp.ones(size, int), jnp.zeros(size, int)])[None]
    targets = Targets(jnp.arange(size)[None], wanted, jnp.full((1, size), 1 / size))
    for patch in slices:
        searched = search_prepared(fold.prepared, patch, targets, key=jax.random.key(0))
        given = softmax(np.asarray(fold.model(patch[None]))[0])[..., 1].reshape(-1)
        moved += (np.asarray(searched.probs, np.float64)[0, ..., 1] - given).sum(-1)
    np.testing.assert_allclose(from_models, moved * (1.0 * planned * 3.0) / 1000, rtol=1e-3)
