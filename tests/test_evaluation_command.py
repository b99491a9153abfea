"""`quam-jax evaluate` on map files: the agreement it writes, and one line for what is wrong."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from quam_jax.results.evaluate_files import EvaluateRequest, evaluate_files
from tests.command_line import call, exit_code
from tests.image_files import OBLIQUE, save_nifti
from tests.report_pages import words
from tests.small_run import disc
from tests.test_alignment import turned

SIZE = (16, 16)


def test_evaluate_reads_map_files_and_names_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "maps").mkdir()
    shares = []
    for rater in range(2):
        mask = disc(0, radius=4.0 + rater, size=SIZE)
        shares.append(mask)
        Image.fromarray(mask * 255).save(tmp_path / "masks" / f"a_r{rater}.png")
    Image.fromarray(disc(1, size=SIZE) * 255).save(tmp_path / "masks" / "b.png")
    mean = np.mean(shares, 0)
    for name, values in (("a", np.where(mean == 0.5, 0.7, 0.1)), ("b", mean), ("c", mean)):
        np.savez(tmp_path / "maps" / f"{name}.npz", data=values.astype(np.float32))
    arguments = [
        "evaluate",
        "--map",
        f"own={tmp_path / 'maps'}",
        "--masks",
        str(tmp_path / "masks"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert exit_code(monkeypatch, *arguments) == 1  # case c has no raters
    done = capsys.readouterr()
    assert "failed: c: case c: expected the masks of its raters, got none" in done.err
    assert "1 of 2 cases: one rater: agreement with rater disagreement is not defined" in done.err
    assert "own" in done.out
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["columns"]["own/pcc"]["mean"] == pytest.approx(1.0)  # entropy is an affine map of these two values
    assert written["columns"]["own/pcc"]["n"] == 1
    said = words((tmp_path / "out" / "evaluation.html").read_text())
    assert "2 cases scored: own agrees best with the raters (PCC 1.00)" in said
    assert "HD and volume errors are in mm" in said
    assert "Cases that could not be evaluated" in said and "case c: expected the masks of its raters, got none" in said
    told: list[tuple[str, int, int]] = []
    request = EvaluateRequest(maps=(f"own={tmp_path / 'maps'}",), masks=tmp_path / "masks")
    evaluate_files(request, progress=lambda *values: told.append(values))
    assert told == [("", 0, 3), ("a", 1, 3), ("b", 2, 3), ("c", 3, 3)]
    Image.fromarray(mask * 255).save(tmp_path / "masks" / "a_r0.bmp")
    assert exit_code(monkeypatch, *arguments) == 2
    assert "case a has one of rater 'r0' already" in capsys.readouterr().err
    assert exit_code(monkeypatch, "evaluate", "--map", "own", "--masks", str(tmp_path / "masks")) == 2
    assert "--map: expected NAME=FOLDER" in capsys.readouterr().err
    assert exit_code(monkeypatch, "evaluate") == 2
    assert exit_code(monkeypatch, "evaluate", str(tmp_path)) == 2
    assert "expected the folder of a run" in capsys.readouterr().err


def volume(seed: int, radius: float) -> np.ndarray:
    return disc(seed, radius=radius, size=(10, 11, 6))


def test_maps_are_brought_to_the_grid_of_the_masks_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map in another order, one cut out of a larger volume, and one of the right size at the wrong place."""
    for folder in ("masks", "maps", "seg"):
        (tmp_path / folder).mkdir()
    away = OBLIQUE.copy()
    away[:3, 3] += OBLIQUE[:3, :3] @ (0, 0, 40)
    before = OBLIQUE.copy()
    before[:3, 3] -= OBLIQUE[:3, 0] * 2
    for case in ("same", "turned", "larger", "moved", "plain"):
        raters = [volume(0, 3.0), volume(0, 4.0)]
        for number, mask in enumerate(raters):
            save_nifti(tmp_path / "masks" / f"{case}_r{number}.nii.gz", mask, OBLIQUE)
        map_ = np.where(raters[0] != raters[1], 0.7, 0.1).astype(np.float32)
        label = (255 * raters[0]).astype(np.uint8)
        affine = OBLIQUE
        if case == "turned":
            (map_, affine), (label, _) = (turned(x, OBLIQUE, (2, 0, 1), (True, False, True)) for x in (map_, label))
        elif case == "larger":
            map_, label, affine = (*(np.pad(x, ((2, 1), (0, 3), (0, 0))) for x in (map_, label)), before)
        elif case == "moved":
            affine = away
        if case == "plain":
            np.savez(tmp_path / "maps" / "plain.npz", data=map_)
        else:
            save_nifti(tmp_path / "maps" / f"{case}.nii", np.ascontiguousarray(map_), affine)
        save_nifti(tmp_path / "seg" / f"{case}.nii.gz", np.ascontiguousarray(label), affine)
    (tmp_path / "maps" / "about.txt").write_text("x")
    save_nifti(tmp_path / "seg" / "spare.nii", label)
    options = ("--map", f"own={tmp_path / 'maps'}", "--masks", tmp_path / "masks", "--segmentation", tmp_path / "seg")
    code, _, err = call(monkeypatch, capsys, "evaluate", *options, "--out", tmp_path / "out")
    assert code == 1 and "failed: moved: " in err and "moved.nii: covers a part of its image only (it begins 1" in err
    for text in (
        f"note: of {tmp_path / 'maps'} not read: about.txt",
        f"note: of {tmp_path / 'seg'} without a map: spare.nii",
        "note: turned: maps/turned.nii was brought to the grid of the masks: its axes run",
        "note: larger: maps/larger.nii was brought to the grid of the masks: it has 13 x 14 x 6 voxels of the same lattice",
    ):
        assert text in err, err
    rows = (tmp_path / "out" / "evaluation.csv").read_text().splitlines()
    figures = {row.split(",")[0]: row.split(",")[1:] for row in rows[1:]}
    assert set(figures) == {"same", "turned", "larger", "plain"}
    assert all(row == figures["same"] for row in figures.values())


