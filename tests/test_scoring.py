"""Scores and guarantees are stages of their own: other masks, or none, search nothing again and touch no map."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quam_jax.config import Config, SearchConfig
from quam_jax.runs.guaranteeing import read_calibration
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.command_line import call
from tests.small_run import disc, picture, prepare_folders
from tests.tiny import NO_VIEWS, picture_model, tiny_network

CONFIG = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=1e-2))
NAMES = [f"p{k}-{k % 7}" for k in range(6)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    root = tmp_path_factory.mktemp("run")
    with tiny_network():
        folders = prepare_folders(root, model=picture_model())
        for part in ("images", "masks", "others"):
            (root / "cases" / part).mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(NAMES, 20):
            Image.fromarray(picture(index)).save(root / "cases" / "images" / f"{name}.png")
            for rater in range(2):
                mask = disc(index, radius=5.5 + rater) * 255
                Image.fromarray(mask).save(root / "cases" / "masks" / f"{name}_r{rater}.png")
            Image.fromarray(disc(index, radius=4.0) * 255).save(root / "cases" / "others" / f"{name}.png")
        yield {**folders, "images": root / "cases" / "images", "masks": root / "cases" / "masks"}


def bytes_of(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file of a run but those that know the time or the command."""
    names = ("run.json", "timing.csv", "report.html", *but)
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in names]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def maps_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {n: b for n, b in files.items() if not n.endswith((".json", ".csv")) and "raters" not in n}


