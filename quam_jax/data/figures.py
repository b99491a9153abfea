"""Seconds that cases took on this machine, kept between runs in one file, so that the next run can say what to expect.

They are for information alone: a file that is damaged, of another format or cannot be written only costs the figures.
"""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .records import read_json, write_json

FORMAT = 1
MOST = 500  # figures that are kept, the newest


class Work(NamedTuple):
    """What the time of a case depends on besides its size: the hardware, the network and the settings, as digests or names."""

    machine: str
    model: str
    settings: str


class Figure(NamedTuple):
    """What a case of some size took on average, in seconds, over so many of them."""

    work: Work
    shape: tuple[int, ...]
    seconds: float
    cases: int


class Figures:
    """The figures in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Figure]:
        """All that can be read, the oldest first."""
        stored = read_json(self.path)
        rows = stored.get("figures") if stored.get("format") == FORMAT else None
        found = [_figure(row) for row in rows] if isinstance(rows, list) else []
        return [figure for figure in found if figure is not None]

    def add(self, figures: Sequence[Figure]) -> bool:
        """Keep some figures in place of older ones of the same work and shape; whether that was possible."""
        if not figures:
            return True
        new = {(figure.work, figure.shape): figure for figure in figures}
        kept = [figure for figure in self.read() if (figure.work, figure.shape) not in new]
        rows = [{**f.work._asdict(), **f._asdict()} for f in [*kept, *new.values()][-MOST:]]
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"format": FORMAT, "figures": [{k: v for k, v in row.items() if k != "work"} for row in rows]})
            return True
        return False

    def seconds(self, work: Work, shape: Sequence[int]) -> tuple[float, bool] | None:
        """Seconds of a case of this shape, and whether they were measured at it; None where nothing like it was measured.

        From the nearest other size of the same work they are scaled by the number of pixels.
        """
        size = math.prod(shape)
        alike = {figure.shape: figure.seconds for figure in self.read() if figure.work == work}
        if tuple(shape) in alike:
            return alike[tuple(shape)], True
        sized = {math.prod(known): seconds for known, seconds in alike.items() if len(known) == len(shape)}
        if not sized:
            return None
        nearest = min(sized, key=lambda known: abs(math.log(known / size)))
        return sized[nearest] * size / nearest, False


def _figure(row: Any) -> Figure | None:
    """A stored figure, None for anything else."""
    try:
        names = [row[name] for name in Work._fields]
        shape, seconds, cases = row["shape"], float(row["seconds"]), int(row["cases"])
        good = all(isinstance(name, str) for name in names) and len(shape) > 0 and all(type(n) is int and n > 0 for n in shape)
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return Figure(Work(*names), tuple(shape), seconds, cases) if good and math.isfinite(seconds) and seconds > 0 else None
