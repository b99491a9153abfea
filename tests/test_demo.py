"""The first line a newcomer types: checkpoint converted, shipped cases searched and scored, without PyTorch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("no torch here")

sys.meta_path.insert(0, NoTorch())
sys.argv = ["quam-jax", "demo", "--steps", "1", "--out", sys.argv[1]]
from quam_jax.cli import main
main()
"""


@pytest.mark.long
def test_demo_without_torch(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(out)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(Path(__file__).parent.parent)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for word in ("mean of 5", "boundary (control)", "softmax", "soft Dice", "PCC", str(out / "report.html")):
        assert word in done.stdout
    manifest = json.loads((tmp_path / "demo_model" / "manifest.json").read_text())
    assert manifest["architecture"] == "att_unet" and manifest["source"]["file"] == "att_unet.pth"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cases"] == 5 and summary["failed"] == 0
    assert summary["columns"]["dice"]["mean"] > 0.5  # a trained network, not a random one
    row = json.loads((out / "B07.json").read_text())["row"]
    assert row["n_raters"] == 8
