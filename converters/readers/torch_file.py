"""PyTorch checkpoints: the zip format of torch 1.6 and later and the plain pickles of older versions.

Both hold one pickle that describes the tensors and, beside or after it, the storages they view. The pickle
goes through the restricted machine; storages are read only for the tensors that are wanted, so optimiser
states cost nothing in the zip format.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from .allow_list import resolve
from .archive import Archive, Source
from .pickle_machine import unpickle
from .records import (
    TORCH_DTYPES,
    UNREADABLE_DTYPES,
    ForeignName,
    NumpyArray,
    Storage,
    StorageKind,
    Tensor,
    is_contiguous,
    is_count,
    numpy_values,
    quote,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


class TorchFile:
    """What a checkpoint describes (`root`, of inert records) and its bytes by storage key."""

    root: Any
    source: Source
    swapped = False

    def storage_bytes(self, storage: Storage) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a storage's bytes, owned by the caller; raises ValueError if the file lacks some."""
        raise NotImplementedError

    def read_tensors(self, tensors: Iterable[tuple[str, Tensor | NumpyArray]]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the values of named tensors, dense, owned and in native byte order.

        Raises ValueError, naming the tensor, if a view leaves its storage or the file lacks bytes.
        """
        wanted = list(tensors)
        uses = Counter(tensor.storage.key for _, tensor in wanted if isinstance(tensor, Tensor))
        shared: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = {}
        values: dict[str, np.ndarray[Any, Any]] = {}
        for name, tensor in wanted:
            try:
                if isinstance(tensor, NumpyArray):
                    self.source.budget.take(len(tensor.data or b""), "a numpy array")
                    values[name] = numpy_values(tensor)
                    continue
                key = tensor.storage.key
                _check_span(tensor)
                raw = shared.pop(key) if key in shared else self.storage_bytes(tensor.storage)
                uses[key] -= 1
                if uses[key]:
                    shared[key] = raw
                values[name] = self._dense(tensor, raw, owned=not uses[key])
            except ValueError as error:
                raise ValueError(f"tensor {quote(name)}: {error}") from error
        return values

    def _dense(self, tensor: Tensor, raw: np.ndarray[Any, Any], *, owned: bool) -> np.ndarray[Any, Any]:
        """The tensor's own elements; `raw` is reused where nobody else needs it and it holds nothing else."""
        dtype = TORCH_DTYPES[tensor.dtype]
        begin = tensor.storage.offset + tensor.offset * dtype.itemsize
        nbytes = tensor.size * dtype.itemsize
        if is_contiguous(tensor.shape, tensor.strides) or nbytes == 0:
            if not (owned and begin == 0 and nbytes == raw.nbytes and raw.base is None):
                self.source.budget.take(nbytes, "the tensor")
                raw = raw[begin : begin + nbytes].copy()
            return self._values(raw[:nbytes], tensor).reshape(tensor.shape)
        self.source.budget.take(nbytes, "the tensor, of which elements share memory,")
        elements = raw[begin : begin + (raw.nbytes - begin) // dtype.itemsize * dtype.itemsize].view(f"V{dtype.itemsize}")
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(elements, tensor.shape, strides)
        return self._values(np.ascontiguousarray(view).reshape(-1).view(np.uint8), tensor).reshape(tensor.shape)

    def _values(self, raw: np.ndarray[Any, Any], tensor: Tensor) -> np.ndarray[Any, Any]:
        dtype = TORCH_DTYPES[tensor.dtype]
        word = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
        if self.swapped and word > 1:
            raw = raw.view(f"u{word}").byteswap(inplace=True).view(np.uint8)
        if dtype.kind == "b":  # any nonzero byte is true in torch, undefined in numpy
            return raw.astype(np.bool_)
        values = raw.view(dtype)
        if tensor.conjugate:
            values = np.conj(values)
        return -values if tensor.negative else values


def _check_span(tensor: Tensor) -> None:
    itemsize = TORCH_DTYPES[tensor.dtype].itemsize
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.size and (last + 1) * itemsize > tensor.storage.nbytes:
        raise ValueError(
            f"shape {tensor.shape} with strides {tensor.strides} from {tensor.offset} leaves its storage of "
            f"{tensor.storage.nbytes} bytes"
        )


class ZipFile(TorchFile):
    """A checkpoint of torch 1.6 and later."""

    def __init__(self, source: Source, archive: Archive, folder: str) -> None:
        self.source = source
        self.archive = archive
        self.folder = folder
        order = archive.read(f"{folder}byteorder").tobytes() if f"{folder}byteorder" in archive.members else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"byte order {quote(order)}, expected little or big")
        self.swapped = (order == b"little") != np.little_endian
        self.sizes: dict[str, int] = {}
        data = archive.read(f"{folder}data.pkl").tobytes()
        self.root, _ = unpickle(data, budget=source.budget, resolve=resolve, persistent=self._storage)

    def storage_bytes(self, storage: Storage) -> np.ndarray[Any, np.dtype[np.uint8]]:
        content = self.archive.read(f"{self.folder}data/{storage.key}")
        return content if len(content) == storage.nbytes else content[: storage.nbytes]

    def _storage(self, identity: Any) -> Storage:
        kind, key, count = _storage_identity(identity)
        nbytes = count * _itemsize(kind)
        name = f"{self.folder}data/{key}"
        if name not in self.archive.members:
            raise ValueError(f"the archive lacks its member {quote(name)}")
        size = self.archive.members[name].size
        if nbytes > size:
            raise ValueError(f"truncated: storage {quote(key)} declares {nbytes} bytes, {size} are there")
        if self.sizes.setdefault(key, nbytes) != nbytes:
            raise ValueError(f"storage {quote(key)} is declared with two sizes")
        return Storage(key, kind.dtype, nbytes)


class LegacyFile(TorchFile):
    """A checkpoint of torch before 1.6: magic number, protocol, system facts, the pickle, keys, storages."""

    def __init__(self, source: Source) -> None:
        self.source = source
        # The length of the pickles is unknown beforehand; these files are read whole.
        data = self.data = source.read_bytes(0, source.size, "the file")
        self.swapped = not np.little_endian  # always written little-endian
        self.itemsizes: dict[str, int] = {}
        self.declared: dict[str, int] = {}
        magic, position = self._plain(data, 0)
        if magic != LEGACY_MAGIC:
            raise ValueError("a pickle that torch.save did not write: save the state_dict with torch.save")
        protocol, position = self._plain(data, position)
        if protocol != LEGACY_PROTOCOL:
            raise ValueError(f"torch.save protocol {quote(protocol)}, expected {LEGACY_PROTOCOL}")
        _, position = self._plain(data, position)
        self.root, position = unpickle(data, position, budget=source.budget, resolve=resolve, persistent=self._storage)
        keys, position = self._plain(data, position)
        self.spans = self._spans(data, keys, position)

    def storage_bytes(self, storage: Storage) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if storage.key not in self.spans:
            raise ValueError(f"truncated: the file lacks storage {quote(storage.key)}")
        begin, nbytes = self.spans[storage.key]
        if nbytes < self.declared[storage.key]:
            declared = self.declared[storage.key]
            raise ValueError(f"truncated: storage {quote(storage.key)} has {nbytes} of its {declared} bytes")
        return np.frombuffer(memoryview(self.data)[begin : begin + nbytes], np.uint8)

    def _plain(self, data: bytes, position: int) -> tuple[Any, int]:
        return unpickle(data, position, budget=self.source.budget, resolve=resolve)

    def _spans(self, data: bytes, keys: Any, position: int) -> dict[str, tuple[int, int]]:
        """Where each storage lies: its number of elements in 8 bytes, then its bytes."""
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise ValueError("malformed checkpoint: its storage keys are not a list of text")
        spans: dict[str, tuple[int, int]] = {}
        for key in keys:
            if key not in self.itemsizes or position + 8 > len(data):
                raise ValueError(f"truncated: the file lacks storage {quote(key)}")
            count = int.from_bytes(data[position : position + 8], "little")
            nbytes = count * self.itemsizes[key]
            position += 8
            if nbytes > len(data) - position:
                left = len(data) - position
                raise ValueError(f"truncated: storage {quote(key)} has {nbytes} bytes, {left} are left")
            spans[key] = (position, nbytes)
            position += nbytes
        return spans

    def _storage(self, identity: Any) -> Any:
        if type(identity) is tuple and len(identity) == 4 and identity[0] in ("module", b"module"):
            return identity[1] if type(identity[1]) is ForeignName else ForeignName("module")
        view = identity[5] if type(identity) is tuple and len(identity) == 6 else None
        kind, key, count = _storage_identity(identity[:5] if type(identity) is tuple else identity)
        itemsize = _itemsize(kind)
        if self.itemsizes.setdefault(key, itemsize) != itemsize:
            raise ValueError(f"storage {quote(key)} is declared with two element sizes")
        nbytes = count * itemsize
        if nbytes > self.source.size:
            raise ValueError(f"truncated: storage {quote(key)} declares {nbytes} bytes, the file has {self.source.size}")
        self.declared[key] = max(nbytes, self.declared.get(key, 0))
        if view is None:
            return Storage(key, kind.dtype, nbytes)
        if type(view) is not tuple or len(view) != 3 or not is_count(view[1]) or not is_count(view[2]):
            raise ValueError("malformed pickle: a view of a storage")
        begin, length = view[1] * itemsize, view[2] * itemsize
        if begin + length > nbytes:
            raise ValueError(f"a view of storage {quote(key)} leaves it")
        return Storage(key, kind.dtype, length, begin)


def _storage_identity(identity: Any) -> tuple[StorageKind, str, int]:
    if type(identity) is not tuple or len(identity) != 5 or identity[0] not in ("storage", b"storage"):
        raise ValueError(f"malformed pickle: a persistent id {quote(identity)} that is no storage")
    _, kind, key, _, count = identity
    if type(key) is bytes:
        key = key.decode("ascii")
    if type(kind) is not StorageKind or type(key) is not str or not is_count(count):
        raise ValueError("malformed pickle: a storage without type, key and size")
    return kind, key, count


def _itemsize(kind: StorageKind) -> int:
    if kind.dtype in UNREADABLE_DTYPES:
        return UNREADABLE_DTYPES[kind.dtype]
    return TORCH_DTYPES[kind.dtype].itemsize
