"""A network that lives in the caller's program: any JAX function of flat parameters, with what a search needs to know of it."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode, described, like
from .model import Network
from .split import Split, split, trace

Parameters = dict[str, Array]
Call = Callable[[Parameters, Parameters, Any], Array]


@dataclass(frozen=True, kw_only=True, repr=False)
class WrappedNetwork(Network):
    """A function `call(params, stats, images)` as a network; see `quam_jax.wrap`.

    `arguments` describe it, the digest of its program among them. `parameters` has name and shape of every parameter,
    `statistics` those of the rest, `blocks` the parameters behind every cut; a network of `fixed` sides takes no others than
    `size_multiple`. `channels_first` is said of activations; images and logits have channels last. Networks are equal where
    they call the same function object.
    """

    call: Call
    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    statistics: tuple[tuple[str, tuple[int, ...]], ...] = ()
    blocks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    fixed: bool = False
    channels_first: bool = False

    @property
    def size_multiple(self) -> tuple[int, ...]:
        """What image sides must be multiples of, one an axis."""
        return dict(self.arguments)["size_multiple"]

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the network can be cut into a frozen trunk and a moving tail."""
        return tuple(cut for cut, _ in self.blocks)

    def shapes(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Names and shapes of the parameters and of the statistics."""
        return dict(self.parameters), dict(self.statistics)

    def layouts(self) -> dict[str, str]:
        """The axes of no weight are in another order than the caller's."""
        return {}

    def initialise(self, key: Any) -> tuple[Parameters, Parameters]:
        """ValueError: fresh parameters are the caller's affair."""
        raise ValueError(f"{self.architecture}: fresh parameters of a network in memory are made by the program that holds it")

    def select(self, pattern: str) -> list[str]:
        """The parameters whose name matches a regular expression from its start; ValueError if none does."""
        names = [name for name, _ in self.parameters if re.match(pattern, name)]
        if not names:
            known = ", ".join(name for name, _ in self.parameters[:3])
            raise ValueError(
                f"parameter pattern {pattern!r}: no parameter of {self.architecture} matches; names look like {known}"
            )
        return names

    def tail_names(self, cut: str) -> list[str]:
        """The parameters behind a cut; ValueError, with the argument of `wrap` that makes it, where there is none."""
        if cut not in self.cuts:
            has = f"it has {', '.join(self.cuts)}" if self.blocks else "it has none"
            raise ValueError(f"{self.architecture}: no cut {cut!r}, {has}; name its parameters: wrap(..., {cut}='REGEX')")
        return list(dict(self.blocks)[cut])

    def apply(
        self, params: Parameters, stats: Parameters, x: Float[Array, "b *space i"], mode: Mode = EVAL
    ) -> tuple[Float[Array, "b *space c"], Parameters]:
        """Logits and the statistics, which do not change; ValueError in train mode, and for sides that it cannot take."""
        self._check(x.shape[1:-1], mode)
        return self._classes(self.call(params, stats, x)), stats

    def trunk(self, params: Parameters, stats: Parameters, x: Float[Array, "b *space i"], *, cut: str) -> Any:
        """The activation in front of a cut, `[b *inner f]`, or a tuple where there are several."""
        self._check(x.shape[1:-1], EVAL)
        parts = self._split(cut, x.shape[1:-1], x.dtype, params, stats)
        weights = _ordered(params, stats)
        found = jax.vmap(lambda image: [self._taken(value) for value in parts.front(*weights, image[None])])(x)
        return found[0] if len(found) == 1 else tuple(found)

    def tail(
        self, params: Parameters, stats: Parameters, activation: Any, mode: Mode = EVAL, *, cut: str
    ) -> tuple[Float[Array, "b *space c"], Parameters]:
        """Logits from the activation in front of a cut, and the statistics, which do not change."""
        leaves = list(activation) if isinstance(activation, tuple) else [activation]
        sides = self._sides(cut, leaves)
        self._check(sides, mode)
        parts = self._split(cut, sides, leaves[0].dtype, params, stats)
        given = [leaf.shape[1:] for leaf in leaves]
        if given != [jax.eval_shape(self._taken, _blank(shape)).shape for shape in parts.activations]:
            raise ValueError(f"{self.architecture}: activations of shape {given} do not belong to the cut {cut}")
        weights = _ordered(params, stats)

        def one(*values: Array) -> Array:
            whole = [self._given(v, shape) for v, shape in zip(values, parts.activations, strict=True)]
            return parts.behind(*weights, *whole)[0][0]

        return self._classes(jax.vmap(one)(*leaves)), stats

    def scale(self, cut: str) -> tuple[int, tuple[int, ...]]:
        """Which activation of a cut has spatial axes, and how many pixels of the image one of its entries is on each.

        ValueError where none has, so that the sides of the image could not be told from the activations.
        """
        return _scale(self, cut)

    def _turns(self, shape: tuple[int, ...]) -> bool:
        """Whether an activation of one image has its channels in front of its spatial axes."""
        return self.channels_first and len(shape) == self.rank + 2 and shape[0] == 1

    def _taken(self, value: Array) -> Array:
        """An activation of one image without its batch axis of length 1, where it has one, channels last."""
        last = jnp.moveaxis(value, 1, -1) if self._turns(value.shape) else value
        return last[0] if last.shape and last.shape[0] == 1 else last

    def _given(self, value: Array, shape: tuple[int, ...]) -> Array:
        """The way back of `_taken`, to a shape."""
        whole = value[None] if shape and shape[0] == 1 else value
        return jnp.moveaxis(whole, -1, 1) if self._turns(shape) else whole

    def _sides(self, cut: str, leaves: list[Array]) -> tuple[int, ...]:
        place, scale = self.scale(cut)
        if place >= len(leaves) or leaves[place].ndim != self.rank + 2:
            raise ValueError(f"{self.architecture}: activations do not belong to the cut {cut}")
        return tuple(n * s for n, s in zip(leaves[place].shape[1:-1], scale, strict=True))

    def _check(self, sides: tuple[int, ...], mode: Mode) -> None:
        if mode.batch_statistics or mode.noise is not None:
            raise ValueError(
                f"{self.architecture}: a network in memory runs in eval mode alone; expected mode eval, got train (the published "
                "setting and MC dropout need a network that quam_jax builds itself)"
            )
        if self.fixed and tuple(sides) != self.size_multiple:
            raise ValueError(f"{self.architecture}: takes images of {_text(self.size_multiple)} alone, got {_text(sides)}")

    def _split(self, cut: str, sides: tuple[int, ...], dtype: Any, params: Parameters, stats: Parameters) -> Split:
        return _parts(self, cut, tuple(sides), str(dtype), described(dict(params)), described(dict(stats)))


def _ordered(params: Parameters, stats: Parameters) -> list[Array]:
    return [*(params[name] for name in sorted(params)), *(stats[name] for name in sorted(stats))]


def _blank(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _text(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))


@functools.lru_cache(maxsize=128)
def _parts(
    network: WrappedNetwork, cut: str, sides: tuple[int, ...], dtype: str, params: tuple[Any, tuple], stats: tuple[Any, tuple]
) -> Split:
    image = jax.ShapeDtypeStruct((1, *sides, network.in_channels), dtype)
    return split(trace(network.call, like(params), like(stats), image), network.tail_names(cut))


@functools.lru_cache(maxsize=128)
def _scale(network: WrappedNetwork, cut: str) -> tuple[int, tuple[int, ...]]:
    sides = network.size_multiple if network.fixed else tuple(m * math.ceil(32 / m) for m in network.size_multiple)
    params, stats = (
        described({n: jax.ShapeDtypeStruct(shape, jnp.float32) for n, shape in kind.items()}) for kind in network.shapes()
    )
    parts = _parts(network, cut, sides, "float32", params, stats)
    for place, shape in enumerate(parts.activations):
        inner = shape[2:] if network.channels_first else shape[1:-1]
        if len(shape) == network.rank + 2 and shape[0] == 1 and all(n % m == 0 for n, m in zip(sides, inner, strict=True)):
            return place, tuple(n // m for n, m in zip(sides, inner, strict=True))
    raise ValueError(
        f"{network.architecture}: no activation in front of {cut} has {network.rank} spatial axes that divide the image's; "
        f"expected a block in front of which there is a feature map, got activations of {list(parts.activations)}"
    )
