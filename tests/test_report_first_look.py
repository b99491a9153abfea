"""What the first screen says, the cheapest flips, and the volume that the viewer takes."""

import base64
import gzip
import importlib
import json
import math
import os
import stat
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

import quam_jax
from quam_jax.report.first_look import BADGES, look_at, short_rows
from quam_jax.report.folder import read_run
from quam_jax.report.html import review, survey, write_report
from quam_jax.report.layers import read_layers
from quam_jax.report.napari_reader import get_reader
from quam_jax.report.pdf import write_pdf
from quam_jax.report.viewer import affine_of, pack_volume
from quam_jax.results.review import rank_run
from tests.command_line import call
from tests.report_pages import make_run, read_page, words


def change_record(folder: Path, name: str, **more: object) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def test_the_order_is_that_of_rank(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 7, failed={"late": "no room"})
    seen = review(folder)
    ranked = rank_run(folder, tmp_path / "review")
    assert [look.name for look in seen.looks] == [*(row["case"] for row in ranked.cases), "late"]
    assert [look.rank for look in seen.looks] == [1, 2, 3, 4, 5, 6, 7, None]
    assert [round(look.score, 6) for look in seen.looks[:-1]] == [row["score"] for row in ranked.cases]
    assert sum(look.suggested for look in seen.looks) == 2  # the first fifth of seven, rounded up
    first, second = (look.name for look in seen.looks[:2])
    assert seen.sentence == f"2 of 8 cases deserve a look: {first} and {second}." and seen.more == ("Failed: late.",)
    rows = short_rows(seen)
    assert rows[0]["look"] == "yes" and rows[-1] | {"flags": "", "regions": 0} == dict.fromkeys(rows[-1], "") | {
        "case": "late", "look": "no", "regions": 0,
    }  # fmt: skip
    with np.load(folder / "report_data" / f"{first}.npz") as stored:
        sizes = [int((labels > 0).sum()) for labels in (stored["segmentation"], *stored["adversarial"])]
        share = float(stored["epistemic"].sum(dtype=np.float64) / stored["total"].sum(dtype=np.float64))
    assert [rows[0][key] for key in ("size", "size_low", "size_high")] == [sizes[0], min(sizes), max(sizes)]
    assert rows[0]["epistemic_share"] == pytest.approx(share, abs=1e-6) and rows[0]["kind"] == "aleatoric"


def test_what_is_off_is_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 5)
    audit = json.loads((folder / "case000.json").read_text())["audit"]
    change_record(folder, "case000", audit=[{**row, "objective_last": 0.6} for row in audit])
    change_record(folder, "case001", notes=["case001: the image is also one of the fit cases"], config_hash="other")
    rows = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text(
        "\n".join([*rows[:3], rows[3].replace("ok,2,2", "ok,2,0"), rows[4].replace("ok,2,2", "ok,2,1"), rows[5]])
    )
    seen = review(folder)
    badges = {look.name: look.badges for look in seen.looks}
    assert badges == {
        "case000": ("nothing moved",),
        "case001": ("other settings", "leak"),
        "case002": ("no model",),
        "case003": ("bound missed",),
        "case004": (),
    }
    assert not [look.name for look in seen.looks if look.suggested and look.name in ("case000", "case002")]
    assert set(seen.more) == {"No model: case002.", "Nothing moved: case000.", "Leak: case001."}
    page = write_report(folder, seen=seen).read_text()
    assert all(f'title="{BADGES[key]}"' in page for keys in badges.values() for key in keys)


def test_a_run_without_any_region_names_nobody(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 2)
    for path in (folder / "report_data").glob("*.npz"):
        np.savez(path, **(dict(np.load(path)) | {"epistemic": np.zeros((40, 56), np.float32)}))
    assert review(folder).sentence == "No case stands out."
    for path in (folder / "report_data").glob("*.npz"):
        path.unlink()
    seen = review(folder)
    assert seen.by == () and [look.rank for look in seen.looks] == [None, None]


def contest(folder: Path, shares: list[float], *, guarantee: list[bool] | None = None) -> None:
    """Cases whose adversarial models have this Dice with the prediction, and what a guarantee says of them."""
    for number, dice in enumerate(shares):
        path = folder / "report_data" / f"case{number:03d}.npz"
        arrays = dict(np.load(path))
        mask = np.zeros((40, 56), np.int32)
        mask[:20, :50] = 1
        model = mask.copy()
        model[: round(20 * 2 * (1 - dice) / (2 - dice))] = 0  # a mask of 20 rows that loses so many has that Dice
        epistemic = np.where(mask > 0, 0.2 - 0.01 * number, 0).astype(np.float32)
        np.savez(path, **(arrays | {"segmentation": mask, "adversarial": np.stack([model] * 2), "epistemic": epistemic}))
        if guarantee is not None:
            change_record(folder, f"case{number:03d}", guarantee={"expected_dice": 0.9, "look": guarantee[number]})
    if guarantee is not None:
        run = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(run | {"calibration": {"alpha": 0.1, "least_dice": 0.8}}))


