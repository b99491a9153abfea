"""Arithmetic of sizes: the numbers that an imported graph computes of the sides of images, and its conditions on them.

A graph file comes from elsewhere, so what a line of it costs is bounded: whole numbers are those of 64 bits, as sizes in
PyTorch are, powers and conditions have a largest size. Beyond the bounds, and where a number does not exist, there is a
ValueError; `10**10**7` is one at once.
"""

import ast
import functools
import math
import operator
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LARGEST = 2**63  # the size of a whole number
EXPONENT = 64  # the size of an exponent
DIGITS = 18  # places that are rounded to
LENGTH = 10_000  # characters of a condition
TERMS = 2_000  # numbers, sizes and operations of a condition
DEPTH = 100  # operations inside each other


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > EXPONENT:
        raise ValueError(f"expected an exponent up to {EXPONENT}")
    return base**exponent


def _round(number: float, digits: int | None = None) -> float:
    if digits is not None and abs(digits) > DIGITS:
        raise ValueError(f"expected up to {DIGITS} digits")
    return round(number, digits)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "truediv": operator.truediv,
    "neg": operator.neg,
    "pow": _power,
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
    "round": _round,
    "sqrt": math.sqrt,
    "sym_sqrt": math.sqrt,
    "_sym_sqrt": math.sqrt,
    "sym_ite": lambda c, a, b: a if c else b,
    "abs": abs,
}
_CALLED = ("max", "min", "abs", "int", "float", "round", "ceil", "floor", "trunc", "sqrt")  # by name in a condition
_SIGNS: dict[type, str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "floordiv",
    ast.Div: "truediv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.USub: "neg",
    ast.Not: "not_",
}


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers with a ValueError for every result that is no number within the bounds."""

    def call(*values: Any) -> Any:
        try:
            return check_number(function(*map(check_number, values)))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{name} of {', '.join(map(reprlib.repr, values[:4]))}: {error}") from None

    return call


def check_number(value: Any) -> Any:
    """A number as it is; ValueError where it is none, or a whole one of more than 64 bits."""
    if not isinstance(value, int | float):
        raise ValueError(f"expected a number, got a {type(value).__name__}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"expected whole numbers up to 2**{LARGEST.bit_length() - 1}, got one of {value.bit_length()} bits")
    return value


NUMBERS = {name: _bounded(name, function) for name, function in _FUNCTIONS.items()}


def evaluate_size(condition: str, sizes: Mapping[str, int | None]) -> Any:
    """The value of an arithmetic expression of sizes; None where it depends on a size that is None, not known yet.

    ValueError on anything that is not arithmetic, has no value, or exceeds the bounds of this module.
    """
    try:
        return _evaluate(read_condition(condition), sizes)
    except ValueError as error:
        raise ValueError(f"graph: the condition {condition[:100]} cannot be used: {error}") from None


@functools.lru_cache(maxsize=4096)
def read_condition(text: str) -> ast.expr:
    """The expression of a text; ValueError where it is none, or exceeds the bounds of this module."""
    if len(text) > LENGTH:
        raise ValueError(f"expected up to {LENGTH} characters, got {len(text)}")
    try:
        expression = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"expected an expression, got {type(error).__name__}") from None
    _check_bounds(expression)
    return expression


def condition_text(expression: ast.expr) -> str:
    """An expression as text; ValueError where it exceeds the bounds of this module."""
    _check_bounds(expression)
    text = ast.unparse(expression)
    if len(text) > LENGTH:
        raise ValueError(f"expected a condition of up to {LENGTH} characters, got {len(text)}")
    return text


def _check_bounds(expression: ast.AST) -> None:
    """ValueError for too many terms, too deep ones, or literals that are too large."""
    for count, (node, depth) in enumerate(_nodes(expression), start=1):
        if count > TERMS or depth > DEPTH:
            raise ValueError(f"expected up to {TERMS} terms, {DEPTH} inside each other")
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            check_number(node.value)


def _nodes(expression: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    """An expression and all below it, with how deep they are; not by recursion, which has bounds of its own."""
    open_ = [(expression, 1)]
    while open_:
        node, depth = open_.pop()
        if isinstance(node, ast.expr):
            yield node, depth
        open_ += [(child, depth + isinstance(child, ast.expr)) for child in ast.iter_child_nodes(node)]


def _evaluate(node: ast.expr, sizes: Mapping[str, int | None]) -> Any:
    match node:
        case ast.Constant(value=int() | float()):
            return node.value
        case ast.Name() if node.id in sizes:
            return sizes[node.id]
        case ast.BinOp() if type(node.op) in _SIGNS:
            return _apply(_SIGNS[type(node.op)], (node.left, node.right), sizes)
        case ast.UnaryOp() if type(node.op) in _SIGNS:
            return _apply(_SIGNS[type(node.op)], (node.operand,), sizes)
        case ast.BoolOp():
            parts = [_evaluate(v, sizes) for v in node.values]
            return None if None in parts else all(parts) if isinstance(node.op, ast.And) else any(parts)
        case ast.Compare() if all(type(op) in _SIGNS for op in node.ops):
            values = [_evaluate(v, sizes) for v in (node.left, *node.comparators)]
            pairs = zip(node.ops, values, values[1:], strict=False)
            return None if None in values else all(NUMBERS[_SIGNS[type(op)]](a, b) for op, a, b in pairs)
        case ast.Call(keywords=[]):
            name = ast.unparse(node.func).removeprefix("math.")
            if name in _CALLED:
                return _apply(name, node.args, sizes)
    raise ValueError(f"no arithmetic of sizes: {ast.unparse(node)[:100]}")


def _apply(name: str, operands: Any, sizes: Mapping[str, int | None]) -> Any:
    values = [_evaluate(v, sizes) for v in operands]
    return None if None in values else NUMBERS[name](*values)
