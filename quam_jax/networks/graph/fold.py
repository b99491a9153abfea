"""BatchNorm by running statistics folded into the convolution in front of it, as the hand-written networks do."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax import lax

from .convolution import convolve
from .program import Node, Program, Ref, Weight, references
from .values import Last, Stored, aligned, kernel, plain

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def find_folds(program: Program, nodes: Sequence[Node], known: Mapping[str, Any]) -> dict[str, Node]:
    """The convolution of every normalisation among the nodes whose input is a convolution that nothing else needs."""
    uses: dict[str, int] = {program.output: 1}
    for node in program.nodes:
        for part in references([*node.args, node.kwargs]):
            if isinstance(part, Ref):
                uses[part.name] = uses.get(part.name, 0) + 1
    convolutions = {
        n.name: n
        for n in nodes
        if n.op in CONVOLUTIONS
        and not n.kwargs
        and uses.get(n.name) == 1
        and n.name not in known
        and isinstance(n.args[1], Weight)
    }
    return {
        n.name: convolutions[n.args[0].name]
        for n in nodes
        if n.op == "batch_norm_inference" and isinstance(n.args[0], Ref) and n.args[0].name in convolutions
    }


def convolve_normalised(convolution: Sequence[Any], norm: Sequence[Any]) -> Last:
    """The two operations as one convolution, from the arguments of both, the norm's without its input."""
    x, weight, *rest = convolution
    scale_, shift_, mean, var, epsilon = norm
    scale = lax.rsqrt(plain(var) + epsilon)
    scale = scale if scale_ is None else scale * plain(scale_)
    shift = -plain(mean) * scale
    shift = shift if shift_ is None else shift + plain(shift_)
    bias = rest[0] if rest else None
    bias = shift if bias is None else plain(bias) * scale + shift
    weight = kernel(weight, "conv")
    return convolve(x, Stored(weight * aligned(scale, weight), "conv"), bias, *rest[1:])
