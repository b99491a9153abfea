"""What a file of an architecture declares of it: name, class, and how a checkpoint of it is recognised.

Names and shapes are those of a PyTorch state_dict. Names may be more than the network needs (buffers, aliases).
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


class Named:
    """Shapes by the name of the tensor, with one clear error for a name that is not there."""

    def __init__(self, architecture: str, shapes: Shapes):
        self.architecture, self.shapes = architecture, shapes

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise ValueError(f"{self.architecture}: expected a tensor {name}, got none of this name")
        return tuple(self.shapes[name])

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def count(self, pattern: str) -> int:
        """How many names there are when a running number from 0 is put in the pattern."""
        return next(n for n in itertools.count() if pattern.format(n) not in self.shapes)


def _nothing_unused(names: Iterable[str]) -> set[str]:
    return set()


@dataclass(frozen=True)
class Architecture:
    """One architecture, as its file declares it in `ARCHITECTURES`.

    `name` is used in files and on the command line, `title` in tables. `telling` is one name of a tensor that only this
    architecture has; without it weights must be given the name. `infer` reads constructor arguments off the weights, as far as
    they tell them (rates of dropout leave no trace), and raises ValueError for weights that it cannot be; without it weights
    tell none. `unused` picks the names that only training uses. `buffers` holds, by the last part of a name, what checks a table
    that the network computes itself: it gives what was expected where the value is another, else None.
    """

    name: str
    cls: Any
    title: str = ""
    telling: str | None = None
    infer: Callable[[Named], dict[str, Any]] | None = None
    unused: Callable[[Iterable[str]], set[str]] = _nothing_unused
    buffers: Mapping[str, Callable[[np.ndarray], str | None]] = field(default_factory=dict)
