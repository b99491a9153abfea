"""Foreign and malicious weight files: nothing in them runs, and the answer is one line."""

import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converters.readers import Weights, allow_list, read_weights

from .checkpoints import SIX, call, legacy, mapping, name, packed, sequence, tensor, text, zipped

# Files that are something else


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1
    return content.replace(old, new)


def doubled_member() -> bytes:
    """The same name for two storages: which one is meant?"""
    return patched(zipped(mapping({"w": tensor()}), {"0": SIX, "1": SIX[::-1]}), b"data/1", b"data/0")


def encrypted() -> bytes:
    content = bytearray(zipped(mapping({"w": tensor()})))
    position = 0
    while (position := content.find(b"PK\x01\x02", position + 1)) >= 0:
        content[position + 8] |= 1
    return bytes(content)


GOOD = zipped(mapping({"w": tensor()}))
FOREIGN_FILES = {
    "empty": (b"", "is empty"),
    "web page": (b"<!DOCTYPE html><html>sign in</html>", "web page"),
    "lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "Git LFS pointer",
    ),
    "gzip": (b"\x1f\x8b\x08" + bytes(30), "compressed"),
    "tar": (bytes(257) + b"ustar" + bytes(250), "tar archive"),
    "noise": (b"\x07\x08\x09 nothing known", "none of the known formats"),
    "torchscript": (
        packed(m__code__forward=b"", **{"m__data.pkl": b"", "m__constants.pkl": b""}),
        r"torch\.jit\.load\(file\)\.state_dict\(\)",
    ),
    "truncated zip": (GOOD[:-60], "without its directory"),
    "half a zip": (GOOD[: len(GOOD) // 2], "without its directory"),
    "encrypted zip": (encrypted(), "encrypted"),
    "two members of a name": (doubled_member(), "twice"),
    "damaged storage": (patched(GOOD, SIX, SIX[::-1]), "checksum"),
    "lost storage": (zipped(mapping({"w": tensor("1")})), "lacks its member"),
    "short storage": (zipped(mapping({"w": tensor()}), {"0": SIX[:20]}), "truncated"),
    "short legacy storage": (legacy(mapping({"w": tensor()}), {"0": (5, SIX[:20])}), "20 of its 24 bytes"),
    "truncated legacy": (legacy(mapping({"w": tensor()}))[:-3], "truncated"),
    "legacy without data": (legacy(mapping({"w": tensor()}), {}), "lacks storage '0'"),
    "odd byte order": (zipped(mapping({"w": tensor()}), order="middle"), "expected little or big"),
    "plain pickle": (pickle.dumps({"w": [1.0, 2.0]}, 2), "torch.save did not write"),
    "two sizes": (zipped(mapping({"w": tensor(), "v": tensor(count=5)})), "two sizes"),
    "outside its storage": (zipped(mapping({"w": tensor(offset=1)})), "leaves its storage"),
    "list": (zipped(b"]"), "holds no state_dict"),
    "quantised": (
        zipped(mapping({"w": call(name("torch._utils", "_rebuild_qtensor"))})),
        "'w' is a quantised tensor",
    ),
    "sparse": (zipped(mapping({"w": call(name("torch._utils", "_rebuild_sparse_tensor"))})), "sparse tensor"),
    "half complex": (zipped(mapping({"w": tensor(storage="QInt8Storage", count=6)})), "torch.qint8"),
    "keras": (packed(**{"model.weights.h5": b"", "config.json": b""}), "model.weights.h5"),
    "zip of images": (packed(**{"a.png": b"", "b.png": b""}), "neither PyTorch nor numpy"),
    "exported": (packed(p__archive_format=b"pt2", p__models__model=b""), "torch.export"),
}


@pytest.mark.parametrize("kind", FOREIGN_FILES)
def test_one_line_for_what_is_not_a_weight_file(read: Callable[..., Weights], kind: str) -> None:
    content, message = FOREIGN_FILES[kind]
    with pytest.raises(ValueError, match=message) as raised:
        read(content)
    assert "file.pth: " in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        read_weights(tmp_path)
    with pytest.raises(ValueError, match=r"absent\.pth: No such file"):
        read_weights(tmp_path / "absent.pth")


@pytest.mark.long
def test_programs_as_torch_saves_them(torch: Any, tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "program.pt2")
    with pytest.raises(ValueError, match=r"torch\.export"):
        read_weights(tmp_path / "program.pt2")


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_refused_kinds_as_torch_saves_them(torch: Any, save: Callable[..., Path]) -> None:
    dense = torch.eye(3)
    for value, message in (
        (dense.to_sparse(), "sparse"),
        (torch.empty(3, device="meta"), "meta device"),
        (torch.view_as_complex(torch.ones(2, 2)).to(torch.complex32), "complex32"),
    ):
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            with pytest.raises(ValueError, match=message):
                read_weights(save({"fine": dense, "odd": value}, **options))
            # among the rest such a tensor does not matter
            assert read_weights(save({"state_dict": {"w": dense}, "odd": value}, **options)).wrapper


# Nothing runs

AUDITED: list[tuple[str, Any]] = []
AUDITING = [False]
QUIET_EVENTS = ("open", "builtins.id")


def _audit(event: str, arguments: Any) -> None:
    if AUDITING[0]:
        AUDITED.append((event, arguments))


@pytest.fixture
def audited() -> Iterator[list[tuple[str, Any]]]:
    """What the interpreter did while reading, by the audit events of CPython; a hook cannot be removed."""
    if _audit not in _HOOKS:
        sys.addaudithook(_audit)
        _HOOKS.append(_audit)
    AUDITED.clear()
    yield AUDITED
    AUDITING[0] = False


_HOOKS: list[Any] = []


def attacks(marker: str) -> dict[str, bytes]:
    """Opcodes that leave one value on the stack and would make a folder `marker` in Python's unpickler."""
    code = text(f"__import__('os').mkdir({marker!r})")
    mkdir, path = name("os", "mkdir"), text(marker)
    one = sequence(path)
    fetch = call(name("builtins", "getattr"), call(name("builtins", "__import__"), text("os")), text("mkdir"))
    partial = name("functools", "partial")
    return {
        "reduce": call(mkdir, path),
        "posix": call(name("posix", "mkdir"), path),
        "eval": call(name("builtins", "eval"), code),
        "python 2 eval": call(name("__builtin__", "eval"), code),
        "exec": call(name("builtins", "exec"), code),
        "getattr chain": call(fetch, path),
        "new object": name("subprocess", "Popen") + sequence(b"](" + text("mkdir") + path + b"e") + b"\x81",
        "new object with keywords": name("subprocess", "Popen")
        + b")"
        + b"}"
        + text("args")
        + b"]("
        + text("mkdir")
        + path
        + b"e"
        + b"s"
        + b"\x92",
        "obj": b"(" + mkdir + path + b"o",
        "inst": b"(" + path + b"ios\nmkdir\n",
        "stack global": text("os") + text("mkdir") + b"\x93" + one + b"R",
        "dotted stack global": text("converters.readers") + text("read_weights.__globals__") + b"\x93",
        "dotted allowed global": text("collections") + text("OrderedDict.fromkeys") + b"\x93" + one + b"R",
        "extension": b"\x82\x01" + one + b"R",
        "wide extension": b"\x84\x01\x00\x00\x00" + one + b"R",
        "reconstructor": call(name("copyreg", "_reconstructor"), mkdir, name("builtins", "object"), b"N"),
        "reconstructor of a call": call(name("copyreg", "_reconstructor"), call(mkdir, path), mkdir, b"N"),
        "newobj function": call(name("copyreg", "__newobj__"), mkdir, path),
        "partial": call(call(partial, mkdir, path)),
        "map": call(name("builtins", "list"), call(name("builtins", "map"), mkdir, b"](" + path + b"e")),
        "default factory": call(name("collections", "defaultdict"), mkdir),
        "state of a function": mkdir + mapping({"__setstate__": mkdir}) + b"b",
        "state of a dictionary": b"}" + mapping({"__class__": mkdir, "__setitem__": mkdir}) + b"b",
        "state of an object": call(name("argparse", "Namespace")) + mapping({"__reduce__": mkdir}) + b"b",
        "rebuild with a function": call(
            name("torch._tensor", "_rebuild_from_type_v2"), mkdir, name("torch", "Tensor"), one, b"N"
        ),
        "rebuild in a rebuild": call(
            name("torch._tensor", "_rebuild_from_type_v2"),
            name("torch._tensor", "_rebuild_from_type_v2"),
            name("torch", "Tensor"),
            sequence(mkdir, name("torch", "Tensor"), one, b"N"),
            b"N",
        ),
        "parameter of a call": call(name("torch._utils", "_rebuild_parameter"), call(mkdir, path), b"\x88"),
        "nested pickle": call(
            name("torch.storage", "_load_from_bytes"),
            b"B" + struct.pack("<I", 60) + legacy(call(mkdir, path))[:60],
        ),
        "numpy objects": call(
            name("numpy.core.multiarray", "_reconstruct"),
            name("numpy", "ndarray"),
            sequence(b"K\x00"),
            b"U\x01b",
        )
        + sequence(
            b"K\x01",
            sequence(b"K\x01"),
            call(name("numpy", "dtype"), text("O8")),
            b"\x89",
            b"]" + call(mkdir, path) + b"a",
        )
        + b"b",
        "numpy scalar of a call": call(name("numpy.core.multiarray", "scalar"), mkdir, path),
        "odd codec": call(name("_codecs", "encode"), text("x"), text("unicode_escape\n" + marker)),
        "persistent function": sequence(text("storage"), mkdir, path, path, b"K\x01") + b"Q",
        "persistent module": sequence(text("module"), mkdir, path, path) + b"Q",
        "persistent path": sequence(text("storage"), name("torch", "FloatStorage"), text("../../data.pkl"), path, b"K\x01")
        + b"Q",
        "persistent text": b"Pos.mkdir\n",
        "torch loader": call(name("torch", "load"), path),
        "torch hub": call(name("torch.hub", "load_local"), path, path),
        "out of band": b"\x97" + one + b"R",
    }


FIRES = ("reduce", "posix", "eval", "exec", "getattr chain", "obj", "inst", "stack global", "partial", "map")


def test_the_attacks_are_real(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for kind in FIRES:
        pickle.loads(b"\x80\x04" + attacks(str(marker))[kind] + b".")
        assert marker.is_dir(), kind
        marker.rmdir()


@pytest.mark.parametrize("named", [True, False], ids=["hostile names refused", "hostile names let in"])
@pytest.mark.parametrize("kind", attacks(""))
def test_nothing_in_a_pickle_runs(
    tmp_path: Path,
    audited: list[tuple[str, Any]],
    kind: str,
    named: bool,
    read: Callable[..., Weights],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not named:  # the list of hostile names is for the message; safety must not rest on it
        monkeypatch.setattr(allow_list, "_HOSTILE_MODULES", frozenset())
        monkeypatch.setattr(allow_list, "_HOSTILE_BUILTINS", frozenset())
    marker = tmp_path / "marker"
    attack = attacks(str(marker))[kind]
    beside = mapping({"state_dict": mapping({"w": tensor()}), "rest": attack})
    for content in (
        zipped(beside),
        legacy(beside),
        zipped(mapping({"w": tensor(), "v": attack})),
        zipped(attack),
        legacy(attack),
        b"\x80\x02" + attack + b".",
    ):
        found = None
        AUDITING[0] = True
        try:
            found = read(content)
        except ValueError as error:
            assert "\n" not in str(error)
        finally:
            AUDITING[0] = False
        assert found is None or found.tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert not marker.exists()
    loud = [(event, arguments) for event, arguments in audited if not event.startswith(QUIET_EVENTS)]
    assert loud == []
    assert all(Path(str(arguments[0])) == tmp_path / "file.pth" for event, arguments in audited if event == "open")


def test_unknown_objects_stay_inert(read: Callable[..., Weights]) -> None:
    thing = call(name("some.package", "Thing"), b"K\x07") + mapping({"a": b"K\x01"}) + b"b"
    found = read(zipped(mapping({"state_dict": mapping({"w": tensor()}), "rest": thing})))
    assert found.metadata == {"rest": {"class": "some.package.Thing", "args": (7,), "state": {"a": 1}}}
    assert "some" not in sys.modules
    with pytest.raises(ValueError, match=r"refused: the pickle names 'os\.mkdir'"):
        read(zipped(mapping({"w": tensor(), "rest": call(name("os", "mkdir"), text("a"))})))
