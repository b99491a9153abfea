"""Inert records that stand for what a checkpoint pickle describes.

A pickle names classes and functions; the restricted machine never looks those names up in Python. It builds
the records of this file instead: a tensor is a description of bytes not read yet, an unknown object is its
name with its arguments and state. Nothing here has behaviour that a file could call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np


class NoEntry(ValueError):
    """A file has nothing under the name that was asked for."""


TORCH_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "float64": np.float64,
        "float32": np.float32,
        "float16": np.float16,
        "bfloat16": ml_dtypes.bfloat16,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint64": np.uint64,
        "uint32": np.uint32,
        "uint16": np.uint16,
        "uint8": np.uint8,
        "bool": np.bool_,
        "complex64": np.complex64,
        "complex128": np.complex128,
    }.items()
}
"""torch dtype name -> numpy dtype (native byte order)."""

UNREADABLE_DTYPES = {"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1, "complex32": 4}
"""torch dtypes without a numpy counterpart -> bytes per element of their storage."""

TYPED_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}
"""torch storage class -> torch dtype name; an untyped storage counts bytes."""


def quote(value: object) -> str:
    """Return a short one-line text of a value out of a file, for an error line."""
    text = repr(value) if isinstance(value, str | int | float | bytes | None) else f"<{type(value).__name__}>"
    return text if len(text) <= 100 else text[:97] + "..."


class Budget:
    """Bytes that a file may still make the reader allocate."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed

    def take(self, count: int, what: str) -> None:
        """Charge `count` bytes; raises ValueError, before anything is allocated, when they are not left."""
        if count > self.left:
            raise ValueError(f"{what} needs {count:,} bytes, more than a file of this size may ask for")
        self.left -= count


class TorchDtype(NamedTuple):
    """A torch dtype by name."""

    name: str


class StorageKind(NamedTuple):
    """A torch storage class by the name of its element type."""

    dtype: str


class ForeignName:
    """A module-level name outside the allow-list; it is a label, never an import."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Opaque:
    """An object of an unknown class: what the file would have given to it, kept and not run."""

    __slots__ = ("args", "elements", "items", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.args = args
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.elements: list[Any] = []


class Unreadable:
    """A tensor of a kind that is refused; the reason is raised only if the tensor is wanted."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Storage:
    """A run of bytes in the file, by its key; `offset` in bytes serves views of storages in old files."""

    __slots__ = ("dtype", "key", "nbytes", "offset")

    def __init__(self, key: str, dtype: str, nbytes: int, offset: int = 0) -> None:
        self.key = key
        self.dtype = dtype
        self.nbytes = nbytes
        self.offset = offset


class Tensor:
    """A strided view of a storage, in elements of `dtype`; its bytes are read later or never."""

    __slots__ = ("conjugate", "dtype", "negative", "offset", "shape", "storage", "strides")

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *, dtype: str) -> None:
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.conjugate = False
        self.negative = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def identity(self) -> tuple[Any, ...] | None:
        """Equal for two names of one tensor; None for an empty tensor, which shares nothing."""
        if self.size == 0:
            return None
        flags = (self.conjugate, self.negative)
        return (
            self.storage.key,
            self.storage.offset,
            self.offset,
            self.shape,
            self.strides,
            self.dtype,
            flags,
        )


class NumpyDtype:
    """A numpy dtype as pickled: kind and size, then byte order and item size from its state."""

    __slots__ = ("code", "itemsize", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="
        self.itemsize = -1


class NumpyArray:
    """A numpy array as pickled; shape, dtype and bytes arrive with its state."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(
        self,
        shape: tuple[int, ...] = (0,),
        dtype: NumpyDtype | None = None,
        *,
        data: bytes | None = b"",
        fortran: bool = False,
    ) -> None:
        self.shape = shape
        self.dtype = dtype if dtype is not None else NumpyDtype("u1")
        self.data = data
        self.fortran = fortran


NUMPY_CODES = frozenset(["b1", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", "S", "U"])


def numpy_dtype(dtype: NumpyDtype) -> np.dtype[Any]:
    """Return the numpy dtype of its pickled form; raises ValueError for objects, structures and dates."""
    code, itemsize = dtype.code, dtype.itemsize
    letter = code[:1]
    if letter in ("S", "U"):
        width = itemsize // (4 if letter == "U" else 1) if itemsize > 0 else int(code[1:] or 0)
        code, known = f"{letter}{width}", letter
    else:
        known = code
    if known not in NUMPY_CODES or dtype.order not in ("<", ">", "=", "|"):
        raise ValueError(f"a numpy array of kind {quote(dtype.code)} cannot be read without running pickled code")
    return np.dtype(code).newbyteorder(">" if dtype.order == ">" else "<" if dtype.order == "<" else "=")


def numpy_values(array: NumpyArray) -> np.ndarray[Any, Any]:
    """Return the array in native byte order; raises ValueError if its bytes do not fill its shape."""
    dtype = numpy_dtype(array.dtype)
    if array.data is None or not is_shape(array.shape) or len(array.shape) > 32:
        raise ValueError("a numpy array without its bytes or its shape")
    expected = math.prod(array.shape) * dtype.itemsize
    if len(array.data) != expected:
        raise ValueError(f"a numpy array of shape {array.shape} has {len(array.data)} bytes, expected {expected}")
    if expected == 0:
        return np.zeros(array.shape, dtype.newbyteorder("="))
    values = np.frombuffer(array.data, dtype).reshape(array.shape, order="F" if array.fortran else "C")
    if dtype.kind == "b":
        return values.view(np.uint8).astype(np.bool_)
    return values.astype(dtype.newbyteorder("="), order="C", copy=True)


def is_shape(value: object) -> bool:
    """Whether a value out of a file is a tuple or list of non-negative integers."""
    return isinstance(value, tuple | list) and all(is_count(length) for length in value)


def is_count(value: object) -> bool:
    """Whether a value out of a file is a non-negative integer below 2^62."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the strides are those of a dense row-major array of that shape (axes of length 1 aside)."""
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
