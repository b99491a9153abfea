"""Voxels and regions of a planned model: whom a voxel belongs to, the direct search of one patch, whole runs."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from quam_jax.case.points import owners, share_out
from quam_jax.case.prediction import predict_logits
from quam_jax.case.quantified import Quantified
from quam_jax.case.quantify import quantify_images
from quam_jax.case.shared import CaseModel
from quam_jax.config import Config, ExecutionConfig, FitConfig, SearchConfig, TargetConfig
from quam_jax.data.patches import importance, lay_patches
from quam_jax.data.plans import points_on_grid, to_grid
from quam_jax.data.volumes import read_image
from quam_jax.evaluation.reference_maps import contour_distance
from quam_jax.models.folder import save_model
from quam_jax.models.predict import predict
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.planned import AFFINES, REGIONS, folders_of, model_of, plan_of, quantify_file, ready, write
from tests.tiny import NO_VIEWS

BASE = Config(
    search=SearchConfig(steps=2, learning_rate=1e-2, space="head", fit_points=64),
    fit=FitConfig(fit_cases=2),
    targets=TargetConfig(target="pixel"),
    samples=NO_VIEWS,
)


def setting(*, target: str = "pixel", search: dict[str, object] | None = None, **targets: object) -> Config:
    return dataclasses.replace(
        BASE,
        targets=TargetConfig(target=target, **targets),  # type: ignore[arg-type]
        search=dataclasses.replace(BASE.search, **(search or {})),
    )


def quantified(
    root: Path,
    config: Config,
    *,
    size: tuple[int, ...] = (8, 8, 8),
    affine: np.ndarray | None = None,
    models: int = 1,
    **record: object,
) -> tuple[CaseModel, Quantified]:
    folders = folders_of(root, size, np.eye(4) if affine is None else affine)
    loaded = [model_of(seed=seed, **record) for seed in range(models)]  # type: ignore[arg-type]
    shared, _ = ready(loaded, folders, config)
    return shared, quantify_file(shared, root / "in" / "case_0000.nii.gz", config)


def test_a_voxel_belongs_to_the_patch_where_it_is_most_central() -> None:
    patches = lay_patches((13, 5, 9), (8, 8, 8))  # padded along the second axis
    owner, weights = owners(patches), importance((8, 8, 8))
    for voxel in np.ndindex(13, 5, 9):
        place = np.array(voxel) + patches.before
        inside = [index for index, start in enumerate(patches.starts) if ((place >= start) & (place < np.array(start) + 8)).all()]
        best = max(inside, key=lambda index: (weights[tuple(place - patches.starts[index])], -index))
        assert owner[voxel] == best


def test_regions_stay_whole_where_a_patch_holds_them() -> None:
    patches = lay_patches((16, 8, 8), (8, 8, 8))
    owner = owners(patches)
    flat = np.arange(16 * 8 * 8).reshape(16, 8, 8)
    small, long = flat[3:6, 2:5, 2:5].reshape(-1), flat[:, 3, 3]
    shared = share_out([small, long], patches, owner)
    assert sum(np.array_equal(part, small) for patch_parts in shared for part in patch_parts) == 1
    pieces = [part for patch_parts in shared for part in patch_parts if not np.array_equal(part, small)]
    assert len(pieces) == 3 and np.array_equal(np.sort(np.concatenate(pieces)), long)
    assert all(
        np.array_equal(part, small) or (owner.reshape(-1)[part] == index).all()
        for index, patch_parts in enumerate(shared)
        for part in patch_parts
    )


@pytest.mark.parametrize("name", ["anisotropic", "permuted", "oblique"])
def test_listed_voxels_are_those_of_the_image(tmp_path: Path, name: str) -> None:
    array = np.random.default_rng(0).random((6, 7, 9)).astype(np.float32) + 1
    array[0] = array[:, :, -2:] = 0
    image = read_image(write(tmp_path / "a.nii.gz", array, AFFINES[name]))
    plain = {"scheme": "NoNormalization", "use_mask": False, "intensity": None}
    for reader in ("SimpleITKIO", "NibabelIOWithReorient"):
        plan = plan_of(reader=reader, transpose_forward=[1, 0, 2], normalisation=[plain])
        plan = dataclasses.replace(plan, spacing=to_grid(image.array, image.geometry, plan)[1].native_spacing)
        volume, grid = to_grid(image.array, image.geometry, plan)
        points = np.array([[1, 0, 0], [5, 6, 6], [3, 2, 4]])
        np.testing.assert_array_equal(volume[tuple(points_on_grid(points, grid).T)][:, 0], array[tuple(points.T)])
        finer = to_grid(image.array, image.geometry, dataclasses.replace(plan, spacing=tuple(s / 2 for s in plan.spacing)))[1]
        half = points_on_grid(points, finer)
        np.testing.assert_array_equal(half // 2, points_on_grid(points, grid))
        with pytest.raises(ValueError, match="inside the box of non-zero voxels, got 0,1,1"):
            points_on_grid(np.array([[3, 2, 4], [0, 1, 1]]), grid)
        with pytest.raises(ValueError, match="got 6,0,0"):
            points_on_grid(np.array([[6, 0, 0]]), grid)
        with pytest.raises(ValueError, match="expected 3 indices"):
            points_on_grid(np.array([[1, 1]]), grid)


@pytest.mark.parametrize(
    "config",
    [
        setting(pixels="all"),
        setting(pixels="all", search={"solver": "line_search"}),
        setting(target="region", regions="tiles", region_size=4),
    ],
    ids=["pixels", "line search", "tiles"],
)
def test_one_patch_is_the_search_of_an_image(tmp_path: Path, config: Config) -> None:
    # all fit points: which are drawn is a matter of the key, which folds have of their own
    config = dataclasses.replace(config, search=dataclasses.replace(config.search, fit_points=0))
    shared, found = quantified(tmp_path, config, mirror_axes=[])
    assert shared.plan is not None
    image = read_image(tmp_path / "in" / "case_0000.nii.gz")
    volume, grid = to_grid(image.array, image.geometry, shared.plan)
    ball = dataclasses.replace(config, targets=dataclasses.replace(config.targets, element="disk"))
    (direct,) = quantify_images(shared._replace(plan=None), [volume], config=ball)
    assert float(direct.epistemic.max()) > 1e-5
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(getattr(found, name), getattr(direct, name).transpose(2, 1, 0), rtol=2e-3, atol=2e-5)
    np.testing.assert_array_equal(found.adversarial, direct.adversarial.transpose(0, 3, 2, 1))
    np.testing.assert_allclose(found.fragility["slack"], direct.fragility["slack"].transpose(2, 1, 0), rtol=1e-2, atol=1e-6)
    assert grid.shape == (8, 8, 8) and not np.isnan(found.fragility["slack"]).any()


def test_a_pixel_of_two_regions_changes_once(tmp_path: Path) -> None:
    config = setting(target="region", regions="pyramid", region_size=4, pyramid_levels=2, search={"learning_rate": 0.3})
    _, found = quantified(tmp_path, config, mirror_axes=[])
    changed = [int((model != found.segmentation).sum()) for model in found.adversarial]
    assert [row.changed_pixels for row in found.audit] == changed and max(changed) > 0


def test_patches_and_chunks_change_nothing(tmp_path: Path) -> None:
    config = setting(pixels="band", band_width=1)
    shared, found = quantified(tmp_path, config, size=(11, 13, 9), affine=AFFINES["anisotropic"])
    path = tmp_path / "in" / "case_0000.nii.gz"
    again = quantify_file(shared, path, dataclasses.replace(config, execution=ExecutionConfig(chunk=16)))
    assert shared.plan is not None and found.volumes is not None and found.patches is not None
    assert found.patches >= found.searched_patches > 1
    for name in ("total", "epistemic"):
        np.testing.assert_allclose(getattr(found, name), getattr(again, name), atol=1e-6)
    asked = ~np.isnan(found.fragility["slack"])
    assert 0 < asked.sum() < asked.size and (found.epistemic[~asked] < found.epistemic.max()).all()
    rows = [a for a in found.audit if a.member == 0]
    image = read_image(path)
    volume, grid = to_grid(image.array, image.geometry, shared.plan)
    patches = lay_patches(grid.shape, shared.plan.patch)
    models = [fold.model for fold in shared.folds]
    labels = predict_logits(models, volume, patches, mirror_axes=shared.plan.mirror_axes).argmax(-1)
    band = contour_distance(labels, spacing=grid.spacing) <= np.median(grid.spacing) + 1e-6
    assert sum(row.searched for row in rows) == band.sum()  # every voxel of the band is asked once


@pytest.mark.parametrize("kind", ["regions of labels and two folds", "two axes", "pyramid", "components"])
def test_other_models_and_targets(tmp_path: Path, kind: str) -> None:
    config = setting(pixels="uncertain", pixel_count=50)
    record: dict[str, object] = {}
    models = 1
    if kind == "regions of labels and two folds":
        record, models = REGIONS, 2
    if kind == "two axes":
        record = {"rank": 2}
    if kind == "pyramid":
        config = setting(target="region", regions="pyramid", region_size=4, pyramid_levels=2)
    if kind == "components":
        config = setting(target="region", regions="components")
    _, found = quantified(tmp_path, config, size=(11, 9, 10), models=models, **record)
    assert np.isfinite(found.total).all() and found.epistemic.min() >= 0 and found.epistemic.max() > 0
    np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic, atol=1e-5)
    assert found.adversarial.shape == (2 * models, 11, 9, 10)
    asked = sum(a.searched for a in found.audit if a.member == 0) // models
    if kind == "pyramid":
        assert found.regions is not None and found.regions.shape == (2, 11, 9, 10) and asked >= found.regions.max() + 1
    elif kind == "components":
        assert not np.isnan(found.fragility["slack"]).any()  # they cover the volume
    else:
        assert asked == 50 and (~np.isnan(found.fragility["slack"])).sum() == 50
    if models == 2:
        assert found.adversarial_names == ("pixel 0, fold 0", "pixel 1, fold 0", "pixel 0, fold 0", "pixel 1, fold 0")


def test_without_learning_only_the_folds_disagree(tmp_path: Path) -> None:
    config = setting(pixels="all", search={"learning_rate": 0.0})
    shared, two = quantified(tmp_path, config, models=2, mirror_axes=[])
    assert np.isinf(two.fragility["slack"]).all()
    image = read_image(tmp_path / "in" / "case_0000.nii.gz")
    assert shared.plan is not None
    volume, _ = to_grid(image.array, image.geometry, shared.plan)
    predicted = [np.asarray(predict(fold.model, jnp.asarray(volume))) for fold in shared.folds]
    probs = np.stack(predicted).astype(np.float64)
    entropy = -(probs * np.log(probs)).sum(-1)
    mean = probs.mean(0)
    disagreement = -(mean * np.log(mean)).sum(-1) - entropy.mean(0)
    np.testing.assert_allclose(two.epistemic, disagreement.transpose(2, 1, 0), atol=2e-5)


def test_a_run_writes_what_flips_cost(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, (11, 13, 9), AFFINES["oblique"])
    save_model(tmp_path / "model", model_of())
    result = run(RunRequest(model=tmp_path / "model", out=tmp_path / "out", config=setting(pixels="band"), **folders))
    assert not result.failed
    source = nib.load(tmp_path / "in" / "case_0000.nii.gz")
    cost = nib.load(tmp_path / "out" / "case_desc-flipcost_uncertainty.nii.gz")
    assert cost.shape == source.shape
    np.testing.assert_array_equal(cost.affine, source.affine)
    values = cost.get_fdata()
    assert np.isnan(values).any() and (~np.isnan(values)).any()


def test_nothing_to_ask_is_one_line(tmp_path: Path) -> None:
    config = setting(pixels="list", pixel_list="1,1,20")
    with pytest.raises(ValueError, match="pixel list: expected 3 indices inside the image"):
        quantified(tmp_path, config)
