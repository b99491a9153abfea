"""Ways to run that were found to be the fastest on this machine, kept between runs in one file.

They change speed alone: a file that is damaged, of another format or cannot be written only costs the timing.
"""

import contextlib
import math
import threading
from pathlib import Path
from typing import Any

from .records import read_json, write_json

FORMAT = 1
MOST = 500  # choices that are kept, the newest


class Choices:
    """The choices in a file, by key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def find(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key, `name` and `seconds`; None where nothing was, or nothing that can be read."""
        row: Any = self._read().get(key)
        return {"name": row["name"], "seconds": row["seconds"]} if _is_good(row) else None

    def keep(self, key: str, name: str, seconds: dict[str, float]) -> None:
        """Keep a choice in place of an older one."""
        with self._lock, contextlib.suppress(OSError):
            rows = {known: row for known, row in self._read().items() if known != key and _is_good(row)}
            rows = dict([*rows.items(), (key, {"name": name, "seconds": seconds})][-MOST:])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"format": FORMAT, "choices": rows})

    def _read(self) -> dict[str, Any]:
        stored = read_json(self.path)
        rows = stored.get("choices") if stored.get("format") == FORMAT else None
        return rows if isinstance(rows, dict) else {}


def _is_good(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not isinstance(row.get("seconds"), dict):
        return False
    return all(isinstance(value, int | float) and math.isfinite(value) and value >= 0 for value in row["seconds"].values())
