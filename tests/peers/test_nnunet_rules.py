"""nnU-Net's own functions, live: labels and regions drawn at random, masks with an ignored label, sides of every kind of voxel.

Needs the package nnunetv2 beside this one in an environment (`pip install nnunetv2==2.8.1`).
"""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.special import expit

from converters.nnunet_labels import describe_labels, read_channel_names
from quam_jax.data.plans import Plan, to_grid
from quam_jax.data.volumes import read_image, read_labels
from quam_jax.evaluation import overlap
from quam_jax.evaluation.segmentation import SegmentationSettings, segmentation_figures
from quam_jax.models.coding import Coding
from tests.planned import plan_of

handling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling", exc_type=(ImportError, RuntimeError))
readers = {
    "SimpleITKIO": pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer").SimpleITKIO,
    "NibabelIO": pytest.importorskip("nnunetv2.imageio.nibabel_reader_writer").NibabelIO,
    "NibabelIOWithReorient": pytest.importorskip("nnunetv2.imageio.nibabel_reader_writer").NibabelIOWithReorient,
}
scores = pytest.importorskip("nnunetv2.evaluation.evaluate_predictions")
pytestmark = pytest.mark.peers


def random_description(seed: int) -> dict[str, Any]:
    """Classes or regions in any order, over each other or not, with the background or without, and an ignored label or none."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 6))
    if seed % 4 == 0:
        labels: dict[str, Any] = {
            f"l{v}": [v] if rng.random() < 0.3 else v for v in rng.permutation(np.arange(1, count)).tolist()
        }
        order = None
    else:
        pool = np.arange(0 if rng.random() < 0.3 else 1, count + 1)
        regions = [sorted(rng.choice(pool, rng.integers(1, len(pool) + 1), replace=False).tolist()) for _ in range(3)]
        regions[0] = sorted({*regions[0], 1, count})  # one of several labels at least, and every label up to the largest
        labels = {f"r{n}": region if len(region) > 1 or region == [0] else region[0] for n, region in enumerate(regions)}
        order = rng.integers(1, count + 1, sum(set(region) != {0} for region in regions)).tolist()
    labels = {"background": 0, **labels}
    if rng.random() < 0.5:
        labels["ignore"] = count + 1 if order else count
    return {"labels": labels, "regions_class_order": order, "channel_names": {"0": "a", "3": "b"}}


def coding_of(described: dict[str, Any]) -> Coding:
    return Coding.of(Plan.of({"nnunet": {**MANIFEST, **described}}, where="model"), where="model")


MANIFEST = {
    "patch_size": [8, 8, 8], "spacing": [1, 1, 1], "transpose_forward": [0, 1, 2], "reader": "SimpleITKIO",
    "resampling": {"data": {}, "probabilities": {}}, "normalisation": [],
}  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_labels_and_regions_are_nnunets(seed: int, tmp_path: Path) -> None:
    given = random_description(seed)
    theirs = handling.LabelManager(given["labels"], given["regions_class_order"])
    described = describe_labels(given, where="dataset.json")
    coding = coding_of(described)
    assert theirs.num_segmentation_heads == len(described["class_names"])
    assert theirs.has_regions == (described["regions"] is not None)
    assert theirs.ignore_label == described["ignore_label"]
    assert len(read_channel_names(given, where="dataset.json")) == len(given["channel_names"])
    logits = np.random.default_rng(seed).normal(0, 2, (theirs.num_segmentation_heads, 5, 6, 7)).astype(np.float32)
    written = np.asarray(theirs.convert_logits_to_segmentation(logits))
    channels = np.moveaxis(logits, 0, -1)
    np.testing.assert_array_equal(coding.segment(channels), written)
    np.testing.assert_array_equal(coding.labels_of(coding.classify(channels)), written)
    np.testing.assert_allclose(
        coding.channel_probs(channels), np.moveaxis(theirs.apply_inference_nonlin(logits).numpy(), 0, -1), atol=1e-6
    )

    # a mask, and nnU-Net's own figures of its segmentation; where labels contradict the mask's, of the regions' probabilities
    top = max(v for name, value in described["labels"].items() if name != "ignore" for v in np.atleast_1d(value).tolist())
    values = [*range(top + 1), *([] if theirs.ignore_label is None else [theirs.ignore_label])]
    drawn = np.random.default_rng(seed + 1).choice(values, written.shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(drawn, np.eye(4)), tmp_path / "m.nii.gz")
    mask = read_labels(tmp_path / "m.nii.gz", classes=coding.labels, like=None, ignore=theirs.ignore_label)
    found = coding.counted(coding.classify(channels))
    row = segmentation_figures(
        found,
        coding.classes_of(mask)[None],
        settings=SegmentationSettings(coding.classes, structures=coding.structures),
        suffix="x",
    )
    structures = theirs.foreground_regions if theirs.has_regions else theirs.foreground_labels
    ignored = None if theirs.ignore_label is None else drawn == theirs.ignore_label
    for number, region in enumerate(structures, 1):
        own = scores.region_or_label_to_mask(written, region)
        if coding.contradictions:
            own = expit(channels[..., number - 1]) > 0.5
        np.testing.assert_array_equal(overlap.in_structure(found, coding.structures[number - 1]), own)
        tp, fp, fn, _ = scores.compute_tp_fp_fn_tn(scores.region_or_label_to_mask(drawn, region), own, ignored)
        name = "dice_x" if len(structures) == 1 else f"dice_x_class{number}"
        assert row[name] == pytest.approx(2 * tp / (2 * tp + fp + fn))


def random_file(path: Path, seed: int) -> tuple[int, ...]:
    """A NIfTI file whose sform, qform and pixdim may say different things, of one slice or several, in millimetres or microns."""
    rng = np.random.default_rng(seed)
    shape = [(5, 4, 3), (5, 4, 1), (5, 4), (1, 4, 3)][seed % 4]
    turned = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    affine = np.eye(4)
    affine[:3, :3] = turned * rng.uniform(0.5, 3, 3)
    affine[:3, 3] = rng.uniform(-5, 5, 3)
    image = nib.Nifti1Image(rng.normal(3, 1, shape).astype(np.float32), affine)
    header = image.header
    image.set_qform(affine, code=int(rng.integers(0, 2)))
    image.set_sform(affine, code=int(rng.integers(0, 3)))
    header["xyzt_units"] = int(rng.choice([0, 2, 3]))
    if rng.random() < 0.5:
        sides = rng.uniform(0.5, 3, 3).astype(np.float32)
        header["pixdim"][1:4] = sides
    nib.save(image, path)
    return shape


@pytest.mark.parametrize("reader", readers)
@pytest.mark.parametrize("seed", range(48))
def test_sides_and_axes_are_those_of_nnunets_readers(reader: str, seed: int, tmp_path: Path) -> None:
    shape = random_file(tmp_path / "a.nii.gz", seed)
    try:
        array, properties = readers[reader]().read_images([str(tmp_path / "a.nii.gz")])
    except (AssertionError, RuntimeError) as error:  # two axes with NiBabel, frames that ITK finds oblique
        pytest.skip(f"nnU-Net does not read it: {str(error)[-80:]}")
    expected = tuple(map(float, properties["spacing"]))
    image = read_image(tmp_path / "a.nii.gz")
    plan = plan_of(
        spacing=list(expected), reader=reader, normalisation=[{"scheme": "NoNormalization", "use_mask": False, "intensity": None}]
    )
    values, grid = to_grid(image.array, image.geometry, plan)
    np.testing.assert_allclose(grid.native_spacing, expected, rtol=1e-6, err_msg=f"{shape}")
    np.testing.assert_allclose(values[..., 0], array[0], rtol=1e-6)


def test_labels_as_text_are_taken_by_both() -> None:
    labels = json.loads('{"background": "0", "a": "1", "b": ["2"]}')
    theirs = handling.LabelManager(labels, None)
    assert list(theirs.all_labels) == [0, 1, 2] and theirs.num_segmentation_heads == 3
    assert describe_labels({"labels": labels}, where="d")["class_names"] == ["background", "a", "b"]
