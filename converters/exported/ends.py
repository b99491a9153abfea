"""What an exported graph ends in: logits, an activation that is taken off, probabilities that are turned back, or neither.

A search needs logits. Where the last operation is a softmax or a sigmoid, what goes into it is the logits; operations behind it
that only choose or move pixels do not matter. Where more was done to probabilities (they were resized, averaged), their logarithm
stands for logits: softmax(log p) = p, and sigmoid(log p - log(1 - p)) = p. An argmax or a threshold leaves nothing to search.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from quam_jax.models.outputs import BACKGROUND
from quam_jax.networks.graph.program import Node, Ref, references
from quam_jax.networks.graph.run import SIZES, inputs

from .write import IMAGE, Written

SOFTMAX = ("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax")
SIGMOID = ("sigmoid",)
LIKE_SIGMOID = ("hardsigmoid",)  # within 0 and 1 too, but not to be taken off
UNCHANGED = ("clone", "contiguous", "alias", "detach", "to", "_to_copy", "identity", "lift_fresh", "dropout")
MOVING = ("slice", "slice_copy", "flip", "roll", "upsample_nearest2d", "upsample_nearest2d.vec", "upsample_nearest3d")
# computed from what goes in alone, without weights
PLAIN = (
    *UNCHANGED,
    *MOVING,
    *("add", "sub", "rsub", "mul", "div", "pow", "sqrt", "neg", "exp", "clamp", "clamp_min", "clamp_max", "clip", "where"),
    *("mean", "mean.dim", "sum", "sum.dim_IntList", "cat", "stack", "maximum", "minimum", "max.dim", "amax", "min.dim", "amin"),
    *("permute", "movedim", "transpose", "view", "reshape", "squeeze", "unsqueeze", "expand", "select", "pad", "constant_pad_nd"),
    *("upsample_bilinear2d", "upsample_bilinear2d.vec", "upsample_trilinear3d", "upsample_trilinear3d.vec", "size.item"),
    *("split", "chunk", "unbind", "index_select", "index", "reciprocal", "avg_pool2d", "avg_pool3d", "max_pool2d", "max_pool3d"),
)
DISCRETE = (
    *("argmax", "argmin", "round", "floor", "ceil", "trunc", "sign", "sgn", "floor_divide"),
    *("eq", "ne", "not_equal", "gt", "ge", "lt", "le", "logical_not", "logical_and", "logical_or", "isnan", "isfinite"),
)
PLACES = ("max.dim", "min.dim", "topk", "sort")  # whose second value are places
LEAST = 1e-30  # of a probability whose logarithm is taken
ABOUT = 0.25  # how far from 1 the sum of sigmoids may be
NEAR = 1e-7  # how near to 0 and 1 the probability of a sigmoid may come


class End(NamedTuple):
    """The graph up to its logits; which activation was `inside` (softmax, sigmoid or none), and what a person is told of it."""

    nodes: list[Node]
    output: str
    inside: str = ""
    note: str = ""


def find_end(written: Written, values: np.ndarray) -> End:
    """The logits of a graph, of which `values` `[b c *space]` are the outputs on its example.

    ValueError, with the way out, for a graph whose output is no function to be differentiated.
    """
    nodes = {node.name: node for node in written.nodes}
    if values.dtype.kind in "bui" or not _is_differentiable(nodes, written.output):
        raise ValueError(
            "its output is decided already (argmax, rounding or a threshold at its end), which leaves nothing to search; "
            "expected logits: export the network without that step"
        )
    if written.output in nodes and nodes[written.output].op == "log_sigmoid":
        raise ValueError("its output is the logarithm of a sigmoid; expected logits: export the network without it")
    found = _strip(nodes, written.output)
    if found is not None:
        activation, kept = found
        name = "sigmoid" if activation.op in SIGMOID else "softmax"
        if name == "softmax":
            axis = activation.args[1]
            if axis % values.ndim != 1:
                raise ValueError(f"its output is a softmax over axis {axis}; expected one over the channels, axis 1")
            if values.shape[1] == 1:
                raise ValueError("its output is a softmax of one channel, which is 1 everywhere; export the network without it")
        return End(kept, _renamed(written.output, activation), name, f"the graph ends in a {name}, which was taken off: logits")
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    within = low >= -NEAR and high <= 1 + NEAR
    sums = within and values.shape[1] > 1 and bool(np.abs(values.sum(1) - 1).max() < 1e-4)
    leaves = _leaves(nodes, written.output)
    if sums:
        why = "softmax inside" if leaves & set(SOFTMAX) else "they sum to 1 over the channels"
        return _append(written, "softmax", f"the graph gives out probabilities ({why}): their logarithm is taken for logits")
    if within and leaves and leaves <= {*SOFTMAX, *SIGMOID, *LIKE_SIGMOID}:
        why = "the graph gives out probabilities (sigmoid inside): their log-odds are taken for logits"
        return _append(written, "sigmoid", why)
    note = "all values of the example's output lie between 0 and 1; they are taken for logits, not for probabilities"
    return End(written.nodes, written.output, note=note if within and np.ptp(values) > 0 else "")


def sides_text(sides: Sequence[Any]) -> str:
    """Sides as a person writes them."""
    return " x ".join(map(str, sides))


def missing_axes(found: tuple[int, ...], images: tuple[int, ...], *, name: str) -> tuple[int, ...]:
    """The channel axis, where the only channel was squeezed away; ValueError for channels last and other shapes."""
    batch, space = images[0], images[2:]
    if found == (batch, *space):
        return (1,)
    if len(found) == len(images) and found[0] == batch and found[1:-1] == space and found[2:] != space:
        raise ValueError(
            f"{name}: its output {list(found)} has the channels last; expected [b c *space]: export the network with "
            "logits.movedim(-1, 1) as its output"
        )
    return ()


def check_coarse(logits: Sequence[int], image: Sequence[int], *, name: str) -> None:
    """Logits may be coarser or finer by a whole number; others are of a part of the image, and must not be stretched over it."""
    for small, large in ((min(pair), max(pair)) for pair in zip(logits, image, strict=True)):
        factor = round(large / max(small, 1))
        if small not in (large // factor, -(-large // factor)) or (factor == 1 and small != large):
            raise ValueError(
                f"{name}: its output has the sides {sides_text(logits)} for images of {sides_text(image)}, no whole part "
                "of them: logits of the middle of the image (convolutions without padding?); expected logits of the whole image: "
                "export the network with padding, or with its output padded to the image's size"
            )


def has_background(probs: np.ndarray) -> bool:
    """Whether independent probabilities `[b c *space]` look like those of classes with a background: about 1 in all."""
    return probs.shape[1] > 1 and bool(np.abs(probs.sum(1) - 1).max() < ABOUT)


def names_with_background(channels: int) -> list[str]:
    """Names of channels of which the first is the background."""
    return [BACKGROUND, *(["foreground"] if channels == 2 else [f"region {k}" for k in range(1, channels)])]


def _is_differentiable(nodes: dict[str, Node], output: str) -> bool:
    """Whether the output depends on the image otherwise than through decisions."""
    seen, open_ = set(), [output]
    while open_:
        name = open_.pop()
        if name == IMAGE:
            return True
        node = nodes.get(name)
        if node is None or name in seen or node.op in DISCRETE or node.op in SIZES:
            continue
        seen.add(name)
        own = inputs(node)
        if node.op == "size.item" and own and nodes.get(own[0].name, node).op in PLACES and node.args[1] == 1:
            continue
        if node.op == "where":
            own = [r for r in references(list(node.args[1:])) if isinstance(r, Ref)]  # not the condition
        open_ += [r.name for r in own]
    return False


def _strip(nodes: dict[str, Node], output: str) -> tuple[Node, list[Node]] | None:
    """The activation at the end, and the nodes with it taken off; None where there is none, or something else needs it."""
    uses: dict[str, int] = {}
    for node in nodes.values():
        for reference in inputs(node):
            uses[reference.name] = uses.get(reference.name, 0) + 1
    name, behind = output, []
    while name in nodes:
        node = nodes[name]
        if node.op in (*SOFTMAX, *SIGMOID):
            if behind and uses[name] > 1:
                return None
            below = node.args[0]
            left = [n for n in nodes.values() if n.name != name or (name == output and name in uses)]
            return node, [_without(n, name, below) if n.name in behind else n for n in left]
        over_channels = node.op in ("slice", "slice_copy", "roll", "flip") and 1 in _axes(node)
        if node.op not in (*UNCHANGED, *MOVING) or over_channels or uses.get(name, 0) > (name != output):
            return None
        behind.append(name)
        name = node.args[0].name
    return None


def _axes(node: Node) -> Sequence[int]:
    axes = node.args[1] if len(node.args) > 1 else 0
    axes = node.args[2] if node.op == "roll" and len(node.args) > 2 else axes
    return [axes] if isinstance(axes, int) else list(axes)


def _without(node: Node, name: str, below: Ref) -> Node:
    return node._replace(args=tuple(below if isinstance(a, Ref) and a.name == name else a for a in node.args))


def _renamed(output: str, activation: Node) -> str:
    return activation.args[0].name if output == activation.name else output


def _leaves(nodes: dict[str, Node], output: str) -> set[str]:
    """The operations in front of everything that is computed without weights at the end of a graph."""
    seen, open_, found = set(), [output], set()
    while open_:
        name = open_.pop()
        node = nodes.get(name)
        if name in seen or (node is not None and (node.op in SIZES or node.op == "tensor" or not inputs(node))):
            continue
        seen.add(name)
        if node is None or node.op not in PLAIN:
            found.add("image" if node is None else node.op)
        else:
            open_ += [r.name for r in inputs(node)]
    return {op for op in found if not op.startswith("size.")}


def _append(written: Written, inside: str, note: str) -> End:
    """The graph with logits made of its probabilities."""
    out = Ref(written.output)
    if inside == "softmax":
        more = [
            Node("probs_clipped", "clamp", (out, LEAST, None), {}, ""),
            Node("probs_log", "log", (Ref("probs_clipped"),), {}, ""),
        ]
    else:
        more = [
            Node("probs_clipped", "clamp", (out, NEAR, 1 - NEAR), {}, ""),
            Node("probs_log", "log", (Ref("probs_clipped"),), {}, ""),
            Node("probs_negative", "neg", (Ref("probs_clipped"),), {}, ""),
            Node("probs_other", "log1p", (Ref("probs_negative"),), {}, ""),
            Node("probs_odds", "sub", (Ref("probs_log"), Ref("probs_other")), {}, ""),
        ]
    return End([*written.nodes, *more], more[-1].name, inside, note)
