"""Weight files to models, the manifest they carry, and the one line said of every file that does not fit."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from converters.convert import convert
from converters.mapping import to_torch
from converters.parity import check_parity
from quam_jax.models.folder import save_model
from quam_jax.models.loading import load_model
from quam_jax.models.model import Network, SegmentationModel


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    network = Network.create("att_unet", in_channels=3, n_classes=2, channels=2)
    return SegmentationModel(network, *network.initialise(jax.random.key(0)))


@pytest.fixture(scope="module")
def tensors(model: SegmentationModel) -> dict[str, np.ndarray]:
    return to_torch(model.network, model.params, model.stats)


@pytest.fixture
def file(tensors: dict[str, np.ndarray], tmp_path: Path) -> Path:
    np.savez(tmp_path / "net.npz", **tensors, **{"Att4.psi.1.num_batches_tracked": np.asarray(5)})
    return tmp_path / "net.npz"


def same_weights(one: SegmentationModel, two: SegmentationModel) -> bool:
    return one.network == two.network and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in ((one.params, two.params), (one.stats, two.stats))
    )


def test_everything_is_guessed_and_written_down(file: Path, model: SegmentationModel) -> None:
    converted = convert(file)
    assert same_weights(converted, model)
    assert converted.manifest == {
        "source": {
            "file": "net.npz",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "wrapper": "",
            "prefix": "",
            "dtype": "float32",
        },
        "preprocessing": {"normalise": "zscore", "channels": 3},
        "class_names": None,
        "parity": {"kind": "none", "verdict": "not checked"},
        "dropped_aliases": {},
        "set_aside": {"Att4.psi.1.num_batches_tracked": 5},
        "outputs": {"meaning": "softmax"},
    }
    json.dumps(converted.manifest)


def test_given_settings_are_kept(file: Path) -> None:
    converted = convert(
        file,
        arch="att_unet",
        arguments={"drop": 0.0, "n_classes": 2},
        class_names=["cup", "disc"],
        preprocessing={"normalise": "fixed", "mean": [0.5] * 3, "std": [0.5] * 3, "scale": 255},
    )
    arguments = dict(converted.network.arguments)
    assert (arguments["drop"], arguments["decoder_drop"], arguments["n_classes"]) == (0.0, 0.3, 2)
    assert converted.manifest["class_names"] == ["cup", "disc"]
    assert converted.manifest["preprocessing"] == {
        "normalise": "fixed",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "scale": 255,
        "channels": 3,
    }


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arguments": {"n_classes": 3}}, r"n_classes=3 \(the weights say 2\)"),
        (
            {"arguments": {"is_deconv": False, "drop": 0.1}},
            r"contradict the weights: is_deconv=False \(the weights say True\)$",
        ),
        ({"arguments": {"depth": 3}}, "unknown arguments .'depth'."),
        ({"arguments": {"channels": "wide"}}, "no att_unet can be made of these weights and arguments"),
        ({"arch": "unetpp"}, "expected weights of unetpp, got those of att_unet"),
        ({"arch": "resnet"}, "architecture: expected one of att_unet,.*got 'resnet'"),
        ({"class_names": ["cup"]}, "expected 2 class names, got 1: cup"),
        ({"preprocessing": {"mean": np.zeros(2)}}, "preprocessing: expected numbers, strings and lists"),
    ],
)
def test_what_does_not_fit(file: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        convert(file, **given)
    assert "\n" not in str(caught.value)


def test_no_architecture_fits(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **{"fc.weight": np.zeros((2, 3), np.float32)})
    with pytest.raises(ValueError, match=r"other.npz: none of att_unet, .* fits its 1 tensors \(fc.weight\)"):
        convert(tmp_path / "other.npz")


def test_damaged_weights_name_the_file_and_the_tensor(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    broken = {**tensors, "Conv.bias": np.asarray([0.0, np.nan], np.float32)}
    np.savez(tmp_path / "net.npz", **broken)
    with pytest.raises(ValueError, match="net.npz: Conv.bias expected finite float32 values, got 1 of 2"):
        convert(tmp_path / "net.npz")
    del broken["Conv.bias"]
    np.savez(tmp_path / "net.npz", **broken, stray=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"net.npz: .*1 missing \(Conv.bias\); 1 unexpected \(stray\)$"):
        convert(tmp_path / "net.npz")


def test_half_precision_is_noted(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    half = {name: value.astype(np.float16 if name.startswith("Conv1") else np.float32) for name, value in tensors.items()}
    np.savez(tmp_path / "net.npz", **half)
    converted = convert(tmp_path / "net.npz")
    assert converted.manifest["source"]["dtype"] == "float16, float32"
    weight = half["Conv1.conv1.0.weight"].astype(np.float32)
    np.testing.assert_array_equal(converted.params["Conv1.conv1.0.weight"], weight.transpose(2, 3, 1, 0))


def test_checkpoint_of_a_trainer(tensors: dict[str, np.ndarray], model: SegmentationModel, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weights = {f"module.{name}": torch.from_numpy(value) for name, value in tensors.items()}
    weights["module.head.weight"] = weights["module.Conv.weight"]
    torch.save({"epoch": 3, "model_state_dict": weights}, tmp_path / "net.pth")
    converted = convert(tmp_path / "net.pth")
    assert same_weights(converted, model)
    source = converted.manifest["source"]
    assert (source["wrapper"], source["prefix"]) == ("model_state_dict", "module.")
    assert converted.manifest["dropped_aliases"] == {"head.weight": "Conv.weight"}


def test_the_expected_name_of_a_tied_tensor_is_kept(
    tensors: dict[str, np.ndarray], model: SegmentationModel, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    weights = {"first.weight": torch.from_numpy(tensors["Conv.weight"])}
    weights |= {name: torch.from_numpy(value) for name, value in tensors.items()}
    weights["Conv.weight"] = weights["first.weight"]
    torch.save(weights, tmp_path / "net.pt")
    converted = convert(tmp_path / "net.pt")
    assert same_weights(converted, model)
    assert converted.manifest["dropped_aliases"] == {"first.weight": "Conv.weight"}


def test_load_model_takes_files_and_folders(file: Path, model: SegmentationModel, tmp_path: Path) -> None:
    loaded = load_model(file)
    assert same_weights(loaded, model)
    save_model(tmp_path / "folder", loaded)
    again = load_model(tmp_path / "folder", "att_unet", n_classes=2)
    assert same_weights(again, model) and again.manifest == loaded.manifest
    with pytest.raises(ValueError, match="folder: expected a checkpoint of unet, got one of att_unet"):
        load_model(tmp_path / "folder", "unet")
    with pytest.raises(ValueError, match=r"folder: .*n_classes=4 \(the checkpoint has 2\)"):
        load_model(tmp_path / "folder", n_classes=4)


def test_load_model_on_nothing_useful(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent.pth: expected a model folder or a weight file, got nothing"):
        load_model(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="expected a model folder .* got another folder"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="net.npz: fold and configuration choose among nnU-Net models"):
        load_model(file, fold=0)
    (tmp_path / "notes.pth").write_text("nothing here")
    with pytest.raises(ValueError, match="notes.pth: "):
        load_model(tmp_path / "notes.pth")


@pytest.mark.parametrize("case", ["attunet_bn0_deconv1_in1_cls2", "unet_bn1_deconv0_in3_cls3"])
def test_golden_files(shared: Path, case: str) -> None:
    folder = shared / "golden" / "A_forward" / case
    converted = load_model(folder / "weights.pt")
    assert check_parity(converted, reference=folder / "io.npz")["verdict"] == "equal"


def test_all_golden_files_convert_from_both_forms(shared: Path) -> None:
    folders = [path.parent for path in sorted((shared / "golden" / "A_forward").glob("*/weights.pt"))]
    assert folders
    for folder in folders[::4]:
        one, two = convert(folder / "weights.pt"), convert(folder / "weights.npz")
        assert same_weights(one, two)


def test_a_foreign_swin_table_is_refused(shared: Path, tmp_path: Path) -> None:
    with np.load(shared / "golden" / "A_forward" / "swinsys_in3_cls2_64" / "weights.npz") as stored:
        tensors = dict(stored)
    for name in ("layers.0.blocks.0.attn.relative_position_index", "layers.0.blocks.1.attn_mask"):
        np.savez(tmp_path / "swin.npz", **{**tensors, name: tensors[name][..., ::-1]})
        with pytest.raises(ValueError, match=f"swin.npz: {name} expected the table that 4x4 windows have"):
            convert(tmp_path / "swin.npz")
