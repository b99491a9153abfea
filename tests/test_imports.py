"""Who may import whom: the import statements of the package are read and compared with the table of the architecture.

A room is a module or a sub-package of `quam_jax`. Imports inside functions count as well, except where a rule says that
they may be late.
"""

import ast
import functools
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import quam_jax

PACKAGE = Path(quam_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What a room may import of the package besides itself; a room stands below those that import it, so that there is no circle.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "registry": set(),
    "process": set(),
    "core": set(),
    "cluster": {"version"},
    "memory": {"core", "process"},
    "evaluation": set(),
    "data": set(),
    "config": {"core", "memory", "registry"},
    "networks": {"core", "registry"},
    "models": {"config", "core", "data", "networks"},
    "targets": {"config", "core", "evaluation"},
    "published": {"core", "evaluation"},
    "guarantees": {"evaluation"},
    "report": {"evaluation"},
    "case": {"config", "core", "data", "evaluation", "models", "published", "report", "targets"},
    "baselines": {"case", "config", "core", "evaluation", "models", "registry"},
    "training": {"baselines", "config", "core", "data", "evaluation", "models"},
    "studies": {
        "baselines",
        "case",
        "cluster",
        "config",
        "data",
        "evaluation",
        "models",
        "process",
        "published",
        "report",
        "version",
    },
    "runs": {
        "case",
        "cluster",
        "config",
        "core",
        "data",
        "evaluation",
        "guarantees",
        "memory",
        "models",
        "process",
        "report",
        "version",
    },
    "integrations": {"case", "config", "core", "models"},
    "results": {"cluster", "data", "evaluation", "guarantees", "report", "runs", "version"},
    "cli": {
        "cluster",
        "config",
        "core",
        "data",
        "evaluation",
        "models",
        "process",
        "report",
        "results",
        "runs",
        "studies",
        "training",
    },
}
# Computations on arrays, which know neither files nor figures.
PURE = ("core", "targets", "published", "evaluation", "guarantees", "networks", "case", "baselines")
NO_FILES = {"os", "pathlib", "logging", "io", "shutil", "matplotlib", "PIL", "nibabel"}
NEVER = {"torch", "torchvision", "tensorflow", "benchmarks", "tests"}
CORE_STANDS_ON = {"jax", "jaxtyping", "numpy", "optax"}
MAY_LAY_OUT = {"core", "config", "memory", "case", "runs", "__init__"}
MAY_CONVERT = {"models"}


class Import(NamedTuple):
    """One imported module, `a.b.c`, of the package by its path in it."""

    file: Path
    line: int
    module: str
    own: bool
    late: bool

    @property
    def where(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line}"

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


def room(file: Path) -> str:
    """The module or sub-package that a file belongs to."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(file: Path) -> Iterator[Import]:
    """Every import of a file; those for type checkers alone are left out."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    package = file.relative_to(PACKAGE).parent.parts
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or _for_checkers(node):
            continue
        late = _in_function(node)
        if isinstance(node, ast.Import):
            found = [(alias.name, alias.name.split(".")[0] == "quam_jax") for alias in node.names]
            names = [(name.partition(".")[2] if own else name, own) for name, own in found]
        elif node.level:
            base = package[: len(package) - (node.level - 1)]
            names = _members([*base, *(node.module or "").split(".")], [alias.name for alias in node.names])
        elif node.module and node.module.split(".")[0] == "quam_jax":
            names = _members(node.module.split(".")[1:], [alias.name for alias in node.names])
        else:
            names = [(node.module or "", False)]
        yield from (Import(file, node.lineno, name, own, late) for name, own in names)


def _members(parts: list[str], names: list[str]) -> list[tuple[str, bool]]:
    """`from package import name` means the modules of these names; from a module, the module."""
    path = [part for part in parts if part]
    return [(".".join([*path, name] if not path else path), True) for name in names]


def _ancestors(node: ast.AST) -> Iterator[ast.AST]:
    while (node := getattr(node, "parent", None)) is not None:  # type: ignore[assignment]
        yield node


def _in_function(node: ast.AST) -> bool:
    return any(isinstance(above, ast.FunctionDef | ast.AsyncFunctionDef) for above in _ancestors(node))


def _for_checkers(node: ast.AST) -> bool:
    return any(isinstance(above, ast.If) and "TYPE_CHECKING" in ast.unparse(above.test) for above in _ancestors(node))


