"""Networks of Flax NNX, Flax Linen, Equinox and Haiku, and plain functions, as functions of flat parameters in eval mode.

Only the frameworks that the network came from are imported, and told by the module that its class lives in.
"""

import inspect
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

Flat = dict[str, Array]

# what networks of Flax call the switch between training and evaluation, and its value in evaluation
EVALUATION = {"train": False, "training": False, "is_training": False, "deterministic": True, "use_running_average": True}


class Adapted(NamedTuple):
    """A network as `call(params, stats, images)`, its images in the network's own order of axes.

    `batched` says whether it takes a batch, `channels_first` in which order; `notes` say what was decided for the caller.
    """

    name: str
    kind: str
    params: Flat
    stats: Flat
    call: Callable[[Flat, Flat, Any], Any]
    batched: bool = True
    channels_first: bool = False
    notes: tuple[str, ...] = ()


class Tree(NamedTuple):
    """A tree as its arrays by dotted path, and the way back; leaves that are no arrays of floats stay in it."""

    floats: Flat
    others: Flat
    rebuild: Callable[[Mapping[str, Any]], Any]


def flat_tree(tree: Any, *, what: str) -> Tree:
    """The arrays of a tree by their dotted path; ValueError where two have the same."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or what for path, _ in leaves]
    values = [leaf for _, leaf in leaves]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{what}: expected a name of its own for every array, got {twice[0]} twice")
    arrays = {n: v for n, v in zip(names, values, strict=True) if hasattr(v, "shape") and hasattr(v, "dtype")}
    floats = {n: jnp.asarray(v, jnp.float32) for n, v in arrays.items() if jnp.issubdtype(v.dtype, jnp.floating)}
    others = {n: jnp.asarray(v) for n, v in arrays.items() if jnp.issubdtype(v.dtype, jnp.integer) or v.dtype == bool}

    def rebuild(found: Mapping[str, Any]) -> Any:
        return jax.tree.unflatten(structure, [found.get(n, v) for n, v in zip(names, values, strict=True)])

    return Tree(floats, others, rebuild)


def adapt(network: Any, params: Any, stats: Any, *, arguments: Mapping[str, Any]) -> Adapted:
    """The network of any of these kinds; ValueError for anything else, and for parameters that are missing or too many."""
    for is_kind, make in ((_is_nnx, _nnx), (_is_linen, _linen), (_is_equinox, _equinox), (_is_haiku, _haiku)):
        if is_kind(network):
            return make(network, params, stats, arguments)
    if callable(getattr(network, "apply", None)) and not isinstance(network, types.FunctionType):
        return _protocol(network, params, stats)
    if callable(network):
        return _function(network, params, stats, arguments)
    raise ValueError(
        "network: expected a function apply(params, images), a Flax NNX, Linen or Equinox module, a Haiku transform or an object "
        f"with apply(params, stats, images, mode), got {type(network).__name__}"
    )


def is_jax_network(network: Any) -> bool:
    """Whether `adapt` would take an object."""
    return callable(network) or callable(getattr(network, "apply", None))


def _from(network: Any, package: str) -> bool:
    return any(base.__module__.split(".")[: package.count(".") + 1] == package.split(".") for base in type(network).__mro__)


def _is_nnx(network: Any) -> bool:
    return _from(network, "flax.nnx")


def _is_linen(network: Any) -> bool:
    return _from(network, "flax.linen")


def _is_equinox(network: Any) -> bool:
    return _from(network, "equinox")


def _is_haiku(network: Any) -> bool:
    return _from(network, "haiku") and hasattr(network, "init") and hasattr(network, "apply")


def _needed(params: Any, what: str, how: str) -> Any:
    if params is None:
        raise ValueError(f"params: a {what} keeps none itself; expected {how}, got none")
    return params


def _no_others(value: Any, name: str, what: str) -> None:
    if value is not None:
        raise ValueError(f"{name}: a {what} holds its own; expected none, got {type(value).__name__}")


def _nnx(network: Any, params: Any, stats: Any, arguments: Mapping[str, Any]) -> Adapted:
    from flax import nnx

    _no_others(params, "params", "Flax NNX module")
    _no_others(stats, "stats", "Flax NNX module")
    copy = nnx.clone(network)
    copy.eval()
    graph, moving, rest = nnx.split(copy, nnx.Param, ...)  # type: ignore[misc]
    own = flat_tree(nnx.to_pure_dict(moving), what="params")
    other = flat_tree(nnx.to_pure_dict(rest), what="stats")

    def filled(state: Any, values: Any) -> Any:
        state = jax.tree.map(lambda x: x, state)
        nnx.replace_by_pure_dict(state, values)
        return state

    def call(p: Flat, s: Flat, images: Any) -> Any:
        module = nnx.merge(graph, filled(moving, own.rebuild(p)), filled(rest, other.rebuild(s)))
        return module(images, **arguments)

    return Adapted(type(network).__name__, "Flax NNX", own.floats, other.floats, call)


def _linen(network: Any, params: Any, stats: Any, arguments: Mapping[str, Any]) -> Adapted:
    variables = _needed(params, "Flax Linen module", "the variables that init returned: wrap(module, variables, ...)")
    if not isinstance(variables, Mapping) or "params" not in variables:
        variables = {"params": variables}
    own = flat_tree(variables["params"], what="params")
    others = {name: value for name, value in variables.items() if name != "params"} | dict(stats or {})
    other = flat_tree(others, what="stats")
    known = inspect.signature(type(network).__call__).parameters
    chosen = {name: value for name, value in EVALUATION.items() if name in known and name not in arguments}

    def call(p: Flat, s: Flat, images: Any) -> Any:
        return network.apply({"params": own.rebuild(p), **other.rebuild(s)}, images, **chosen, **arguments)

    said = ", ".join(f"{name}={value}" for name, value in chosen.items())
    notes = (f"called with {said}",) if chosen else ()
    return Adapted(type(network).__name__, "Flax Linen", own.floats, other.floats, call, notes=notes)


def _equinox(network: Any, params: Any, stats: Any, arguments: Mapping[str, Any]) -> Adapted:
    import equinox

    _no_others(params, "params", "Equinox module")
    module = equinox.nn.inference_mode(network)
    tree = flat_tree(module, what="params")
    state = None if stats is None else flat_tree(stats, what="stats")
    shapes = {name: value.shape for name, value in tree.floats.items()}

    def turned(name: str, value: Array) -> Array:
        """Kernels [out in *kernel] as [*kernel in out] and biases [out 1 1] as [out], as the other frameworks have them."""
        if value.ndim > 2 and math.prod(value.shape[1:]) == 1 and name.split(".")[-1] == "bias":
            return value.reshape(-1)
        return jnp.moveaxis(value, (0, 1), (-1, -2)) if value.ndim > 2 else value

    def back(value: Array, shape: tuple[int, ...]) -> Array:
        return jnp.moveaxis(value, (-1, -2), (0, 1)) if value.ndim > 2 else value.reshape(shape)

    own = {name: turned(name, value) for name, value in tree.floats.items()}

    def call(p: Flat, s: Flat, image: Any) -> Any:
        built = tree.rebuild({name: back(value, shapes[name]) for name, value in p.items()})
        return built(image, **arguments) if state is None else built(image, state.rebuild(s), **arguments)[0]

    floats = {} if state is None else state.floats
    notes = ("an Equinox module is taken to map one image [i *space], channels first, to [c *space]",)
    return Adapted(type(network).__name__, "Equinox", own, floats, call, batched=False, channels_first=True, notes=notes)


def _haiku(network: Any, params: Any, stats: Any, arguments: Mapping[str, Any]) -> Adapted:
    own = flat_tree(_needed(params, "Haiku transform", "what its init returned: wrap(transform, params, ...)"), what="params")
    with_state = "state" in inspect.signature(network.apply).parameters or type(network).__name__ == "TransformedWithState"
    if with_state != (stats is not None):
        expected = "the state that init returned: wrap(transform, params, state, ...)" if with_state else "none"
        raise ValueError(f"stats: of {type(network).__name__} expected {expected}, got {'none' if stats is None else 'some'}")
    state = flat_tree({} if stats is None else stats, what="stats")

    def call(p: Flat, s: Flat, images: Any) -> Any:
        if with_state:
            return network.apply(own.rebuild(p), state.rebuild(s), None, images, **arguments)[0]
        return network.apply(own.rebuild(p), None, images, **arguments)

    return Adapted("haiku", "Haiku", own.floats, state.floats, call)


def _protocol(network: Any, params: Any, stats: Any) -> Adapted:
    own = flat_tree(_needed(params, "network object", "its parameters: wrap(network, params, ...)"), what="params")
    other = flat_tree({} if stats is None else stats, what="stats")

    def call(p: Flat, s: Flat, images: Any) -> Any:
        return network.apply(own.rebuild(p), other.rebuild(s), images)[0]

    return Adapted(type(network).__name__, "network object", own.floats, other.floats, call)


def _function(network: Any, params: Any, stats: Any, arguments: Mapping[str, Any]) -> Adapted:
    own = flat_tree(_needed(params, "function", "its parameters: wrap(apply, params, ...)"), what="params")
    other = flat_tree({} if stats is None else stats, what="stats")

    def call(p: Flat, s: Flat, images: Any) -> Any:
        if stats is None:
            return network(own.rebuild(p), images, **arguments)
        found = network(own.rebuild(p), other.rebuild(s), images, **arguments)
        return found[0] if isinstance(found, tuple) else found

    return Adapted(getattr(network, "__name__", type(network).__name__), "function", own.floats, other.floats, call)
