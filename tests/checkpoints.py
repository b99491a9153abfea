"""A small assembler of pickles and checkpoints, sound and malicious, that needs no torch."""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from converters.writers import write_safetensors, write_state_dict


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def sequence(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + sequence(*arguments) + b"R"


def mapping(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def tensor(
    key: str = "0",
    *,
    count: int = 6,
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    storage: str = "FloatStorage",
) -> bytes:
    identity = sequence(text("storage"), name("torch", storage), text(key), text("cpu"), integer(count)) + b"Q"
    lengths, steps = (sequence(*map(integer, values)) for values in (shape, strides))
    hooks = call(name("collections", "OrderedDict"))
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, identity, integer(offset), lengths, steps, b"\x89", hooks)


SIX = np.arange(6, dtype="<f4").tobytes()


def zipped(root: bytes, storages: Mapping[str, bytes] | None = None, *, order: str = "little", checksums: bool = True) -> bytes:
    """A checkpoint of torch 1.6 and later from the opcodes that make its root."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + root + b".")
        archive.writestr("archive/byteorder", order)
        for key, content in (storages if storages is not None else {"0": SIX}).items():
            archive.writestr(f"archive/data/{key}", content)
        for member in archive.filelist:
            member.CRC = member.CRC if checksums else 0
    return stream.getvalue()


def legacy(root: bytes, storages: Mapping[str, tuple[int, bytes]] | None = None) -> bytes:
    """A checkpoint of torch before 1.6."""
    given = storages if storages is not None else {"0": (6, SIX)}
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts += [b"\x80\x02" + root + b".", pickle.dumps(list(given), 2)]
    parts += [struct.pack("<q", count) + content for count, content in given.values()]
    return b"".join(parts)


def packed(**members: bytes) -> bytes:
    """A zip archive of any members; "__" in a name stands for "/"."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, content in members.items():
            archive.writestr(member.replace("__", "/"), content)
    return stream.getvalue()


def seeds(folder: Path) -> dict[str, bytes]:
    """Small sound files of every format but HDF5; two without checksums, so that mutations get past them."""
    rest = {
        "args": call(name("argparse", "Namespace")) + mapping({"lr": b"G" + struct.pack(">d", 0.1)}) + b"b",
        "scalar": call(
            name("numpy.core.multiarray", "scalar"),
            call(name("numpy", "dtype"), text("f4")),
            call(name("_codecs", "encode"), text("\x00\x00\u0080?"), text("latin1")),
        ),
        "list": b"](K\x01M\x02\x00J\x03\x00\x00\x00\x88Ne",
        "size": call(name("torch", "Size"), sequence(b"K\x01", b"K\x02")),
    }
    tensors = {
        "a.weight": tensor(),
        "a.all_modules.0.weight": tensor(strides=(1, 2)),
        "b": tensor("1", count=4, shape=(), strides=(), storage="LongStorage"),
    }
    root = mapping({"state_dict": mapping(tensors), **rest})
    storages = {"0": SIX, "1": bytes(32)}
    arrays = {
        "module.a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "module.b": np.ones(3, ml_dtypes.bfloat16),
    }
    write_state_dict(folder / "w.pth", arrays)
    write_safetensors(folder / "w.safetensors", arrays, {"made": "here"})
    np.savez(folder / "w.npz", a=arrays["module.a"], text=np.array("note"))
    np.savez_compressed(folder / "c.npz", a=np.zeros((8, 8)), b=np.arange(5))
    return {
        "zip": zipped(root, storages),
        "zip without checksums": zipped(root, storages, checksums=False),
        "written": (folder / "w.pth").read_bytes(),
        "legacy": legacy(root, {"0": (6, SIX), "1": (4, bytes(32))}),
        "safetensors": (folder / "w.safetensors").read_bytes(),
        "npz": (folder / "w.npz").read_bytes(),
        "npz compressed": (folder / "c.npz").read_bytes(),
    }
