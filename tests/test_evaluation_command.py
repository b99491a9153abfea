"""`quam-jax evaluate` on map files: the agreement it writes, and one line for what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quam_jax.results.evaluate_files import EvaluateRequest, evaluate_files
from tests.command_line import exit_code
from tests.small_run import disc

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
