"""Numbers made by the published PyTorch code, compared section by section: `pytest tests/test_golden.py --golden DIR`.

A module of `golden_sections` says which cases of its section a folder holds, checks one of them, and names what it does
not check. Whatever the folder holds beyond that is reported as skipped, so that nothing passes unseen. The small folder
`tests/golden` is the default.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

from tests import golden_sections


def _sections() -> dict[str, ModuleType]:
    modules = (
        importlib.import_module(f"{golden_sections.__name__}.{found.name}")
        for found in pkgutil.iter_modules(golden_sections.__path__)
    )
    return {module.__name__.rsplit(".", 1)[-1]: module for module in modules if hasattr(module, "check")}


SECTIONS = _sections()


def _index(module: ModuleType) -> str:
    """The file without which a folder has nothing of a section."""
    return getattr(module, "INDEX", None) or f"{module.FOLDER}/index.json"


def _claimed() -> set[str]:
    """Paths that a section answers for, without suffixes."""
    names = (name for module in SECTIONS.values() for name in getattr(module, "COVERED", None) or (module.FOLDER,))
    return {name.removesuffix(Path(name).suffix) for name in names}


def _uncovered(golden: Path) -> list[str]:
    """Folders, or parts of a folder that sections share, that no section answers for; and what sections leave out."""
    claimed, found = _claimed(), []
    for folder in sorted(path for path in golden.iterdir() if path.is_dir() and path.name not in claimed):
        if any(name.startswith(f"{folder.name}/") for name in claimed):
            parts = {f"{folder.name}/{path.stem}" for path in folder.iterdir()} - {f"{folder.name}/index"}
            found += sorted(parts - claimed)
        else:
            found.append(folder.name)
    for name, module in SECTIONS.items():
        if (golden / _index(module)).is_file():
            found += [f"{name}: {left}" for left in module.not_covered(golden) if not left.startswith((*claimed, *found))]
    return found


def _marks(case: str) -> tuple[pytest.MarkDecorator, ...]:
    """Its hundreds of steps end in the same comparison as those of its neighbours."""
    return (pytest.mark.long,) if case.endswith("_never_feasible") else ()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    golden = Path(metafunc.config.getoption("--golden"))
    if "case" in metafunc.fixturenames:
        parameters = []
        for name, module in SECTIONS.items():
            if (golden / _index(module)).is_file():
                parameters += [pytest.param(name, case, id=f"{name}-{case}", marks=_marks(case)) for case in module.cases(golden)]
            else:
                skip = pytest.mark.skip(reason=f"{golden}: no {_index(module)}, so no numbers for {name}")
                parameters.append(pytest.param(name, "", id=name, marks=skip))
        metafunc.parametrize(("section", "case"), parameters)
    if "uncovered" in metafunc.fixturenames:
        uncovered = _uncovered(golden) if golden.is_dir() else []
        metafunc.parametrize("uncovered", uncovered or ["nothing"])


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Path:
    """The folder of golden numbers."""
    return Path(pytestconfig.getoption("--golden"))


def test_folder_holds_golden_numbers(golden: Path) -> None:
    assert golden.is_dir(), f"--golden {golden}: expected a folder of golden numbers, got nothing at this path"
    present = {name: module for name, module in SECTIONS.items() if (golden / _index(module)).is_file()}
    assert present, f"--golden {golden}: expected the index of a section, got none of {', '.join(SECTIONS)}"
    for name, module in present.items():
        assert module.cases(golden) or module.not_covered(golden), f"{golden}: {name} has no cases"


def test_numbers_of_the_published_code(golden: Path, section: str, case: str) -> None:
    SECTIONS[section].check(golden, case)


def test_what_is_not_covered_is_said(uncovered: str) -> None:
    if uncovered != "nothing":
        pytest.skip(f"not covered yet: {uncovered}")