@pytest.fixture(scope="module")
def finished(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was scored in the same go."""
    out = tmp_path_factory.mktemp("out") / "run"
    assert not run(RunRequest(**folders, out=out, config=CONFIG)).failed
    return out


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a finished case was searched again")

    monkeypatch.setattr("quam_jax.runs.quantifier.quantify_images", never)


def test_masks_come_change_and_go_without_a_search(
    folders: dict[str, Path],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = bytes_of(finished)
    request = RunRequest(**{**folders, "masks": None}, out=tmp_path / "run", config=CONFIG)
    run(request)
    bare = bytes_of(request.out)
    assert maps_of(bare) == maps_of(whole) and "dice" not in bare["results.csv"].decode().splitlines()[0]

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a finished case was searched again")

    monkeypatch.setattr("quam_jax.runs.quantifier.quantify_images", never)
    run(RunRequest(**folders, out=request.out, config=CONFIG))
    assert bytes_of(request.out) == whole, "masks that are added"
    others = folders["masks"].parent / "others"
    run(RunRequest(**{**folders, "masks": others}, out=request.out, config=CONFIG))
    changed = bytes_of(request.out)
    assert maps_of(changed) == maps_of(whole) and changed["results.csv"] != whole["results.csv"]
    code, out, _ = call(monkeypatch, capsys, "evaluate", request.out, "--masks", folders["masks"])
    assert code == 0 and "dice_consensus" in out
    assert bytes_of(request.out) == whole, "evaluate writes what run --masks writes"
    run(request)
    assert bytes_of(request.out) == bare, "masks that are dropped"
    told = json.loads((request.out / "run.json").read_text())
    assert told["redone"] == {} and told["failed"] == {}


def test_masks_that_cannot_be_read_harm_no_map(folders: dict[str, Path], finished: Path, tmp_path: Path, no_search: None) -> None:
    out, masks = tmp_path / "run", tmp_path / "masks"
    shutil.copytree(finished, out)
    shutil.copytree(folders["masks"], masks)
    before = bytes_of(out)
    Image.fromarray(disc(0)[:5] * 255).save(masks / f"{NAMES[0]}_r0.png")
    result = run(RunRequest(**{**folders, "masks": masks}, out=out, config=CONFIG))
    assert list(result.failed) == [NAMES[0]] and maps_of(bytes_of(out)) == maps_of(before)
    assert json.loads((out / f"{NAMES[0]}.json").read_text())["metrics"] == {}
    (out / "report_data" / "raters" / f"{NAMES[1]}.npz").write_bytes(b"damaged")
    run(RunRequest(**folders, out=out, config=CONFIG))
    assert bytes_of(out) == before, "what scoring wrote is looked at, and written again"


def test_from_masks_to_a_guarantee_and_to_a_run_with_it(
    folders: dict[str, Path],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_search: None,
) -> None:
    out, file = tmp_path / "run", tmp_path / "new" / "guarantee.json"
    shutil.copytree(finished, out)
    before = bytes_of(out)
    options = ("calibrate", out, "--out", file)
    code, printed, err = call(monkeypatch, capsys, *options, "--alpha", "0.2", "--patient", r"(p\d+)-")
    assert code == 0, err
    assert "at most 20% of the wrong pixels lie outside the review zone" in printed and file.with_suffix(".png").is_file()
    assert bytes_of(out) == before
    guarantee = read_calibration(file).guarantee
    assert len(guarantee.cases) == len(NAMES) and guarantee.limits["zone"].cases == len(NAMES)
    assert any("no map was chosen, which takes 12 cases" in note for note in guarantee.notes)

    calibration = read_calibration(file, least_dice=0.99)
    result = run(RunRequest(**folders, out=out, config=CONFIG, calibration=calibration))
    assert not result.failed
    after = bytes_of(out)
    assert {n: b for n, b in after.items() if n in maps_of(before)} == maps_of(before)
    new = {n for n in after if n not in before and n.startswith(NAMES[0])}
    kinds = ("error_probseg", "zone_dseg", "bounds_dseg")
    assert new == {f"{NAMES[0]}_desc-{kind}.{suffix}" for kind in kinds for suffix in ("npz", "png")}
    record = json.loads(after[f"{NAMES[0]}.json"])
    told: dict[str, Any] = record["guarantee"]
    zone = np.load(out / told["outputs"]["zone"])["data"]
    map_ = np.load(out / record["outputs"][guarantee.limits["zone"].map])["data"]
    np.testing.assert_array_equal(zone, map_ >= guarantee.limits["zone"].threshold)
    assert told["review_share"] == zone.mean() and told["look"] and record["row"]["look"] == "yes"
    assert any("the guarantee was calibrated on this case" in note for note in result.notes)
    assert any("look at this case: its Dice may be below 0.99" in note for note in result.notes)

    fresh = RunRequest(**folders, out=tmp_path / "fresh", config=CONFIG, calibration=calibration)
    monkeypatch.undo()
    run(fresh)
    assert bytes_of(fresh.out) == after, "a search with the guarantee writes what the guarantee adds later"
    run(RunRequest(**folders, out=out, config=CONFIG))
    assert bytes_of(out) == before, "without it all is as it was"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--alpha", "0.05"), "alpha 0.05 takes 19 cases or more, got 6"),
        (("--alpha", "1"), "alpha: expected a number between 0 and 1, got 1.0"),
        (("--map", "nothing"), "map: expected one of total, aleatoric, epistemic, softmax, boundary, got 'nothing'"),
        (("--patient", "x"), "expected a patient as 'x' in the name, got none"),
        (("--patient", "["), "expected a regular expression, got '['"),
        (("--masks", "none/"), "none: no such file or folder"),
    ],
)
def test_a_bad_calibration_is_one_line(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    code, _, err = call(monkeypatch, capsys, "calibrate", finished, "--out", tmp_path / "g.json", *options)
    (line,) = [line for line in err.splitlines() if line.startswith("quam-jax: error:")]
    assert code == 2 and said in line and not (tmp_path / "g.json").exists()


def test_known_cases_and_other_runs_are_refused(
    folders: dict[str, Path],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*arguments: object) -> str:
        code, _, err = call(monkeypatch, capsys, *arguments)
        assert code == 2
        return err

    options = ("calibrate", finished, "--out", tmp_path / "g.json", "--alpha", "0.2")
    train = tmp_path / "train"
    train.mkdir()
    Image.open(folders["images"] / f"{NAMES[3]}.png").save(train / "other-name.png")
    (train / "again.png").write_bytes((folders["images"] / f"{NAMES[3]}.png").read_bytes())
    assert f"training cases are no calibration cases, but {NAMES[3]} is one" in refused(*options, "--training", train)
    for file in train.iterdir():
        file.unlink()
    Image.fromarray(picture(77)).save(train / "p5-9.png")
    said = refused(*options, "--training", train, "--patient", r"([pf]\d+)")
    assert f"patients of training cases are none to calibrate on, but those of {NAMES[5]} are" in said
    info = json.loads((finished / "run.json").read_text())
    kept = (finished / "run.json").read_bytes()
    sha256 = json.loads((finished / f"{NAMES[2]}.json").read_text())["image"]["sha256"]
    (finished / "run.json").write_text(json.dumps({**info, "fit_sha256": [sha256]}))
    assert f"fit cases are no calibration cases, but {NAMES[2]} is one" in refused(*options)
    (finished / "run.json").write_bytes(kept)

    assert call(monkeypatch, capsys, *options)[0] == 0
    calibration = read_calibration(tmp_path / "g.json")
    with pytest.raises(ValueError, match=r"another setting: search.slack 1.0 there, 0.5 in this run"):
        other = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=1e-2, slack=0.5))
        run(RunRequest(**folders, out=tmp_path / "o", config=other, calibration=calibration))
    for key, said in (("model", "another model"), ("preprocessing", "another preparation"), ("fit", "other fit data")):
        record = json.loads((tmp_path / "g.json").read_text())
        record["known"][key] = "x"
        (tmp_path / "h.json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match=f"a guarantee for {said} than that of this run"):
            run(RunRequest(**folders, out=tmp_path / "o", config=CONFIG, calibration=read_calibration(tmp_path / "h.json")))
    assert not (tmp_path / "o").exists()
    for path, said in ((tmp_path / "none.json", "no such file"), (finished / "run.json", "has written, got another file")):
        with pytest.raises(ValueError, match=said):
            read_calibration(path)
    with pytest.raises(ValueError, match="least Dice: expected a number above 0"):
        read_calibration(tmp_path / "g.json", least_dice=1.5)
