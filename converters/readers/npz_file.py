"""numpy's .npz archives, read without pickle; the header of each array as in numpy.lib.format (versions 1 to
3).
"""

import math
import re
from typing import Any

import numpy as np

from .archive import Archive
from .records import is_count, quote

_DESCRIPTION = re.compile(r"'descr': *'([<>|=]?)([a-zA-Z?])(\d*)'")
_ORDER = re.compile(r"'fortran_order': *(True|False)")
_SHAPE = re.compile(r"'shape': *\(([\d, ]*)\)")
_LONGEST_HEADER = 10_000
SUPPORTED_FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
LARGEST_TEXT = 1000  # elements of a text array kept among the metadata


def is_npz(archive: Archive) -> bool:
    """Whether an archive is one of numpy's: every member is an array."""
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def read_npz(archive: Archive) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Return the numeric arrays, and those of text as metadata.

    Raises ValueError on arrays of objects or structures, and on a member that does not hold what it declares.
    """
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    metadata: dict[str, Any] = {}
    for member in archive.members:
        name = member.removesuffix(".npy")
        try:
            values = _array(archive.read(member))
        except ValueError as error:
            raise ValueError(f"array {quote(name)}: {error}") from error
        if values.dtype.kind in "SU":
            metadata[name] = values.tolist() if values.size <= LARGEST_TEXT else f"<text array {list(values.shape)}>"
        else:
            tensors[name] = values
    return tensors, metadata


def _array(content: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, Any]:
    head = content[:12].tobytes()
    if head[:6] != b"\x93NUMPY" or len(head) < 12 or head[6] not in (1, 2, 3):
        raise ValueError("not in numpy's format")
    begin, length = (10, head[8:10]) if head[6] == 1 else (12, head[8:12])
    end = begin + int.from_bytes(length, "little")
    if end > len(content) or end > _LONGEST_HEADER:
        raise ValueError("truncated, or its header is too long")
    header = content[begin:end].tobytes().decode("utf-8")
    kind, order, shape = _DESCRIPTION.search(header), _ORDER.search(header), _SHAPE.search(header)
    if kind is None or order is None or shape is None:
        raise ValueError("its header lacks a plain dtype, fortran_order or shape (a structured array?)")
    if kind[2] == "O":
        raise ValueError("an array of Python objects, which only running pickled code could read")
    if kind[2] not in "biufcSU?":
        raise ValueError(f"dtype {quote(kind[2] + kind[3])} is not supported; save bfloat16 as float32 or safetensors")
    try:
        dtype = np.dtype(kind[1] + kind[2] + kind[3])
    except TypeError as error:
        raise ValueError(f"dtype {quote(kind[0])} is unknown") from error
    if dtype.itemsize == 0 or (dtype.kind in "fc" and dtype.name not in SUPPORTED_FLOATS):
        raise ValueError(f"dtype {quote(kind[0])} is not supported")
    lengths = tuple(int(part[:20]) for part in shape[1].replace(" ", "").split(",") if part)
    expected = math.prod(lengths) * dtype.itemsize
    if len(lengths) > 32 or not is_count(expected) or len(content) - end != expected:
        raise ValueError(f"{len(content) - end} bytes for shape {lengths} of {dtype}, expected {expected}")
    raw = content[end:]
    if raw.ctypes.data % 16:  # numpy aligns the data within the member, an old writer may not
        raw = raw.copy()
    values = raw.astype(np.bool_) if dtype.kind == "b" else raw.view(dtype).astype(dtype.newbyteorder("="), copy=False)
    return values.reshape(lengths, order="F" if order[1] == "True" else "C")
