"""`quam-jax convert net.pt2`: the folder works without PyTorch, in every space of a search, and goes back by `export`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command_line import call
from tests.exported_networks import Small, images, seeded

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parent.parent
SPACES = ("full", "subset:up|last", "last_block", "head", "low_rank:1", "input:0.1")

# runs where torch cannot be imported: a search in every space, and what moved in it
SEARCH = """
import sys
sys.modules["torch"] = None
import json
import jax, numpy as np
from quam_jax.config import SearchConfig
from quam_jax.config.build import build_procedure
from quam_jax.core import fit_data, search
from quam_jax.models.loading import load_model
from quam_jax.targets.masks import mask_targets

model = load_model(sys.argv[1])
weights = (model.network, model.params, model.stats)
images = np.load(sys.argv[2])
labels = np.random.default_rng(0).integers(0, 3, images.shape[:-1])
fit, targets = fit_data(*weights, images[None, 1:], labels[None, 1:]), mask_targets([labels[0]], members=1)
rows = {}
for name in sys.argv[3:]:
    config = SearchConfig(members=1, steps=3, learning_rate=1e-2, space=name)
    procedure = build_procedure(config, model.network)
    found = search(*weights, images[0], fit, targets, key=jax.random.key(0), procedure=procedure)
    probs, objective = np.asarray(found.probs), np.asarray(found.objective)[0, 0]
    start = procedure.space.start(model.network, model.params, images[0])
    rows[name] = {"moving": sorted(start) if isinstance(start, dict) else ["image"], "objective": objective.tolist(),
                  "sums": [float(probs.sum(-1).min()), float(probs.sum(-1).max())]}
assert sys.modules["torch"] is None
print(json.dumps({"logits": np.asarray(model(images)).tolist(), "rows": rows}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    module = seeded(Small()).eval()
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    auto = torch.export.Dim.AUTO
    program = torch.export.export(module, (torch.as_tensor(images(2, 2, 8, 12)),), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    torch.export.save(program, path)
    return module, path


def test_convert_search_and_export_back(exported: tuple[Any, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    module, path = exported
    code, _, error = call(monkeypatch, capsys, "convert", path, tmp_path / "model", "--class-names", "a,b,c")
    assert code == 0 and "parity with the graph in PyTorch: equal" in error and "3 classes" in error
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["class_names"] == ["a", "b", "c"] and manifest["parity"]["verdict"] == "equal"
    assert any("conv_transpose2d" in line and line.endswith("# up") for line in manifest["arguments"]["program"])

    x = np.moveaxis(images(3, 2, 8, 12, seed=5), 1, -1)
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path / "model"), str(tmp_path / "x.npy"), *SPACES],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    with torch.no_grad():
        theirs = module(torch.as_tensor(np.moveaxis(x, -1, 1)))["out"].movedim(1, -1).numpy()
    np.testing.assert_allclose(found["logits"], theirs, rtol=0, atol=1e-5 * np.ptp(theirs))
    names = {name: row["moving"] for name, row in found["rows"].items()}
    assert names["head"] == ["head.bias", "head.weight"] and names["input:0.1"] == ["image"]
    assert names["last_block"] == ["head.bias", "head.weight", "last.0.bias", "last.0.weight"]
    assert names["subset:up|last"] == ["last.0.bias", "last.0.weight", "up.bias", "up.weight"]
    assert {n for n in dict(module.named_parameters()) if not n.startswith("aux")} == set(names["full"])
    for name, row in found["rows"].items():
        assert row["objective"][-1] < row["objective"][0], name  # the search descends, whatever moves
        assert row["sums"] == pytest.approx([1, 1], abs=1e-5)

    code, out, error = call(monkeypatch, capsys, "export", tmp_path / "model", tmp_path / "back.pth")
    assert code == 0, error
    again = Small()
    again.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_without_torch_it_says_so(exported: tuple[Any, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, error = call(monkeypatch, capsys, "convert", exported[1], tmp_path / "model")
    assert code == 2 and error.count("\n") == 1 and "needs PyTorch" in error and "pip install" in error
    assert not (tmp_path / "model").exists()
