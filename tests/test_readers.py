"""Weight files read without PyTorch: equal to torch.load, whatever wrapper, aliases and format."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.readers import Weights, aliases, keras_file, read_weights, state

from .checkpoints import call, integer, legacy, mapping, name, sequence, tensor, text, zipped


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Weights]:
    """Read a file of the given bytes."""

    def read_bytes(content: bytes, **options: Any) -> Weights:
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        return read_weights(path, **options)

    return read_bytes


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def save(torch: Any, tmp_path: Path) -> Callable[..., Path]:
    """Save with torch, return the path."""

    def save_as(value: Any, **options: Any) -> Path:
        path = tmp_path / "saved.pth"
        torch.save(value, path, **options)
        return path

    return save_as


def everything(weights: Weights) -> dict[str, np.ndarray]:
    return {**weights.tensors, **{alias: weights.tensors[kept] for alias, kept in weights.aliases.items()}}


def assert_equal(torch: Any, found: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert str(value.dtype) == f"torch.{found[key].dtype}"
        assert found[key].shape == tuple(value.shape)
        wanted = value.detach().resolve_conj().resolve_neg().contiguous()
        assert found[key].tobytes() == wanted.reshape(-1).view(torch.uint8).numpy().tobytes(), key


# Equal to torch.load


def given_checkpoints(shared: Path) -> list[Path]:
    folders = [shared / "golden", shared / "weights"]
    real = sorted(path for folder in folders for path in folder.rglob("*.pth"))
    generated = sorted(path for folder in folders for path in folder.rglob("*.pt"))
    if not real and not generated:
        pytest.skip(f"no checkpoints under {shared}")
    return real + generated[::5]


def test_equals_torch_on_given_checkpoints(shared: Path, torch: Any) -> None:
    for path in given_checkpoints(shared):
        found = read_weights(path)
        whole = torch.load(path, map_location="cpu", weights_only=False)
        expected = whole
        for part in found.wrapper.split("/") if found.wrapper else ():
            expected = expected[part]
        assert_equal(torch, {found.prefix + key: value for key, value in everything(found).items()}, expected)
        if "init_args" in whole:
            settings = {**whole["init_args"], "device": str(whole["init_args"]["device"])}
            assert found.metadata["init_args"] == settings
            assert found.metadata["logging"] == whole["logging"]
            assert not any(".all_modules." in key or "decoder.encoder." in key for key in found.tensors)


OPTIONS = [
    {},
    {"pickle_protocol": 1},
    {"pickle_protocol": 4},
    {"pickle_protocol": 5},
    {"_use_new_zipfile_serialization": False},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 1},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_kind_of_tensor(torch: Any, save: Callable[..., Path], options: dict[str, Any]) -> None:
    base = torch.arange(24.0)
    grid = base.reshape(2, 3, 4)
    tagged = torch.nn.Parameter(torch.ones(2))
    tagged.role = "tagged"
    kinds = ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "bool"]
    kinds += ["uint32", "uint64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"]
    tensors = {f"kind.{kind}": (torch.arange(6) - 2).to(getattr(torch, kind)) for kind in kinds}
    tensors |= {
        "grid": grid,
        "transposed": grid.transpose(0, 2),
        "slice": grid[:, 1:, ::2],
        "one": base[7],
        "expanded": base[3:4].expand(5),
        "no_axes": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "tagged": tagged,
        "buffer": torch.nn.Buffer(torch.ones(3)),
        "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
        "negative": torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    }
    found = read_weights(save(tensors, **options))
    assert found.aliases == {} and found.wrapper == "" and found.metadata == {}
    assert_equal(torch, found.tensors, tensors)
    assert all(values.flags.owndata or values.base is not None for values in found.tensors.values())
    found.tensors["grid"][:] = 0  # a caller's own memory: views of one storage are apart
    assert found.tensors["one"] == 7


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


# Wrappers, prefixes, metadata


def test_wrappers_and_prefixes(torch: Any, save: Callable[..., Path]) -> None:
    weights = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}
    other = {"a.weight": torch.full((2,), 2.0), "a.bias": torch.zeros(2)}
    wrapped = {"module." + key: value for key, value in weights.items()}
    compiled = {"_orig_mod.module." + key: value for key, value in weights.items()}
    partly = {"model.w": torch.ones(1), "head.w": torch.ones(1)}
    adam = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    cases: list[tuple[Any, str, str, set[str]]] = [
        (weights, "", "", set(weights)),
        (wrapped, "", "module.", set(weights)),
        ({"network_weights": compiled, "epoch": 3}, "network_weights", "_orig_mod.module.", set(weights)),
        ({"state_dict": partly}, "state_dict", "", set(partly)),
        ({"model": weights, "ema": other, "optimizer": adam}, "model", "", set(weights)),
        ({"ema": {"shadow": weights, "decay": 0.9}}, "ema/shadow", "", set(weights)),
        ({"checkpoint": {"state_dict": weights}, "epoch": 1}, "checkpoint/state_dict", "", set(weights)),
        ({"generator": weights, "optim": adam}, "generator", "", set(weights)),
        ({"enc": {"w": torch.ones(1)}, "dec": {"w": torch.ones(2)}}, "", "", {"enc.w", "dec.w"}),
    ]
    for root, wrapper, prefix, names in cases:
        found = read_weights(save(root))
        assert (found.wrapper, found.prefix, set(everything(found))) == (wrapper, prefix, names)
    path = save({"model": weights, "ema": other, "optimizer": adam, "epoch": 5})
    assert read_weights(path).tensors["a.weight"].tolist() == [1, 1]
    assert read_weights(path, key="ema").tensors["a.weight"].tolist() == [2, 2]
    found = read_weights(path)
    assert found.metadata["epoch"] == 5
    assert found.metadata["optimizer"]["param_groups"] == [{"lr": 0.1}]
    assert found.metadata["ema"]["a.weight"] == "<tensor float32 [2]>"
    with pytest.raises(ValueError, match="no entry 'nothing'"):
        read_weights(path, key="nothing")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_weights(path, key="epoch")


def test_only_an_optimizer_is_no_state_dict(torch: Any, save: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="holds no tensors"):
        read_weights(save({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}))
    with pytest.raises(ValueError, match="holds no state_dict"):
        read_weights(save({"epoch": 3}))


def test_metadata_of_many_kinds(torch: Any, save: Callable[..., Path]) -> None:
    from argparse import Namespace
    from collections import OrderedDict, defaultdict
    from pathlib import PurePosixPath

    extra = {
        "scalar": np.float32(0.25),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "objects": np.array([{}], dtype=object),
        "words": np.array(["one", "three"]),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
        "dtype": torch.bfloat16,
        "groups": defaultdict(list, {"a": [1, 2.5]}),
        "order": OrderedDict(z=1, a=None),
        "options": Namespace(lr=0.1, nested=Namespace(depth=3)),
        "path": PurePosixPath("a/b"),
        "set": {1, 2},
        "big": 2**80,
        "complex": 1 - 2j,
        "bytes": b"\x00\xff",
        "flags": (True, None),
    }
    for options in OPTIONS:
        found = read_weights(save({"state_dict": {"w": torch.ones(2)}, **extra}, **options)).metadata
        assert found["scalar"] == 0.25 and isinstance(found["scalar"], float)
        assert found["array"] == [[0, 1, 2], [3, 4, 5]]
        assert found["objects"] == "<numpy array of objects>"
        assert found["words"] == ["one", "three"]
        assert found["size"] == (2, 3)
        assert (found["device"], found["dtype"]) == ("cuda:1", "torch.bfloat16")
        assert found["groups"] == {"a": [1, 2.5]}
        assert list(found["order"].items()) == [("z", 1), ("a", None)]
        assert found["options"]["class"] == "argparse.Namespace"
        assert found["options"]["state"]["nested"]["state"] == {"depth": 3}
        assert found["path"]["class"] == "pathlib.PurePosixPath"
        assert sorted(found["set"]) == [1, 2]
        assert (found["big"], found["complex"], found["bytes"]) == (2**80, 1 - 2j, b"\x00\xff")
        assert found["flags"] == (True, None)


def test_whole_modules(torch: Any, save: Callable[..., Path]) -> None:
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2), nn.PReLU()))
    module.register_buffer("scratch", torch.ones(1), persistent=False)
    for root, wrapper in ((module, ""), ({"model": module}, "model")):
        for options in OPTIONS[:1] + OPTIONS[4:5]:
            found = read_weights(save(root, **options))
            assert found.wrapper == wrapper
            assert_equal(torch, found.tensors, module.state_dict())


# Aliases


def test_shared_tensors_are_aliases(torch: Any, save: Callable[..., Path]) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    tensors = {"first": weight, "second": weight, "flat": weight.reshape(-1), "same": weight.clone()}
    for options in OPTIONS:
        found = read_weights(save(tensors, **options))
        assert found.aliases == {"second": "first"}
        assert_equal(torch, everything(found), tensors)
        found.tensors["first"][:] = 0  # other views of the storage are copies
        assert found.tensors["flat"].tolist() == [0, 1, 2, 3, 4, 5]


def test_nnunet_names_give_way_to_the_canonical_ones(torch: Any, save: Callable[..., Path]) -> None:
    conv, norm = torch.randn(2, 1, 3, 3), torch.randn(2)
    own = {"encoder.s.convs.0.conv.weight": conv, "encoder.s.convs.0.norm.weight": norm}
    second = {
        "encoder.s.convs.0.all_modules.0.weight": conv,
        "encoder.s.convs.0.all_modules.1.weight": norm,
        "decoder.encoder.s.convs.0.conv.weight": conv,
        "decoder.encoder.s.convs.0.norm.weight": norm,
        "decoder.encoder.s.convs.0.all_modules.0.weight": conv,
        "decoder.encoder.s.convs.0.all_modules.1.weight": norm,
    }
    # even where the second names come first in the file, and where every name has bytes of its own
    for tensors in ({**own, **second}, {**second, **own}):
        copies = {key: value.clone() for key, value in tensors.items()}
        for values in (tensors, copies):
            found = read_weights(save({"network_weights": values}))
            assert set(found.tensors) == set(own)
            assert set(found.aliases) == set(second)
            assert_equal(torch, everything(found), tensors)
    copies["decoder.encoder.s.convs.0.norm.weight"][0] += 1
    with pytest.raises(ValueError, match=r"decoder\.encoder\.s\.convs\.0\.norm\.weight"):
        read_weights(save(copies))


def test_all_modules_with_dropout_between() -> None:
    ones, twos = np.ones(2), np.full(2, 2.0)
    tensors = {"b.conv.weight": ones, "b.norm.weight": twos}
    numbered = {"b.all_modules.0.weight": ones.copy(), "b.all_modules.2.weight": twos.copy()}
    assert aliases.nnunet_twins({**tensors, **numbered}) == {
        "b.all_modules.0.weight": "b.conv.weight",
        "b.all_modules.2.weight": "b.norm.weight",
    }
    assert aliases.nnunet_twins(numbered) == {}  # nothing to be an alias of
    assert aliases.nnunet_twins({"b.conv.weight": ones, **numbered}) == {}  # which is which cannot be told
    with pytest.raises(ValueError, match="different"):
        aliases.nnunet_twins({**numbered, "b.conv.weight": twos, "b.norm.weight": ones})


def test_prefixes_need_every_name() -> None:
    assert state.strip_prefixes({"module.a": 1, "module.b": 2}) == ({"a": 1, "b": 2}, "module.")
    assert state.strip_prefixes({"module.a": 1, "b": 2}) == ({"module.a": 1, "b": 2}, "")
    assert state.strip_prefixes({"module.": 1}) == ({"module.": 1}, "")
    assert state.strip_prefixes({"model.module.a": 1}) == ({"a": 1}, "model.module.")


# Other formats


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
