"""Flax networks, one architecture a file; NETWORKS has what each file declares of itself, by the name used everywhere.

A network is an `nnx.Module` called as `net(x, mode)` on `[b *space i]` that returns logits `[b *space c]`. It has
`size_multiple` (image sides must be multiples of it; a number, or one for every axis), `cuts` (cut name -> the dotted names
of the modules behind the cut) and, for every cut, `trunk(x, mode, cut=...)` and `tail(activation, mode, cut=...)` whose
composition is the whole network. Its file declares it in `ARCHITECTURES`, and nothing else needs to know of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..registry import collect
from .architecture import Architecture, Named, Shapes

NETWORKS: dict[str, Architecture] = collect(__name__, __path__, attribute="ARCHITECTURES")


@contextmanager
def added(architecture: Architecture) -> Iterator[None]:
    """Make one more architecture known inside the block, which may be nested; ValueError if another one has its name."""
    known = NETWORKS.get(architecture.name)
    if known is not None and known is not architecture:
        raise ValueError(
            f"architecture: {architecture.name!r}: expected a name that no other has, got that of {known.cls.__name__}"
        )
    NETWORKS[architecture.name] = architecture
    try:
        yield
    finally:
        if known is None:
            del NETWORKS[architecture.name]


def guess_architecture(shapes: Shapes) -> str | None:
    """The name of the architecture that has such weights, None if no known one does."""
    return next((name for name, known in NETWORKS.items() if known.telling in shapes), None)


def infer_arguments(architecture: str, shapes: Shapes) -> dict[str, Any]:
    """Constructor arguments of an architecture as far as the weights tell them.

    Where shapes cannot tell an argument it is left out, and `Network.create` names it as missing unless the caller adds it.
    Raises ValueError on an unknown architecture, and on weights that cannot be of this one, naming the first tensor that is
    missing or the property that this implementation does not have.
    """
    infer = NETWORKS[architecture].infer if architecture in NETWORKS else None
    if infer is None:
        known = ", ".join(name for name, one in NETWORKS.items() if one.infer)
        raise ValueError(f"architecture: expected one of {known}, got {architecture!r}")
    return infer(Named(architecture, shapes))


__all__ = ["NETWORKS", "Architecture", "Named", "added", "guess_architecture", "infer_arguments"]
