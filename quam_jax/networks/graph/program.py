"""The text form of an imported network: one line a node, `name = operation(arguments)  # module path`.

Arguments are names of earlier nodes, weights (`weight['encoder.conv.weight']`), numbers, strings, None and lists of these;
this is a small part of Python's expression grammar, so Python's parser reads it, but nothing of it is ever evaluated. The
first line declares the image with its sizes, `image = input('b', 3, 'h', 'w')`, a letter for a size that is free and a
number for a fixed one; `check(...)` lines hold the conditions on free sizes under which the graph is valid; the last line
returns the logits. The operations are those of PyTorch's ATen library by their names there; `size.` ones are Python's own.
"""

import ast
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

SPACE = ("d", "h", "w")
WORDS = {"inf": math.inf, "nan": math.nan}
_ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "max": max,
    "min": min,
    "abs": abs,
    "int": int,
    "float": float,
    "round": round,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "sqrt": math.sqrt,
}


class Ref(NamedTuple):
    """The value of an earlier node."""

    name: str


class Weight(NamedTuple):
    """A parameter or statistic by its original name."""

    name: str


class Node(NamedTuple):
    """One operation; `where` is the path of the PyTorch module that it came from."""

    name: str
    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    where: str


class Program(NamedTuple):
    """A parsed graph: nodes in order, the image's name and sizes, conditions on the sizes, the name of the logits."""

    image: str
    sizes: tuple[int | str, ...]
    checks: tuple[str, ...]
    nodes: tuple[Node, ...]
    output: str


def references(value: Any) -> Iterator[Ref | Weight]:
    """The nodes and weights that an argument mentions."""
    if isinstance(value, Ref | Weight):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from references(part)
    elif isinstance(value, dict):
        yield from references(list(value.values()))


def write_node(node: Node) -> str:
    """The line of a node."""
    arguments = [write_value(a) for a in node.args] + [f"{k}={write_value(v)}" for k, v in node.kwargs.items()]
    return f"{node.name} = {node.op}({', '.join(arguments)})" + (f"  # {node.where}" if node.where else "")


def write_value(value: Any) -> str:
    """An argument as text."""
    if isinstance(value, Ref):
        return value.name
    if isinstance(value, Weight):
        return f"weight[{value.name!r}]"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write_value, value))}]"
    return repr(value)


@functools.lru_cache(maxsize=64)
def parse(lines: tuple[str, ...]) -> Program:
    """The program of its lines; ValueError on the first line that is not of the form above."""
    nodes: dict[str, Node] = {}
    image, sizes, checks, output = "", (), [], ""
    for number, line in enumerate(lines, start=1):
        try:
            statement = ast.parse(line).body[0]
            if isinstance(statement, ast.Return):
                output = _read(statement.value, nodes).name
            elif isinstance(statement, ast.Expr):
                call = statement.value
                if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check"):
                    raise TypeError("neither a node nor a check")
                checks.append(ast.unparse(call.args[0]))
            else:
                node = _read_node(statement, nodes, where=line.partition("  # ")[2])
                nodes[node.name] = node
                if node.op == "input":
                    image, sizes = node.name, node.args
        except (SyntaxError, TypeError, AttributeError, IndexError, KeyError, RecursionError) as error:
            raise ValueError(f"graph: line {number} cannot be read ({error}): {line[:100]}") from error
    if not image or not output:
        raise ValueError("graph: expected an image = input(...) line and a return line")
    return Program(image, sizes, tuple(checks), tuple(n for n in nodes.values() if n.op != "input"), output)


def _read_node(statement: Any, known: Mapping[str, Node], *, where: str) -> Node:
    (target,), call = statement.targets, statement.value
    op = ast.unparse(call.func)
    kwargs = {k.arg: _read(k.value, known) for k in call.keywords}
    return Node(target.id, op, tuple(_read(a, known) for a in call.args), kwargs, where)


def _read(value: Any, known: Mapping[str, Node]) -> Any:
    match value:
        case ast.Constant():
            return value.value
        case ast.List() | ast.Tuple():
            return [_read(v, known) for v in value.elts]
        case ast.UnaryOp(op=ast.USub()):
            return -_read(value.operand, known)
        case ast.Subscript(value=ast.Name(id="weight")):
            return Weight(value.slice.value)  # type: ignore[attr-defined]
        case ast.Name():
            if value.id in WORDS:
                return WORDS[value.id]
            if value.id not in known:
                raise KeyError(f"no node {value.id}")
            return Ref(value.id)
    raise TypeError(f"{ast.unparse(value)} is no argument")


def bind_sizes(program: Program, shape: Sequence[int]) -> dict[str, int]:
    """The free sizes for an image shape `[b i *space]`; ValueError, with the sizes of the export, where it cannot be."""
    fixed = [f"{n}" for n in program.sizes]
    wanted = f"expected images [{' '.join(fixed)}] (batch, channels, space), as the network was exported"
    if len(shape) != len(program.sizes) or any(isinstance(n, int) and n != m for n, m in zip(program.sizes, shape, strict=True)):
        raise ValueError(f"graph: {wanted}, got {list(shape)}")
    sizes = {n: m for n, m in zip(program.sizes, shape, strict=True) if isinstance(n, str)}
    for check in program.checks:
        # the exporter never looks at batches of one, so its conditions speak of two and more
        if not evaluate_size(check, {n: max(m, 2) if n == "b" else m for n, m in sizes.items()}):
            raise ValueError(f"graph: {wanted}, with {check}; got {list(shape)}")
    return sizes


def evaluate_size(expression: str, sizes: Mapping[str, int]) -> Any:
    """The value of an arithmetic expression of sizes; ValueError on anything that is not arithmetic."""
    return _evaluate(_expression(expression), sizes)


@functools.lru_cache(maxsize=4096)
def _expression(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"graph: cannot read the condition {text[:100]}") from error


def _evaluate(node: ast.expr, sizes: Mapping[str, int]) -> Any:
    match node:
        case ast.Constant(value=int() | float()):
            return node.value
        case ast.Name() if node.id in sizes:
            return sizes[node.id]
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](_evaluate(node.left, sizes), _evaluate(node.right, sizes))
        case ast.UnaryOp() if type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](_evaluate(node.operand, sizes))
        case ast.BoolOp():
            parts = [_evaluate(v, sizes) for v in node.values]
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        case ast.Compare() if all(type(op) in _ARITHMETIC for op in node.ops):
            values = [_evaluate(v, sizes) for v in (node.left, *node.comparators)]
            return all(_ARITHMETIC[type(op)](a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False))
        case ast.Call():
            name = ast.unparse(node.func).removeprefix("math.")
            if name in _CALLS:
                return _CALLS[name](*(_evaluate(a, sizes) for a in node.args))
    raise ValueError(f"graph: no arithmetic of sizes: {ast.unparse(node)}")
