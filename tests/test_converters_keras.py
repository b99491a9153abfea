"""The plain U-Net's Keras 1 file: names by number, kernels turned by 180 degrees, and what is no such file."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from converters.convert import convert
from converters.keras_names import LAYOUT, is_keras_1, rename_keras_1
from quam_jax.models.loading import load_model
from quam_jax.models.model import Network

h5py = pytest.importorskip("h5py")
NAMES = [f"conv{n}" for n in range(1, 12)]


def keras_file(path: Path, tensors: dict[str, Any], *, first: int = 1, wrapper: str = "") -> Path:
    """A file as Keras 1.0 wrote it: a group a layer, those without weights empty, layer names as an attribute."""
    with h5py.File(path, "w") as file:
        root = file.create_group(wrapper) if wrapper else file
        layers = []
        for number, name in enumerate(NAMES, start=first):
            layer = f"convolution2d_{number}"
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}_W".encode(), f"{layer}_b".encode()])
            group[f"{layer}_W"] = tensors[f"{name}.weight"][:, :, ::-1, ::-1]
            group[f"{layer}_b"] = tensors[f"{name}.bias"]
            layers += [layer, f"dropout_{number}"]
            root.create_group(f"dropout_{number}").attrs["weight_names"] = np.array([])
        root.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
    return path


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """Random weights of a narrow plain U-Net in PyTorch's axis order."""
    rng = np.random.default_rng(0)
    widths = [(1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (12, 4), (4, 4), (6, 2), (2, 2), (2, 2)]
    found = {}
    for name, (inputs, outputs) in zip(NAMES, widths, strict=True):
        side = 1 if name == "conv11" else 3
        found[f"{name}.weight"] = rng.standard_normal((outputs, inputs, side, side)).astype(np.float32)
        found[f"{name}.bias"] = rng.standard_normal(outputs).astype(np.float32)
    return found


@pytest.mark.parametrize(("first", "wrapper"), [(1, ""), (23, "model_weights")])
def test_every_layer_arrives_at_its_place(tensors: dict[str, np.ndarray], tmp_path: Path, first: int, wrapper: str) -> None:
    # a number of two digits sorts before one of one digit as text, and Keras counts on from model to model
    model = convert(keras_file(tmp_path / "net.h5", tensors, first=first, wrapper=wrapper))
    assert model.network == Network.create("plain_unet", in_channels=1, n_classes=2, channels=2)
    assert model.manifest["source"]["layout"] == LAYOUT
    for name in NAMES:
        kernel = tensors[f"{name}.weight"]
        np.testing.assert_array_equal(model.params[f"{name}.weight"], kernel.transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(model.params[f"{name}.bias"], tensors[f"{name}.bias"])


def test_a_kernel_is_turned() -> None:
    kernel = np.arange(6.0, dtype=np.float32).reshape(1, 1, 2, 3)
    found = rename_keras_1({"convolution2d_7/convolution2d_7_W": kernel, "convolution2d_7/convolution2d_7_b": np.zeros(1)})
    assert list(found) == ["conv1.weight", "conv1.bias"]
    np.testing.assert_array_equal(found["conv1.weight"][0, 0], [[5, 4, 3], [2, 1, 0]])


def test_other_files_are_left_alone(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert not is_keras_1({}) and not is_keras_1(tensors)
    assert not is_keras_1({"convolution2d_1/convolution2d_2_W": 0}) and is_keras_1({"convolution2d_1/convolution2d_1_b": 0})
    path = keras_file(tmp_path / "net.h5", tensors)
    with h5py.File(path, "a") as file:  # as TensorFlow orders its axes
        kernel = file["convolution2d_3/convolution2d_3_W"][()]
        del file["convolution2d_3/convolution2d_3_W"]
        file["convolution2d_3/convolution2d_3_W"] = kernel.transpose(2, 3, 1, 0)
    with pytest.raises(ValueError, match=r"net.h5: convolution2d_3/convolution2d_3_W: expected a kernel \[out in h w\]"):
        convert(path)
    with h5py.File(path, "w") as file:
        file["dense_1/dense_1_W"] = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="net.h5: none of .* fits its 1 tensors"):
        convert(path)


def test_the_given_weights(shared: Path, tmp_path: Path) -> None:
    given = shared / "weights" / "orobix_unet" / "unet_drive_oihw_flipped.npz"
    if not given.is_file():
        pytest.skip(f"no weights at {given}")
    with np.load(given) as stored:
        arrays = {name: stored[name] for name in stored.files}
    model = load_model(keras_file(tmp_path / "net.h5", arrays))
    wanted = load_model(given)
    assert model.network == wanted.network and model.parameter_count == 471010  # as its notes say
    image = jax.random.normal(jax.random.key(0), (1, 48, 48, 1))
    np.testing.assert_array_equal(model(image), wanted(image))
