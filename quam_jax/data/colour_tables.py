"""Names and colours of labels in the files that viewers read: 3D Slicer (.ctbl) and ITK-SNAP (label descriptions)."""

import re
from collections.abc import Sequence
from pathlib import Path

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


def _word(name: str) -> str:
    """A name without spaces, which separate the columns of a .ctbl file."""
    return re.sub(r"\s+", "_", name.strip()) or "unnamed"


def _line(name: str) -> str:
    """A name without what would end it in a label description."""
    return " ".join(name.replace('"', "'").split())
