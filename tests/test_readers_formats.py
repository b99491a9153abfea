"""Weight files that no PyTorch of today writes: checkpoints of old versions and machines, safetensors, npz, Keras."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.readers import Weights, keras_file, read_weights

from .checkpoints import call, integer, legacy, mapping, name, sequence, tensor, text, zipped


def test_python_2_text_and_bytes(read: Callable[..., Weights]) -> None:
    # Python 2 wrote text with the byte string opcode.
    root = b"}(" + b"U\x01w" + tensor() + b"U\x04note" + b"U\x03ab\xff" + b"u"
    found = read(zipped(root))
    np.testing.assert_array_equal(found.tensors["w"], [[0, 1, 2], [3, 4, 5]])
    assert found.metadata == {"note": b"ab\xff"}


@pytest.mark.parametrize("storage", ["FloatStorage", "BFloat16Storage", "ComplexFloatStorage", "BoolStorage"])
def test_big_endian_storages(read: Callable[..., Weights], storage: str) -> None:
    values = {
        "FloatStorage": np.array([1.5, -2, 3e20], np.float32),
        "BFloat16Storage": np.array([1.5, -2, 3e20], ml_dtypes.bfloat16),
        "ComplexFloatStorage": np.array([1 + 2j, -3j, 4], np.complex64),
        "BoolStorage": np.array([True, False, True]),
    }[storage]
    width = values.itemsize // (2 if values.dtype.kind == "c" else 1)
    swapped = values.view(f"u{width}").byteswap().tobytes()
    root = mapping({"w": tensor(count=3, shape=(3,), strides=(1,), storage=storage)})
    found = read(zipped(root, {"0": swapped}, order="big")).tensors["w"]
    assert found.dtype == values.dtype
    assert found.tobytes() == values.tobytes()


def test_bytes_of_bool_tensors_become_true(read: Callable[..., Weights]) -> None:
    root = mapping({"w": tensor(count=3, shape=(3,), strides=(1,), storage="BoolStorage")})
    found = read(zipped(root, {"0": b"\x00\x02\x01"})).tensors["w"]
    assert found.dtype == np.bool_
    assert found.view(np.uint8).tolist() == [0, 1, 1]


def test_old_views_of_storages(read: Callable[..., Weights]) -> None:
    # Six numbers; the view takes the two from the third on: 2, 3.
    view = sequence(text("v"), integer(2), integer(2))
    identity = sequence(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), integer(6), view)
    strided = sequence(integer(2)), sequence(integer(1))
    rebuild = name("torch._utils", "_rebuild_tensor")
    found = read(legacy(mapping({"w": call(rebuild, identity + b"Q", integer(0), *strided), "all": tensor()})))
    assert found.tensors["w"].tolist() == [2, 3]
    assert found.tensors["all"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_safetensors(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    tensors = {"module.a": np.arange(6, dtype=np.float16).reshape(2, 3), "module.b": np.array([True, False])}
    library.save_file(tensors, tmp_path / "w.safetensors", metadata={"made": "here"})
    found = read_weights(tmp_path / "w.safetensors")
    assert found.prefix == "module." and found.metadata == {"made": "here"}
    for key, values in tensors.items():
        kept = found.tensors[key.removeprefix("module.")]
        assert kept.dtype == values.dtype and kept.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 4, "truncated"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 12, "the tensors end at byte"),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, 8, "expected 12"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, 12, "begins at byte 4"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, 8, "lists of sizes"),
        ({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, 8, "expected"),
        ({"a": {"dtype": "I4", "shape": [2], "data_offsets": [0, 8]}}, 8, "not supported"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "data_offsets"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
        ({}, 0, "no tensors"),
    ],
)
def test_safetensors_headers_that_lie(read: Callable[..., Weights], header: dict[str, Any], data: int, message: str) -> None:
    encoded = json.dumps(header).encode()
    with pytest.raises(ValueError, match=message):
        read(struct.pack("<Q", len(encoded)) + encoded + bytes(data))


def test_safetensors_header_with_a_name_twice(read: Callable[..., Weights]) -> None:
    entry = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    header = b'{"a":' + entry + b',"a":' + entry + b"}"
    with pytest.raises(ValueError, match="twice"):
        read(struct.pack("<Q", len(header)) + header + b"\x00")


def test_npz(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int8).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">i4"),
        "scalar": np.array(2.5, np.float16),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
    }
    for write in (np.savez, np.savez_compressed):
        path = tmp_path / "w.npz"
        write(path, note=np.array("text"), **arrays)
        found = read_weights(path)
        assert found.metadata == {"note": "text"}
        assert set(found.tensors) == set(arrays)
        for key, values in arrays.items():
            assert found.tensors[key].dtype == values.dtype.newbyteorder("=")
            assert found.tensors[key].shape == values.shape
            np.testing.assert_array_equal(found.tensors[key], values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([{}], dtype=object), "Python objects"),
        (np.zeros(2, [("x", "f4")]), "structured"),
        (np.ones(2, ml_dtypes.bfloat16), "bfloat16"),
        (np.array(["2020"], "M8[D]"), "lacks a plain dtype"),
    ],
)
def test_npz_arrays_that_are_no_numbers(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "w.npz", w=values)
    with pytest.raises(ValueError, match=f"array 'w': .*{message}"):
        read_weights(tmp_path / "w.npz")


def test_keras(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "w.h5"
    kernel = np.arange(18, dtype=np.float32).reshape(3, 3, 1, 2)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["backend"] = np.bytes_(b"tensorflow")
        file["model_weights/conv/conv/kernel:0"] = kernel
        file.create_dataset("model_weights/conv/conv/bias:0", data=np.ones(2, ">f4"), compression="gzip")
        file["optimizer_weights/conv/m:0"] = kernel
    found = read_weights(path)
    assert found.wrapper == "model_weights"
    assert found.metadata == {"keras_version": "2.4.0", "backend": "tensorflow"}
    assert set(found.tensors) == {"conv/conv/kernel:0", "conv/conv/bias:0"}
    np.testing.assert_array_equal(found.tensors["conv/conv/kernel:0"], kernel)
    assert found.tensors["conv/conv/bias:0"].dtype == np.float32
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="damaged HDF5"):
        read_weights(path)
    with h5py.File(path, "w") as file:
        file["conv/link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")
    with pytest.raises(ValueError, match="link to another file"):
        read_weights(path)


def test_keras_without_h5py(monkeypatch: pytest.MonkeyPatch, read: Callable[..., Weights]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(ValueError, match=r"pip install 'quam_jax\[keras\]'"):
        read(keras_file.MAGIC + bytes(100))