@pytest.mark.parametrize(
    ("shares", "guarantee", "named", "sentence"),
    [
        ([1.0] * 6, None, 0, "No case stands out."),  # all fine: no model labels anything otherwise
        ([0.95] * 6, None, 2, "2 of 6 cases deserve a look: "),
        ([0.3] * 6, None, 6, "6 of 6 cases deserve a look: "),  # all in doubt
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.4], None, 3, "3 of 6 cases deserve a look: "),
        ([1.0], None, 0, "No case stands out."),
        ([0.95], None, 1, "case000: 1 region deserves a look, "),
        ([0.3] * 6, [False] * 6, 0, "No case deserves a look."),
        ([1.0] * 6, [True] * 6, 6, "6 of 6 cases deserve a look: "),
        ([0.95] * 6, [False] * 5 + [True], 1, "1 of 6 cases deserves a look: case005."),
        ([0.95], [False], 0, "No case deserves a look."),
    ],
)  # fmt: skip
def test_how_many_deserve_a_look(
    tmp_path: Path, shares: list[float], guarantee: list[bool] | None, named: int, sentence: str
) -> None:
    folder = make_run(tmp_path / "out", len(shares))
    contest(folder, shares, guarantee=guarantee)
    seen = review(folder)
    assert sum(look.suggested for look in seen.looks) == named and seen.sentence.startswith(sentence), seen.sentence
    assert [look.shared for look in sorted(seen.looks, key=lambda look: look.number)] == pytest.approx(shares, abs=0.04)
    text = words(write_report(folder, seen=seen).read_text())
    assert seen.rule in text and ("the guarantee does not rule out a Dice below 0.8" in seen.rule) is (guarantee is not None)
    told = f"That Dice is {np.median([look.shared for look in seen.looks]):.2f} in the median case"
    assert (told in seen.rule) is (len(shares) > 1 and guarantee is None)
    if guarantee is not None:
        told = "their Dice may be below 0.8" if named else "every Dice that it speaks of is at least 0.8"
        assert f"By the guarantee {told}." in seen.more


def pixel_run(folder: Path) -> Path:
    """One case of pixel targets: two cheap places far apart, a dearer one beside the first, and one that never flipped."""
    make_run(folder, 1)
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    costs = np.full((40, 56), np.nan, np.float32)
    costs[10, 10], costs[11, 10], costs[30, 40], costs[20, 20] = 0.2, 0.25, -0.1, np.inf
    one = {name: arrays[name][:1, :1] for name in ("objective", "fit_loss", "bound", "penalty", "feasible")}
    np.savez(
        path, **(arrays | one | {"flipcost": costs, "adversarial": arrays["adversarial"][:1], "adversarial_names": ["pixel 0"]})
    )
    row = {"target": -1, "member": 0, "wanted": "pixel 0", "held": True, "searched": 4, "kept": 4}
    change_record(folder, "case000", audit=[row | {"objective_first": 1.0, "objective_last": 0.5}])
    return folder


def test_pixel_runs_show_costs_first(tmp_path: Path) -> None:
    folder = pixel_run(tmp_path / "out")
    run = read_run(folder)
    scales = survey(run)
    assert scales.flipcost.high == 0.25 and scales.flipcost.falling
    text, _, (case,) = read_page(write_report(folder))
    told = words(case["html"])
    assert "pixel 0" not in told + words(text) and "each pixel, model 0" in told
    assert case["plots"] == [] and "Search" not in told  # a point is no course
    assert case["html"].index("Cost of flipping") < case["html"].index("Image and prediction")
    assert "3 of 4 pixels flipped, the cheapest at -0.1 nats." in told
    assert "-0.1 nats background at 30, 40 0.2 nats background at 10, 10" in told and "at 11, 10" not in told
    assert look_at(run, scales).looks[0].size.range_text == ""  # type: ignore[union-attr]


def test_the_viewer_has_the_values_of_the_maps(tmp_path: Path) -> None:
    space = (12, 18, 7)
    folder = make_run(tmp_path / "out", 1, space=space)
    affine = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.zeros(space, np.uint8), affine), folder / "case000_seg.nii.gz")
    change_record(folder, "case000", outputs={"segmentation": "case000_seg.nii.gz"})
    run = read_run(folder)
    layers, scales = read_layers(run.cases[0]), survey(run)
    volume = pack_volume(run, run.cases[0], layers, scales, regions=8, threshold=0.01)
    assert volume is not None and [layer["key"] for layer in volume.layers][:2] == ["image", "total"]
    found = {key: nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data))) for key, data in volume.data.items()}
    np.testing.assert_allclose(found["image"].affine, affine, atol=1e-4)
    np.testing.assert_allclose(
        found["epistemic"].get_fdata(), layers.arrays["epistemic"], atol=0.51 * scales.epistemic.high / 254
    )
    np.testing.assert_array_equal(found["segmentation"].get_fdata(), layers.arrays["segmentation"])
    np.testing.assert_array_equal(found["adversarial1"].get_fdata(), layers.arrays["adversarial"][1])
    shown = {key: (float(image.header["cal_min"]), float(image.header["cal_max"])) for key, image in found.items()}
    low, high = np.percentile(layers.arrays["image"], [0.1, 99.9])
    assert shown["image"] == pytest.approx((low, high)) and shown["epistemic"] == pytest.approx((0, scales.epistemic.high))
    np.testing.assert_allclose(found["image"].get_fdata(), layers.arrays["image"].clip(low, high), atol=(high - low) / 4095)


