"""What the files of a package declare: found by looking at the files, so that one more touches no list.

Networks and baselines are records that their files hold (`collect`). Wanted masks and regions are files by themselves
(`kinds_in`), whose names the settings must know before anything heavy is imported.
"""

import ast
import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def collect(package: str, path: Iterable[str], *, attribute: str) -> dict[str, Any]:
    """The records that the modules of a package hold in the sequence `attribute`, by their `name`, sorted; imports all.

    Modules without the attribute hold none. ValueError where two records have one name.
    """
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for info in pkgutil.iter_modules(path):
        module = importlib.import_module(f"{package}.{info.name}")
        for record in getattr(module, attribute, ()):
            if record.name in found:
                raise ValueError(
                    f"{package}: expected one of {attribute} named {record.name!r}, got one in {places[record.name]}.py "
                    f"and one in {info.name}.py; rename one of them"
                )
            found[record.name], places[record.name] = record, info.name
    return dict(sorted(found.items()))


def kinds_in(folder: str) -> dict[str, str]:
    """Name and description of every kind in a folder of this package, in order; reads the files and imports none.

    A kind is a file whose name begins with a letter. Its description is the first line of its docstring, as part of a sentence
    (no capital at the start, no full stop). Kinds stand in the order of the whole number `PLACE` in their files; those without
    one follow, by name. ValueError for a file without a docstring.
    """
    kinds: list[tuple[float, str, str]] = []
    for path in (Path(__file__).parent / folder).glob("[!_]*.py"):
        tree = ast.parse(path.read_text())
        text = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
        if not text:
            raise ValueError(f"{path.name}: expected a docstring that says what it is, got none")
        kinds.append((_place(tree), path.stem, text[0].lower() + text[1:]))
    return {name: text for _, name, text in sorted(kinds)}


def _place(tree: ast.Module) -> float:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLACE":
            return float(ast.literal_eval(node.value))
    return float("inf")
