"""A linear head as numbers: the features in front of it, its weights as one matrix, and the labelled points to explain.

A network whose last layer is a 1x1 convolution says logits = W f + b at every pixel, f its feature vector. With a 1
appended to f the head is one matrix. For two classes only the difference of the two columns matters, so one column is
kept: the margin of class 1 over class 0 (`columns` = 1); for more classes all are kept.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...models.model import Network, Parameters
from .loss import fit_loss


class HeadProblem(NamedTuple):
    """Fit features and labels of every step, and the given head. `q` are fit points, `f` features, `k` columns."""

    features: Float[Array, "s q f"]
    transposed: Float[Array, "s f q"]
    wanted: Float[Array, "s f k"]
    theta: Float[Array, "f k"]
    reference_loss: Float[Array, " s"]


def is_linear_head(network: Network) -> bool:
    """Whether what follows the cut `head` is one 1x1 convolution with bias or without."""
    if "head" not in network.cuts:
        return False
    names = network.tail_names("head")
    shapes = network.shapes()[0]
    weights = [shapes[n] for n in names if n.endswith("weight")]
    return (
        len(weights) == 1
        and len(names) - 1 == sum(n.endswith("bias") for n in names) <= 1
        and math.prod(weights[0][:-2]) == 1
        and weights[0][-1] == network.classes
    )


def head_matrix(network: Network, params: Parameters) -> Float[Array, "f k"]:
    """The head's weights, the bias as the last row, with one column a class, or one in all for two classes."""
    names = network.tail_names("head")
    weight = next(params[n] for n in names if n.endswith("weight"))
    weight = weight.reshape(weight.shape[-2:])
    bias = next((params[n] for n in names if n.endswith("bias")), jnp.zeros(weight.shape[-1]))
    theta = jnp.concatenate([weight, bias[None]])
    return theta[:, 1:] - theta[:, :1] if theta.shape[1] == 2 else theta


def with_one(features: Float[Array, "*points f"]) -> Float[Array, "*points g"]:
    """Features with the constant 1 of the bias appended."""
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
    network: Network,
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
    features = with_one(fit.reshape(-1, fit.shape[-1])[jnp.asarray(points)])
    theta = head_matrix(network, params)
    columns = theta.shape[1]
    hot = chosen[..., None] == (jnp.arange(columns) if columns > 1 else jnp.ones(1, int))
    wanted = jnp.einsum("sqf,sqk->sfk", features, hot.astype(jnp.float32)) / points.shape[1]
    problem = HeadProblem(features, jnp.swapaxes(features, 1, 2), wanted, theta, jnp.zeros(len(batch)))
    losses = jnp.stack([fit_loss(problem.features[s], problem.wanted[s], theta[..., None])[0][0] for s in range(len(batch))])
    return problem._replace(reference_loss=losses)
