"""Whole runs of nnU-Net models whose labels are no classes: regions written out of order, an ignored label, one slice."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from quam_jax.data.maps import read_map
from quam_jax.data.mask_settings import MaskSettings
from quam_jax.data.records import plain
from quam_jax.evaluation import overlap
from quam_jax.models.folder import save_model
from quam_jax.report.folder import Case
from quam_jax.report.layers import read_layers
from quam_jax.report.sizes import size_table
from quam_jax.results.evaluate_files import EvaluateRequest, evaluate_files
from quam_jax.results.run_cases import read_run_cases
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from quam_jax.runs.scoring import score
from tests.planned import AFFINES, SMALL, folders_of, model_of, write

ORDERS = {
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "class_names": ["whole", "core"],
    "regions": [[1, 2], [2]],
    "regions_class_order": [2, 1],  # core is written as 1, which in masks is whole without core
}
IGNORED = {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}, "ignore_label": 3}
SIZE = (10, 9, 8)


def assert_scored_from_files_alike(out: Path, folder: Path) -> None:
    """A case scored from its files has, to the last bit, the record that it had from memory."""
    found = read_run_cases(out, None, MaskSettings())
    again = score(found.records["case"], found.findings("case"), found.coding, found.drawn("case"), folder)
    assert plain(again) == found.records["case"] and found.records["case"]["metrics"]


def test_an_order_that_contradicts_the_masks_is_told_and_regions_are_compared(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, SIZE, AFFINES["plain"])
    save_model(tmp_path / "model", model_of(**ORDERS))
    result = run(RunRequest(model=tmp_path / "model", out=tmp_path / "out", config=SMALL, **folders))
    assert not result.failed
    (told,) = (note for note in result.notes if "regions_class_order" in note)
    assert "2 of the masks is written as 1" in told
    assert [text for text in json.loads((tmp_path / "out" / "run.json").read_text())["notes"] if "regions_class_order" in text]
    sidecar = json.loads((tmp_path / "out" / "case.json").read_text())
    regions = np.asarray(read_map(tmp_path / "out" / "case_desc-regions_probseg")) > 0.5
    mask = np.asarray(nib.load(tmp_path / "masks" / "case.nii.gz").dataobj)
    masks = [mask > 0, mask == 2]
    for number, name in enumerate(("whole", "core")):
        volume = sidecar["volumes"][name]
        assert volume["volume_ml"] == pytest.approx(regions[..., number].sum() / 1000)
        assert volume["raters_ml"]["rater"] == pytest.approx(masks[number].sum() / 1000)
        dice = overlap.dice(regions[..., number], masks[number])
        assert sidecar["metrics"][f"dice_consensus_class{number + 1}"] == pytest.approx(dice)
    (row,) = evaluate_files(EvaluateRequest(run=tmp_path / "out")).rows
    assert row["dice_consensus"] == pytest.approx(sidecar["metrics"]["dice_consensus"])
    assert_scored_from_files_alike(tmp_path / "out", tmp_path / "again")
    written = np.asarray(nib.load(tmp_path / "out" / "case_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(written, np.where(regions[..., 1], 1, np.where(regions[..., 0], 2, 0)))
    # the report has the sizes of the regions
    case = Case("case", {}, sidecar, tmp_path / "out" / "report_data" / "case.npz")
    table = size_table(case, read_layers(case))
    assert table is not None and table["structures"] == ["whole", "core"] and table["unit"] == "ml"
    assert table["rows"][0][1] == [f"{regions[..., r].sum() / 1000:,.4g}" for r in (0, 1)]


def test_voxels_of_the_ignored_label_count_nowhere(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, SIZE, AFFINES["plain"])
    save_model(tmp_path / "model", model_of(**IGNORED))
    mask = np.asarray(nib.load(tmp_path / "masks" / "case.nii.gz").dataobj).copy()
    rated = np.ones(SIZE, bool)
    rated[6:] = False
    write(tmp_path / "masks" / "case.nii.gz", np.where(rated, mask, 3).astype(np.uint8), AFFINES["plain"])
    for path in (tmp_path / "fit" / "masks").iterdir():
        own = np.asarray(nib.load(path).dataobj).copy()
        own[:2] = 3
        write(path, own, AFFINES["plain"])
    result = run(RunRequest(model=tmp_path / "model", out=tmp_path / "out", config=SMALL, **folders))
    assert not result.failed
    sidecar = json.loads((tmp_path / "out" / "case.json").read_text())
    seg = np.asarray(nib.load(tmp_path / "out" / "case_seg.nii.gz").dataobj)
    for label, name in enumerate("ab", 1):
        volume = sidecar["volumes"][name]
        assert volume["volume_ml"] == pytest.approx((seg == label).sum() / 1000)
        assert volume["rated_ml"]["rater"] == pytest.approx((seg == label)[rated].sum() / 1000)
        assert volume["raters_ml"]["rater"] == pytest.approx((mask == label)[rated].sum() / 1000)
        dice = overlap.dice((seg == label)[rated], (mask == label)[rated])
        assert sidecar["metrics"][f"dice_consensus_class{label}"] == pytest.approx(dice, nan_ok=True)
    with np.load(tmp_path / "out" / "report_data" / "raters" / "case.npz") as arrays:
        np.testing.assert_array_equal(arrays["raters"][0], np.where(rated, mask.astype(int), -1))
    assert_scored_from_files_alike(tmp_path / "out", tmp_path / "again")
    (row,) = evaluate_files(EvaluateRequest(run=tmp_path / "out")).rows
    assert row["dice_consensus"] == pytest.approx(sidecar["metrics"]["dice_consensus"], nan_ok=True)


def test_one_slice_has_volumes_and_its_own_sides(tmp_path: Path) -> None:
    folders = folders_of(tmp_path, (10, 9, 1), np.diag([1.0, 1, 3, 1]))
    save_model(tmp_path / "model", model_of(spacing=[3.0, 1.0, 1.0]))
    result = run(RunRequest(model=tmp_path / "model", out=tmp_path / "out", config=SMALL, **folders))
    assert not result.failed
    sidecar = json.loads((tmp_path / "out" / "case.json").read_text())
    image = nib.load(tmp_path / "out" / "case_seg.nii.gz")
    assert image.shape == (10, 9, 1) and image.header.get_zooms()[2] == 3
    seg = np.asarray(image.dataobj)
    assert sidecar["image"]["thickness"] == 3 and sidecar["image"]["spacing"] == [1, 1]
    assert sidecar["volumes"]["a"]["volume_ml"] == pytest.approx((seg == 1).sum() * 3 / 1000)
