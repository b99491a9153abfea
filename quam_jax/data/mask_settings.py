"""What a user says of masks: which stored values stand for which labels, and which pixels nobody rated.

Nothing here reads a mask, so that the command line knows its options before anything heavy is imported.
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

AUTO, NONE = "auto", "none"


class Stored(NamedTuple):
    """A value that stands in masks: a number, or a colour as 0xrrggbb."""

    value: float
    colour: bool = False


_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_SNAP = re.compile(r'(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+[\d.]+\s+\d+\s+\d+\s+".*"')  # number r g b alpha visible mesh "name"
_SLICER = re.compile(r"(\d+)\s+\S+\s+(\d+)\s+(\d+)\s+(\d+)\s+\d+")  # number name r g b alpha
_PLAIN = re.compile(r"(\d+)[\s,;]+(?:#([0-9a-fA-F]{6})|(\d+)[\s,;]+(\d+)[\s,;]+(\d+))(?:[\s,;].*)?")  # number colour [name]
_MOST_BYTES = 2**20


def hex_colour(value: int) -> str:
    """0xrrggbb as #rrggbb."""
    return f"#{value:06x}"


def parse_values(text: str, *, what: str) -> list[list[Stored]]:
    """The stored values of labels 0, 1, ...: `0,128,255`, `0,1+255` for several of one label, `#000000,#ff0000`, or a file.

    The file is a colour table of 3D Slicer or ITK-SNAP, or has lines `LABEL,R,G,B` or `LABEL,#rrggbb`. ValueError, naming the
    option `what`, for anything else.
    """
    if Path(text).is_file():
        return read_colour_table(Path(text))
    try:
        return [[_stored(part.strip()) for part in entry.split("+")] for entry in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{what}: expected values such as 0,128,255 or #000000,#ff0000, or the file of a colour table, got {text!r}"
        ) from None


def _stored(text: str) -> Stored:
    colour = _HEX.fullmatch(text)
    if colour:
        return Stored(int(colour[1], 16), True)
    if not math.isfinite(value := float(text)):
        raise ValueError(f"expected a number, got {text!r}")
    return Stored(value)


def read_colour_table(path: Path) -> list[list[Stored]]:
    """The colours of labels 0, 1, ... in a file (see parse_values); a label without a colour has none.

    ValueError, naming the file, for lines of no known form, and for one colour of two labels.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path}: expected a colour table, got {path.stat().st_size:,} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{path}: expected the text of a colour table") from None
    table: dict[int, Stored] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#") or (number == 1 and not text[0].isdigit()):
            continue
        match = _SNAP.fullmatch(text) or _PLAIN.fullmatch(text) or _SLICER.fullmatch(text)
        colours = [] if match is None else [int(n) for n in match.groups()[-3:] if n is not None]
        if match is not None and match.re is _PLAIN and match[2]:
            colours = list(bytes.fromhex(match[2]))
        if match is None or len(colours) != 3 or max(colours) > 255 or int(match[1]) > 10_000:
            raise ValueError(f"{path}: line {number}: expected LABEL,R,G,B (0 to 255) or LABEL,#rrggbb, got {text[:60]!r}")
        stored = Stored(colours[0] << 16 | colours[1] << 8 | colours[2], True)
        if stored in table.values():
            raise ValueError(f"{path}: line {number}: {hex_colour(int(stored.value))} is the colour of another label already")
        table[int(match[1])] = stored
    if not table:
        raise ValueError(f"{path}: expected the colours of labels, got none")
    black = Stored(0, True)
    if 0 not in table and black not in table.values():
        table[0] = black
    return [[table[label]] if label in table else [] for label in range(max(table) + 1)]


@dataclass(frozen=True)
class MaskSettings:
    """What is said of masks: the value of pixels that nobody rated, the values of the labels, or a threshold.

    `ignore_label` is a number, a colour as #rrggbb, "none", or "auto": 255 where no label has it and others are there. `values`
    are the stored values of labels 0, 1, ... (see parse_values). `threshold` makes what is above it label 1 of two.
    ValueError for what cannot be understood.
    """

    ignore_label: str = AUTO
    values: str = ""
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError(f"--mask-threshold: expected a number, got {self.threshold}")
        if self.values and self.threshold is not None:
            raise ValueError("--mask-values and --mask-threshold: expected one of them, got both")
        _ = self.ignored

    @property
    def ignored(self) -> Stored | None:
        """The value that is not rated, None where none is given."""
        if self.ignore_label in (AUTO, NONE):
            return None
        found = parse_values(self.ignore_label, what="--ignore-label")
        if len(found) != 1 or len(found[0]) != 1:
            raise ValueError(f"--ignore-label: expected a number, a colour as #rrggbb, auto or none, got {self.ignore_label!r}")
        return found[0][0]

    def or_ignored(self, value: float | None) -> "MaskSettings":
        """The same with a value that is known not to be rated, where nothing else is said."""
        return self if value is None or self.ignore_label != AUTO else replace(self, ignore_label=f"{value:g}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {"ignore_label": self.ignore_label, "values": self.values, "threshold": self.threshold}
