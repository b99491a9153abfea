"""What results are told by and kept in: digests of values and arrays; JSON and tables, written whole or not at all."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import write_atomic


def digest(*parts: Any) -> str:
    """SHA-256 of plain values, independent of the order of mappings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of named arrays: names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(np.asarray(arrays[name]))
        total.update(f"{name} {value.dtype} {value.shape}".encode())
        total.update(value.tobytes())
    return total.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping, empty where there is none to read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def mapping(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping that a record read from a file has under a key, empty for anything else."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Any) -> None:
    """Plain values as JSON, in place at once; NaN and infinity become null."""
    write_atomic(path, (json.dumps(plain(value), indent=1, allow_nan=False) + "\n").encode())


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV with the union of their columns in order of appearance; NaN and absent values are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = (row.get(name, "") for name in columns)
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])
    write_atomic(path, buffer.getvalue().encode())


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
