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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .arithmetic import check_number, condition_text, evaluate_size

SPACE = ("d", "h", "w")
WORDS = {"inf": math.inf, "nan": math.nan}
_UNREADABLE = (  # all that reading a line may raise
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    MemoryError,
    OverflowError,
)
NESTING = 16  # lists inside each other in an argument


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
            (statement,) = ast.parse(line).body
            if isinstance(statement, ast.Return):
                output = _read(statement.value, nodes).name
            elif isinstance(statement, ast.Expr):
                checks.append(_read_check(statement.value, sizes))
            else:
                node = _read_node(statement, nodes, where=line.partition("  # ")[2])
                nodes[node.name] = node
                if node.op == "input":
                    image, sizes = node.name, _read_sizes(node)
        except _UNREADABLE as error:
            shown = " ".join(str(line)[:100].split())
            raise ValueError(f"graph: line {number} cannot be read ({str(error)[:200]}): {shown}") from error
    if not image or not output:
        raise ValueError("graph: expected an image = input(...) line and a return line")
    return Program(image, sizes, tuple(checks), tuple(n for n in nodes.values() if n.op != "input"), output)


def _read_check(call: Any, sizes: Sequence[int | str]) -> str:
    if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check" and not call.keywords):
        raise TypeError("neither a node nor a check")
    (condition,) = call.args
    text = condition_text(condition)
    evaluate_size(text, {n: None for n in sizes if isinstance(n, str)})  # what does not depend on sizes is tried now
    return text


def _read_sizes(node: Node) -> tuple[int | str, ...]:
    known = ("b", "i", *SPACE)
    if not all(n in known if isinstance(n, str) else isinstance(n, int) and n > 0 for n in node.args) or node.kwargs:
        raise TypeError(f"expected sizes > 0 or letters among {', '.join(known)}")
    return node.args


def _read_node(statement: Any, known: Mapping[str, Node], *, where: str) -> Node:
    (target,), call = statement.targets, statement.value
    op = ast.unparse(call.func)
    kwargs = {k.arg: _read(k.value, known) for k in call.keywords}
    return Node(target.id, op, tuple(_read(a, known) for a in call.args), kwargs, where)


def _read(value: Any, known: Mapping[str, Node], *, depth: int = 0) -> Any:
    if depth > NESTING:
        raise TypeError(f"expected up to {NESTING} lists inside each other")
    match value:
        case ast.Constant():
            return check_number(value.value) if isinstance(value.value, int) else value.value
        case ast.List() | ast.Tuple():
            return [_read(v, known, depth=depth + 1) for v in value.elts]
        case ast.UnaryOp(op=ast.USub()):
            return -_read(value.operand, known, depth=depth + 1)
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
