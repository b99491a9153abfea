"""The review list of a run folder, the names of collected files, and the colour tables of viewers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from quam_jax.config import Config, change
from quam_jax.data.colour_tables import write_colour_tables
from quam_jax.data.maps import read_map
from quam_jax.data.volumes import read_image
from quam_jax.results.collect import collect
from quam_jax.results.review import rank_run
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run as run_pipeline
from tests.command_line import call
from tests.report_pages import make_run, words
from tests.small_run import prepare_folders, write_nifti


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over two pictures with every file that a run writes."""
    root = tmp_path_factory.mktemp("rank")
    request = RunRequest(
        **prepare_folders(root), out=root / "out", config=change(Config(), {"learning_rate": 0.05, "steps": 3, "views": "none"})
    )
    run_pipeline(request)
    return root / "out"


def test_the_list_agrees_with_the_maps(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 3, failed={"late": "no room"})
    review = rank_run(folder, tmp_path / "review", by=["epistemic"], threshold=0.01)
    masses = {}
    for name in ("case000", "case001", "case002"):
        with np.load(folder / "report_data" / f"{name}.npz") as stored:
            masses[name] = float(stored["epistemic"].astype(np.float64).sum())
    assert [row["case"] for row in review.cases] == sorted(masses, key=lambda n: -masses[n])
    assert [row["suggested"] for row in review.cases] == ["yes", "no", "no"]
    for row in review.cases:
        assert row["epistemic"] == pytest.approx(masses[row["case"]])
    assert review.left_out == {"late": "no room"}
    assert [row["rank"] for row in review.regions] == [*range(1, len(review.regions) + 1)]
    values = [row["epistemic"] for row in review.regions]
    assert values == sorted(values, reverse=True) and values
    with (tmp_path / "review" / "cases.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == [row["case"] for row in review.cases]
    stored = json.loads((tmp_path / "review" / "ranking.json").read_text())
    assert stored["settings"]["threshold"] == 0.01 and stored["left_out"] == review.left_out
    said = words((tmp_path / "review" / "ranking.html").read_text())
    assert "epistemic: sum of epistemic uncertainty (nats x size)" in said and "a peak is at row, column" in said
    assert f"Look first at {review.cases[0]['case']}." in said and "late" in said and "no room" in said
    assert said.index("case000") > said.index(review.cases[0]["case"]) or review.cases[0]["case"] == "case000"
    turned = rank_run(folder, tmp_path / "other", by=["relative"])
    assert [row["case"] for row in turned.cases] != [row["case"] for row in review.cases]


def test_label_maps_number_the_regions_by_rank(real_run: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    review = rank_run(real_run, tmp_path / "review", least=1, progress=lambda *values: told.append(values))
    assert review.regions
    names = sorted(row["case"] for row in review.cases)
    assert told == [("", 0, len(names)), *((name, n, len(names)) for n, name in enumerate(names, 1))]
    for name in {row["case"] for row in review.regions}:
        labels = read_map(tmp_path / "review" / f"{name}_desc-review_dseg")
        with np.load(real_run / "report_data" / f"{name}.npz") as stored:
            epistemic = stored["epistemic"].astype(np.float64)
        own = [row for row in review.regions if row["case"] == name]
        assert labels.shape == epistemic.shape and labels.max() == len(own)
        for row in own:
            member = labels == row["label"]
            assert member.sum() == row["pixels"] and ndimage.label(member)[1] == 1
            assert epistemic[member].sum() == pytest.approx(row["epistemic"])
            assert member[tuple(map(int, row["at"].split(",")))]
        assert [row["label"] for row in own] == [*range(1, len(own) + 1)]  # in the order of the list
        picture = np.asarray(Image.open(tmp_path / "review" / f"{name}_desc-review_dseg.png"))
        assert (picture == labels).all()
    assert (tmp_path / "review" / "labels.ctbl").read_text().splitlines()[2].split()[1] == "background"


def test_a_volume_keeps_its_geometry(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, space=(12, 14, 6))
    with np.load(folder / "report_data" / "case000.npz") as stored:
        written = write_nifti(folder / "case000_seg.nii.gz", stored["segmentation"].astype(np.uint8))
    record = json.loads((folder / "case000.json").read_text())
    record["outputs"] = {"segmentation": "case000_seg.nii.gz"}
    record["image"]["spacing"] = [0.8, 1.2, 2.5]
    (folder / "case000.json").write_text(json.dumps(record))
    review = rank_run(folder, tmp_path / "review", least=1)
    image = read_image(tmp_path / "review" / "case000_desc-review_dseg.nii.gz")
    assert np.allclose(image.geometry.affine, written.affine, atol=1e-5)
    assert image.array.max() == max(row["label"] for row in review.regions)
    assert review.cases[0]["size"] == pytest.approx(float((stored_size := (written.get_fdata() > 0).sum()) * 0.8 * 1.2 * 2.5))
    assert stored_size > 0


def test_bad_input_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = make_run(tmp_path / "out", 1)
    empty = make_run(tmp_path / "empty", 0, failed={"x": "no image"})
    for arguments, says in (
        ((tmp_path / "nothing",), "expected the folder of a run"),
        ((empty,), "no case can be ranked: no image"),
        ((folder, "--by", "luck"), "by: expected some of epistemic"),
        ((folder, "--top", "0"), "top: expected a share"),
        ((folder, "--by", "slices"), "no item has the criterion 'slices'"),
        ((folder, "--regions-by", ""), "regions_by: expected some of"),
    ):
        code, _, told = call(monkeypatch, capsys, "rank", *arguments, "--out", tmp_path / "r")
        assert code == 2 and says in told and told.count("\n") == 1, told
    assert not (tmp_path / "r").exists()


def test_the_command_prints_the_first(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = make_run(tmp_path / "out", 3)
    code, out, _ = call(monkeypatch, capsys, "rank", folder, "--by", "epistemic,relative")
    assert code == 0 and "1 of 3 cases suggested" in out and (folder / "review" / "regions.csv").is_file()
    code, out, _ = call(monkeypatch, capsys, "report", folder)
    assert code == 0  # the list lies in the run folder and is no case of it
    assert "ranking" not in json.dumps([p.name for p in folder.glob("*.json")])


def test_collected_names(real_run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    collected = collect(real_run, tmp_path / "nn", style="nnunet")
    names = sorted(str(p.relative_to(tmp_path / "nn")) for p in collected.files)
    assert {"predictions/a.npz", "predictions/b.png", "epistemic/a.npz", "prob/b.npz"} <= set(names)
    assert (tmp_path / "nn" / "epistemic" / "a.npz").read_bytes() == (real_run / "a_desc-epistemic_uncertainty.npz").read_bytes()
    code, out, _ = call(monkeypatch, capsys, "collect", real_run, "--style", "monai", "--link", "--out", tmp_path / "m")
    assert code == 0 and (tmp_path / "m" / "a" / "a_seg.npz").samefile(real_run / "a_seg.npz")
    code, _, told = call(monkeypatch, capsys, "collect", real_run, "--style", "monai", "--out", tmp_path / "m")
    assert code == 2 and "expected a new or empty folder" in told
    with pytest.raises(ValueError, match="style: expected nnunet or monai"):
        collect(real_run, tmp_path / "x", style="bids")
    with pytest.raises(ValueError, match="no case has files to collect: no image"):
        collect(make_run(tmp_path / "empty", 0, failed={"x": "no image"}), tmp_path / "x", style="monai")


def test_colour_tables_by_hand(tmp_path: Path) -> None:
    write_colour_tables(tmp_path, ["background", 'left "atrium"', "aorta"])
    slicer = [line.split() for line in (tmp_path / "labels.ctbl").read_text().splitlines() if line[0] != "#"]
    assert slicer == [
        ["0", "background", "0", "0", "0", "0"],
        ["1", 'left_"atrium"', "230", "159", "0", "255"],
        ["2", "aorta", "86", "180", "233", "255"],
    ]
    snap = [line for line in (tmp_path / "labels_itksnap.txt").read_text().splitlines() if line[0] != "#"]
    assert [line.split()[:7] for line in snap] == [
        ["0", "0", "0", "0", "0", "0", "0"],
        ["1", "230", "159", "0", "1", "1", "1"],
        ["2", "86", "180", "233", "1", "1", "1"],
    ]
    assert [line.split('"')[1] for line in snap] == ["background", "left 'atrium'", "aorta"]


def test_a_run_has_colour_tables(real_run: Path) -> None:
    assert "class_1" in (real_run / "labels.ctbl").read_text() and (real_run / "labels_itksnap.txt").is_file()