def test_a_run_is_scored_again_as_its_masks_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was said of the masks stands in run.json; masks turned otherwise than the image are one note."""
    mask = volume(0, 3.0) * 7
    flipped, affine = turned(mask, OBLIQUE, (0, 1, 2), (True, False, False))
    save_nifti(tmp_path / "m.nii", np.ascontiguousarray(flipped), affine)
    outputs = {}
    for name, array in (("segmentation", (mask > 0).astype(np.uint8)), ("total", (mask > 0).astype(np.float32))):
        nib.save(nib.Nifti1Image(array, OBLIQUE), tmp_path / f"a_{name}.nii.gz")
        outputs[name] = f"a_{name}.nii.gz"
    (tmp_path / "a.json").write_text(json.dumps({"outputs": outputs, "raters": {"r": str(tmp_path / "m.nii")}}))
    settings = {"ignore_label": "auto", "values": "0,9", "threshold": None}
    (tmp_path / "run.json").write_text(json.dumps({"masks": {"settings": settings}}))
    code, _, err = call(monkeypatch, capsys, "evaluate", tmp_path, "--out", tmp_path / "scores")
    assert code == 2 and "m.nii: expected values 0 (label 0), 9 (label 1), found 0, 7" in err
    code, out, err = call(monkeypatch, capsys, "evaluate", tmp_path, "--out", tmp_path / "scores", "--mask-values", "0,7")
    assert code == 0 and "dice_consensus 1.000" in out
    assert [line for line in err.splitlines() if line.startswith("note:")] == [
        "note: a: mask m.nii was brought to the image's grid: its axes run LAS, the other's RAS"
    ]
    for settings in ({"colour": 1}, {"ignore_label": 3}):
        (tmp_path / "run.json").write_text(json.dumps({"masks": {"settings": settings}}))
        code, _, err = call(monkeypatch, capsys, "evaluate", tmp_path, "--out", tmp_path / "scores")
        assert code == 2 and "run.json: expected the settings of masks" in err


def test_maps_of_one_rater_are_judged_by_the_errors_they_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("masks", "maps", "labels"):
        (tmp_path / name).mkdir()
    mask, labels = disc(0, size=SIZE), disc(1, size=SIZE)
    Image.fromarray(mask * 255).save(tmp_path / "masks" / "a.png")
    Image.fromarray(labels * 255).save(tmp_path / "labels" / "a.png")
    np.savez(tmp_path / "maps" / "a.npz", data=(mask != labels).astype(np.float32))
    folders = [f"own={tmp_path / 'maps'}", tmp_path / "labels", tmp_path / "masks", tmp_path / "out"]
    options = ["--map", "--segmentation", "--masks", "--out"]
    assert exit_code(monkeypatch, "evaluate", *(str(part) for pair in zip(options, folders, strict=True) for part in pair)) == 0
    said = words((tmp_path / "out" / "evaluation.html").read_text())
    assert (
        "1 cases scored" not in said
        and "1 case scored: own finds best what the prediction gets wrong (AUROC, image 1.00)" in said
    )
