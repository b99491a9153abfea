"""Between a PyTorch state_dict and the flat parameters of a `Network`: same names, other axis order.

A name is the joined module path on both sides, so the only table is the one of axis orders: channels-last
weights `[*kernel in out]` stand for PyTorch's `[out in *kernel]` (convolution), `[in out *kernel]`
(transposed convolution) and `[out in]` (linear). Both directions are strict: every tensor is used once and
every shape is checked, and all mismatches are reported in one error, with shapes as PyTorch prints them.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from quam_jax.models.model import Network, Parameters
from quam_jax.networks import NETWORKS

COUNTER = "num_batches_tracked"  # a buffer that no network needs
FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64), np.dtype(ml_dtypes.bfloat16))
SHOWN = 4


def to_flax(network: Network, tensors: Mapping[str, np.ndarray], *, where: str) -> tuple[Parameters, Parameters]:
    """Parameters and statistics of a network from the tensors of a state_dict, computed in float32.

    Derived buffers (`num_batches_tracked`, Swin's index tables and masks) may be among the tensors and are
    not used. Raises ValueError, naming `where`, on missing or unexpected names, on wrong shapes, on tensors
    that are not floating point and on values that are not finite in float32.
    """
    expected, layouts = torch_shapes(network), network.layouts()
    given = {name: value for name, value in tensors.items() if name in expected or not _is_derived(name, network.architecture)}
    _check_fit(network, expected, given, where=where)
    params, stats = network.shapes()

    def arranged(name: str) -> np.ndarray:
        layout = layouts.get(name, "plain")
        return np.ascontiguousarray(
            np.transpose(_as_float32(given[name], name, where=where), flax_order(layout, given[name].ndim))
        )

    return (
        {name: jnp.asarray(arranged(name)) for name in params},
        {name: jnp.asarray(arranged(name)) for name in stats},
    )


def to_torch(network: Network, params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The float32 tensors of a state_dict, in PyTorch's axis order, from the weights of a network.

    Names come in the order of `network.shapes()`, parameters first. Raises ValueError as `to_flax` does.
    """
    layouts, weights = network.layouts(), {**params, **stats}
    tensors = {name: np.asarray(value) for name, value in weights.items()}
    for name, value in tensors.items():
        layout = layouts.get(name, "plain")
        tensors[name] = np.ascontiguousarray(np.transpose(value, torch_order(layout, value.ndim)))
    expected = torch_shapes(network)
    _check_fit(network, expected, tensors, where="weights of the model")
    return {name: _as_float32(tensors[name], name, where="weights of the model") for name in expected}


def torch_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a state_dict of the network has, without derived buffers."""
    layouts = network.layouts()
    params, stats = network.shapes()
    return {
        name: tuple(shape[axis] for axis in torch_order(layouts.get(name, "plain"), len(shape)))
        for name, shape in {**params, **stats}.items()
    }


def flax_order(layout: str, rank: int) -> tuple[int, ...]:
    """The axes of a PyTorch weight in the order in which the network keeps them."""
    kernel = tuple(range(2, rank))
    orders = {
        "plain": tuple(range(rank)),
        "conv": (*kernel, 1, 0),
        "transposed": (*kernel, 0, 1),
        "linear": (1, 0),
    }
    return orders[layout]


def torch_order(layout: str, rank: int) -> tuple[int, ...]:
    """The axes of a weight of the network in PyTorch's order: the inverse of `flax_order`."""
    order = flax_order(layout, rank)
    return tuple(order.index(axis) for axis in range(rank))


def split_derived(tensors: Mapping[str, np.ndarray], architecture: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights and derived buffers of a state_dict: what a network of this architecture computes itself, or does not need."""
    derived = {name: value for name, value in tensors.items() if _is_derived(name, architecture)}
    return {name: value for name, value in tensors.items() if name not in derived}, derived


def check_derived(derived: Mapping[str, np.ndarray], architecture: str, *, where: str) -> None:
    """ValueError if a buffer of a checkpoint is not the one that the network computes."""
    checks = NETWORKS[architecture].buffers
    for name, value in derived.items():
        kind = name.rpartition(".")[2]
        expected = checks[kind](value) if kind in checks else None
        if expected is not None:
            raise ValueError(f"{where}: {name} expected {expected}, got another of shape {tuple(value.shape)}")


def _is_derived(name: str, architecture: str) -> bool:
    kind = name.rpartition(".")[2]
    return kind == COUNTER or kind in NETWORKS[architecture].buffers


def pack(value: np.ndarray) -> Any:
    """An array as JSON: a number for an integer scalar, else its type, shape and compressed bytes."""
    if value.ndim == 0 and value.dtype == np.int64:
        return int(value)
    raw = zlib.compress(np.ascontiguousarray(value).tobytes(), 9)
    return {
        "dtype": value.dtype.name,
        "shape": list(value.shape),
        "zlib": base64.b64encode(raw).decode("ascii"),
    }


def unpack(packed: Any) -> np.ndarray:
    """The array that `pack` made JSON of."""
    if isinstance(packed, int):
        return np.asarray(packed, np.int64)
    dtype = np.dtype(ml_dtypes.bfloat16) if packed["dtype"] == "bfloat16" else np.dtype(packed["dtype"])
    raw = zlib.decompress(base64.b64decode(packed["zlib"]))
    return np.frombuffer(raw, dtype).reshape(packed["shape"]).copy()


def shorten(items: Iterable[Any]) -> str:
    """The first few items of a list and how many there are in all."""
    listed = [str(item) for item in items]
    more = len(listed) - SHOWN
    return ", ".join(listed[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _check_fit(network: Network, expected: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray], *, where: str) -> None:
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    shapes = [
        f"{name} expected {expected[name]}, got {tuple(given[name].shape)}"
        for name in expected
        if name in given and tuple(given[name].shape) != expected[name]
    ]
    problems = [
        f"{len(found)} {kind} ({shorten(found)})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if found
    ]
    if problems:
        arguments = ", ".join(f"{name}={value!r}" for name, value in network.arguments)
        raise ValueError(f"{where}: the tensors do not fit {network.architecture}({arguments}): {'; '.join(problems)}")


def _as_float32(value: np.ndarray, name: str, *, where: str) -> np.ndarray:
    if value.dtype not in FLOATS:
        raise ValueError(
            f"{where}: {name} expected floating-point weights, got {value.dtype.name} "
            "(quantised and integer weights are not supported)"
        )
    with np.errstate(over="ignore"):
        result = value.astype(np.float32)
    bad = result.size - int(np.count_nonzero(np.isfinite(result)))
    if bad:
        raise ValueError(f"{where}: {name} expected finite float32 values, got {bad} of {result.size} NaN or infinite")
    return result
