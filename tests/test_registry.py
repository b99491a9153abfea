"""What the files of a package declare: names without importing, and every record once."""

import subprocess
import sys
from pathlib import Path

import pytest

from quam_jax import registry
from quam_jax.config import REGION_KINDS, WANTED_MASKS
from quam_jax.networks import NETWORKS, Architecture, added
from quam_jax.registry import collect, kinds_in


def package(folder: Path, name: str, **files: str) -> Path:
    """A package with these modules, to be found in `folder`."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    for module, text in files.items():
        (folder / name / f"{module}.py").write_text(text)
    return folder / name


RECORD = """
from typing import NamedTuple


class Record(NamedTuple):
    name: str


RECORDS = {records}
"""


def test_records_of_all_modules_are_sorted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = RECORD.format(records='(Record("pear"), Record("apple"))'), RECORD.format(records='(Record("fig"),)')
    path = package(tmp_path, "fruits_of_test", one=one, two=two, helpers="VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = collect("fruits_of_test", [str(path)], attribute="RECORDS")
    assert list(found) == ["apple", "fig", "pear"] and found["fig"].name == "fig"


def test_two_records_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (RECORD.format(records='(Record("pear"),)') for _ in range(2))
    path = package(tmp_path, "twins_of_test", one=one, two=two)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match="twins_of_test: expected one of RECORDS named 'pear', got one in one.py and one in two.py"
    ):
        collect("twins_of_test", [str(path)], attribute="RECORDS")


def test_kinds_stand_in_their_places_and_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = "raise RuntimeError('imported')\n"
    package(
        tmp_path,
        "kinds",
        early=f'"""Zeros of all."""\n\nPLACE = 2\n{fails}',
        first=f'"""A first one.\n\nMore of it."""\n\nPLACE = 1\n{fails}',
        late=f'"""Without a place."""\n{fails}',
        _shared=fails,
    )
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    found = kinds_in("kinds")
    assert list(found.items()) == [("first", "a first one"), ("early", "zeros of all"), ("late", "without a place")]
    (tmp_path / "kinds" / "silent.py").write_text("PLACE = 3\n")
    with pytest.raises(ValueError, match="silent.py: expected a docstring that says what it is, got none"):
        kinds_in("kinds")


def test_the_kinds_of_this_package() -> None:
    assert list(WANTED_MASKS) == ["dilate", "erode", "all_one", "all_zero", "alternating", "random", "other_class"]
    assert list(REGION_KINDS.values()) == [
        "square tiles",
        "connected components of each class",
        "segments of the boundary band",
        "super-pixels",
        "tiles of several sizes",
    ]
    code = "import sys, quam_jax.config; print([name for name in ('jax', 'numpy', 'scipy', 'skimage') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_architecture_is_known_inside_a_block() -> None:
    mine = Architecture("mine", object)
    with added(mine):
        with added(mine):  # blocks may be nested
            assert NETWORKS["mine"] is mine
        assert "mine" in NETWORKS
        with (
            pytest.raises(ValueError, match="'mine': expected a name that no other has, got that of object"),
            added(Architecture("mine", int)),
        ):
            pass
    assert "mine" not in NETWORKS
    with (
        pytest.raises(ValueError, match="'unet': expected a name that no other has, got that of UNet"),
        added(Architecture("unet", int)),
    ):
        pass
