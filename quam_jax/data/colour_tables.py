"""Names and colours of labels in the files that viewers read: 3D Slicer (.ctbl) and ITK-SNAP (label descriptions).

And which stored values stand for which labels, as options and such files say it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .colours import label_colours
from .files import write_atomic

SLICER, ITK_SNAP = "labels.ctbl", "labels_itksnap.txt"


def write_colour_tables(folder: Path, names: Sequence[str]) -> list[Path]:
    """Write the colour tables of label maps into a folder, `names` by label from 0; returns the two files.

    Label 0 is transparent. Colours are those of Okabe and Ito, which people with any common colour vision tell apart.
    """
    colours = label_colours(max(3, len(names)))[: len(names)].tolist()
    slicer = ["# Color table file", f"# {len(names)} values"]
    snap = ["# ITK-SnAP Label Description File", "# IDX  -R-  -G-  -B-  -A-  VIS MSH  LABEL"]
    for index, (name, (red, green, blue)) in enumerate(zip(names, colours, strict=True)):
        shown = int(index > 0)
        slicer.append(f"{index} {_word(name)} {red} {green} {blue} {255 * shown}")
        snap.append(f'{index:5d} {red:5d} {green:4d} {blue:4d} {shown:4d} {shown:4d} {shown:3d}    "{_line(name)}"')
    return [
        write_atomic(Path(folder) / SLICER, ("\n".join(slicer) + "\n").encode()),
        write_atomic(Path(folder) / ITK_SNAP, ("\n".join(snap) + "\n").encode()),
    ]


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
    return Stored(int(colour[1], 16), True) if colour else Stored(float(text))


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


def _word(name: str) -> str:
    """A name without spaces, which separate the columns of a .ctbl file."""
    return re.sub(r"\s+", "_", name.strip()) or "unnamed"


def _line(name: str) -> str:
    """A name without what would end it in a label description."""
    return " ".join(name.replace('"', "'").split())