def test_a_label_outside_the_middle_of_a_volume_has_a_colour(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, space=(12, 18, 8))
    path = folder / "report_data" / "case000.npz"
    arrays = dict(np.load(path))
    for name in ("segmentation", "raters"):
        arrays[name][..., 0, 0, 0] = 3
    np.savez(path, **arrays)
    run = read_run(folder)
    volume = pack_volume(run, run.cases[0], read_layers(run.cases[0]), survey(run), regions=8, threshold=0.01)
    assert volume is not None
    most = {layer["key"]: layer["most"] for layer in volume.layers if layer["kind"] == "labels"}
    assert most == {"segmentation": 3, "adversarial0": 1, "adversarial1": 1} | {f"rater{i}": 3 for i in range(3)} | {
        "regions": 255
    }


def test_a_large_volume_is_cropped_and_reduced_and_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "out", 1, space=(40, 44, 24))
    change_record(folder, "case000", image={"shape": [40, 44, 24], "spacing": [1.0, 1.0, 3.0], "orientation": "LPS"})
    run = read_run(folder)
    layers, scales = read_layers(run.cases[0]), survey(run)
    affine, known = affine_of(folder, run.cases[0], layers)
    assert known and affine.tolist() == np.diag([-1.0, -1.0, 3.0, 1.0]).tolist()
    monkeypatch.setattr("quam_jax.report.viewer.LEAST_CHARACTERS", 9000)
    monkeypatch.setattr("quam_jax.report.viewer.PAGE_CHARACTERS", 9000)
    volume = pack_volume(run, run.cases[0], layers, scales, regions=8, threshold=0.01)
    assert volume is not None and sum(map(len, volume.data.values())) <= 9000
    assert any("Reduced: a voxel here is the mean of" in text for text in volume.remarks)
    shown = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume.data["total"])))
    # the centre of mass in millimetres is that of the whole map
    values = layers.arrays["total"].astype(np.float64)
    centres = []
    for array, matrix in ((values, affine), (shown.get_fdata(), shown.affine)):
        places = np.indices(array.shape).reshape(3, -1)
        centres.append(matrix[:3, :3] @ (places * array.ravel()).sum(1) / array.sum() + matrix[:3, 3])
    np.testing.assert_allclose(centres[0], centres[1], atol=0.6)


def test_printing_takes_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "out", 1)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    code, _, told = call(monkeypatch, capsys, "report", folder, "--pdf")
    assert code == 2 and "--pdf: expected Chromium, Chrome or Edge" in told and not (folder / "report.html").exists()
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    for script, printed in (
        ('for a in "$@"; do case "$a" in --print-to-pdf=*) echo %PDF > "${a#*=}";; esac; done', True),
        ("echo no >&2", False),
    ):
        browser.write_text(f"#!/bin/sh\n{script}\n")
        browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
        page = write_report(folder)
        if printed:
            assert write_pdf(page).read_bytes() == b"%PDF\n"
        else:
            with pytest.raises(OSError, match="expected chromium to print it, got nothing; it said: no"):
                write_pdf(page)
    assert not [name for name in os.listdir(folder) if name.startswith(".")] and math.isfinite(page.stat().st_size)


def test_napari_opens_a_case(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, space=(12, 18, 7), raters=1)
    image = json.loads((folder / "case000.json").read_text())["image"]
    change_record(folder, "case000", image=image | {"spacing": [0.5, 0.5, 2.0], "orientation": "RAS"})
    reader = get_reader(str(folder / "case000.json"))
    assert reader is not None and get_reader(str(folder / "run.json")) is None and get_reader("missing.json") is None
    layers = {settings["name"]: (array, settings, kind) for array, settings, kind in reader(str(folder / "case000.json"))}
    assert [*layers] == ["image", "Total uncertainty", "Aleatoric uncertainty", "Epistemic uncertainty", "Softmax entropy",
                         "prediction", "adversarial: dilated", "adversarial: eroded", "rater: rater 0"]  # fmt: skip
    values, settings, _ = layers["Epistemic uncertainty"]
    scales = survey(read_run(folder))
    assert settings["contrast_limits"] == (0.0, scales.epistemic.high) and settings["colormap"] == "magma"
    assert settings["scale"] == (0.5, 0.5, 2.0) and values.shape == (12, 18, 7)
    shown = [name for name, (_, own, _) in layers.items() if own.get("visible", True)]
    assert shown == ["image", "Epistemic uncertainty", "prediction"]
    manifest = yaml.safe_load((Path(quam_jax.__file__).parent / "napari.yaml").read_text())["contributions"]
    module, _, function = manifest["commands"][0]["python_name"].partition(":")
    assert getattr(importlib.import_module(module), function) is get_reader
    assert manifest["readers"][0]["command"] == manifest["commands"][0]["id"]
