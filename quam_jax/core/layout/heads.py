"""Pixels and regions in the space `head`: every target and member its own head, a chunk of them as matrix products."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...config import ExecutionConfig, SearchConfig
from ...models.model import Network, SegmentationModel
from ..compilation import jit
from ..head import (
    Asked,
    Factor,
    HeadProblem,
    HeadRecord,
    fisher,
    head_problem,
    is_linear_head,
    line_search,
    search_heads,
    with_one,
)
from ..space import Space, TailSpace
from ..step import Procedure, StepPlan, slack_bound
from ..types import FitData, Targets, Trajectory

NUMBERS = {"cpu": 2**21, "other": 2**27}  # logits of a chunk: a few megabytes stay near the cores
LARGEST = 8192
FEW_POINTS = 4096  # of a target; larger ones are images, whose search is one of whole networks


def is_for_heads(space: Space, network: Network, config: SearchConfig, targets: Targets) -> bool:
    """Whether this search can run as many linear heads."""
    return (
        isinstance(space, TailSpace)
        and space.cut == "head"
        and is_linear_head(network)
        and config.mode == "eval"
        and config.record == "same"
        and config.optimizer in ("adam", "sgd")
        and targets.points.shape[0] > 1
        and targets.points.shape[1] <= FEW_POINTS
    )


def search_head_targets(
    model: SegmentationModel,
    activation: Float[Array, "1 *padded f"],
    fit: FitData,
    targets: Targets,
    *,
    shape: tuple[int, ...],
    config: SearchConfig,
    steps: StepPlan,
    key: Key[Array, ""],
    execution: ExecutionConfig,
) -> Trajectory:
    """Search every (target, member); `fit.images` are the features of the fit batches.

    Memory grows with the chunk; only the records grow with the number of targets, and they are kept as NumPy arrays.
    """
    closed = config.solver == "line_search"
    batch = steps.batch[:1] if closed else np.append(steps.batch, (steps.batch[-1] + 1) % len(fit.reference_loss))
    problem = head_problem(model.network, model.params, fit.images, fit.labels, batch=batch, count=config.fit_points, key=key)
    bound = slack_bound(problem.reference_loss, config)
    coefficient = jnp.asarray(np.append(steps.coefficient, steps.coefficient[-1])[: len(batch)], jnp.float32)
    numbers = (bound, coefficient, jnp.asarray(config.learning_rate, jnp.float32))
    factor = fisher(problem, damping=config.damping) if closed else None
    count, members, length = targets.labels.shape
    total = count * members
    points = problem.features.shape[1] * problem.theta.shape[1]
    budget = NUMBERS["cpu" if jax.default_backend() == "cpu" else "other"]
    chunk = min(execution.chunk or max(16, min(LARGEST, budget // points)), total)
    features = with_one(activation[(0, *(slice(n) for n in shape))].reshape(-1, activation.shape[-1]))
    owner = np.repeat(np.arange(count), members)
    labels, places, weights = (np.asarray(leaf) for leaf in (targets.labels.reshape(-1, length), targets.points, targets.weights))
    records: list[HeadRecord] = []
    for start in range(0, total, chunk):
        rows = np.minimum(np.arange(start, start + chunk), total - 1)  # the last chunk is filled up: one compilation
        record = _search_chunk(
            problem, factor, features, places[owner[rows]], labels[rows], weights[owner[rows]], numbers, Procedure.of(config)
        )
        records.append(jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf), 0, 1), record))
    probs, objective, fit_loss, penalty = (
        np.concatenate(leaves)[:total].reshape(count, members, *leaves[0].shape[1:]) for leaves in zip(*records, strict=True)
    )
    recorded = np.asarray(bound)[-objective.shape[2] :]
    return Trajectory(probs, objective, fit_loss, np.broadcast_to(recorded, objective.shape), penalty)  # type: ignore[arg-type]


@jit(static_argnames="procedure")
def _search_chunk(
    problem: HeadProblem,
    factor: Factor | None,
    features: Float[Array, "n f"],
    points: Int[Array, "t p"],
    labels: Int[Array, "t p"],
    weights: Float[Array, "t p"],
    numbers: tuple,
    procedure: Procedure,
) -> HeadRecord:
    columns = problem.theta.shape[1]
    own = jnp.moveaxis(features[points], (0, 1, 2), (2, 1, 0))
    asked = Asked(own, _one_hot(labels, columns), (weights / jnp.sum(weights, -1, keepdims=True)).T)
    bound, coefficient, rate = numbers
    if factor is None:
        return search_heads(problem, asked, bound=bound, coefficient=coefficient, rate=rate, procedure=procedure)
    if columns == 1:
        against = 1 - asked.labels
    else:
        logits = jnp.einsum("fpt,fk->tpk", own, problem.theta)
        present, second = jnp.moveaxis(jax.lax.top_k(logits, 2)[1], -1, 0)
        against = _one_hot(jnp.where(labels == present, second, present), columns)
    return line_search(problem, factor, asked, against, bound=bound[0])


def _one_hot(labels: Int[Array, "t p"], columns: int) -> Float[Array, "p k t"]:
    classes = jnp.arange(columns) if columns > 1 else jnp.ones(1, int)
    return jnp.moveaxis(labels[..., None] == classes, 0, 2).astype(jnp.float32)
