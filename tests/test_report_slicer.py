"""A case in 3D Slicer: the files with their names and ranges, and what the script asks of Slicer, a recorder here."""

import json
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from quam_jax.report.folder import read_run
from quam_jax.report.html import survey
from quam_jax.report.slicer import case_files, open_case
from quam_jax.report.slicer_script import open_layers
from tests.command_line import call
from tests.report_pages import make_run

OUTPUTS = {
    "segmentation": "case000_seg.nii.gz",
    "total": "case000_desc-total_uncertainty.nii.gz",
    "epistemic": "case000_desc-epistemic_uncertainty.nii.gz",
    "reference": "case000_desc-reference_probseg.nii.gz",
    "error": "case000_desc-error_probseg.nii.gz",
}


class Recorder:
    """Anything that is called, with a line for every call."""

    def __init__(self, calls: list[tuple[str, tuple, dict]], name: str = "") -> None:
        self.calls, self.name = calls, name

    def __getattr__(self, name: str) -> "Recorder":
        return Recorder(self.calls, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((self.name, args, kwargs))
        return Recorder(self.calls, self.name)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "out", 1, space=(12, 18, 7), raters=0)
    record = json.loads((folder / "case000.json").read_text())
    (tmp_path / "case000.nii.gz").write_bytes(b"image")
    record |= {"outputs": OUTPUTS, "image": record["image"] | {"path": str(tmp_path / "case000.nii.gz")}}
    (folder / "case000.json").write_text(json.dumps(record))
    for name in OUTPUTS.values():
        (folder / name).write_bytes(b"map")
    return folder / "case000.json"


def test_the_layers_of_a_case(case: Path) -> None:
    layers = case_files(case)
    kinds = ("total uncertainty", "epistemic uncertainty", "rate of wrong pixels", "prediction")
    names = ["case000", *(f"case000 {kind}" for kind in kinds)]
    assert [layer["name"] for layer in layers] == names
    assert [layer["kind"] for layer in layers] == ["image", "map", "map", "map", "labels"]
    assert [layer["name"] for layer in layers if layer.get("on")] == names[0::2][:2]
    scales = survey(read_run(case.parent))
    assert layers[1]["high"] == scales.total.high and layers[2] | {"colours": "Magma", "high": scales.epistemic.high} == layers[2]
    assert all(Path(layer["path"]).is_file() for layer in layers)


def test_what_slicer_is_asked_for(case: Path) -> None:
    calls: list[tuple[str, tuple, dict]] = []
    open_layers(Recorder(calls), case_files(case))
    loaded = [(name, args[1]["name"]) for name, args, _ in calls if name.startswith("load")]
    assert [name for name, _ in loaded] == ["loadVolume"] * 4 + ["loadSegmentation"]
    ranges = [args for name, args, _ in calls if name == "SetWindowLevelMinMax"]
    assert ranges == [(0.0, layer["high"]) for layer in case_files(case) if layer["kind"] == "map"]
    ((_, _, shown),) = [one for one in calls if one[0] == "setSliceViewerLayers"]
    assert set(shown) == {"background", "foreground", "foregroundOpacity", "fit"}
    assert [args for name, args, _ in calls if name == "GetFirstNodeByName"] == [("Viridis",), ("Magma",), ("Magma",)]


def test_the_program_is_started_with_the_script(case: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    program = tmp_path / "Slicer"
    program.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(told)!r} + '.part', 'w'))\n"
                       f"import os\nos.rename({str(told)!r} + '.part', {str(told)!r})\n")  # fmt: skip
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    open_case(case, str(program))
    for _ in range(6000):
        if told.is_file():
            break
        time.sleep(0.02)
    flag, script, layers = json.loads(told.read_text())
    assert flag == "--python-script" and Path(script).name == "slicer_script.py" and json.loads(layers) == case_files(case)


def test_what_cannot_be_opened_is_told(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PATH", "")
    for path, says in (
        (case, "3D Slicer: expected Slicer on the path, got none; give --slicer"),
        (case.parent / "run.json", "expected the CASE.json of a finished case in a run folder, got none"),
        (tmp_path / "none.json", "expected the CASE.json of a finished case"),
    ):
        code, _, told = call(monkeypatch, capsys, "slicer", path)
        assert code == 2 and says in told and told.count("\n") == 1
    code, _, told = call(monkeypatch, capsys, "slicer", case, "--slicer", tmp_path / "absent")
    assert code == 2 and "3D Slicer did not start (No such file or directory)" in told
    (case.parent / OUTPUTS["total"]).unlink()
    with pytest.raises(ValueError, match="expected case000_desc-total_uncertainty.nii.gz beside it"):
        case_files(case)
    record = json.loads(case.read_text())
    case.write_text(json.dumps(record | {"outputs": {"total": "case000_desc-total_uncertainty.npz"}}))
    with pytest.raises(ValueError, match="expected maps in NIfTI, NRRD or MetaImage"):
        case_files(case)
