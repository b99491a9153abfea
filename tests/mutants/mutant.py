"""One changed token, and the tests that must fail with it."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent


class Mutant(NamedTuple):
    """`before` stands once in `file` (below the root) and becomes `after`; `tests` must notice (ids of pytest)."""

    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def changed(self, text: str) -> str:
        """The file's text with the change; ValueError where it does not stand there exactly once."""
        if (found := text.count(self.before)) != 1:
            raise ValueError(f"{self.file}: expected {self.before!r} once, found it {found} times")
        return text.replace(self.before, self.after)


def room(folder: str, *rows: tuple[str, ...]) -> tuple[Mutant, ...]:
    """Mutants of the files in one folder of the package: each row is file, before, after, and tests below `tests/test_`."""
    return tuple(
        Mutant(f"quam_jax/{folder}/{file}", before, after, tuple(f"tests/test_{test}" for test in tests))
        for file, before, after, *tests in rows
    )
