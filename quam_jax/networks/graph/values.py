"""How values are stored while a graph runs, and the table from operation names to functions.

ATen speaks of arrays `[b c *space]`; convolutions and pooling run fast with the channels last. So a value is either an array
with its axes in ATen's order, or `Last`, an array whose second axis is stored as the last, and the operations that do not
care (elementwise, concatenation, slices, reductions) work on either, so that a convolutional network never moves an axis.
Weights keep the axis order in which the network stores them (`Stored`). Sizes are plain Python numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

OPERATIONS: dict[str, Callable[..., Any]] = {}

# a PyTorch weight's axes in the order in which the network keeps them, by layout, and back
_STORE: dict[str, Callable[[range], tuple[int, ...]]] = {
    "plain": lambda k: (*k,),
    "conv": lambda k: (*k[2:], 1, 0),
    "transposed": lambda k: (*k[2:], 0, 1),
    "linear": lambda k: (1, 0),
}  # noqa: E501
LAYOUTS = tuple(_STORE)


class Last(NamedTuple):
    """A value whose second axis is stored as the last one."""

    array: Array


class Stored(NamedTuple):
    """A weight as the network keeps it: PyTorch's axes in the order that `layout` names."""

    array: Array
    layout: str


def stored_order(layout: str, rank: int) -> tuple[int, ...]:
    """PyTorch's axes of a weight in the order in which the network keeps them."""
    return _STORE[layout](range(rank))


def plain(value: Any) -> Any:
    """A value, or a list of values, with ATen's axis order."""
    if isinstance(value, Last):
        return jnp.moveaxis(value.array, -1, 1)
    if isinstance(value, Stored):
        order = stored_order(value.layout, value.array.ndim)
        return value.array.transpose([order.index(axis) for axis in range(len(order))])
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    return value


def last(value: Any) -> Array:
    """An array with the second axis moved to the end."""
    return value.array if isinstance(value, Last) else jnp.moveaxis(plain(value), 1, -1)


def aligned(value: Any, x: Array) -> Array:
    """An array in ATen's order with axes of size 1 in front, as many as it lacks beside `x`."""
    return lax.broadcast_to_rank(plain(value), x.ndim)


def kernel(value: Any, layout: str) -> Array:
    """A weight in the axis order of a layout."""
    if isinstance(value, Stored) and value.layout == layout:
        return value.array
    array = plain(value)
    return array.transpose(stored_order(layout, array.ndim))


def is_array(value: Any) -> bool:
    """Whether a value is an array rather than a number, a string or a list."""
    return isinstance(value, Last | Stored | jax.Array)


def rank(value: Any) -> int:
    """Number of axes; 0 for a number."""
    array = value.array if isinstance(value, Last | Stored) else value
    return array.ndim if isinstance(array, jax.Array) else 0


def shape(value: Any) -> tuple[int, ...]:
    """The shape in ATen's axis order."""
    if isinstance(value, Last):
        n = value.array.shape
        return (n[0], n[-1], *n[1:-1])
    if isinstance(value, Stored):
        return jax.eval_shape(lambda a: plain(Stored(a, value.layout)), value.array).shape
    return value.shape


def physical(axis: int, count: int) -> int:
    """Where an axis of ATen's order is stored in a `Last` value of `count` axes."""
    axis = axis % count
    return axis if axis == 0 else count - 1 if axis == 1 else axis - 1


def register(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function that takes values as they are."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return enter


def operation(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function that takes arrays in ATen's axis order."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*plain(args), **{k: plain(v) for k, v in kwargs.items()})

        OPERATIONS.update(dict.fromkeys(names, call))
        return function

    return enter


def elementwise(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function that broadcasts: where one argument has its channels last, the others follow."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            values = [*args, *kwargs.values()]
            count = max(map(rank, values), default=0)
            moved = any(isinstance(v, Last) and v.array.ndim == count for v in values)

            def lay(value: Any) -> Any:
                if not is_array(value) or rank(value) == 0:
                    return plain(value)
                if moved and rank(value) == count:
                    return last(value)
                array = lax.broadcast_to_rank(plain(value), count)
                return last(array) if moved else array

            result = function(*map(lay, args), **{k: lay(v) for k, v in kwargs.items()})
            return Last(result) if moved else result

        OPERATIONS.update(dict.fromkeys(names, call))
        return function

    return enter
