"""Where an imported graph can be cut into a frozen trunk and a moving tail behind a single activation."""

from collections.abc import Mapping, Sequence
from typing import Any

from quam_jax.networks.graph.program import Program, Weight, parse, references
from quam_jax.networks.graph.run import SIZES, Blank, abstract_sizes, asks_image_size, inputs, split_at

HEAD_KERNELS = 3  # more convolutions than that behind the last single activation are no head
BLOCK_PART = 0.5  # nor is a tail with more than this part of all convolutions a last block


def find_cuts(
    lines: tuple[str, ...], weights: Mapping[str, Any], example: Sequence[int]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """`head` and `last_block` of a graph where it has them: cut, node, image pixels an activation's entry.

    The head is the shortest tail behind a single activation that holds a kernel (a weight of two axes or more); the last
    block is the next longer one that starts where branches join.
    """
    program = parse(lines)
    shapes = abstract_sizes(program, weights, Blank(tuple(example)), program.nodes)
    ranks = {name: value.array.ndim for name, value in weights.items()}
    total = len(_kernels(program.nodes, ranks))
    cuts: list[tuple[str, str, tuple[int, ...]]] = []
    head = 0
    for name, joins in _gates(program):
        shape = shapes[name].shape if isinstance(shapes[name], Blank) else ()
        if len(shape) < 3 or shape[0] != example[0]:
            continue
        count = len(_kernels(split_at(lines, name).behind, ranks))
        if count == 0 or count > max(BLOCK_PART * total, HEAD_KERNELS if not cuts else 0) or (not cuts and count > HEAD_KERNELS):
            if count:
                break
            continue
        scale: tuple[int, ...] = ()
        if asks_image_size(lines, name):
            if len(shape) != len(example) or any(n % m for n, m in zip(example[2:], shape[2:], strict=True)):
                continue
            scale = tuple(n // m for n, m in zip(example[2:], shape[2:], strict=True))
        if not cuts:
            cuts.append(("head", name, scale))
            head = count
        elif count > head and joins:
            cuts.append(("last_block", name, scale))
            break
    return cuts


def _kernels(nodes: Sequence[Any], ranks: Mapping[str, int]) -> set[str]:
    found = {r.name for n in nodes for r in references([*n.args, n.kwargs]) if isinstance(r, Weight)}
    return {name for name in found if ranks[name] >= 2}


def _gates(program: Program) -> list[tuple[str, bool]]:
    """The nodes through which every path from image to logits goes, last first, and whether branches join in them."""
    follows = {program.image}
    for node in program.nodes:
        if node.op not in SIZES and any(r.name in follows for r in inputs(node)):
            follows.add(node.name)
    leads = {program.output}
    for node in reversed(program.nodes):
        if node.name in leads and node.op not in SIZES:
            leads.update(r.name for r in inputs(node))
    path = [n for n in program.nodes if n.name in follows and n.name in leads]
    place = {program.image: -1} | {n.name: i for i, n in enumerate(path)}
    reach = [0] * (len(path) + 1)  # the farthest node that anything up to a place feeds
    for i, node in enumerate(path):
        for r in inputs(node):
            if r.name in place:
                reach[place[r.name] + 1] = max(reach[place[r.name] + 1], i)
    gates, farthest = [], 0
    for i, node in enumerate(path):
        farthest = max(farthest, reach[i])  # fed by the nodes before this one
        if farthest <= i:
            gates.append((node.name, len({r.name for r in inputs(node) if r.name in place}) > 1))
    return gates[::-1]
