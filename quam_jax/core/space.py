"""Which numbers an adversarial model may move, and how they and the frozen rest make logits.

A space splits a network once: `prepare` computes what never changes (the trunk's activations) for a batch of images, and
`logits` finishes from there with the moving numbers `z`. The full network is the case of an empty trunk.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from ..models.model import Network, Parameters

Moving = Any  # a pytree of arrays


class Space(Protocol):
    """What a search may move; implementations are hashable descriptions without arrays."""

    @property
    def constrained(self) -> bool:
        """Whether moving `z` changes the fit loss at all."""
        ...

    def start(self, network: Network, params: Parameters, image: Float[Array, "b *space i"]) -> Moving:
        """The value of `z` that gives the reference model."""
        ...

    def prepare(self, network: Network, params: Parameters, stats: Parameters, images: Float[Array, "b *space i"]) -> Array:
        """Activations in front of everything that moves."""
        ...

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Array, mode: Mode = EVAL
    ) -> tuple[Float[Array, "b *space c"], Parameters]:
        """Logits of prepared images under `z`, and the statistics after the pass."""
        ...


@dataclass(frozen=True)
class FullSpace:
    """Every weight moves: the published method."""

    constrained = True

    def start(self, network: Network, params: Parameters, image: Array) -> Moving:
        return dict(params)

    def prepare(self, network: Network, params: Parameters, stats: Parameters, images: Array) -> Array:
        return images

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Array, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        return network.apply(z, stats, activation, mode)


@dataclass(frozen=True)
class SubsetSpace(FullSpace):
    """The weights whose name matches a regular expression move."""

    pattern: str = ".*"

    def start(self, network: Network, params: Parameters, image: Array) -> Moving:
        return {n: params[n] for n in network.select(self.pattern)}

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Array, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        return network.apply(params | z, stats, activation, mode)


@dataclass(frozen=True)
class TailSpace:
    """The weights behind a cut of the network move (`last_block`, `head`); the trunk runs once an image."""

    cut: str
    constrained = True

    def start(self, network: Network, params: Parameters, image: Array) -> Moving:
        return {n: params[n] for n in network.tail_names(self.cut)}

    def prepare(self, network: Network, params: Parameters, stats: Parameters, images: Array) -> Array:
        return network.trunk(params, stats, images, cut=self.cut)

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Array, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        return network.tail(params | z, stats, activation, mode, cut=self.cut)


@dataclass(frozen=True)
class LowRankSpace(FullSpace):
    """A low-rank change W + U V moves for every kernel, U from zero and V from a fixed orthonormal basis (LoRA's start).

    The kernel `[... in out]` is seen as the matrix `[prod(...) * in, out]`.
    """

    rank: int = 1

    def start(self, network: Network, params: Parameters, image: Array) -> Moving:
        moving = {}
        for index, (name, value) in enumerate(sorted(params.items())):
            if value.ndim >= 2:
                rows, columns = value.size // value.shape[-1], value.shape[-1]
                rank = min(self.rank, rows, columns)
                basis = jnp.linalg.qr(jax.random.normal(jax.random.key(index), (columns, rank)))[0]
                moving[name] = {"u": jnp.zeros((rows, rank)), "v": basis.T}
        return moving

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Array, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        moved = {n: params[n] + (uv["u"] @ uv["v"]).reshape(params[n].shape) for n, uv in z.items()}
        return network.apply(params | moved, stats, activation, mode)


@dataclass(frozen=True)
class InputSpace:
    """The image moves inside an L-infinity ball instead of the weights: the classical fragility check.

    z is unbounded and the image is x + eps tanh(z), so the ball holds for every iterate. The fit loss does not depend on z.
    """

    epsilon: float
    constrained = False

    def start(self, network: Network, params: Parameters, image: Array) -> Moving:
        return jnp.zeros(image.shape)

    def prepare(self, network: Network, params: Parameters, stats: Parameters, images: Array) -> Array:
        return images

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Array, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        return network.apply(params, stats, activation + self.epsilon * jnp.tanh(z), mode)


def parse_space(text: str, network: Network) -> Space:
    """A space from its name: full, subset:REGEX, last_block, head, low_rank:R or input:EPS; ValueError otherwise."""
    kind, _, argument = text.partition(":")
    try:
        if kind == "full" and not argument:
            return FullSpace()
        if kind == "subset" and argument:
            network.select(argument)
            return SubsetSpace(argument)
        if kind in ("last_block", "head") and not argument:
            network.tail_names(kind)
            return TailSpace(kind)
        if kind == "low_rank" and int(argument) >= 1:
            return LowRankSpace(int(argument))
        if kind == "input" and float(argument) > 0:
            return InputSpace(float(argument))
    except ValueError as error:
        if kind in ("subset", "last_block", "head"):
            raise ValueError(f"space: {error}") from None
    raise ValueError(f"space: expected full, subset:REGEX, last_block, head, low_rank:R or input:EPS, got {text!r}")
