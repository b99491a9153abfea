"""What the report shows of a case: planes of volumes, averaged pictures, regions, structures, and values off the scale."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from quam_jax.report import write_report
from quam_jax.report.figures import LEVELS
from tests.report_pages import decode, make_case, make_run, read_page, words


def test_records_of_slices_and_notes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    record = json.loads((folder / "case000.json").read_text())
    record["audit"] = [{**entry, "slice": 7, "feasible_steps": 3} for entry in record["audit"]]
    record["notes"] = ["case000: the image is also one of the fit cases"]
    (folder / "case000.json").write_text(json.dumps(record))
    data = dict(np.load(folder / "report_data" / "case000.npz"))
    data["adversarial_names"] = np.array(["dilate", "dilate"])
    np.savez(folder / "report_data" / "case000.npz", **data)
    told = words(read_page(write_report(folder))[2][0]["html"])
    assert "the image is also one of the fit cases" in told and "case000: the image" not in told
    assert "feasible steps" in told and "7 0 0 dilated kept moved" in told and "3 of 5" in told
    assert "dilate 0 (orange, dashed), dilate 1 (orange, dashed)" in told


def test_volumes_have_three_planes_and_a_plot_a_slice(tmp_path: Path) -> None:
    space = (12, 18, 7)
    folder = make_run(tmp_path / "out", 1, space=space)
    record = json.loads((folder / "case000.json").read_text())
    record["image"] |= {"spacing": [1.0, 2.0, 3.0], "orientation": "RAS"}
    (folder / "case000.json").write_text(json.dumps(record))
    case = read_page(write_report(folder))[2][0]
    assert [p["axis"] for p in case["planes"]] == [2, 1, 0]
    assert [p["slices"] for p in case["planes"]] == [list(range(n)) for n in (7, 18, 12)]
    # RAS drawn as in radiology: axial rows run from anterior (top) to posterior, columns from right to left
    axial = case["planes"][0]
    assert (axial["down"], axial["across"], axial["letters"]) == (1, 0, ["A", "L", "P", "R"])
    assert axial["aspect"] == pytest.approx(12 * 1 / (18 * 2), abs=1e-5)
    values = make_case(0, space)["total"]
    sheet = np.asarray(decode(axial["images"]["total"]))
    assert (axial["columns"], axial["rows"]) == (3, 3) and sheet.shape == (3 * 18, 3 * 12)
    tile = sheet[18:36, 12:24]  # slice 4: second row, second column
    expected = values[:, :, 4].T[::-1, ::-1]
    error = np.abs(tile / (LEVELS - 1) * math.log(2) - expected)
    assert error.max() <= 0.5 * math.log(2) / (LEVELS - 1) * 1.001
    assert case["plots"][0] == {"key": "objective", "title": "Objective", "linked": True, "indices": list(range(7))}
    assert len(case["courses"]["fit_loss"]) == 7
    mass = make_case(0, space)["epistemic"].sum(axis=(0, 1))
    assert case["start"][0] == int(mass.argmax())
    assert "ml" in words(case["html"]).split()


def test_structures_have_their_names_and_intervals(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, space=(12, 18, 7))
    record = json.loads((folder / "case000.json").read_text())
    record["image"]["spacing"] = [10.0, 10.0, 10.0]  # a voxel is a millilitre
    record["volumes"] = {"left <lobe>": {"volume_ml": 1.0, "sample_interval": [12.5, 17.25]}}
    (folder / "case000.json").write_text(json.dumps(record))
    told = words(read_page(write_report(folder))[2][0]["html"])
    voxels = int((make_case(0, (12, 18, 7))["segmentation"] == 1).sum())
    assert f"ml left <lobe> prediction {voxels} " in told and "interval of the samples 12.5 to 17.25" in told
    record["volumes"] = {"a": {"sample_interval": "wide"}, "b": 3}  # damaged: named by number, no interval
    (folder / "case000.json").write_text(json.dumps(record))
    told = words(read_page(write_report(folder))[2][0]["html"])
    assert "ml class 1 prediction" in told and "interval of the samples" not in told


def test_higher_axes_are_cut_in_the_middle(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    grid = {k: v for k, v in arrays.items() if v.shape[-2:] == (40, 56)}
    four = {k: np.stack([np.stack([v] * 3, -1)] * 4, -1) for k, v in grid.items()}
    np.savez(path, **(arrays | four))
    case = read_page(write_report(folder))[2][0]
    assert "The data have 4 axes; shown is axis 3 at index 2 of 4." in words(case["html"])
    assert [p["axis"] for p in case["planes"]] == [2, 1, 0]


def test_a_slice_stored_as_a_volume_is_a_picture(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{k: v[..., None] if v.shape[-2:] == (40, 56) else v for k, v in arrays.items()})
    case = read_page(write_report(folder))[2][0]
    assert [p["axis"] for p in case["planes"]] == [None]
    assert "axes; shown is" not in words(case["html"])


def test_large_pictures_are_averaged_and_that_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, space=(300, 1030), raters=1)
    case = read_page(write_report(folder))[2][0]
    plane = case["planes"][0]
    assert (plane["block"], plane["height"], plane["width"]) == (3, 100, 344)
    assert "the mean of 3 × 3" in words(case["html"])
    mean = make_case(0, (300, 1030), 1)["total"][150:153, 510:513].mean()
    level = np.asarray(decode(plane["images"]["total"]))[50, 170]
    assert abs(level / (LEVELS - 1) * math.log(2) - mean) <= 0.51 * math.log(2) / (LEVELS - 1)


def test_not_a_number_and_values_above_the_scale_are_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    arrays["total"][0, :4] = np.nan
    arrays["total"][1, 0] = 5.0
    np.savez(path, **arrays)
    case = read_page(write_report(folder))[2][0]
    levels = np.asarray(decode(case["planes"][0]["images"]["total"]))
    assert (levels[0, :4] == LEVELS).all() and levels[1, 0] == LEVELS - 1
    told = words(case["html"])
    assert "4 pixels are not a number (grey)." in told and "Largest value 5." in told


def test_regions_are_the_connected_parts_of_the_map(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    arrays["epistemic"] = np.zeros((40, 56), np.float32)
    arrays["epistemic"][5:7, 10:13] = 0.4  # mass 2.4
    arrays["epistemic"][20, 30] = 0.5  # mass 0.5, at the largest value of the run
    arrays["epistemic"][30, 30] = 0.1  # below a quarter of the scale 0 to 0.5
    np.savez(path, **arrays)
    case = read_page(write_report(folder))[2][0]
    assert ndimage.label(arrays["epistemic"] >= 0.125)[1] == 2
    told = words(case["html"])
    assert "at least 0.125 nats" in told
    assert re.search(r"1 6 pixels .* 0\.400 5, 10 show 2 1 pixels .* 0\.500 20, 30", told)
    assert case["marks"][1] == {
        "tile": 0,
        "left": round(100 * 30.5 / 56, 2),
        "top": round(100 * 20.5 / 40, 2),
    }
