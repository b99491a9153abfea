"""The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without holes.

Layout as in the format's own description (huggingface/safetensors, README, "Format").
"""

import json
import math
from typing import Any

import ml_dtypes
import numpy as np

from .archive import Source
from .records import is_count, is_shape, quote

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U64": np.uint64,
        "U32": np.uint32,
        "U16": np.uint16,
        "U8": np.uint8,
        "BOOL": np.bool_,
        "C64": np.complex64,
    }.items()
}
"""safetensors dtype -> numpy dtype (native byte order)."""
LARGEST_HEADER = 100_000_000  # the format's own limit
_FREE_HEADER = 4 << 20
_HEADER_SHARE = 16  # of the file's size; keeps the parsed header small against the file


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether the first nine bytes of a file of that size can begin a safetensors file."""
    return len(head) >= 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(source: Source) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Return the tensors and the metadata; raises ValueError on a header that does not fit the file."""
    length = int.from_bytes(source.read_bytes(0, 8, "the header's length"), "little")
    if length > min(LARGEST_HEADER, _FREE_HEADER + source.size // _HEADER_SHARE):
        raise ValueError(f"a header of {length:,} bytes is larger than a file of {source.size:,} bytes needs")
    header = _parse(source.read_bytes(8, length, "the header"))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("the header's __metadata__ is not a dictionary of text")
    begin = 8 + length
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    end = 0
    for name, (_, _, first, last) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise ValueError(f"tensor {quote(name)} begins at byte {first} of the data, expected {end}")
        end = last
    if begin + end != source.size:
        raise ValueError(f"the tensors end at byte {begin + end:,}, the file at {source.size:,} (truncated?)")
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, (dtype, shape, first, last) in entries.items():
        raw = source.read(begin + first, last - first, f"tensor {quote(name)}")
        if not np.little_endian and dtype.itemsize > 1:
            word = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
            raw = raw.view(f"u{word}").byteswap(inplace=True).view(np.uint8)
        tensors[name] = (raw.astype(np.bool_) if dtype.kind == "b" else raw.view(dtype)).reshape(shape)
    return tensors, dict(metadata)


def _parse(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice in the header")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    return header


def _entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """dtype, shape, first and last byte of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {quote(name)}: expected dtype, shape and data_offsets in the header")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"tensor {quote(name)}: dtype {quote(code)} is not supported")
    if not is_shape(shape) or len(shape) > 32 or not is_shape(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {quote(name)}: shape or data_offsets are not lists of sizes")
    first, last = offsets
    expected = math.prod(shape) * DTYPES[code].itemsize
    if not is_count(expected) or last - first != expected:
        raise ValueError(f"tensor {quote(name)}: {last - first} bytes for shape {shape} of {code}, expected {expected}")
    return DTYPES[code], tuple(shape), first, last
