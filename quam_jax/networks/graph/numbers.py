"""Numbers of imported graphs, sizes mostly: Python's own arithmetic, which a graph does while it is traced."""

import math
import operator
from collections.abc import Callable
from typing import Any

from .values import OPERATIONS, register, shape

_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "truediv": operator.truediv,
    "neg": operator.neg,
    "pow": operator.pow,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "and_": operator.and_,
    "or_": operator.or_,
    "not_": operator.not_,
    "sym_not": operator.not_,
    "sym_max": max,
    "sym_min": min,
    "max": max,
    "min": min,
    "sym_int": int,
    "sym_float": float,
    "float": float,
    "int": int,
    "trunc": math.trunc,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "sqrt": math.sqrt,
    "sym_sqrt": math.sqrt,
    "_sym_sqrt": math.sqrt,
    "sym_ite": lambda c, a, b: a if c else b,
    "abs": abs,
}

for _name, _function in _NUMBERS.items():
    OPERATIONS[f"size.{_name}"] = _function


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
