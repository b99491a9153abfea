"""Running a graph, whole or in two parts: in front of a node and behind it."""

import base64
import functools
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...core.network import are_blocks_recomputed
from . import convolution, creation, elementwise, entries, norms, numbers, pooling, products, resize, shapes
from .fold import convolve_normalised, find_folds
from .program import Node, Program, Ref, Weight, parse, references
from .values import OPERATIONS, is_array, register

SIZES = ("sym_size", "sym_numel", "numel")
TABLES = (
    convolution,
    creation,
    elementwise,
    entries,
    norms,
    numbers,
    pooling,
    products,
    resize,
    shapes,
)  # importing them fills OPERATIONS


class Blank(NamedTuple):
    """An array of which only the shape is known: all that a tail may ask of the image."""

    shape: tuple[int, ...]


class Split(NamedTuple):
    """The nodes of a program in front of a cut and behind it."""

    front: tuple[Node, ...]
    behind: tuple[Node, ...]


@register("tensor")
def constant(dtype: str, size: Sequence[int], values: Any) -> Any:
    """A constant: its entries as a list, or their bytes, compressed, in base64."""
    if isinstance(values, str):
        count = math.prod(size) * np.dtype(dtype).itemsize  # and not a byte more, whatever a file says
        values = np.frombuffer(zlib.decompressobj().decompress(base64.b64decode(values), count), dtype)
    return jnp.asarray(np.asarray(values, dtype).reshape(size).astype(elementwise.DTYPES[dtype]))


def operation_of(packet: str, overload: str) -> str | None:
    """The name under which an ATen operation is known here, None if it is not."""
    return next((n for n in (f"{packet}.{overload}", packet) if n in OPERATIONS), None)


@functools.lru_cache(maxsize=64)
def split_at(lines: tuple[str, ...], cut: str) -> Split:
    """The nodes needed in front of a node and behind it; ValueError where more than that node's value is needed behind."""
    program = parse(lines)
    nodes = {n.name: n for n in program.nodes}

    def needed(output: str, *, through_sizes: bool) -> set[str]:
        found: set[str] = set()
        open_ = [output]
        while open_:
            name = open_.pop()
            if name in nodes and name not in found and (through_sizes or name != cut):
                found.add(name)
                if through_sizes or nodes[name].op not in SIZES:
                    open_ += [r.name for r in inputs(nodes[name])]
        return found

    behind = needed(program.output, through_sizes=False)
    moving = _followers(program, cut)
    leak = sorted(behind & _followers(program, program.image) - moving)
    if leak:
        raise ValueError(f"graph: {leak[0]} is needed behind {cut} too")
    front = needed(cut, through_sizes=True)
    return Split(tuple(n for n in program.nodes if n.name in front), tuple(n for n in program.nodes if n.name in behind))


def asks_image_size(lines: tuple[str, ...], cut: str) -> bool:
    """Whether what is behind a cut needs sizes that the activation at the cut does not have itself."""
    known = _followers(parse(lines), cut) | {cut}
    return any(n.op in SIZES and any(r.name not in known for r in inputs(n)) for n in split_at(lines, cut).behind)


def _followers(program: Program, start: str) -> set[str]:
    """The nodes that hold something of a node's values, sizes left out."""
    found = {start}
    for node in program.nodes:
        if node.op not in SIZES and any(r.name in found for r in inputs(node)):
            found.add(node.name)
    return found - {start}


def inputs(node: Node) -> list[Ref]:
    """The nodes whose values a node takes."""
    return [r for r in references([*node.args, *node.kwargs.values()]) if isinstance(r, Ref)]


def run(
    program: Program, weights: Mapping[str, Any], values: dict[str, Any], nodes: Sequence[Node], *, fold: bool = True
) -> dict[str, Any]:
    """Run nodes in order, adding their values to those that are given; ValueError names the node that fails.

    A convolution that only a normalisation needs has no value of its own unless `fold` is off. Inside `recomputed_blocks` the
    nodes are cut into about as many pieces as each has nodes, and arrays inside a piece have no value of their own either.
    """
    folds = find_folds(program, nodes, values) if fold else {}
    inside = {convolution.name for convolution in folds.values()}
    left = [node for node in nodes if node.name not in values and node.name not in inside]
    if not (fold and are_blocks_recomputed()):
        return _run(left, folds, weights, values)
    size = max(1, math.isqrt(len(left)))
    for start in range(0, len(left), size):
        behind = {r.name for node in left[start + size :] for r in _inputs(node, folds)} | {nodes[-1].name, program.output}
        _run_again(left[start : start + size], folds, weights, values, behind)
    return values


def _run_again(
    piece: Sequence[Node], folds: Mapping[str, Node], weights: Mapping[str, Any], values: dict[str, Any], behind: set[str]
) -> None:
    """Add the values of a piece that is run again in the backward pass: sizes, and the arrays that are needed behind it."""
    found: dict[str, Any] = {}

    def arrays() -> dict[str, Any]:
        new = _run(piece, folds, weights, dict(values))
        found.update({node.name: new[node.name] for node in piece if node.name in behind})
        return {name: [a for a in jax.tree.leaves(value) if is_array(a)] for name, value in found.items()}

    for name, leaves in jax.checkpoint(arrays)().items():
        given = iter(leaves)
        values[name] = jax.tree.map(lambda leaf, given=given: next(given) if is_array(leaf) else leaf, found[name])


def _inputs(node: Node, folds: Mapping[str, Node]) -> list[Ref]:
    return inputs(node) + (inputs(folds[node.name]) if node.name in folds else [])


def _run(nodes: Sequence[Node], folds: Mapping[str, Node], weights: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    for node in nodes:
        function = OPERATIONS.get(node.op)
        if function is None:
            raise ValueError(f"graph: {node.name}: unknown operation {node.op}" + _where(node))
        args, kwargs = _fill(list(node.args[node.name in folds :]), values, weights), _fill(node.kwargs, values, weights)
        if node.name in folds:
            function, args = convolve_normalised, [_fill(list(folds[node.name].args), values, weights), args]
        try:
            values[node.name] = function(*args, **kwargs)
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, zlib.error) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"graph: {node.name} = {node.op}(...){_where(node)} does not work on these images: {reason}"
            ) from error
    return values


def _where(node: Node) -> str:
    return f" in {node.where}" if node.where else ""


def _fill(value: Any, values: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, Weight):
        if value.name not in weights:
            raise ValueError(f"graph: no weight {value.name}")
        return weights[value.name]
    if isinstance(value, list):
        return [_fill(v, values, weights) for v in value]
    if isinstance(value, dict):
        return {k: _fill(v, values, weights) for k, v in value.items()}
    return value


def abstract_sizes(program: Program, weights: Mapping[str, Any], image: Blank, nodes: Sequence[Node]) -> dict[str, Any]:
    """The sizes, and the shapes of the arrays, that nodes have for an image of a shape, without computing a number."""
    found: dict[str, Any] = {}

    def trace(x: jax.Array) -> None:
        for name, value in run(program, weights, {program.image: x}, nodes, fold=False).items():
            found[name] = Blank(shapes.shape(value)) if is_array(value) else value

    jax.eval_shape(trace, jax.ShapeDtypeStruct(image.shape, jnp.float32))
    return found
