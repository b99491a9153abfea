"""Adversarial models that are kept: written beside the maps, read as networks, and those that maps and audit tell of."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import quam_jax
from quam_jax.case.quantify import quantify
from quam_jax.config import Config, SearchConfig, change
from quam_jax.models.loading import load_model
from quam_jax.models.predict import predict
from quam_jax.runs.quantifier import find_quantifier
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.small_run import prepare_folders
from tests.tiny import NO_VIEWS, picture_model, tiny_fit, tiny_image, tiny_model, tiny_network

PLAIN = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=0.05, slack=0.1))
KEPT = change(PLAIN, {"keep_models": True})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with tiny_network():
        yield prepare_folders(tmp_path_factory.mktemp("kept"), model=picture_model())


@pytest.fixture(scope="module")
def finished(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    assert not run(RunRequest(**folders, out=out, config=KEPT)).failed
    return out


def test_kept_models_are_those_of_the_maps_and_of_the_audit(folders: dict[str, Path], finished: Path) -> None:
    request = RunRequest(**folders, out=finished, config=KEPT)
    quantifier = find_quantifier(request.load(), request)
    (fold,) = quantifier.shared.folds
    for case in quantifier.cases:
        models = quam_jax.read_kept_models(folders["model"], finished / f"{case.name}_models.npz")
        record = json.loads((finished / f"{case.name}.json").read_text())
        drawn = np.load(finished / "report_data" / f"{case.name}.npz")
        image = quantifier.preprocessing.apply(quam_jax.read_image(case.image).array)  # type: ignore[union-attr]
        assert len(models) == len(record["audit"]) == 2
        for model, row, labels in zip(models, record["audit"], drawn["adversarial"], strict=True):
            np.testing.assert_array_equal(np.argmax(predict(model, image), -1), labels)
            probs = np.stack([np.asarray(predict(model, x)) for x in quantifier.known.images[0]])
            known = quantifier.known.labels[0]
            own = -np.log(np.take_along_axis(probs, np.maximum(known, 0)[..., None], -1)[..., 0])
            assert own[known >= 0].mean() == pytest.approx(row["fit_loss"], rel=1e-4)
            assert model.manifest["adversarial"]["wanted"] == row["wanted"]
            assert max(float(np.abs(model.params[n] - fold.model.params[n]).max()) for n in model.params) > 1e-3


@pytest.mark.parametrize("space", ["full", "head", "last_block", "low_rank:1"])
def test_every_space_of_weights_is_kept(space: str) -> None:
    model = tiny_model(classes=3)
    config = change(KEPT, {"space": space})
    found = quantify(model, tiny_image(), tiny_fit(model), config=config)
    for weights, labels in zip(found.adversarial_weights, found.adversarial, strict=True):
        assert set(weights) <= set(model.params) and (space == "full") == (len(weights) == len(model.params))
        moved = dataclasses.replace(model, params={**model.params, **{n: jnp.asarray(value) for n, value in weights.items()}})
        np.testing.assert_array_equal(np.argmax(predict(moved, tiny_image()), -1), labels)
    assert quantify(model, tiny_image(), tiny_fit(model), config=change(config, {"keep_models": False})).adversarial_weights == ()


def test_a_finished_run_is_taken_up_for_its_models(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert not run(RunRequest(**folders, out=out, config=PLAIN)).failed
    before = {path.name: path.read_bytes() for path in out.glob("*_uncertainty.npz")}
    assert before and not list(out.glob("*_models.npz"))
    assert not run(RunRequest(**folders, out=out, config=KEPT)).failed
    assert {path.name: path.read_bytes() for path in out.glob("*_uncertainty.npz")} == before
    models = {path.name: path.stat().st_mtime_ns for path in out.glob("*_models.npz")}
    assert len(models) == len(before) / 3
    run(RunRequest(**folders, out=out, config=PLAIN))  # what is there stays
    run(RunRequest(**folders, out=out, config=KEPT))
    assert models == {path.name: path.stat().st_mtime_ns for path in out.glob("*_models.npz")}


def test_another_network_and_other_files_are_refused(folders: dict[str, Path], finished: Path, tmp_path: Path) -> None:
    path = next(finished.glob("*_models.npz"))
    model = load_model(folders["model"])
    other = dataclasses.replace(model, params={n: 2 * value for n, value in model.params.items()})
    with pytest.raises(ValueError, match="expected the network of the run"):
        quam_jax.read_kept_models(other, path)
    with pytest.raises(ValueError, match="expected the kept models of a case .*got other arrays"):
        quam_jax.read_kept_models(model, next(finished.glob("*_uncertainty.npz")))
    (tmp_path / "cut_models.npz").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cut_models.npz: expected the kept models of a case"):
        quam_jax.read_kept_models(model, tmp_path / "cut_models.npz")
    with pytest.raises(ValueError, match="expected the kept models of a case"):
        quam_jax.read_kept_models(model, tmp_path / "none_models.npz")


def test_where_there_is_a_model_a_patch_none_is_kept() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="keep_models: expected images that are searched whole"):
        quantify(model, tiny_image(size=(16, 16)), tiny_fit(model), config=change(KEPT, {"patch_size": "8"}))
    with pytest.raises(ValueError, match="keep_models: expected images that are searched whole"):
        quantify(model, np.stack([tiny_image()] * 3, 2), tiny_fit(model), config=KEPT, volume=True)
    for setting in ({"target": "pixel"}, {"space": "input:0.1"}):
        with pytest.raises(ValueError, match="keep_models: expected false"):
            change(KEPT, setting)
