"""The folder of a run: who owns it, which cases in it are finished, and how results get there whole or not at all.

A run is identified by a digest of everything its numbers depend on (model, settings, fit data, preprocessing, version);
a case by that digest and the hashes of its files. A case's files are moved into place together, its JSON last, so that a
case is finished exactly when its JSON with the right digest is there.
"""

import csv
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data.files import write_atomic

FORMAT = 1
STAGING = ".staging"


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


def claim(out: Path, run_digest: str, *, overwrite: bool) -> None:
    """Take an output folder for a run; ValueError if it holds something else.

    A folder of the same run is continued. `overwrite` empties a folder of another run, and nothing but such a folder.
    """
    if not out.exists():
        out.mkdir(parents=True)
    elif not out.is_dir():
        raise ValueError(f"{out}: expected a folder to write to, got a file")
    elif any(out.iterdir()):
        found = read_json(out / "run.json")
        if "digest" not in found:
            raise ValueError(f"{out}: expected a new or empty folder, got one with other files in it")
        if found["digest"] != run_digest:
            if not overwrite:
                raise ValueError(f"{out}: holds another run (other model, data or settings); expected a new folder, or "
                                 "--overwrite to replace it")
            for item in out.iterdir():
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    if not os.access(out, os.W_OK):
        raise ValueError(f"{out}: expected a folder that can be written to")
    shutil.rmtree(out / STAGING, ignore_errors=True)


def staging_folder(out: Path, case: str) -> Path:
    """An empty place to write a case's files to, inside the output folder."""
    folder = out / STAGING / case
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "report_data").mkdir(parents=True)
    return folder


def publish(out: Path, case: str, sidecar: Mapping[str, Any]) -> None:
    """Move a case's staged files into place and write its JSON last."""
    folder = out / STAGING / case
    (out / "report_data").mkdir(exist_ok=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            os.replace(path, out / path.relative_to(folder))
    write_json(out / f"{case}.json", sidecar)
    shutil.rmtree(folder)


def discard(out: Path, case: str) -> None:
    """Remove what a failed case has staged."""
    shutil.rmtree(out / STAGING / case, ignore_errors=True)


def finished(out: Path, case: str, case_digest: str) -> dict[str, Any] | None:
    """The JSON of a case that is complete and up to date, or None."""
    sidecar = read_json(out / f"{case}.json")
    files = [out / name for name in sidecar.get("outputs", {}).values()]
    complete = sidecar.get("digest") == case_digest and files and all(f.is_file() for f in files)
    return sidecar if complete and (out / "report_data" / f"{case}.npz").is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping, empty where there is none to read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Any) -> None:
    """Plain values as JSON, in place at once; NaN and infinity become null."""
    write_atomic(path, (json.dumps(_plain(value), indent=1, allow_nan=False) + "\n").encode())


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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
