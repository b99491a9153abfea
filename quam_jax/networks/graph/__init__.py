"""Any other network: a graph that `torch.export` wrote down, run on JAX arrays without PyTorch.

`program.py` reads the graph's text form, `arithmetic.py` computes with its sizes, `values.py` says how values are stored,
`convolution.py`, `pooling.py`, `products.py`, `resize.py`, `norms.py`, `elementwise.py`, `numbers.py`, `shapes.py`, `entries.py`
and `creation.py` hold the operations and `run.py` runs them. `GraphNetwork` makes such a graph a network like the others. The
graph is fixed as exported: there is no train mode.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...core.network import EVAL, Mode
from ..architecture import Architecture
from .program import Weight, bind_sizes, parse, references
from .run import SIZES, Blank, abstract_sizes, run, split_at
from .values import LAYOUTS, Last, Stored, last, plain, rank, shape


class GraphNetwork(nnx.Module):
    """An imported graph with its weights.

    `program` holds the lines of the graph, `weights` and `statistics` (name, axis order, stored shape) of every tensor, and
    `cuts` (cut, node, pixels an activation's entry on each axis; empty where the tail does not ask for the image's size).
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        rank: int,
        program: Sequence[str],
        weights: Sequence[Any],
        statistics: Sequence[Any],
        size_multiple: Sequence[int],
        cuts: Sequence[Any],
        *,
        rngs: nnx.Rngs,
    ):
        self.program = tuple(program)
        parse(self.program)
        self.size_multiple = tuple(size_multiple)
        self.places = tuple((cut, node, tuple(scale)) for cut, node, scale in cuts)
        self.kinds = tuple((name, layout) for name, layout, _ in (*weights, *statistics))
        unknown = sorted({layout for _, layout in self.kinds} - set(LAYOUTS))
        if unknown:
            raise ValueError(f"graph: expected axis orders among {', '.join(LAYOUTS)}, got {', '.join(unknown)}")
        for name, layout, size in weights:
            setattr(self, name, nnx.Param(_initial(rngs, layout, tuple(size), name)))
        for name, _, size in statistics:
            setattr(self, name, nnx.BatchStat(jnp.ones(tuple(size)) if name.endswith("var") else jnp.zeros(tuple(size))))

    @property
    def layouts(self) -> dict[str, str]:
        """Axis order of every weight relative to PyTorch's."""
        return dict(self.kinds)

    @property
    def cuts(self) -> dict[str, tuple[str, ...]]:
        """The weights behind every cut."""
        moving = {name for name, _ in self.kinds}
        return {
            cut: tuple(
                dict.fromkeys(
                    r.name
                    for node in split_at(self.program, place).behind
                    for r in references([*node.args, node.kwargs])
                    if isinstance(r, Weight) and r.name in moving
                )
            )
            for cut, place, _ in self.places
        }

    def __call__(self, x: Float[Array, "b *space i"], mode: Mode = EVAL) -> Float[Array, "b *out c"]:
        program = self._checked(x, mode)
        return last(run(program, self._weights(), {program.image: Last(x)}, program.nodes)[program.output])

    def trunk(self, x: Float[Array, "b *space i"], mode: Mode, *, cut: str) -> Float[Array, "b ..."]:
        """The activation in front of the cut; ValueError where the tail could not tell the image's size from it."""
        program = self._checked(x, mode)
        node, scale = self._place(cut)
        value = run(program, self._weights(), {program.image: Last(x)}, split_at(self.program, node).front)[node]
        if scale and x.shape[1:-1] != tuple(n * s for n, s in zip(shape(value)[2:], scale, strict=True)):
            raise ValueError(
                f"graph: the cut {cut} needs image sides that are multiples of {', '.join(map(str, scale))}, "
                f"got {', '.join(map(str, x.shape[1:-1]))}"
            )
        return last(value) if rank(value) == x.ndim else plain(value)

    def tail(self, activation: Float[Array, "b ..."], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        _check_mode(mode)
        program, weights = parse(self.program), self._weights()
        node, scale = self._place(cut)
        _, behind = split_at(self.program, node)
        known = {node: Last(activation) if activation.ndim == len(program.sizes) else activation}
        if scale:
            image = Blank(
                (activation.shape[0], program.sizes[1], *(n * s for n, s in zip(activation.shape[1:-1], scale, strict=True)))
            )
            sizes = abstract_sizes(program, weights, image, program.nodes)
            known = {n.name: sizes[n.name] for n in behind if n.op in SIZES} | known
        return last(run(program, weights, known, behind)[program.output])

    def _checked(self, x: Array, mode: Mode) -> Any:
        _check_mode(mode)
        program = parse(self.program)
        bind_sizes(program, (x.shape[0], x.shape[-1], *x.shape[1:-1]))
        return program

    def _weights(self) -> dict[str, Stored]:
        return {name: Stored(getattr(self, name)[...], layout) for name, layout in self.kinds}

    def _place(self, cut: str) -> tuple[str, tuple[int, ...]]:
        return next((node, scale) for name, node, scale in self.places if name == cut)


def _check_mode(mode: Mode) -> None:
    if mode.batch_statistics or mode.noise is not None:
        raise ValueError("graph: an imported graph is fixed in eval mode; expected mode eval, got train")


def _initial(rngs: nnx.Rngs, layout: str, size: tuple[int, ...], name: str) -> Array:
    """Uniform kernels by PyTorch's rule, ones for other weights and zeros for the rest."""
    if layout == "plain" and len(size) < 2:
        return jnp.ones(size) if name.endswith("weight") else jnp.zeros(size)
    inputs_ = math.prod(size[1:]) if layout == "plain" else math.prod(size[:-1])
    bound = 1 / math.sqrt(max(inputs_, 1))
    return jax.random.uniform(rngs.params(), size, jnp.float32, -bound, bound)


ARCHITECTURES = (Architecture("graph", GraphNetwork),)

__all__ = ["ARCHITECTURES", "GraphNetwork"]
