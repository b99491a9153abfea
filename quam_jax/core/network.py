"""What a search needs of a network: one pure function, and for some spaces a cut.

Any hashable object with an `apply` will do; parameters and statistics are pytrees of arrays that belong to the caller.
Hashable because compiled functions take the network as a static argument: equal networks share them.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

Parameters = Any  # a pytree of arrays
Logits = Float[Array, "b *space c"]


@runtime_checkable
class Noise(Protocol):
    """A source of dropout masks: one call a dropout layer, in the order in which a forward pass meets them."""

    def keep(self, shape: tuple[int, ...], rate: float) -> Float[Array, "..."]:
        """Ones where a value is kept and zeros where it is dropped."""
        ...


class DrawnNoise:
    """Dropout masks drawn from a key; the n-th layer of a pass uses `fold_in(key, n)`."""

    def __init__(self, key: Key[Array, ""]):
        self.key, self.count = key, 0

    def keep(self, shape: tuple[int, ...], rate: float) -> Float[Array, "..."]:
        key = jax.random.fold_in(self.key, self.count)
        self.count += 1
        return jax.random.bernoulli(key, 1.0 - rate, shape).astype(jnp.float32)


class GivenNoise:
    """Recorded dropout masks, one array a layer: to repeat another implementation's pass exactly."""

    def __init__(self, masks: Sequence[Float[Array, "..."]]):
        self.masks = iter(masks)

    def keep(self, shape: tuple[int, ...], rate: float) -> Float[Array, "..."]:
        mask = next(self.masks)
        if mask.shape != shape:
            raise ValueError(f"dropout mask: expected shape {shape}, got {mask.shape}")
        return mask


class Mode(NamedTuple):
    """How a forward pass runs: the default is PyTorch's eval(); batch statistics and noise together are its train().

    Without `folded` every normalisation is a layer of its own, so that layers can be compared one by one.
    """

    batch_statistics: bool = False
    noise: Noise | None = None
    folded: bool = True


EVAL = Mode()


@runtime_checkable
class Network(Protocol):
    """An architecture as a pure function; hashable. A `size_multiple` (a number, or one an axis; default 1) says what image
    sides it can take: images are padded to it and logits are cropped back."""

    def apply(
        self, params: Parameters, stats: Parameters, images: Float[Array, "b *space i"], mode: Mode = EVAL
    ) -> tuple[Logits, Parameters]:
        """Logits of prepared images, and the statistics after the pass (unchanged unless `mode.batch_statistics`)."""
        ...


@runtime_checkable
class CutNetwork(Protocol):
    """A network that can be cut into a frozen trunk and a moving tail; `tail(trunk(x)) = apply(x)` in eval mode."""

    @property
    def cuts(self) -> Sequence[str]:
        """The names of the cuts, such as `head` and `last_block`."""
        ...

    def trunk(self, params: Parameters, stats: Parameters, images: Float[Array, "b *space i"], *, cut: str) -> PyTree[Array]:
        """The activations in front of a cut, in eval mode."""
        ...

    def tail(
        self, params: Parameters, stats: Parameters, activation: PyTree[Array], mode: Mode = EVAL, *, cut: str
    ) -> tuple[Logits, Parameters]:
        """Logits from the activations in front of a cut, and the statistics after the pass."""
        ...

    def tail_names(self, cut: str) -> Sequence[str]:
        """The parameters behind a cut, by the names of `named_leaves`."""
        ...


