"""The list of mutants fits the code: each changes one place that is there, and names tests that are there."""

import ast
from collections import Counter

import pytest

from tests.mutants.listed import MUTANTS
from tests.mutants.mutant import ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{m.file}:{n}" for n, m in enumerate(MUTANTS)])
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    changed = mutant.changed(text)
    assert changed != text
    ast.parse(changed)
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text(), test


def test_they_are_many_and_everywhere() -> None:
    assert len(MUTANTS) >= 240 and len(set(MUTANTS)) == len(MUTANTS)
    rooms = Counter(mutant.file.split("/")[1] for mutant in MUTANTS)
    assert {"core", "targets", "models", "case", "data", "evaluation"} <= rooms.keys()
    assert min(rooms[room] for room in ("core", "case", "data", "targets", "evaluation")) >= 20


def test_a_change_that_is_not_there_once_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'a' once, found it 2 times"):
        Mutant("x.py", "a", "b", ()).changed("a a")
