"""Volumes by an nnU-Net plan: channel regions, fit patches, samples and their weights, and whole runs of tiny networks."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from scipy.special import expit

from quam_jax.case.fit import fit_patches
from quam_jax.case.structures import structure_volumes
from quam_jax.config import ExecutionConfig, SampleConfig, change
from quam_jax.core.decomposition import decompose
from quam_jax.core.searching import search_prepared
from quam_jax.core.weighting import to_samples, trajectory_weights
from quam_jax.data.plans import Plan, to_grid
from quam_jax.data.volumes import read_image
from quam_jax.models.coding import Coding
from quam_jax.models.folder import save_model
from quam_jax.models.predict import predict
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from quam_jax.targets.masks import mask_targets
from quam_jax.targets.wanted.dilate import dilate_mm
from quam_jax.targets.wanted.erode import erode_mm
from tests.planned import AFFINES, REGIONS, SMALL, folders_of, model_of, plan_of, quantify_file, ready, scan, write


def test_regions_are_classes_with_the_same_probabilities() -> None:
    model = model_of(rank=2, **REGIONS)
    coding = Coding.of(Plan.of(model.manifest, where="model"), where="model")
    assert coding.class_of_label.tolist() == [0, 1, 3] and coding.label_of_class.tolist() == [0, 1, 2, 2]
    image = np.random.default_rng(0).standard_normal((1, 8, 8, 1)).astype(np.float32)
    logits = np.asarray(model(image))
    classes = np.asarray(jax.nn.softmax(coding.searchable(model)(image)))
    for region in (0, 1):
        np.testing.assert_allclose(classes @ coding.subsets[:, region], expit(logits[..., region]), atol=1e-6)
    np.testing.assert_array_equal(coding.classify_classes(classes), coding.classify(logits))
    np.testing.assert_array_equal(coding.classify_channels(expit(logits)), coding.classify(logits))
    np.testing.assert_allclose(coding.class_to_structure_probs(classes), coding.structure_probs(expit(logits)), atol=1e-6)
    np.testing.assert_allclose(coding.structure_probs(expit(logits))[..., 1], expit(logits)[..., 1], atol=1e-6)
    np.testing.assert_array_equal(coding.labels_of(coding.classify(logits)), coding.segment(logits))


def test_fit_patches_show_foreground_and_are_the_same_again(tmp_path: Path) -> None:
    array, labels = scan((14, 6, 20))
    image = read_image(write(tmp_path / "a.nii.gz", array, np.eye(4)))
    plan = plan_of()
    coding = Coding.of(plan, where="model")
    found = [
        fit_patches(image.array, labels.astype(np.int32), image.geometry, plan=plan, coding=coding, count=4, seed=1)
        for _ in range(2)
    ]
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        assert first[0].shape == (8, 8, 8, 1) and first[1].shape == (8, 8, 8)
        assert (first[1] == -1).sum() == 8 * 2 * 8  # two of eight voxels along the axis of six are padding
    assert all((patch[1] > 0).any() for patch in (found[0][0], found[0][1], found[0][3]))


def test_one_patch_is_the_direct_decomposition(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, (8, 8, 8), np.eye(4))
    model = model_of(mirror_axes=[])
    shared, known = ready([model], folders, SMALL)
    assert known.names == ["one", "two"] and len(known.hashes) == 2
    found = quantify_file(shared, tmp_path / "in" / "case_0000.nii.gz", change(SMALL, {"views": "none"}))
    image = read_image(tmp_path / "in" / "case_0000.nii.gz")
    assert shared.plan is not None and found.volumes is not None
    volume, grid = to_grid(image.array, image.geometry, shared.plan)
    reference = predict(model, jnp.asarray(volume))
    labels = np.asarray(reference.argmax(-1))
    wanted = [dilate_mm(labels, radius=1, spacing=grid.spacing), erode_mm(labels, radius=1, spacing=grid.spacing)]
    targets = mask_targets([jnp.asarray(w) for w in wanted], members=2)
    trajectory = search_prepared(shared.folds[0].prepared, jnp.asarray(volume), targets, key=jax.random.key(0))
    flat = reference.reshape(1, -1, 3)
    direct = decompose(to_samples(trajectory, trajectory_weights(trajectory), reference=flat), flat)
    assert float(direct.epistemic.max()) > 1e-4
    for name, values in zip(("total", "aleatoric", "epistemic"), direct, strict=True):
        expected = np.asarray(values).reshape(8, 8, 8).transpose(2, 1, 0)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.reference, np.asarray(reference).transpose(2, 1, 0, 3), atol=1e-5)
    assert found.volumes.ml.shape == (5, 2)
    np.testing.assert_allclose(found.volumes.ml[-1], found.reference.reshape(-1, 3).sum(0)[1:] / 1000, rtol=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_without_learning_nothing_is_epistemic(tmp_path: Path, rank: int) -> None:
    folders = folders_of(tmp_path, (11, 13, 9), AFFINES["oblique"])
    config = change(SMALL, {"steps": 1, "learning_rate": 0.0, "views": "none"})
    shared, _ = ready([model_of(rank=rank)], folders, config)
    found = quantify_file(shared, tmp_path / "in" / "case_0000.nii.gz", config)
    assert found.patches is not None and found.patches >= found.searched_patches > 1
    assert not found.epistemic.any() and found.total.max() > 0


@pytest.mark.parametrize("regions", [False, True])
def test_a_run_keeps_the_geometry_and_tells_volumes(tmp_path: Path, regions: bool) -> None:
    folders = folders_of(tmp_path, (11, 13, 9), AFFINES["oblique"])
    save_model(tmp_path / "model", model_of(**(REGIONS if regions else {})))
    result = run(RunRequest(model=tmp_path / "model", out=tmp_path / "out", config=SMALL, **folders))
    assert not result.failed and [row["case"] for row in result.rows] == ["case"]
    source = nib.load(tmp_path / "in" / "case_0000.nii.gz")
    for name in ("seg", "desc-total_uncertainty", "desc-epistemic_uncertainty", "desc-reference_probseg"):
        image = nib.load(tmp_path / "out" / f"case_{name}.nii.gz")
        assert image.shape[:3] == source.shape and np.isfinite(image.get_fdata()).all()
        np.testing.assert_array_equal(image.affine, source.affine)
        assert (image.header["sform_code"], image.header["qform_code"]) == (2, 1)
    total, parts = (nib.load(tmp_path / "out" / f"case_desc-{n}_uncertainty.nii.gz").get_fdata() for n in ("total", "aleatoric"))
    epistemic = nib.load(tmp_path / "out" / "case_desc-epistemic_uncertainty.nii.gz").get_fdata()
    np.testing.assert_allclose(total, parts + epistemic, atol=1e-6)
    assert epistemic.min() >= 0 and epistemic.max() > 0
    probs = nib.load(tmp_path / "out" / "case_desc-reference_probseg.nii.gz").get_fdata()
    assert probs.shape[-1] == 3
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)
    assert (tmp_path / "out" / "case_desc-regions_probseg.nii.gz").is_file() == regions
    sidecar = json.loads((tmp_path / "out" / "case.json").read_text())
    assert set(sidecar["volumes"]) == ({"whole", "core"} if regions else {"a", "b"})
    for row in sidecar["volumes"].values():
        low, high = row["adversarial_interval"]
        assert low <= row["volume_ml"] <= high and row["crps"] >= 0
    assert len(sidecar["audit"]) == 2 * sidecar["patches_searched"] <= 2 * sidecar["patches"]
    assert sidecar["structures"]["names"] == (["whole", "core"] if regions else ["a", "b"])
    assert sidecar["labels"] == ["background", *(["whole outside core", "core"] if regions else ["a", "b"])]
    voxel = np.prod(sidecar["image"]["spacing"]) / 1000
    pixels = sidecar["structures"]["pixels"]
    for number, row in enumerate(sidecar["volumes"].values()):
        assert row["volume_ml"] == pytest.approx(pixels["prediction"][number] * voxel)
        assert row["raters_ml"]["rater"] == pytest.approx(pixels["raters"]["rater"][number] * voxel)
    written = np.asarray(nib.load(tmp_path / "out" / "case_seg.nii.gz").dataobj)
    if regions:  # core lies in whole
        assert pixels["prediction"] == [np.count_nonzero(written), np.count_nonzero(written == 2)]


def test_published_samples_and_two_folds(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, (8, 8, 8), np.eye(4))
    config = dataclasses.replace(SMALL, samples=SampleConfig.published())
    shared, _ = ready([model_of(), model_of(seed=1)], folders, config)
    found = quantify_file(shared, tmp_path / "in" / "case_0000.nii.gz", config)
    assert found.adversarial.shape == (4, 8, 8, 8)
    assert found.adversarial_names[0] == "dilate, fold 0" and np.isfinite(found.total).all()


@pytest.mark.parametrize("fault", ["shifted mask", "no mask", "nan", "cut off", "channels", "zero spacing"])
def test_bad_input_is_one_line_that_names_the_file(tmp_path: Path, fault: str) -> None:
    folders = folders_of(tmp_path, (8, 8, 8), np.eye(4))
    save_model(tmp_path / "model", model_of())
    image, mask = tmp_path / "in" / "case_0000.nii.gz", tmp_path / "fit" / "masks" / "two.nii.gz"
    array, labels = scan((8, 8, 8))
    named = image
    if fault == "shifted mask":
        named = write(mask, labels, np.diag([1, 1, 1.5, 1]))
    elif fault == "no mask":
        mask.unlink()
        named = folders["fit_masks"]
    elif fault == "nan":
        array[3, 3, 3] = np.nan
        write(image, array, np.eye(4))
    elif fault == "cut off":
        image.write_bytes(image.read_bytes()[:-200])
    elif fault == "channels":
        write(image, np.stack([array, array], -1), np.eye(4))
    else:
        broken = nib.Nifti1Image(array, None)
        broken.header["pixdim"][3] = 0
        broken.header["sform_code"] = broken.header["qform_code"] = 0
        path = tmp_path / "broken.nii"
        nib.save(broken, path)
        raw = bytearray(path.read_bytes())
        raw[76 + 12 : 76 + 16] = bytes(4)  # pixdim[3]
        image.unlink()
        named = tmp_path / "in" / "case_0000.nii"
        named.write_bytes(bytes(raw))
    with pytest.raises(ValueError) as caught:
        run(RunRequest(model=tmp_path / "model", out=tmp_path / "out", config=SMALL, **folders))
    assert str(named) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_volumes_of_structures_in_millilitres() -> None:
    segmentation = np.zeros((10, 10, 10), np.int32)
    segmentation[:5] = 1
    reference = np.stack([np.full((10, 10, 10), 0.6), np.full((10, 10, 10), 0.4)], -1)
    more = np.ones_like(segmentation)
    rows = structure_volumes(
        segmentation,
        reference[..., 1:],
        more[None],
        structures=np.array([[False, True]]),
        names=("organ",),
        voxel=0.001,
        raters={"r": segmentation},
    )
    row = rows["organ"]
    assert row["volume_ml"] == 0.5 and row["expected_ml"] == pytest.approx(0.4)
    assert row["adversarial_interval"] == [0.5, 1.0] == row["sample_interval"]
    assert row["crps"] == pytest.approx(0.125)  # samples .5 and 1, rater .5: E|X-y| .25 less half of E|X-X'| .25


def test_samples_weigh_as_the_rule_says(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, (11, 13, 9), AFFINES["oblique"])
    shared, _ = ready([model_of()], folders, SMALL)
    weights = {}
    for rule in ("all", "last"):
        samples = SampleConfig(views="none", given="sample", weighting=rule)  # type: ignore[arg-type]
        found = quantify_file(shared, tmp_path / "in" / "case_0000.nii.gz", dataclasses.replace(SMALL, samples=samples))
        assert found.volumes is not None and found.searched_patches > 1
        assert all(row.feasible_steps == row.steps == 2 for row in found.audit)
        weights[rule] = found.volumes.weights
    np.testing.assert_allclose(weights["all"], np.full(5, 1 / 5))  # two members of two steps, and the given network
    np.testing.assert_allclose(weights["last"], [0, 1 / 3, 0, 1 / 3, 1 / 3])


def test_samples_that_break_the_constraint_have_no_weight(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, (8, 8, 8), np.eye(4))
    config = change(SMALL, {"learning_rate": 0.5, "slack": 0.0, "given": "sample"})
    shared, _ = ready([model_of()], folders, config)
    path = tmp_path / "in" / "case_0000.nii.gz"
    found = quantify_file(shared, path, config)
    broke = ~found.feasible.reshape(-1)
    assert found.volumes is not None and found.patches == 1 and 0 < broke.sum() < 4
    np.testing.assert_allclose(found.volumes.weights, np.append(~broke, True) / (5 - broke.sum()))
    np.testing.assert_array_equal(found.volumes.ml[:-1][broke], found.volumes.ml[[-1] * broke.sum()])  # the given network's
    free = change(config, {"feasible_only": False})
    every = quantify_file(shared, path, free).volumes
    assert every is not None and np.abs(every.ml[:-1][broke] - every.ml[-1]).max() > 1e-4
    np.testing.assert_allclose(every.weights, 1 / 5)


def test_patches_that_are_searched_together_give_the_same_maps(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, (11, 13, 9), AFFINES["oblique"])
    shared, _ = ready([model_of(rank=2)], folders, SMALL)
    path = tmp_path / "in" / "case_0000.nii.gz"
    together = dataclasses.replace(SMALL, execution=ExecutionConfig(member_plan="vmap", step_plan="scan", together=3))
    one, several = (quantify_file(shared, path, config) for config in (SMALL, together))
    assert one.searched_patches == several.searched_patches > 3 and one.epistemic.max() > 1e-4
    for name in ("total", "epistemic", "objective"):
        np.testing.assert_allclose(getattr(several, name), getattr(one, name), atol=1e-5)
    assert [row.patch for row in several.audit] == [row.patch for row in one.audit]
