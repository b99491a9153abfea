"""A run dealt out by a plain rule, without anything that shares it: part K of N takes every N-th case from the K-th on."""

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Part(NamedTuple):
    """Part `number` (from 1) of `total`."""

    number: int
    total: int

    @staticmethod
    def of(text: str) -> "Part":
        """`K/N` as a part; ValueError for anything else.

        Examples:
            >>> Part.of("3/16")
            Part(number=3, total=16)
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        part = Part(*map(int, found.groups())) if found else Part(0, 0)
        if not 1 <= part.number <= part.total:
            raise ValueError(f"--part: expected K/N with K from 1 to N, such as 3/16, got {text!r}")
        return part

    def deal(self, names: Sequence[T]) -> list[T]:
        """The cases of this part.

        Examples:
            >>> Part(2, 3).deal("abcdefg")
            ['b', 'e']
        """
        return list(names[self.number - 1 :: self.total])

    @property
    def file(self) -> str:
        """As its files are called."""
        return f"{self.number}-of-{self.total}"

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"
