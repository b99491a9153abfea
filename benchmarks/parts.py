"""Results that are measured part by part: a part that is measured anew replaces its rows, those of all others stay.

Every part keeps the machine that it was measured on.

The file is written after every row, so that an interrupted measurement loses little; `resume` keeps the rows that the parts have
already.
"""

import json
from collections.abc import Iterable
from typing import Any

from .record import RESULTS, command_and_date, hardware, write_result


class Parts:
    """The rows of results/NAME.json with the part that each belongs to, and command, date and machine of every part.

    Several processes may measure different parts at a time.
    """

    def __init__(self, name: str, *, resume: bool = False) -> None:
        self.name, self.resume = name, resume
        self.own: dict[str, list[dict[str, Any]]] = {}
        self.parts: dict[str, dict[str, Any]] = {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of all parts."""
        others = [row for row in self._stored().get("rows", []) if row["part"] not in self.own]
        return others + [row for rows in self.own.values() for row in rows]

    def begin(self, part: str) -> list[dict[str, Any]]:
        """Rows of a part that need not be measured again: none, or with `resume` all there are."""
        self.own[part] = [row for row in self._stored().get("rows", []) if row["part"] == part] if self.resume else []
        return list(self.own[part])

    def add(self, part: str, rows: Iterable[dict[str, Any]]) -> None:
        """Take rows of a part as they come and write each to the file at once."""
        self.own[part] = self.own.pop(part)  # what is written last is shown
        for row in rows:
            self.own[part].append({"part": part, **row})
            self.parts[part] = {**command_and_date(), "device": hardware()}
            self.write(shown=1)

    def write(self, *, shown: int = 0, **extra: Any) -> None:
        """Write the file, with more to say of it as a whole."""
        stored = self._stored()
        known = {
            name: value
            for name, value in stored.items()
            if name not in ("rows", "parts", "device", "versions", "command", "date")
        }
        before = {name: {"device": stored.get("device"), **about} for name, about in stored.get("parts", {}).items()}
        write_result(self.name, self.rows, shown=shown, parts={**before, **self.parts}, **{**known, **extra})

    def _stored(self) -> dict[str, Any]:
        path = RESULTS / f"{self.name}.json"
        return json.loads(path.read_text()) if path.is_file() else {}
