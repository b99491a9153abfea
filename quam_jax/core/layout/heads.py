"""Pixels and regions in the space `head`: every target and member its own head, a chunk of them as matrix products.

Where there are several devices a chunk is dealt out to them; no head knows of another, so that the devices never speak.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..compilation import jit
from ..head import (
    Asked,
    Factor,
    HeadProblem,
    HeadRecord,
    fisher,
    head_features,
    head_problem,
    is_linear_head,
    line_search,
    search_heads,
)
from ..loss import cross_entropy
from ..network import Parameters
from ..progress import SEARCHING, tell
from ..schedule import StepPlan
from ..setup import Procedure
from ..solvers import LineSearch, Solver
from ..space import TailSpace
from ..types import FitData, Targets, Trajectory
from .choose import Layout

NUMBERS = {"cpu": 2**21, "other": 2**27}  # logits of a chunk: a few megabytes stay near the cores
LARGEST = 8192


def is_for_heads(
    network: Any, params: Parameters, stats: Parameters, procedure: Procedure, targets: Targets, shape: Sequence[int]
) -> bool:
    """Whether this search runs as many linear heads: parts of an image, each with a head of its own.

    How many targets there are does not decide: one pixel keeps the bound on the same drawn points as a thousand. A mask of
    the whole image is a search of whole networks, whose constraint is the whole batch.
    """
    return (
        procedure.space == TailSpace("head")
        and procedure.loss == cross_entropy
        and not procedure.train
        and not procedure.record_after
        and targets.points.shape[1] < math.prod(shape)
        and is_linear_head(network, params, stats)
    )


def search_head_targets(
    network: Any,
    params: Parameters,
    activation: Float[Array, "1 *padded f"],
    fit: FitData,
    targets: Targets,
    *,
    shape: tuple[int, ...],
    procedure: Procedure,
    steps: StepPlan,
    key: Key[Array, ""],
    layout: Layout,
) -> Trajectory:
    """Search every (target, member); `fit.images` are the features of the fit batches.

    Memory grows with the chunk; only the records grow with the number of targets, and they are kept as NumPy arrays. A chunk of
    `layout` is that of all devices together.
    """
    solver = procedure.solver
    closed = isinstance(solver, LineSearch)
    batch = steps.batch[:1] if closed else np.append(steps.batch, (steps.batch[-1] + 1) % len(fit.labels))
    problem = head_problem(network, params, fit.images, fit.labels, batch=batch, count=procedure.fit_points, key=key)
    bound = procedure.slack.bound(problem.reference_loss)
    coefficient = jnp.asarray(np.append(steps.coefficient, steps.coefficient[-1])[: len(batch)], jnp.float32)
    numbers = (bound, coefficient, jnp.asarray(procedure.learning_rate, jnp.float32))
    factor = fisher(problem, damping=solver.damping) if isinstance(solver, LineSearch) else None
    count, members, length = targets.labels.shape
    total = count * members
    points = max(problem.features.shape[1] * problem.theta.shape[1], length * problem.features.shape[2])
    budget = NUMBERS["cpu" if jax.default_backend() == "cpu" else "other"]
    devices = min(layout.devices or jax.local_device_count(), total)
    chunk = min(layout.chunk or devices * max(16, min(LARGEST, budget // points)), total)
    chunk = -(-chunk // devices) * devices
    features = head_features(activation[(0, *(slice(n) for n in shape))].reshape(-1, activation.shape[-1]), problem.head)
    owner = np.repeat(np.arange(count), members)
    labels, places, weights = (np.asarray(leaf) for leaf in (targets.labels.reshape(-1, length), targets.points, targets.weights))
    records: list[HeadRecord] = []
    if devices > 1:  # what all heads share is on every device once, not once a chunk
        everywhere = jax.sharding.NamedSharding(_mesh(devices), jax.sharding.PartitionSpec())
        problem, factor, features, numbers = jax.device_put((problem, factor, features, numbers), everywhere)
    for start in range(0, total, chunk):
        tell(SEARCHING, "chunk", start // chunk + 1, -(-total // chunk))
        rows = np.minimum(np.arange(start, start + chunk), total - 1)  # the last chunk is filled up: one compilation
        record = (_search_chunk if devices == 1 else _search_shared_out(devices))(
            problem,
            factor,
            features,
            places[owner[rows]],
            labels[rows],
            weights[owner[rows]],
            numbers,
            None if closed else solver,
            procedure.stop,
        )
        records.append(jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf), 0, 1), record))
    probs, objective, fit_loss, penalty = (
        np.concatenate(leaves)[:total].reshape(count, members, *leaves[0].shape[1:]) for leaves in zip(*records, strict=True)
    )
    bounds, references = (
        np.broadcast_to(np.asarray(values)[-objective.shape[2] :], objective.shape) for values in (bound, problem.reference_loss)
    )
    return Trajectory(probs, objective, fit_loss, bounds, penalty, references)  # type: ignore[arg-type]  # NumPy arrays


def _mesh(devices: int) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.array(jax.local_devices()[:devices]), ("heads",))


@functools.cache
def _search_shared_out(devices: int) -> Callable[..., HeadRecord]:
    """`_search_chunk` on several devices, each with its part of the heads."""
    all_of_it, part = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("heads")

    def search(
        problem: Any, factor: Any, features: Any, points: Any, labels: Any, weights: Any, numbers: Any, solver: Any, stop: Any
    ) -> HeadRecord:
        return jax.shard_map(
            lambda *arrays: _search_chunk(*arrays, solver, stop),
            mesh=_mesh(devices),
            in_specs=(all_of_it, all_of_it, all_of_it, part, part, part, all_of_it),
            out_specs=jax.sharding.PartitionSpec(None, "heads"),
            check_vma=False,
        )(problem, factor, features, points, labels, weights, numbers)

    return jit(search, static_argnums=(7, 8))


@jit(static_argnames=("solver", "stop"))
def _search_chunk(
    problem: HeadProblem,
    factor: Factor | None,
    features: Float[Array, "n f"],
    points: Int[Array, "t p"],
    labels: Int[Array, "t p"],
    weights: Float[Array, "t p"],
    numbers: tuple,
    solver: Solver | None,
    stop: bool,
) -> HeadRecord:
    columns = problem.theta.shape[1]
    own = jnp.moveaxis(features[points], (0, 1, 2), (2, 1, 0))
    asked = Asked(own, _one_hot(labels, columns), (weights / jnp.sum(weights, -1, keepdims=True)).T)
    bound, coefficient, rate = numbers
    if solver is not None:
        return search_heads(problem, asked, bound=bound, coefficient=coefficient, rate=rate, solver=solver, stop=stop)
    assert factor is not None
    if columns == 1:
        against = 1 - asked.labels
    else:
        logits = jnp.einsum("fpt,fk->tpk", own, problem.theta)
        present, second = jnp.moveaxis(jax.lax.top_k(logits, 2)[1], -1, 0)
        against = _one_hot(jnp.where(labels == present, second, present), columns)
    return line_search(problem, factor, asked, against, bound=bound[0])


def _one_hot(labels: Int[Array, "t p"], columns: int) -> Float[Array, "p k t"]:
    classes = jnp.arange(columns) if columns > 1 else jnp.ones(1, int)
    return jnp.moveaxis(labels[..., None] == classes[None, None], 0, 2).astype(jnp.float32)
