"""The command line: options from settings, one clear line and exit code 2 for every bad input, nothing left behind."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quam_jax.cli.common import progress_bars
from tests.command_line import call
from tests.small_run import ARGUMENTS, picture, prepare_folders, small_model, write_cases


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_folders(tmp_path_factory.mktemp("cli"))


def options(folders: dict[str, Path], **changes: object) -> list[object]:
    paths = {**folders, "steps": 2, "views": "none", **changes}
    return [part for name, value in paths.items() if value is not None for part in (f"--{name.replace('_', '-')}", value)]


def test_run_prints_a_table_and_the_report(folders, tmp_path, monkeypatch, capsys) -> None:
    code, out, _ = call(monkeypatch, capsys, "-q", "run", *options(folders, out=tmp_path / "o"))
    assert code == 0
    assert "boundary (control)" in out and "softmax" in out and str(tmp_path / "o" / "report.html") in out
    assert "Agreement of each map with the entropy of the raters' mean" in out and "PCC" in out


def test_one_rater_is_no_agreement(folders, tmp_path, monkeypatch, capsys) -> None:
    write_cases(tmp_path / "in", ["a"], raters=1)
    given = options(folders, images=tmp_path / "in" / "images", masks=tmp_path / "in" / "masks", out=tmp_path / "o", steps=1)
    code, out, _ = call(monkeypatch, capsys, "-q", "run", *given)
    assert code == 0
    assert "what the prediction gets wrong" in out and "AUROC" in out and "Agreement" not in out


def test_config_file_and_options_meet(folders, tmp_path, monkeypatch, capsys) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("search:\n  steps: 1\n  learning_rate: 1e-4\nseed: 7\n")
    code, *_ = call(monkeypatch, capsys, "run", *options(folders, out=tmp_path / "o", steps=None, config=settings, seed=3))
    written = json.loads((tmp_path / "o" / "run.json").read_text())["config"]
    assert code == 0
    assert written["search"]["steps"] == 1 and written["search"]["learning_rate"] == 1e-4 and written["seed"] == 3


def bad_inputs(tmp_path: Path, folders: dict[str, Path]) -> dict[str, tuple[dict[str, object], str]]:
    """What can be wrong with a run, and a word its message must hold."""
    empty = tmp_path / "empty"
    empty.mkdir()
    config = tmp_path / "bad.yaml"
    config.write_text("search:\n  stepz: 3\n")
    broken = tmp_path / "broken.yaml"
    broken.write_text("search: [1, 2")
    colour = tmp_path / "colour"
    colour.mkdir()
    Image.fromarray(np.zeros((16, 16, 4), np.uint8), "RGBA").save(colour / "c.png")
    levels = tmp_path / "levels"
    levels.mkdir()
    for name in ("f1", "f2", "f3"):
        Image.fromarray(picture(0)).save(levels / f"{name}.png")
    return {
        "no model": ({"model": tmp_path / "none.pth"}, "none.pth"),
        "not a model": ({"model": folders["images"]}, "model folder"),
        "no images": ({"images": tmp_path / "nowhere"}, "nowhere"),
        "empty folder": ({"images": empty}, "empty"),
        "empty fit folder": ({"fit_images": empty}, "empty"),
        "masks that are no labels": ({"fit_masks": levels}, "f1.png"),
        "unknown setting": ({"config": config}, "stepz"),
        "broken settings": ({"config": broken}, "broken.yaml"),
        "bad value": ({"learning_rate": -1}, "learning_rate"),
        "unknown space": ({"space": "subset:Nothing"}, "Nothing"),
        "unknown wanted mask": ({"shapes": "dilate,twist"}, "twist"),
        "too few fit batches": ({"preset": "published"}, "batch_stride"),
        "bad preprocessing": ({"preprocessing": "[1"}, "--preprocessing"),
        "output is a file": ({"out": config}, "file"),
    }


def test_bad_input_is_one_line_and_exit_code_2(folders, tmp_path, monkeypatch, capsys) -> None:
    for what, (change, word) in bad_inputs(tmp_path, folders).items():
        out = tmp_path / "out"
        code, printed, error = call(monkeypatch, capsys, "run", *options(folders, **{"out": out, **change}))
        assert code == 2, (what, printed, error)
        assert word in error and error.count("\n") == 1 and "Traceback" not in error, (what, error)
        assert not out.exists(), what


def test_a_warning_is_a_note_without_a_path(monkeypatch, capsys) -> None:
    from quam_jax.cli import commands

    monkeypatch.setattr("sys.argv", ["quam-jax", "--version"])
    monkeypatch.setattr(
        commands, "cli", lambda **_: warnings.warn("memory ran out\n in spite of the plan", RuntimeWarning, stacklevel=2)
    )
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        warnings.simplefilter("always")
        commands.main()
    assert ended.value.code == 0 and capsys.readouterr().err == "note: memory ran out in spite of the plan\n"


def test_nan_in_the_weights_is_named(folders, tmp_path, monkeypatch, capsys) -> None:
    from quam_jax.models.folder import save_model

    model = small_model()
    model.params["Conv.bias"] = model.params["Conv.bias"] * np.nan
    save_model(tmp_path / "nan", model)
    code, _, error = call(monkeypatch, capsys, "run", *options(folders, model=tmp_path / "nan", out=tmp_path / "o"))
    assert code == 2 and "Conv.bias" in error and not (tmp_path / "o").exists()


def test_convert_export_and_back(folders, tmp_path, monkeypatch, capsys) -> None:
    weights = tmp_path / "net.pth"
    assert call(monkeypatch, capsys, "export", folders["model"], weights)[0] == 0
    code, _, error = call(
        monkeypatch,
        capsys,
        "convert",
        weights,
        tmp_path / "again",
        "--arch",
        "att_unet",
        "--arguments",
        json.dumps({"drop": 0.0, "decoder_drop": 0.0}),
    )
    assert code == 0, error
    from quam_jax.models.folder import restore_model

    again, model = restore_model(tmp_path / "again"), small_model()
    assert dict(again.network.arguments)["channels"] == ARGUMENTS["channels"]
    for name, value in model.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    code, _, error = call(monkeypatch, capsys, "convert", weights, tmp_path / "wrong", "--arch", "unet")
    assert code == 2 and error.count("\n") == 1 and not (tmp_path / "wrong").exists()


def test_info_report_and_unknown_commands(folders, tmp_path, monkeypatch, capsys) -> None:
    code, out, _ = call(monkeypatch, capsys, "info")
    assert code == 0 and "jax" in out and "compilation cache" in out
    code, out, _ = call(monkeypatch, capsys, "info", folders["model"])
    assert code == 0 and json.loads(out)["architecture"] == "att_unet"
    code, _, error = call(monkeypatch, capsys, "runn")
    assert code == 2 and "runn" in error
    code, _, error = call(monkeypatch, capsys, "report", tmp_path)
    assert code == 2 and error.count("\n") == 1


def test_bars_follow_each_other_on_a_terminal_and_a_moment_needs_no_line_elsewhere(monkeypatch, capsys) -> None:
    def stages(quiet: bool) -> str:
        with progress_bars(quiet=quiet) as update:
            for stage in ("first", "second"):
                for done in range(3):
                    update(stage, f"case {done}" if done else "", done, 2)
        return capsys.readouterr().err

    assert stages(quiet=False) == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    shown = stages(quiet=False)
    assert "second" in shown and "2/2" in shown and stages(quiet=True) == ""


def test_help_has_an_example_and_needs_no_jax(monkeypatch, capsys) -> None:
    for command in ("demo", "run", "convert", "export", "info", "train", "report"):
        code, out, _ = call(monkeypatch, capsys, command, "--help")
        assert code == 0 and "Example: quam-jax" in out, command
    check = "import sys; from quam_jax.cli.commands import cli; assert 'jax' not in sys.modules; cli(['run', '--help'])"
    done = subprocess.run([sys.executable, "-c", check + "\n"], capture_output=True, text=True)
    assert done.returncode == 0 and "--learning-rate" in done.stdout, done.stderr
