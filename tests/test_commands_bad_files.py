"""Every command that reads files, given bad ones: one line that names the file, exit code 2, nothing unforeseen, no trace."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from quam_jax.models.folder import save_model
from tests.command_line import call
from tests.image_files import ramp, save_nifti, save_picture
from tests.small_run import disc, little_model, picture, write_cases, write_nifti

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command; whatever it makes of its input, that is foreseen."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, err = call(monkeypatch, capsys, *arguments)
        assert "Traceback" not in out + err and "nobody foresaw" not in err, (arguments, err)
        return code, out, err

    return run


def refused(command: Call, *arguments: object) -> str:
    """The one line with which a command refuses."""
    code, _, err = command(*arguments)
    said = [line for line in err.splitlines() if line.startswith("quam-jax: error: ")]
    assert code == 2 and len(said) == 1, (arguments, code, err)
    return said[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures and volumes with their masks, fit data, and a folder of bad files."""
    root = tmp_path_factory.mktemp("data")
    save_model(root / "model", little_model())
    write_cases(root / "test", ["a", "b"])
    write_cases(root / "fit", ["f1", "f2"], raters=1)
    for part in ("images", "masks"):
        (root / "volumes" / part).mkdir(parents=True)
    for start, name in enumerate("ab"):
        seeds = range(start, start + 3)
        write_nifti(root / "volumes" / "images" / f"{name}.nii.gz", np.stack([picture(s) for s in seeds], -1).astype(np.float32))
        write_nifti(root / "volumes" / "masks" / f"{name}.nii.gz", np.stack([disc(s) for s in seeds], -1))
    bad = root / "bad"
    bad.mkdir()
    (bad / "empty.png").write_bytes(b"")
    (bad / "text.tif").write_text("hello")
    (bad / "cut.nii.gz").write_bytes((root / "volumes" / "images" / "a.nii.gz").read_bytes()[:200])
    (bad / "folder.png").mkdir()
    (bad / "loop.png").symlink_to(bad / "loop.png")
    (bad / "gone.png").symlink_to(bad / "nothing.png")
    save_nifti(bad / "nan.nii", np.full((5, 6, 3), np.nan, np.float32))
    save_nifti(bad / "complex.nii", np.zeros((5, 6, 3), np.complex64))
    save_nifti(bad / "many.nii", np.zeros((5, 6, 3, 2, 2), np.uint8))
    shutil.copy(bad / "nan.nii", bad / "misnamed.png")
    picture_file = save_picture(bad / "p.png", np.zeros((4, 4), np.uint8))
    for name in ("p.nii", "p.nii.gz", "p.tif", "p.jp2", "p.webp", "p.mgz", "p.img", "q.hdr", "p.gif", "p.bmp"):
        shutil.copy(picture_file, bad / name)
    picture_file.unlink()
    nib.save(nib.AnalyzeImage(ramp(4, 5, 6), None), bad / "analyze.img")
    (bad / "json.json").write_text("[1,2")
    np.savez(bad / "words.npz", data=np.array(["a", "b"]))
    return root


def options(root: Path, **changes: object) -> list[object]:
    paths = {
        "model": root / "model",
        "images": root / "test" / "images",
        "fit-images": root / "fit" / "images",
        "fit-masks": root / "fit" / "masks",
        **changes,
    }
    return [x for name, value in paths.items() for x in (f"--{name}", value)] + [
        "--steps",
        1,
        "--space",
        "head",
        "--views",
        "none",
    ]


def bad_files(root: Path) -> Iterator[Path]:
    yield from sorted((root / "bad").iterdir())


