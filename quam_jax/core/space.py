"""Which numbers an adversarial model may move, and how they and the frozen rest make logits.

A space splits a network once: `prepare` computes what never changes (the trunk's activations) for a batch of images, and
`logits` finishes from there with the moving numbers `z`. The full network is the case of an empty trunk.
"""

import re
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .network import EVAL, CutNetwork, Mode, Network, Parameters, named_leaves, with_leaves
from .solvers import Moving

Activation = Any  # a pytree of arrays


@runtime_checkable
class Space(Protocol):
    """What a search may move; implementations are hashable descriptions without arrays."""

    @property
    def constrained(self) -> bool:
        """Whether moving `z` changes the fit loss at all."""
        ...

    def start(self, network: Any, params: Parameters, image: Activation) -> Moving:
        """The value of `z` that gives the reference model; ValueError for a network that has nothing of this space."""
        ...

    def prepare(self, network: Any, params: Parameters, stats: Parameters, images: Float[Array, "b *space i"]) -> Activation:
        """Activations in front of everything that moves."""
        ...

    def logits(
        self, network: Any, z: Moving, params: Parameters, stats: Parameters, activation: Activation, mode: Mode = EVAL
    ) -> tuple[Float[Array, "b *space c"], Parameters]:
        """Logits of prepared images under `z`, and the statistics after the pass."""
        ...


@runtime_checkable
class WeightSpace(Space, Protocol):
    """A space of weights, whose adversarial models are networks that can be kept."""

    def moved(self, params: Parameters, z: Moving) -> dict[str, Array]:
        """The weights that `z` puts in the places of given ones, by dotted name."""
        ...


@dataclass(frozen=True)
class FullSpace:
    """Every weight moves: the published method."""

    constrained = True

    def start(self, network: Network, params: Parameters, image: Activation) -> Moving:
        """The given weights."""
        return jax.tree.map(lambda x: x, params)

    def prepare(self, network: Network, params: Parameters, stats: Parameters, images: Array) -> Activation:
        """The images themselves."""
        return images

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Activation, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        """One pass under `z`."""
        return network.apply(with_leaves(params, self.moved(params, z)), stats, activation, mode)

    def moved(self, params: Parameters, z: Moving) -> dict[str, Array]:
        """All weights."""
        return named_leaves(z)


@dataclass(frozen=True)
class SubsetSpace(FullSpace):
    """The weights whose dotted name matches a regular expression from its start move."""

    pattern: str = ".*"

    def start(self, network: Network, params: Parameters, image: Activation) -> Moving:
        """The given weights of these names; ValueError if there is none."""
        named = named_leaves(params)
        chosen = {n: value for n, value in named.items() if re.match(self.pattern, n)}
        if not chosen:
            raise ValueError(
                f"parameter pattern {self.pattern!r}: no parameter matches; names look like {', '.join(list(named)[:3])}"
            )
        return chosen

    def moved(self, params: Parameters, z: Moving) -> dict[str, Array]:
        """Those of `z`, which take the places of the given ones."""
        return dict(z)


@dataclass(frozen=True)
class TailSpace:
    """The weights behind a cut of the network move (`last_block`, `head`); the trunk runs once an image."""

    cut: str
    constrained = True

    def start(self, network: CutNetwork, params: Parameters, image: Activation) -> Moving:
        """The given weights behind the cut; ValueError for a network without this cut."""
        check_cut(network, self.cut)
        named = named_leaves(params)
        return {n: named[n] for n in network.tail_names(self.cut)}

    def prepare(self, network: CutNetwork, params: Parameters, stats: Parameters, images: Array) -> Activation:
        """The activations in front of the cut."""
        return network.trunk(params, stats, images, cut=self.cut)

    def logits(
        self, network: CutNetwork, z: Moving, params: Parameters, stats: Parameters, activation: Activation, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        """The tail under `z`."""
        return network.tail(with_leaves(params, self.moved(params, z)), stats, activation, mode, cut=self.cut)

    def moved(self, params: Parameters, z: Moving) -> dict[str, Array]:
        """Those behind the cut."""
        return dict(z)


def check_cut(network: Any, cut: str) -> None:
    """ValueError for a network that cannot be cut there."""
    if not isinstance(network, CutNetwork):
        raise ValueError(f"space {cut}: expected a network with cuts, trunk, tail and tail_names, got {type(network).__name__}")
    if cut not in network.cuts:
        name = getattr(network, "architecture", type(network).__name__)
        raise ValueError(f"{name}: expected a cut among {sorted(network.cuts)}, got {cut!r}")


@dataclass(frozen=True)
class LowRankSpace(FullSpace):
    """A low-rank change W + U V moves for every kernel, U from zero and V from a fixed orthonormal basis (LoRA's start).

    The kernel `[... in out]` is seen as the matrix `[prod(...) * in, out]` (Hu et al. 2021, LoRA).
    """

    rank: int = 1

    def start(self, network: Network, params: Parameters, image: Activation) -> Moving:
        """U = 0 and a basis V for every kernel; the n-th parameter by name draws its basis from key n."""
        moving = {}
        for index, (name, value) in enumerate(sorted(named_leaves(params).items())):
            if value.ndim >= 2:
                rows, columns = value.size // value.shape[-1], value.shape[-1]
                rank = min(self.rank, rows, columns)
                basis = jnp.linalg.qr(jax.random.normal(jax.random.key(index), (columns, rank)))[0]
                moving[name] = {"u": jnp.zeros((rows, rank)), "v": basis.T}
        return moving

    def moved(self, params: Parameters, z: Moving) -> dict[str, Array]:
        """The kernels with their changes added."""
        named = named_leaves(params)
        return {n: named[n] + (uv["u"] @ uv["v"]).reshape(named[n].shape) for n, uv in z.items()}


@dataclass(frozen=True)
class InputSpace:
    """The image moves inside an L-infinity ball instead of the weights: the classical fragility check.

    z is unbounded and the image is x + eps tanh(z), so the ball holds for every iterate. The fit loss does not depend on z.
    """

    epsilon: float
    constrained = False

    def start(self, network: Network, params: Parameters, image: Activation) -> Moving:
        """No change."""
        return jnp.zeros(image.shape)

    def prepare(self, network: Network, params: Parameters, stats: Parameters, images: Array) -> Activation:
        """The images themselves."""
        return images

    def logits(
        self, network: Network, z: Moving, params: Parameters, stats: Parameters, activation: Activation, mode: Mode = EVAL
    ) -> tuple[Array, Parameters]:
        """One pass on the moved image."""
        return network.apply(params, stats, activation + self.epsilon * jnp.tanh(z), mode)
