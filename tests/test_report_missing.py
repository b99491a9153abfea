"""The report of a run that is unfinished or damaged, or has few or no raters: what is missing is said, the rest shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quam_jax.report import write_report
from quam_jax.report.html import review
from tests.report_pages import make_run, parse, read_page, words


def damage_none(folder: Path) -> None:
    pass


def damage_results(folder: Path) -> None:
    (folder / "results.csv").unlink()


def damage_summary(folder: Path) -> None:
    (folder / "summary.json").write_text("{")


def damage_run(folder: Path) -> None:
    (folder / "run.json").unlink()


def damage_run_list(folder: Path) -> None:
    (folder / "run.json").write_text("[1, 2]")


def damage_record(folder: Path) -> None:
    (folder / "case000.json").write_text('{"audit": 3, "outputs": [], "image": 1, "metrics": []}')


def damage_no_record(folder: Path) -> None:
    (folder / "case000.json").unlink()


def damage_arrays(folder: Path) -> None:
    path = folder / "report_data" / "case000.npz"
    path.write_bytes(path.read_bytes()[:900])


def damage_no_arrays(folder: Path) -> None:
    (folder / "report_data" / "case000.npz").unlink()


def damage_shape(folder: Path) -> None:
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | {"epistemic": arrays["epistemic"][:5], "raters": np.array(["x"])}))


def damage_only_maps(folder: Path) -> None:
    path = folder / "report_data" / "case000.npz"
    np.savez(path, total=np.load(path)["total"])


def damage_status(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    run |= {"status": "running", "cases": ["case000", "case001", "later"]}
    (folder / "run.json").write_text(json.dumps(run))


def damage_format(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"format": 9, "model": "net", "config": [], "notes": 1}))


def damage_mixed(folder: Path) -> None:
    record = json.loads((folder / "case001.json").read_text())
    (folder / "case001.json").write_text(json.dumps(record | {"config_hash": "other"}))
    (folder / "stranger.json").write_text(json.dumps(record | {"case": "stranger"}))


DAMAGES = [
    (damage_none, ""),
    (damage_results, "results.csv is missing"),
    (damage_summary, "summary.json cannot be read"),
    (damage_run, "run.json is missing"),
    (damage_run_list, "run.json holds list instead of named values"),
    (damage_record, ""),
    (damage_no_record, "case000.json is missing or cannot be read"),
    (damage_arrays, "case000.npz cannot be read"),
    (damage_no_arrays, "report_data/case000.npz is missing: no pictures of this case"),
    (damage_shape, "epistemic has shape 5 x 56, which does not fit 40 x 56"),
    (damage_only_maps, "Not in the report data: image, segmentation, aleatoric, epistemic."),
    (damage_status, "The run is not finished (status 'running'): 2 of 3 cases are here."),
    (damage_format, "The run has format 9; this report is made for format 1"),
    (damage_mixed, "Computed with another configuration than the rest: case001"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_what_is_missing_is_said_and_the_rest_shown(tmp_path: Path, damage: Any, sentence: str) -> None:
    folder = make_run(tmp_path / "out", 2)
    damage(folder)
    text, found, cases = read_page(write_report(folder))
    told = words(text) + " ".join(words(case["html"]) for case in cases)
    assert sentence in told
    assert not found.faults and not [f for case in cases for f in parse(case["html"]).faults]
    # case001 is whole whatever happened to the rest
    assert [c for c in cases if c["name"] == "case001"][0]["planes"][0]["images"].keys() >= {"image", "total"}


def test_mixed_runs_name_the_stranger(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 2)
    damage_mixed(folder)
    (folder / "ranking.json").write_text('{"order": []}')  # some other file of the folder is no case
    text, _, cases = read_page(write_report(folder))
    assert "In the folder but not in the run's list: stranger." in words(text)
    assert [case["name"] for case in cases] == ["case000", "case001", "stranger"]


def test_a_run_without_raters(tmp_path: Path) -> None:
    text, _, cases = read_page(write_report(make_run(tmp_path / "out", 1, raters=0)))
    assert "No agreement with raters is in results.csv" in words(text)
    assert "rater_entropy" not in cases[0]["planes"][0]["images"]
    assert "raters" not in cases[0]["planes"][0]["contours"]


def test_a_single_rater_has_outlines_but_no_entropy(tmp_path: Path) -> None:
    case = read_page(write_report(make_run(tmp_path / "out", 1, raters=1)))[2][0]
    assert "rater_entropy" not in case["planes"][0]["images"] and case["planes"][0]["contours"]["raters"][0]
    assert "outlines by one rater (rater 0)" in words(case["html"])


def test_a_run_with_means_only_shows_them_without_calling_them_agreement(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, raters=0)
    (folder / "results.csv").write_text("case,status,members,held,total/mean\ncase000,ok,2,1,0.125\n")
    (folder / "summary.json").unlink()
    text = read_page(write_report(folder))[0]
    assert "No agreement with raters" in words(text) and "of each map with the raters" not in words(text)
    assert "mean in nats" in words(text) and "0.125" in words(text) and "bound missed" in words(text)


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "run.json").write_text('{"format": 1, "status": "running", "cases": []}')
    text, found, cases = read_page(write_report(folder))
    assert "The run has no cases yet." in words(text) and not cases and not found.faults


def test_no_case_of_a_network_that_does_not_explain_its_fit_data_is_ok(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    told = json.loads((folder / "run.json").read_text())
    finding = "its loss is 0.7 nats a pixel, 101% of that of a guess"
    fit = {"loss": 0.7, "guess": 0.693, "dice": {"cell": 0.2, "rest": None}, "findings": [finding]}
    notes = [f"the network does not explain its own fit data: {finding}"]
    (folder / "run.json").write_text(json.dumps({**told, "fit": fit, "notes": notes}))
    page = write_report(folder).read_text()
    assert page.count(finding) == 1 and "nats a pixel, 101 % of a guess; Dice cell 0.20" in page
    assert "so these maps decide nothing." in page and ">fit check</span>" in page and 'class="state ok">ok' not in page


def test_a_case_whose_pictures_are_damaged_is_not_ok(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 2)
    (folder / "report_data" / "case001.npz").write_bytes(b"PK damaged")
    badges = {look.name: look.badges for look in review(folder).looks}
    assert badges == {"case000": (), "case001": ("incomplete",)}
