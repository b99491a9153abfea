"""A linear head as numbers: the features in front of it, its weights as one matrix, and the labelled points to explain.

A network whose last layer is a 1x1 convolution says logits = W f + b at every pixel, f its feature vector. With a 1
appended to f the head is one matrix. For two classes only the difference of the two columns matters, so one column is
kept: the margin of class 1 over class 0 (`columns` = 1); for more classes all are kept. Where the logits of classes are sums
of fewer channels (`sums`, a row a class), the head has a column a channel, and only these move.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..network import CutNetwork, Parameters, described, like, named_leaves
from .loss import fit_loss

Head = tuple[Float[Array, "f h *t"]] | tuple[Float[Array, "f h *t"], Float[Array, "h *t"]]
"""Kernel `[f h]` of the channels, and bias where there is one; of one head, or along the last axis of many."""


class HeadProblem(NamedTuple):
    """Fit features and labels of every step, and the given head. `q` are fit points, `f` features, `k` columns."""

    features: Float[Array, "s q f"]
    transposed: Float[Array, "s f q"]
    wanted: Float[Array, "s f k"]
    head: Head
    reference_loss: Float[Array, " s"]
    sums: Float[Array, "c h"] | None = None

    @property
    def theta(self) -> Float[Array, "f k"]:
        """The columns of the given head that matter."""
        return columns_of(self.head, self.sums)


def is_linear_head(network: Any, params: Parameters, stats: Parameters) -> bool:
    """Whether what follows the cut `head` is one matrix at every pixel, with a bias or without.

    The shapes must be those of a 1x1 convolution, and the tail must give its numbers (asked once of a network, on random
    features under random weights).
    """
    if not isinstance(network, CutNetwork) or "head" not in network.cuts:
        return False
    shapes = [named_leaves(params)[name].shape for name in network.tail_names("head")]
    kernels = [shape for shape in shapes if len(shape) >= 2]
    biases = [shape for shape in shapes if len(shape) == 1]
    if len(kernels) != 1 or len(biases) > 1 or len(shapes) != 1 + len(biases) or math.prod(kernels[0][:-2]) != 1:
        return False
    return _is_matrix(network, described(params), described(stats))  # type: ignore[arg-type]  # networks are hashable


@functools.lru_cache(maxsize=64)
def _is_matrix(network: Any, params_like: tuple[Any, tuple], stats_like: tuple[Any, tuple]) -> bool:
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), like(params_like))
    stats = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), like(stats_like))
    head = head_of(network, params)
    sides = (4,) * getattr(network, "rank", 2)
    features = jnp.asarray(rng.normal(size=(1, *sides, head[0].shape[0])), jnp.float32)
    try:
        found = jax.jit(lambda p, s, x: network.tail(p, s, x, cut="head")[0])(params, stats, features)
    except (TypeError, ValueError):
        return False  # a tail that takes other activations
    expected = head_features(features, head) @ _classes(_matrix(head), sums_of(network))
    return found.shape == expected.shape and bool(np.allclose(found, expected, atol=1e-3 * np.ptp(expected)))


def head_of(network: CutNetwork, params: Parameters) -> Head:
    """The head's kernel as a matrix, and its bias where it has one."""
    leaves = [named_leaves(params)[name] for name in network.tail_names("head")]
    kernel = next(leaf for leaf in leaves if leaf.ndim >= 2)
    matrix, bias = kernel.reshape(kernel.shape[-2:]), [leaf for leaf in leaves if leaf.ndim == 1]
    return (matrix, bias[0]) if bias else (matrix,)


def _matrix(head: Head) -> Float[Array, "g c *t"]:
    return jnp.concatenate([head[0], *(leaf[None] for leaf in head[1:])])


def sums_of(network: Any) -> Float[Array, "c h"] | None:
    """Which channels add up to the logit of each class, None for a network whose channels are its classes."""
    sums = getattr(network, "sums", None)
    return None if sums is None else jnp.asarray(sums, jnp.float32)


def _classes(weights: Float[Array, "g h *t"], sums: Float[Array, "c h"] | None) -> Float[Array, "g c *t"]:
    return weights if sums is None else jnp.einsum("gh...,ch->gc...", weights, sums, precision="highest")


def columns_of(head: Head, sums: Float[Array, "c h"] | None = None) -> Float[Array, "g k *t"]:
    """The head as one matrix, its bias as the last row: one column a class, or for two classes the margin of class 1 over 0."""
    weights = _classes(_matrix(head), sums)
    return weights[:, 1:] - weights[:, :1] if weights.shape[1] == 2 else weights


def head_features(features: Float[Array, "*points f"], head: Head) -> Float[Array, "*points g"]:
    """Features as the rows of `columns_of` take them: with the constant 1 of the bias, where there is one."""
    if len(head) == 1:
        return features
    return jnp.concatenate([features, jnp.ones((*features.shape[:-1], 1), features.dtype)], -1)


def fit_points(
    labels: Int[np.ndarray, "k b *space"], batch: Int[np.ndarray, " s"], *, count: int, key: Key[Array, ""]
) -> Int[np.ndarray, "s q"]:
    """The labelled points of every step as flat indices into all fit points: `count` drawn, or all of its batch with 0.

    Points are drawn with replacement from the labelled ones of the step's batch, so that the loss over them is an unbiased
    figure of the batch's. Batches of different numbers of labelled points are filled up with points drawn again.
    """
    size = math.prod(labels.shape[1:])
    labelled = [np.flatnonzero(labels[k].reshape(-1) >= 0) + k * size for k in range(labels.shape[0])]
    wanted = count or max(len(points) for points in labelled)
    rows = []
    for s, k in enumerate(batch):
        points = labelled[k]
        if not count and len(points) == wanted:
            rows.append(points)
        else:
            drawn = jax.random.randint(jax.random.fold_in(key, s), (wanted,), 0, len(points))
            rows.append(points[np.asarray(drawn)] if count else np.concatenate([points, points[np.asarray(drawn)]])[:wanted])
    return np.stack(rows)


def head_problem(
    network: CutNetwork,
    params: Parameters,
    fit: Float[Array, "k b *space f"],
    labels: Int[Array, "k b *space"],
    *,
    batch: Int[np.ndarray, " s"],
    count: int,
    key: Key[Array, ""],
) -> HeadProblem:
    """Lay out the fit points of every step (`batch` names its fit batch) with the given head's loss on them."""
    flat = np.asarray(labels)
    points = fit_points(flat, batch, count=count, key=key)
    chosen = jnp.asarray(flat.reshape(-1)[points])
    head, sums = head_of(network, params), sums_of(network)
    features = head_features(fit.reshape(-1, fit.shape[-1])[jnp.asarray(points)], head)
    theta = columns_of(head, sums)
    columns = theta.shape[1]
    hot = chosen[..., None] == (jnp.arange(columns) if columns > 1 else jnp.ones(1, int))[None, None]
    wanted = jnp.einsum("sqf,sqk->sfk", features, hot.astype(jnp.float32)) / points.shape[1]
    losses = jnp.stack([fit_loss(features[s], wanted[s], theta[..., None])[0][0] for s in range(len(batch))])
    return HeadProblem(features, jnp.swapaxes(features, 1, 2), wanted, head, losses, sums)