def test_run_and_plan_refuse_bad_images_and_masks(folders: Path, tmp_path: Path, command: Call) -> None:
    one, out = {"images": folders / "test" / "images" / "a.png"}, ("--out", tmp_path / "run")
    fit = {"fit-images": folders / "fit" / "images" / "f1.png", "fit-masks": folders / "fit" / "masks" / "f1.png"}
    for file in bad_files(folders):
        for changes in ({"images": file}, {**one, "masks": file}, {**fit, "fit-masks": file}):
            said = refused(command, "run", *options(folders, **changes), *out)
            assert file.name in said or file.stem in said, said
            assert not (tmp_path / "run").exists()
    refused(command, "plan", *options(folders, images=folders / "bad" / "text.tif"), "--cases", 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ignore-label", "x"),
        ("--ignore-label", "nan"),
        ("--ignore-label", ""),
        ("--mask-values", "0,1,2"),
        ("--mask-values", "0,,1"),
        ("--mask-values", "inf,0"),
        ("--mask-threshold", "nan"),
        ("--mask-threshold", "1", "--mask-values", "0,1"),
        ("--mask-values", "{bad}"),
        ("--mask-values", "{bad}/json.json"),
        ("--mask-values", "{bad}/p.tif"),
        ("--mask-values", "{bad}/loop.png"),
    ],
)
def test_what_is_said_of_masks_is_checked_at_once(
    folders: Path, tmp_path: Path, command: Call, arguments: tuple[str, ...]
) -> None:
    said = refused(
        command, "run", *options(folders), "--out", tmp_path, *(text.format(bad=folders / "bad") for text in arguments)
    )
    assert arguments[-2] in said or "json.json" in said or "p.tif" in said or "--mask" in said


def test_other_commands_refuse_bad_files(folders: Path, tmp_path: Path, command: Call) -> None:
    code, _, err = command("run", *options(folders, masks=folders / "test" / "masks"), "--out", tmp_path / "run")
    assert code == 0, err
    good, masks, out = tmp_path / "run", folders / "test" / "masks", tmp_path / "out"
    for file in [*bad_files(folders), folders / "bad"]:
        parts = ("--validation", f"folders:{file}", "--fit", f"folders:{file}", "--model", folders / "model")
        for arguments in (
            ("train", "--images", file, "--masks", folders / "fit" / "masks", "--out", out),
            ("evaluate", file),
            ("evaluate", good, "--masks", file),
            ("evaluate", "--map", f"x={file}", "--masks", masks),
            ("evaluate", "--map", f"x={good}", "--masks", masks, "--segmentation", file),
            ("compare", file, good, "--out", out),
            ("compare", good / "a.json", good / "b.json", "--out", out, "--affine", file),
            ("rank", file),
            ("collect", file, "--style", "monai", "--out", out),
            ("report", file),
            ("dicom", "import", file, "--out", tmp_path / "x.nii.gz"),
            ("dicom", "export", good, "a", "--series", file, "--out", out),
            ("benchmark", "methods", "--dataset", f"folders:{file}", *parts, "--out", out),
            ("tune", *parts, "--out", out),
        ):
            refused(command, *arguments)
            assert not out.exists(), arguments


def changed(value: Any, rng: random.Random) -> Any:
    """A record with something else somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        return rest if rng.random() < 0.2 else {**rest, key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        place = rng.randrange(len(value))
        return [changed(v, rng) if n == place else v for n, v in enumerate(value)]
    return rng.choice([None, [], {}, 0, -1, "x", True, [1], {"a": 1}, float("nan"), "../../etc/passwd", [[1]], 1e400])


def test_damaged_runs_are_read_or_refused(folders: Path, tmp_path: Path, command: Call) -> None:
    """Records with other values, maps and arrays with other bytes."""
    volumes = {"images": folders / "volumes" / "images", "masks": folders / "volumes" / "masks"}
    good = tmp_path / "good"
    code, _, err = command("run", *options(folders, **volumes), "--out", good)
    assert code == 0, err
    rng, codes = random.Random(0), []
    for number in range(8):
        run, out = tmp_path / f"run{number}", tmp_path / f"out{number}"
        shutil.copytree(good, run)
        name = rng.choice(["run.json", "a.json", "a.json", "summary.json", "a_seg.nii.gz", "report_data/a.npz", "results.csv"])
        raw = bytearray((run / name).read_bytes())
        if name.endswith(".json"):
            (run / name).write_text(json.dumps(changed(json.loads(raw), rng)))
        else:
            raw[rng.randrange(len(raw))] ^= 77
            (run / name).write_bytes(raw)
        for arguments in (
            ("evaluate", run),
            ("compare", run, good, "--case", "a", "--out", out / "compare"),
            ("rank", run, "--out", out / "rank"),
            ("collect", run, "--style", "nnunet", "--out", out / "collect"),
            ("report", run),
        ):
            codes.append(command(*arguments)[0])
        shutil.rmtree(run)
        shutil.rmtree(out, ignore_errors=True)
    assert set(codes) <= {0, 1, 2} and codes.count(0) > 13 and codes.count(2) > 1
