"""Weight files written without PyTorch: torch and our reader get back every bit; equal input, equal bytes."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.readers import read_weights
from converters.readers.records import TORCH_DTYPES
from converters.readers.safetensors_file import DTYPES as SAFETENSORS_DTYPES
from converters.writers import write_safetensors, write_state_dict


def arrays() -> dict[str, np.ndarray]:
    """Every dtype, and shapes and strides that are easily lost."""
    generator = np.random.default_rng(0)
    values = {f"kind.{name}": np.abs(generator.standard_normal((3, 4)) * 5).astype(dtype)
              for name, dtype in TORCH_DTYPES.items()}  # fmt: skip
    return values | {
        "no_axes": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(12, dtype=ml_dtypes.bfloat16)[::3],
        "swapped": np.arange(4, dtype=">f4"),
        "größe/名": np.arange(3, dtype=np.int16),
    }


def assert_same(found: np.ndarray, given: np.ndarray) -> None:
    native = given.astype(given.dtype.newbyteorder("=")) if given.dtype.byteorder == ">" else given
    assert (found.dtype, found.shape) == (native.dtype, native.shape)
    assert found.tobytes() == native.tobytes()


def test_torch_reads_the_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    given = arrays()
    write_state_dict(path, given)
    for mapped in (False, True):
        found = torch.load(path, weights_only=True, mmap=mapped)
        assert type(found).__name__ == "OrderedDict" and list(found) == list(given)
        for name, values in given.items():
            assert str(found[name].dtype) == f"torch.{values.dtype.name}"
            assert found[name].is_contiguous() and not found[name].requires_grad
            raw = found[name].reshape(-1).view(torch.uint8).numpy().tobytes()
            native = values.astype(values.dtype.newbyteorder("=")) if values.dtype.byteorder == ">" else values
            assert raw == native.tobytes() and tuple(found[name].shape) == values.shape
        del found


def test_torch_trains_on_with_the_weights(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    write_state_dict(tmp_path / "w.pth", {name: value.numpy() for name, value in module.state_dict().items()})
    other = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    other.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    image = torch.randn(1, 1, 5, 5)
    assert torch.equal(module.eval()(image), other.eval()(image))


def test_own_reader_reads_the_checkpoint(tmp_path: Path) -> None:
    given = arrays()
    write_state_dict(tmp_path / "w.pth", given)
    found = read_weights(tmp_path / "w.pth")
    assert list(found.tensors) == list(given)
    assert (found.aliases, found.wrapper, found.metadata) == ({}, "", {})
    for name, values in given.items():
        assert_same(found.tensors[name], values)


def test_equal_input_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: values for name, values in arrays().items() if values.dtype in SAFETENSORS_DTYPES.values()}
    metadata = {"b": "2", "a": "1"}
    contents = []
    for day, order in ((1, 1), (2, -1)):
        monkeypatch.setattr("time.time", lambda day=day: 1e9 + day * 86400)
        write_state_dict(tmp_path / "w.pth", given)
        write_safetensors(tmp_path / "w.safetensors", given, dict(list(metadata.items())[::order]))
        contents.append(((tmp_path / "w.pth").read_bytes(), (tmp_path / "w.safetensors").read_bytes()))
    assert contents[0] == contents[1]


def test_storages_are_aligned(tmp_path: Path) -> None:
    write_state_dict(tmp_path / "w.pth", {"a" * 7: np.ones(3, np.int8), "b": np.arange(5.0), "c": np.ones(1)})
    content = (tmp_path / "w.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        assert archive.testzip() is None
        for member in archive.infolist():
            lengths = struct.unpack_from("<2H", content, member.header_offset + 26)
            assert (member.header_offset + 30 + sum(lengths)) % 64 == 0, member.filename


def test_the_safetensors_library_reads_the_file(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors")
    given = {name: values for name, values in arrays().items() if values.dtype in SAFETENSORS_DTYPES.values()}
    given |= {"swapped": np.arange(4, dtype=">f4")}
    path = tmp_path / "w.safetensors"
    write_safetensors(path, given, {"made": "here"})
    with library.safe_open(path, "np") as file:
        assert file.metadata() == {"made": "here"} and set(file.keys()) == set(given)
        for name, values in given.items():
            if values.dtype.kind != "V" and "float8" not in values.dtype.name and values.dtype.name != "bfloat16":
                assert_same(file.get_tensor(name), values)
    found = read_weights(path)
    assert found.metadata == {"made": "here"}
    for name, values in given.items():
        assert_same(found.tensors[name], values)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": np.array(["x"]), "b": np.array([{}], object)}, "'a' has dtype <U1; 'b' has dtype object"),
        ({"a": np.zeros(2, "M8[s]")}, "datetime64"),
        ({3: np.zeros(2)}, "the name 3 is no text"),
        ({"": np.zeros(2)}, "the name '' is no text"),
        ({"\ud800": np.zeros(2)}, "is no text"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, tensors: dict[Any, Any], message: str) -> None:
    for write in (write_state_dict, write_safetensors):
        with pytest.raises(ValueError, match=message) as raised:
            write(tmp_path / "w", tensors)
        assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_safetensors_has_no_double_complex_and_only_text_beside(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="complex128"):
        write_safetensors(tmp_path / "w", {"a": np.zeros(2, np.complex128)})
    with pytest.raises(ValueError, match="metadata must be text, got 'a': 1"):
        write_safetensors(tmp_path / "w", {"a": np.zeros(2)}, {"a": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="__metadata__"):
        write_safetensors(tmp_path / "w", {"__metadata__": np.zeros(2)})


def test_readers_of_the_old_file_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    write_state_dict(path, {"a": np.arange(3.0)})
    before = path.read_bytes()
    with path.open("rb") as old:
        write_state_dict(path, {"a": np.arange(4.0)})
        assert old.read() == before
    assert read_weights(path).tensors["a"].tolist() == [0, 1, 2, 3]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    write_state_dict(path, {"a": np.arange(3.0)})
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ValueError, match=r"w\.pth: cannot be written: No space left on device"):
        write_state_dict(path, {"a": np.arange(4.0)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="cannot be written: no folder"):
        write_state_dict(tmp_path / "absent" / "w.pth", {"a": np.arange(3.0)})
