"""A page of tables and pictures in the style of the report: of an evaluation, a ranking, a comparison of methods.

One HTML file without scripts, its pictures inside. Text that comes from files is escaped.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .html import environment


class Picture(NamedTuple):
    """A PNG file, and what it shows for whoever does not see it."""

    path: Path
    alt: str

    @property
    def data(self) -> str:
        """The file as base64."""
        return base64.b64encode(self.path.read_bytes()).decode("ascii")


class Section(NamedTuple):
    """A heading, pictures, a table (the first cell of a row names it), and a remark below; all but the heading may be missing."""

    title: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""
    pictures: Sequence[Picture] = ()


def table_page(*, kicker: str, heading: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """The page as text; `heading` says the answer, `kicker` above it what this is."""
    template = environment().get_template("tables.html.j2")
    said = [note.rstrip(".") for note in notes]
    return template.render(title=kicker, kicker=kicker, heading=heading, notes=said, sections=sections)
