"""A segmentation model: an architecture as pure functions, its weights, and how its images are prepared.

`Network` is the hashable description (architecture name and constructor arguments) behind pure functions of flat
parameter dictionaries; it is what jit takes as a static argument. `SegmentationModel` adds the numbers. Parameters are
flat dictionaries keyed by the joined module path, which is the name that the weight has in a PyTorch state_dict.
"""

import functools
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, ArrayLike, Float, Key

from ..core.compilation import jit
from ..core.network import EVAL, Mode, pad_to_multiple
from ..networks import NETWORKS
from ..networks.layers import Layer
from .arrays import as_images

Parameters = dict[str, Array]


def _join(path: tuple) -> str:
    return ".".join(map(str, path))


def _flat(state: nnx.State) -> dict[tuple, Any]:
    return traverse_util.flatten_dict(nnx.to_pure_dict(state))


@dataclass(frozen=True, repr=False)
class Network:
    """An architecture with its constructor arguments; equal descriptions share compiled functions.

    `sums[c]` says which output channels add up to the logit of class c (see coding.py); without it every channel is a class.
    """

    architecture: str
    arguments: tuple[tuple[str, Any], ...]
    sums: tuple[tuple[int, ...], ...] | None = None

    @staticmethod
    def create(architecture: str, **arguments: Any) -> "Network":
        """Check the name and the arguments, and fill in the defaults; ValueError on what the architecture lacks."""
        if architecture not in NETWORKS:
            raise ValueError(f"architecture: expected one of {', '.join(NETWORKS)}, got {architecture!r}")
        signature = inspect.signature(NETWORKS[architecture].cls.__init__)
        known = {n: p.default for n, p in signature.parameters.items() if n not in ("self", "rngs")}
        unknown = sorted(set(arguments) - set(known))
        missing = sorted(n for n, d in known.items() if d is inspect.Parameter.empty and n not in arguments)
        if unknown or missing:
            raise ValueError(f"{architecture}: unknown arguments {unknown}, missing arguments {missing}")
        return Network(architecture, tuple((n, _frozen(arguments.get(n, d))) for n, d in known.items()))

    @property
    def size_multiple(self) -> int | tuple[int, ...]:
        """Image sides must be multiples of this (one number, or one an axis)."""
        return _template(self).size_multiple

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the network can be cut into a frozen trunk and a moving tail."""
        return tuple(_template(self).cuts)

    @property
    def rank(self) -> int:
        """Spatial rank of the images, 2 or 3."""
        return dict(self.arguments).get("rank", 2)

    @property
    def in_channels(self) -> int:
        """Input channels."""
        return dict(self.arguments)["in_channels"]

    @property
    def out_channels(self) -> int:
        """Channels that the architecture itself gives out."""
        return dict(self.arguments)["n_classes"]

    @property
    def classes(self) -> int:
        """Output classes: the logits of a network."""
        return self.out_channels if self.sums is None else len(self.sums)

    @property
    def summary(self) -> str:
        """Architecture, axes, channels and classes in a few words."""
        channels = f"{self.in_channels} channel{'s' * (self.in_channels != 1)} in"
        return f"{self.architecture}: {self.rank}D, {channels}, {self.classes} classes"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary})"

    def initialise(self, key: Key[Array, ""]) -> tuple[Parameters, Parameters]:
        """Fresh parameters and statistics, by PyTorch's default initialisation."""
        net = NETWORKS[self.architecture].cls(**dict(self.arguments), rngs=nnx.Rngs(key))
        _, params, stats = nnx.split(net, nnx.Param, nnx.BatchStat)  # type: ignore[misc]
        return ({_join(p): v for p, v in _flat(params).items()}, {_join(p): v for p, v in _flat(stats).items()})

    def shapes(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Names and shapes of the parameters and of the statistics."""
        template = _template(self)
        return (
            {_join(p): v.shape for p, v in _flat(template.params).items()},
            {_join(p): v.shape for p, v in _flat(template.stats).items()},
        )

    def layouts(self) -> dict[str, str]:
        """Axis order of every weight relative to PyTorch's: plain, conv, transposed or linear."""
        return _template(self).layouts

    def apply(
        self, params: Parameters, stats: Parameters, x: Float[Array, "b *space i"], mode: Mode = EVAL
    ) -> tuple[Float[Array, "b *out c"], Parameters]:
        """Logits, and the statistics after the pass (unchanged unless `mode.batch_statistics`).

        They have the sides of the images in every network that segments; an imported graph may compute anything.
        """
        return self._run(params, stats, lambda net: self._classes(net(x, mode)))

    def trunk(
        self, params: Parameters, stats: Parameters, x: Float[Array, "b *space i"], *, cut: str
    ) -> Float[Array, "b *inner f"]:
        """The activation in front of a cut, in eval mode."""
        return self._run(params, stats, lambda net: net.trunk(x, EVAL, cut=cut))[0]

    def tail(
        self, params: Parameters, stats: Parameters, activation: Float[Array, "b *inner f"], mode: Mode = EVAL, *, cut: str
    ) -> tuple[Float[Array, "b *space c"], Parameters]:
        """Logits from the activation in front of a cut, and the statistics after the pass."""
        return self._run(params, stats, lambda net: self._classes(net.tail(activation, mode, cut=cut)))

    def tail_names(self, cut: str) -> list[str]:
        """The parameters behind a cut."""
        cuts = _template(self).cuts
        if cut not in cuts:
            raise ValueError(f"{self.architecture}: expected a cut among {sorted(cuts)}, got {cut!r}")
        return [n for n in self.shapes()[0] if any(f"{n}.".startswith(f"{m}.") for m in cuts[cut])]

    def select(self, pattern: str) -> list[str]:
        """The parameters whose name matches a regular expression from its start; ValueError if none does."""
        names = [n for n in self.shapes()[0] if re.match(pattern, n)]
        if not names:
            raise ValueError(
                f"parameter pattern {pattern!r}: no parameter of {self.architecture} matches; "
                f"names look like {', '.join(list(self.shapes()[0])[:3])}"
            )
        return names

    def _classes(self, channels: Float[Array, "b *space k"]) -> Float[Array, "b *space c"]:
        if self.sums is None:
            return channels
        return jnp.matmul(channels, jnp.asarray(self.sums, channels.dtype).T, precision="highest")

    def _run(self, params: Parameters, stats: Parameters, call: Any) -> tuple[Array, Parameters]:
        template = _template(self)
        net = nnx.merge(template.graph, template.fill(template.params, params), template.fill(template.stats, stats))
        y = call(net)
        return y, {_join(p): v for p, v in _flat(nnx.state(net, nnx.BatchStat)).items()}


@dataclass(frozen=True)
class _Template:
    """The abstract module of a Network: its graph, empty states to fill, and what its class says of it."""

    graph: nnx.GraphDef
    params: nnx.State
    stats: nnx.State
    size_multiple: int | tuple[int, ...]
    cuts: Mapping[str, tuple[str, ...]]
    layouts: dict[str, str]

    @staticmethod
    def fill(state: nnx.State, values: Parameters) -> nnx.State:
        filled = jax.tree.map(lambda x: x, state)
        nnx.replace_by_pure_dict(filled, traverse_util.unflatten_dict({path: values[_join(path)] for path in _flat(state)}))
        return filled


@functools.lru_cache(maxsize=64)
def _template(network: Network) -> _Template:
    cls = NETWORKS[network.architecture].cls
    net = nnx.eval_shape(lambda: cls(**dict(network.arguments), rngs=nnx.Rngs(0)))
    layouts = {_join((*path, "weight")): m.layout for path, m in nnx.iter_modules(net) if isinstance(m, Layer)}
    layouts |= getattr(net, "layouts", {})
    size_multiple, cuts = net.size_multiple, net.cuts
    graph, params, stats = nnx.split(net, nnx.Param, nnx.BatchStat)  # type: ignore[misc]
    return _Template(graph, params, stats, size_multiple, cuts, layouts)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


@jit(static_argnames="network")
def _logits(network: Network, params: Parameters, stats: Parameters, x: Array) -> Array:
    return network.apply(params, stats, x)[0]


@dataclass(frozen=True, repr=False)
class SegmentationModel:
    """A network with its weights; `manifest` says how its images are prepared and where it came from.

    Calling it gives the logits in eval mode; images whose sides the network cannot take are padded at the end by
    repeating the edge, and the logits are cropped back.
    """

    network: Network
    params: Parameters
    stats: Parameters
    manifest: dict[str, Any] = field(default_factory=dict)

    def __call__(self, images: Float[ArrayLike, "b *space i"]) -> Float[Array, "b *out c"]:
        x = jnp.asarray(as_images(images, self.network, what="images", leading=1), jnp.float32)
        logits = _logits(self.network, self.params, self.stats, pad_to_multiple(x, self.network, leading=1))
        return logits[tuple(slice(n) for n in x.shape[:-1])]

    def __repr__(self) -> str:
        return f"SegmentationModel({self.network.summary}, {self.parameter_count:,} parameters)"

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(v.shape)) for v in self.params.values())
