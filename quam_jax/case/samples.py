"""From the searches of one patch to its maps: recorded samples are weighed, those of several networks mixed, and decomposed.

Samples of several networks (folds) count alike: every network's are weighed by themselves, then mixed in equal shares; where a
reference is needed it is the mean of the networks'. There are two ways to the same maps, up to rounding: `decompose_samples`
weighs and decomposes all samples at hand, `decompose_sums_of` takes them up one member after the other.

**Samples of a whole volume.** Sample (member, step) of a volume is what that member says at that step in every search (of a
patch, a voxel, a region) at once; where it may not count, the given network stands in. Its weight is the mean over all
searches of its weight there, the given network's likewise (a linear pool, Stone 1961). So it is the weight of the rule where
there is one search, a distribution whatever the rule, independent of how many patches a volume is cut into, and 0 for a sample
that breaks the constraint everywhere. A product of weights (a logarithmic pool) would give every search a veto: of a hundred
patches one breaks the constraint for nearly every sample, so that only the given network would be left; and losses that are all
measured on the same fit data would add up as if there were a hundred times as much of it.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ..config import SampleConfig
from ..core.decomposition import decompose
from ..core.streaming import add_samples, close_sums, decompose_sums, mix, no_samples
from ..core.types import Samples, Trajectory, Uncertainty, ViewMean
from ..core.weighting import given_share, log_weights, others_share, to_samples, trajectory_weights
from ..published.combination import published_uncertainty
from .audit import LOSSES
from .displacement import displaced

BLOCK = 2**22  # probabilities that are decomposed at a time
POINTS = {"probs": 3, "viewed": 3, "given": 1, "others": 2}  # the axis of the points in parts of a trajectory


class Moved(NamedTuple):
    """How the samples of one search, or of several alike, move the volumes of structures; samples of all folds in order.

    `change` is in voxels of the grid, that of the given network where a sample may not count; `weights` are sums over the
    `searches`, the given network's last. `given` is how the given network itself moves them where it looks through views.
    """

    change: Float[np.ndarray, "n structures"]
    weights: Float[np.ndarray, " n+1"]
    searches: int
    given: Float[np.ndarray, " structures"] | float = 0.0

    def plus(self, other: "Moved") -> "Moved":
        """What these searches and others do together."""
        sums = (self.change + other.change, self.weights + other.weights, self.searches + other.searches)
        return Moved(*sums, self.given + other.given)


def decompose_published(trajectories: Sequence[Trajectory]) -> Uncertainty:
    """The published combination of every network by itself, and the mean over networks, `[t p]`."""
    parts = [published_uncertainty(trajectory) for trajectory in trajectories]
    return Uncertainty(*(sum(values[1:], values[0]) / len(values) for values in zip(*parts, strict=True)))


def decompose_samples(
    trajectories: Sequence[Trajectory], references: Sequence[Float[Array | np.ndarray, "t p c"]], *, samples: SampleConfig
) -> Uncertainty:
    """Uncertainty `[t p]` of every point of every target; the same targets in every network.

    Many targets, and many points of one, go a block at a time, so that little is held beside the samples.
    """
    t, _, _, p, _ = trajectories[0].probs.shape
    each = trajectories[0].probs.size // (t * p)  # probabilities of one point
    size = min(t, max(1, BLOCK // (each * p))), min(p, max(1, BLOCK // each))
    weights = tuple(_weights_of(trajectory, samples) for trajectory in trajectories)
    arguments = tuple(trajectories), weights, tuple(references)
    if size == (t, p):
        return _decompose_block(*arguments, 0, 0, size, samples)
    maps = np.empty((3, t, p), np.float32)
    for row, column in itertools.product(_starts(t, size[0]), _starts(p, size[1])):
        maps[:, row : row + size[0], column : column + size[1]] = _decompose_block(*arguments, row, column, size, samples)
    return Uncertainty(*maps)  # type: ignore[arg-type]  # arrays of NumPy


def _starts(count: int, block: int) -> list[int]:
    """Where blocks of one size begin; the last one overlaps that before it, so that all are compiled once."""
    return [min(start, count - block) for start in range(0, count, block)]


@partial(jax.jit, static_argnames="samples")
def _weights_of(trajectory: Trajectory, samples: SampleConfig) -> Float[Array, "t m s"]:
    return trajectory_weights(trajectory, **_rule(samples))


@partial(jax.jit, static_argnames=("size", "samples"))
def _decompose_block(
    trajectories: tuple[Trajectory, ...],
    weights: tuple[Float[Array, "t m s"], ...],
    references: tuple[Float[Array, "t p c"], ...],
    row: Int[ArrayLike, ""],
    column: Int[ArrayLike, ""],
    size: tuple[int, int],
    samples: SampleConfig,
) -> Uncertainty:
    """The uncertainty of `size` targets and points of each, from `row` and `column` on."""

    def cut(tree: Any, points: int | None = None) -> Any:
        """Leaves with the targets, and the points where they have such an axis, of this block."""
        tree = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, row, size[0], 0), tree)
        return tree if points is None else jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, column, size[1], points), tree)

    parts = []
    for found, weight, reference in zip(trajectories, weights, references, strict=True):
        said = found._replace(
            **{name: cut(getattr(found, name)) for name in (*LOSSES, "reference_loss")},
            **{name: cut(getattr(found, name), axis) for name, axis in POINTS.items()},
        )
        parts.append(to_samples(said, cut(weight), reference=cut(reference, 1), given=samples.given))
    own = [cut(reference, 1) for reference in references]
    return decompose(_mix(parts), sum(own[1:], own[0]) / len(own), setting=samples.decomposition)


def mix_samples(
    trajectories: Sequence[Trajectory], references: Sequence[Float[Array, "t p c"]], *, samples: SampleConfig
) -> Samples:
    """The samples of every network weighed by themselves, and the networks in equal shares."""
    parts = [
        to_samples(trajectory, _weights_of(trajectory, samples), reference=reference, given=samples.given)
        for trajectory, reference in zip(trajectories, references, strict=True)
    ]
    return _mix(parts)


def _mix(parts: Sequence[Samples]) -> Samples:
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *parts)
    return joined._replace(weights=joined.weights / len(parts))


def decompose_sums_of(
    trajectories: Sequence[Trajectory],
    references: Sequence[Float[Array, "p c"]],
    *,
    samples: SampleConfig,
    shape: tuple[int, ...] = (),
    given: Sequence[tuple[ViewMean, ViewMean | None]] = (),
) -> Uncertainty:
    """Uncertainty `[p]` of the only target of some searches by running sums; without trajectories that of the references alone.

    `given` is what the given networks, and models of another origin, say through views where no search told, `shape` that of the
    image or patch, for predictions that may be displaced.

    Beside the samples themselves this holds a few maps.
    """
    anchor = sum(references[1:], references[0]) / len(references)
    closed = []
    for f, reference in enumerate(references):
        sums, (own, others) = no_samples(*reference.shape), given[f] if given else (None, None)
        if trajectories:
            found = trajectories[f]
            weights = log_weights(found, **_rule(samples))
            own, others = jax.tree.map(lambda x: x[0], (found.given, found.others))
            for member in range(weights.shape[1]):
                seen = None if found.viewed is None else jax.tree.map(lambda x, m=member: x[0, m], found.viewed)
                sums = add_samples(sums, found.probs[0, member], weights[0, member], anchor, seen)
        closed.append(close_sums(sums, reference, anchor, given=samples.given, viewed=own, others=others))
    mixed = mix(closed)
    plain = decompose_sums(mixed, anchor, setting=samples.decomposition)
    if not samples.blur:
        return plain
    moved = displaced(plain.aleatoric.reshape(shape), mixed.probs.reshape(*shape, -1), width=samples.blur)
    return Uncertainty(*(part.reshape(-1) for part in moved))


def _rule(samples: SampleConfig) -> dict[str, Any]:
    """The settings as core.weighting takes them."""
    return {
        "rule": samples.weighting,
        "feasible_only": samples.feasible_only,
        "temperature": samples.temperature,
        "effective_size": samples.effective_size,
    }


def sum_weights(
    trajectories: Sequence[Trajectory], samples: SampleConfig, *, count: int | None = None
) -> Float[np.ndarray, " samples"]:
    """The weights of all samples of some networks, summed over the (first `count`) targets of their searches; of each network
    those of its search, then those of another origin; the given network's last.

    Those of one target sum to 1: every network has an equal share, and in it the given network that of `given_share`.
    """
    parts, own = [], 0.0
    for trajectory in trajectories:
        weights, reference = _closed_weights(np.asarray(log_weights(trajectory, **_rule(samples)), np.float64)[:count], samples)
        others = 0 if trajectory.others is None else trajectory.others.probs.shape[1]
        part = others_share(samples.given) if others else 0.0
        parts.append((1 - part) * weights.sum(0).reshape(-1) / len(trajectories))
        parts.append(np.full(others, part * len(weights) / max(others, 1) / len(trajectories)))
        own += (1 - part) * reference.sum() / len(trajectories)
    return np.concatenate([*parts, [own]])


def _closed_weights(
    logs: Float[np.ndarray, "t m s"], samples: SampleConfig
) -> tuple[Float[np.ndarray, "t m s"], Float[np.ndarray, " t"]]:
    """The weights of every target's samples, and that of the given network beside them."""
    counts = (logs > -np.inf).sum((1, 2))
    top = np.where(counts > 0, logs.max((1, 2)), 0.0)
    weights = np.exp(logs - top[:, None, None])
    sums = np.where(counts > 0, weights.sum((1, 2)), 1.0)
    reference = np.asarray(given_share(counts, samples.given), np.float64)
    return weights / sums[:, None, None] * (1.0 - reference)[:, None, None], reference
