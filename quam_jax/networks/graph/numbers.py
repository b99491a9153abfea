"""Numbers of imported graphs, sizes mostly, which a graph computes while it is traced."""

import math
from typing import Any

from .arithmetic import NUMBERS
from .values import OPERATIONS, register, shape

OPERATIONS.update({f"size.{_name}": _function for _name, _function in NUMBERS.items()})


@register("size.item")
def take_item(values: Any, index: int) -> Any:
    """An entry of a list."""
    return values[index]


@register("sym_size")
def size_of(x: Any, dim: int) -> int:
    """The length of an axis."""
    return shape(x)[dim]


@register("sym_numel", "numel")
def count_entries(x: Any) -> int:
    """The number of entries."""
    return math.prod(shape(x))
