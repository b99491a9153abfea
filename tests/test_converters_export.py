"""Weights back to PyTorch files: the names, values and derived buffers of the file that they came from."""

from pathlib import Path

import jax
import numpy as np
import pytest

from converters.convert import convert
from converters.export import export_weights, state_dict
from converters.mapping import to_torch
from converters.readers import read_weights
from converters.writers import write_safetensors, write_state_dict
from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.model import Network, SegmentationModel


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=2)
    weights = to_torch(network, *network.initialise(jax.random.key(0)))
    return weights | {
        "Att4.psi.1.num_batches_tracked": np.asarray(7),
        "Att3.psi.1.num_batches_tracked": np.asarray(8),
    }


def equal(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and one[name].shape == two[name].shape and one[name].tobytes() == two[name].tobytes()
        for name in one
    )


@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
def test_round_trip_through_a_model_folder(tensors: dict[str, np.ndarray], tmp_path: Path, ending: str) -> None:
    write_state_dict(tmp_path / "net.pth", tensors)
    save_model(tmp_path / "folder", convert(tmp_path / "net.pth"))
    export_weights(restore_model(tmp_path / "folder"), tmp_path / f"back{ending}")
    assert equal(read_weights(tmp_path / f"back{ending}").tensors, tensors)


def test_prefixes_come_back(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    prefixed = {f"module.{name}": value for name, value in tensors.items()}
    write_safetensors(tmp_path / "net.safetensors", prefixed)
    assert equal(state_dict(convert(tmp_path / "net.safetensors")), prefixed)


def test_an_own_model_has_no_file_to_follow() -> None:
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=2)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0)))
    assert equal(state_dict(model), to_torch(network, model.params, model.stats))


def test_other_endings_are_refused(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_state_dict(tmp_path / "net.pth", tensors)
    model = convert(tmp_path / "net.pth")
    for name in ("net.npz", "net"):
        with pytest.raises(ValueError, match="expected a file ending in .pth, .pt, .safetensors"):
            export_weights(model, tmp_path / name)


def test_golden_files_come_back(shared: Path, tmp_path: Path) -> None:
    cases = {
        "swinsys_in3_cls2_64": ".pth",
        "attunet_bn1_deconv1_in3_cls3": ".safetensors",
        "segnet_narrow_in3_cls2": ".pt",
    }
    for case, ending in cases.items():
        with np.load(shared / "golden" / "A_forward" / case / "weights.npz") as stored:
            original = dict(stored)
        export_weights(convert(shared / "golden" / "A_forward" / case / "weights.pt"), tmp_path / f"back{ending}")
        assert equal(read_weights(tmp_path / f"back{ending}").tensors, original)


def test_torch_reads_what_was_exported(shared: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = shared / "golden" / "N_nnunet" / "models" / "Dataset005_HippoRegions"
    checkpoint = folder / "nnUNetTrainer__nnUNetPlansSmall__2d" / "fold_0" / "checkpoint_final.pth"
    export_weights(convert(checkpoint), tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    original = torch.load(checkpoint, weights_only=False)["network_weights"]
    # aliases and deep-supervision heads included
    assert back.keys() == original.keys()
    assert all(torch.equal(back[name], original[name]) for name in original)
