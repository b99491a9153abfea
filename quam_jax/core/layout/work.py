"""How much one pass over an image is, in operations as XLA counts them: it says what fills the cores of a processor by itself."""

import math
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jaxtyping import Array, Float

from ..network import Parameters, pad_to_multiple
from ..setup import Frozen, Setup
from .programs import shapes_of

SMALL = 2**14  # pixels of an image that no network makes much of
_COUNTED: dict[Hashable, float] = {}


def pass_operations(setup: Setup, frozen: Frozen) -> float:
    """Operations of a pass of a search over its image, through what moves; 0 for a small image, or where XLA tells none."""
    if math.prod(setup.shape) < SMALL:
        return 0.0
    network, space = setup.network, setup.space

    def run(params: Parameters, stats: Parameters, activation: Any) -> Array:
        return space.logits(network, space.start(network, params, activation), params, stats, activation)[0]

    return _counted(("search", network, space), run, frozen.params, frozen.stats, frozen.image)


def pixel_operations(network: Any, params: Parameters, stats: Parameters, image: Float[Any, "b *space i"]) -> float:
    """Operations of a forward pass a pixel, on images of this size; 0 where XLA tells none."""

    def run(params: Parameters, stats: Parameters, x: Array) -> Array:
        return network.apply(params, stats, pad_to_multiple(x, network, leading=1))[0]

    return _counted(("forward", network), run, params, stats, image) / math.prod(image.shape[:-1])


def _counted(name: Hashable, function: Callable[..., Array], *arguments: Any) -> float:
    known = (name, jax.tree.structure(arguments), shapes_of(arguments))
    if known not in _COUNTED:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
        _COUNTED[known] = float((jax.jit(function).lower(*shapes).cost_analysis() or {}).get("flops", 0.0))
    return _COUNTED[known]
