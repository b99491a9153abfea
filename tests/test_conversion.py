"""From a model that can be read to a model folder: added settings, the check against the original, and the way back."""

from pathlib import Path

import numpy as np
import pytest

from quam_jax.models.conversion import ConvertRequest, convert_model, export_model
from quam_jax.models.description import describe_model, model_digest, preprocessing_of
from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.loading import load_model
from tests.small_run import little_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_model(tmp_path / "net", little_model())
    return tmp_path / "net"


def write_reference(path: Path, *, shift: float) -> Path:
    """An input with the model's own logits, moved by so much."""
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    logits = np.asarray(little_model()(image)) + shift
    np.savez(path, input=np.moveaxis(image, -1, 1), logits=np.moveaxis(logits, -1, 1))
    return path


def test_settings_of_the_request_are_written_beside_the_weights(source: Path, tmp_path: Path) -> None:
    request = ConvertRequest(source, tmp_path / "new", preprocessing={"normalise": "minmax"}, class_names=("rest", "disc"))
    result = convert_model(request)
    assert result.parity is None and not result.differs
    written = restore_model(tmp_path / "new")
    assert preprocessing_of(written).normalise == "minmax" and preprocessing_of(written).channels == 1
    assert written.manifest["class_names"] == ["rest", "disc"]
    assert model_digest(written) == model_digest(little_model()) != model_digest(little_model(1))
    told = describe_model(written)
    assert (told["architecture"], told["weights"]) == ("nnunet_plain", written.parameter_count)
    with pytest.raises(ValueError, match="expected 2 class names, got 1: disc"):
        convert_model(ConvertRequest(source, tmp_path / "none", class_names=("disc",)))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("shift", "differs"), [(0.0, False), (1.0, True)])
def test_a_model_is_saved_with_its_difference_from_the_reference(
    source: Path, tmp_path: Path, shift: float, differs: bool
) -> None:
    reference = write_reference(tmp_path / "reference.npz", shift=shift)
    result = convert_model(ConvertRequest(source, tmp_path / "new", verify=reference))
    assert result.differs == differs and result.reference == "reference.npz"
    assert result.parity is not None and result.parity["max_abs"] == pytest.approx(shift, abs=1e-5)
    assert restore_model(tmp_path / "new").manifest["parity"]["verdict"] == result.parity["verdict"]
    with pytest.raises(ValueError, match="expected an NPZ file with input and logits"):
        convert_model(ConvertRequest(source, tmp_path / "none", verify=tmp_path / "nowhere.npz"))
    assert not (tmp_path / "none").exists()


def test_exported_weights_come_back(source: Path, tmp_path: Path) -> None:
    export_model(source, tmp_path / "net.safetensors")
    again = load_model(tmp_path / "net.safetensors", "nnunet_plain", **dict(little_model().network.arguments))
    assert model_digest(again) == model_digest(little_model())
