"""Weight files written without PyTorch: its own zip checkpoint, which torch.load reads, and safetensors.

Equal tensors give equal bytes, so a file can be named by its hash. Both appear under their name only when
they are complete. The checkpoint holds what torch.save writes for an `OrderedDict` of dense CPU tensors; the
layout was read off such files and the opcodes are those of pickle protocol 2.
"""

import io
import json
import os
import struct
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .readers.records import TORCH_DTYPES, TYPED_STORAGES, quote
from .readers.safetensors_file import DTYPES as SAFETENSORS_DTYPES

_ALIGNMENT = 64
_MEMBER_HEADER = 30  # bytes of a zip member's header before its name
_WIDE_EXTRA = 20  # bytes that zipfile adds to the header of a member beyond 2 GiB
_WIDE = 2**31 - 1
_STORAGES = {TORCH_DTYPES[dtype]: name for name, dtype in TYPED_STORAGES.items() if dtype in TORCH_DTYPES}
_STORAGES[np.dtype(np.uint8)] = "ByteStorage"
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_SAFETENSORS_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}


def write_state_dict(path: str | Path, tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write named arrays as a PyTorch checkpoint that `torch.load(path, weights_only=True)` reads.

    dtypes are kept (bfloat16 and float8 of ml_dtypes too); every array becomes a dense tensor of its own.
    Raises ValueError, listing all of them, on names that are not text and dtypes that torch has not.
    """
    arrays = _checked(path, tensors, _NAMES)
    _write_atomically(Path(path), lambda stream: _write_checkpoint(stream, arrays))


def write_safetensors(
    path: str | Path, tensors: Mapping[str, np.ndarray[Any, Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays and a dictionary of text in the safetensors format.

    Raises ValueError on names or metadata that are not text and dtypes that the format has not.
    """
    arrays = _checked(path, tensors, _SAFETENSORS_NAMES)
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"{path}: metadata must be text, got {quote(key)}: {quote(value)}")
    if "__metadata__" in arrays:
        raise ValueError(f"{path}: a tensor may not be named '__metadata__' in this format")
    _write_atomically(Path(path), lambda stream: _write_flat(stream, arrays, dict(metadata or {})))


def _checked(
    path: str | Path, tensors: Mapping[str, np.ndarray[Any, Any]], known: Mapping[np.dtype[Any], str]
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays dense, little-endian and in their order; one error for everything that cannot be written."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    wrong: list[str] = []
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        native = array.dtype.newbyteorder("=") if array.dtype.byteorder in "<>" else array.dtype
        if not isinstance(name, str) or not name or not _is_encodable(name):
            wrong.append(f"the name {quote(name)} is no text")
        elif native not in known:
            wrong.append(f"{quote(name)} has dtype {array.dtype}")
        else:
            array = array.astype(native, copy=False)
            arrays[name] = array if array.flags.c_contiguous else array.copy(order="C")
    if wrong:
        raise ValueError(f"{path}: cannot be written: {'; '.join(wrong[:10])}")
    return arrays


def _is_encodable(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: cannot be written: no folder {path.parent}; make it first, or look at the name")
    try:
        with temporary.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _little_endian(array: np.ndarray[Any, Any]) -> memoryview:
    """The array's bytes in little-endian order, copied only on big-endian machines."""
    raw = array.reshape(-1).view(np.uint8)
    word = array.dtype.itemsize // 2 if array.dtype.kind == "c" else array.dtype.itemsize
    if not np.little_endian and word > 1:
        raw = raw.view(f"u{word}").byteswap().view(np.uint8)
    return raw.data


# The checkpoint


def _write_checkpoint(stream: BinaryIO, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "archive/data.pkl", memoryview(_pickle(arrays)))
        _add(archive, "archive/byteorder", memoryview(b"little"))
        for index, array in enumerate(arrays.values()):
            _add(archive, f"archive/data/{index}", _little_endian(array))
        _add(archive, "archive/version", memoryview(b"3\n"))


def _add(archive: zipfile.ZipFile, name: str, content: memoryview) -> None:
    """Add a member whose bytes begin at a multiple of 64, as torch's own do, with a fixed date."""
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 0  # else it depends on the machine
    member.external_attr = 0
    member.file_size = content.nbytes
    wide = content.nbytes >= _WIDE
    assert archive.fp is not None
    begin = archive.fp.tell() + _MEMBER_HEADER + len(name) + (_WIDE_EXTRA if wide else 0) + 4
    padding = -begin % _ALIGNMENT
    member.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(member, "w", force_zip64=wide) as stream:
        stream.write(content)


def _pickle(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    out = io.BytesIO()
    out.write(b"\x80\x02")
    _ordered_dict(out)
    out.write(b"(")
    for index, (name, array) in enumerate(arrays.items()):
        _text(out, name)
        _tensor(out, str(index), array)
    out.write(b"u.")
    return out.getvalue()


def _tensor(out: io.BytesIO, key: str, array: np.ndarray[Any, Any]) -> None:
    """A call of torch's rebuild function; dtypes without a storage class of their own take its version 3."""
    typed = array.dtype in _STORAGES
    out.write(b"ctorch._utils\n_rebuild_tensor_v2\n" if typed else b"ctorch._utils\n_rebuild_tensor_v3\n")
    out.write(b"((")
    _text(out, "storage")
    out.write(f"ctorch\n{_STORAGES[array.dtype]}\n".encode() if typed else b"ctorch.storage\nUntypedStorage\n")
    _text(out, key)
    _text(out, "cpu")
    _integer(out, array.size if typed else array.nbytes)
    out.write(b"tQ")
    _integer(out, 0)
    for lengths in (array.shape, tuple(step // array.itemsize for step in array.strides)):
        out.write(b"(")
        for length in lengths:
            _integer(out, length)
        out.write(b"t")
    out.write(b"\x89")  # requires_grad
    _ordered_dict(out)  # hooks
    if not typed:
        out.write(f"ctorch\n{_NAMES[array.dtype]}\n".encode())
    out.write(b"tR")


def _ordered_dict(out: io.BytesIO) -> None:
    out.write(b"ccollections\nOrderedDict\n)R")


def _text(out: io.BytesIO, text: str) -> None:
    data = text.encode("utf-8")
    out.write(b"X" + struct.pack("<I", len(data)) + data)


def _integer(out: io.BytesIO, value: int) -> None:
    if value < 2**31:
        out.write(b"J" + struct.pack("<i", value))
    else:
        out.write(b"\x8a\x08" + struct.pack("<q", value))


# safetensors


def _write_flat(stream: BinaryIO, arrays: Mapping[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> None:
    # Wide elements first: then every tensor is aligned to its element size.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        stream.write(_little_endian(arrays[name]))