@functools.cache
def every() -> tuple[Import, ...]:
    """The imports of all files."""
    return tuple(found for file in FILES for found in imports(file))


def test_the_reader_finds_imports() -> None:
    assert len(FILES) > 30 and len(every()) > 200
    assert any(i.own and i.module == "core.setup" for i in imports(PACKAGE / "core" / "searching.py"))
    assert any(i.own and i.top == "networks" for i in imports(PACKAGE / "models" / "model.py"))
    assert any(i.top == "converters" and i.late for i in imports(PACKAGE / "models" / "loading.py"))


def test_the_table_is_of_all_rooms_and_has_no_circle() -> None:
    assert set(MAY_IMPORT) == {room(file) for file in FILES} - {"__init__"}
    below: set[str] = set()
    for name, may in MAY_IMPORT.items():
        assert may <= below, f"{name} stands in front of {sorted(may - below)}"
        below.add(name)


def test_every_arrow_of_the_table_is_there() -> None:
    drawn = {(room(i.file), i.top) for i in every() if i.own}
    unused = [f"{name} -> {other}" for name, may in MAY_IMPORT.items() for other in sorted(may) if (name, other) not in drawn]
    assert not unused, "; ".join(unused)


def test_the_core_stands_alone() -> None:
    standard = sys.stdlib_module_names
    found = {i.top for i in every() if room(i.file) == "core" and not i.own} - standard
    assert found <= CORE_STANDS_ON, sorted(found - CORE_STANDS_ON)
    code = (
        "import sys, quam_jax.core; "
        "print(sorted({m.split('.')[1] for m in sys.modules if m.startswith('quam_jax.')}), "
        "[m for m in ('flax', 'yaml', 'nibabel', 'scipy.ndimage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.stdout.strip() == "['core', 'version'] []", done.stdout + done.stderr


def test_nothing_imports_the_root_from_within() -> None:
    wrong = [i.where for i in every() if i.own and i.module in ("", "__version__", "quam_jax") and room(i.file) != "__init__"]
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_rooms_import_only_what_they_may(name: str) -> None:
    wrong = [
        f"{i.where} imports {i.module}"
        for i in every()
        if room(i.file) == name and i.own and i.top not in MAY_IMPORT[name] | {name}
    ]
    assert not wrong, f"{name} may import {sorted(MAY_IMPORT[name]) or 'nothing of ours'}: {'; '.join(wrong)}"


def test_computations_know_neither_files_nor_figures() -> None:
    wrong = [f"{i.where} imports {i.module}" for i in every() if room(i.file) in PURE and not i.own and i.top in NO_FILES]
    assert not wrong, "; ".join(wrong)


def test_nothing_imports_another_framework_or_what_is_beside_the_package() -> None:
    wrong = [f"{i.where} imports {i.module}" for i in every() if not i.own and i.top in NEVER]
    assert not wrong, "; ".join(wrong)


def test_converters_are_reached_late_and_from_one_room() -> None:
    found = [i for i in every() if not i.own and i.top == "converters"]
    wrong = [f"{i.where} imports {i.module}" for i in found if room(i.file) not in MAY_CONVERT or not i.late]
    assert found and not wrong, "; ".join(wrong)


def test_few_rooms_know_how_a_search_is_laid_out() -> None:
    wrong = [i.where for i in every() if i.own and i.module.startswith("core.layout") and room(i.file) not in MAY_LAY_OUT]
    assert not wrong, "; ".join(wrong)


def test_figures_are_imported_late() -> None:
    wrong = [f"{i.where} imports {i.module}" for i in every() if not i.own and i.top == "matplotlib" and not i.late]
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize("module", ["quam_jax", "quam_jax.case.quantify", "quam_jax.published.combination", "quam_jax.cli"])
def test_importing_brings_in_neither_torch_nor_matplotlib(module: str) -> None:
    heavy = ("torch", "matplotlib", "tensorflow", "converters")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in quam_jax.__all__:
        assert getattr(quam_jax, name) is not None


BENCHMARKS = sorted((PACKAGE.parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_what_benchmarks_import_is_there(file: Path) -> None:
    """They import late and run seldom, so that nobody would notice for weeks."""
    own = ("quam_jax", "converters")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in own:
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), f"{node.module}.{name}"