def named_leaves(params: Parameters) -> dict[str, Array]:
    """The leaves of a parameter tree by their dotted path; a flat dictionary keeps its own names."""
    if isinstance(params, Mapping) and all(hasattr(value, "shape") for value in params.values()):
        return dict(params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def with_leaves(params: Parameters, changed: Mapping[str, Array]) -> Parameters:
    """The parameter tree with some leaves replaced, by the names of `named_leaves`."""
    if isinstance(params, Mapping) and all(hasattr(value, "shape") for value in params.values()):
        return {**params, **changed}
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(tree, [changed.get(n, leaf) for n, leaf in zip(named_leaves(params), leaves, strict=True)])


def check_network(network: Any, params: Parameters, stats: Parameters, image: Float[Array, "*space i"]) -> int:
    """The number of classes, by tracing one pass; ValueError, with what is wrong, for what is no network of such images."""
    if not callable(getattr(network, "apply", None)):
        raise ValueError(f"network: expected an object with apply(params, stats, images, mode), got {type(network).__name__}")
    try:
        hash(network)
    except TypeError:
        raise ValueError(
            f"network: expected a hashable object, such as a frozen dataclass, got {type(network).__name__}"
        ) from None
    padded = jax.eval_shape(lambda x: pad_to_multiple(x[None], network, leading=1), image)
    return _classes(network, described(params), described(stats), padded.shape, str(padded.dtype))


def described(tree: Any) -> tuple[Any, tuple]:
    """Structure, shapes and types of a tree of arrays: hashable, and the same for all trees that share compiled functions."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves)


def like(description: tuple[Any, tuple]) -> Any:
    """A tree of shapes and types from its description."""
    structure, leaves = description
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves])


@functools.lru_cache(maxsize=64)
def _classes(network: Any, params: tuple[Any, tuple], stats: tuple[Any, tuple], shape: tuple[int, ...], dtype: str) -> int:
    batch = jax.ShapeDtypeStruct(shape, dtype)
    try:
        found = jax.eval_shape(lambda p, s, x: network.apply(p, s, x, EVAL), like(params), like(stats), batch)
    except (TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"network: cannot be applied to images of shape {shape}: {reason}") from error
    if not (isinstance(found, tuple) and len(found) == 2):
        raise ValueError(f"network: expected apply to return (logits, stats), got {type(found).__name__}")
    logits = found[0]
    if getattr(logits, "ndim", 0) != len(shape) or logits.shape[:-1] != shape[:-1] or logits.shape[-1] < 2:
        expected = (*shape[:-1], "c >= 2")
        raise ValueError(f"network: expected logits of shape {expected}, channels last, got {getattr(logits, 'shape', None)}")
    return int(logits.shape[-1])


def pad_to_multiple(images: Float[Array, "*shape"], network: Any, *, leading: int) -> Float[Array, "*padded"]:
    """Pad the ends of the spatial axes, which follow `leading` batch axes, to what the network can take; the edge is repeated."""
    multiple = getattr(network, "size_multiple", 1)
    sizes = images.shape[leading:-1]
    multiples = (multiple,) * len(sizes) if isinstance(multiple, int) else multiple
    padding = [(0, -n % m) for n, m in zip(sizes, multiples, strict=True)]
    return jnp.pad(images, [*((0, 0),) * leading, *padding, (0, 0)], mode="edge")


_ON_PATCHES: ContextVar[bool] = ContextVar("on_patches", default=False)


@contextlib.contextmanager
def on_patches() -> Iterator[None]:
    """Inside, images are patches with their surroundings: convolutions drop the border that padding would have reached.

    What depends on padding shrinks away, so that a patch as wide as the receptive field ends in its one logit. Networks ask
    `are_on_patches` while they are traced.
    """
    token = _ON_PATCHES.set(True)
    try:
        yield
    finally:
        _ON_PATCHES.reset(token)


def are_on_patches() -> bool:
    """Whether a pass that is being traced runs on patches with their surroundings."""
    return _ON_PATCHES.get()


_RECOMPUTED: ContextVar[bool] = ContextVar("recomputed_blocks", default=False)


@contextlib.contextmanager
def recomputed_blocks(recomputed: bool = True) -> Iterator[None]:
    """Inside, networks keep only what goes into their blocks for the backward pass, and run each block again there.

    A gradient takes a fraction of the memory and about a third more time; the numbers are the same. Networks ask
    `are_blocks_recomputed` while they are traced, so the context belongs inside the traced function, and functions that differ
    in it must be traced apart.
    """
    token = _RECOMPUTED.set(recomputed)
    try:
        yield
    finally:
        _RECOMPUTED.reset(token)


def are_blocks_recomputed() -> bool:
    """Whether a pass that is being traced runs its blocks again in the backward pass."""
    return _RECOMPUTED.get()


_PRODUCTS: ContextVar[bool] = ContextVar("weight_products", default=False)


@contextlib.contextmanager
def weight_products(products: bool = True) -> Iterator[None]:
    """Inside, networks may take the weight gradients of convolutions as matrix products.

    Networks ask `are_weight_products` while they are traced; as with `recomputed_blocks`, the context belongs inside the traced
    function.
    """
    token = _PRODUCTS.set(products)
    try:
        yield
    finally:
        _PRODUCTS.reset(token)


def are_weight_products() -> bool:
    """Whether a pass that is being traced takes weight gradients as products."""
    return _PRODUCTS.get()
