"""Pixels and regions of one image: every target has its own adversarial models, samples and uncertainty.

A point gets the uncertainty of the target that asked for it, the mean where targets overlap (a pyramid). Where nobody
asked, the given network is the only sample: total and aleatoric are the entropy of its prediction, epistemic is 0.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from ..config import Config, SampleConfig
from ..config.build import build_layout
from ..core.decomposition import decompose, entropy
from ..core.fragility import Fragility, fragility_maps, measure_fragility
from ..core.searching import Prepared, search_prepared
from ..core.types import Samples, Targets, Trajectory, Uncertainty
from ..core.weighting import to_samples, trajectory_weights
from ..targets.partition import region_maps, region_targets
from ..targets.pixels import chosen_pixels, pixel_targets

BLOCK = 2**22  # probabilities that are decomposed at a time


class ManyTargets(NamedTuple):
    """What the targets of one image gave: maps on its grid, and what flips cost."""

    targets: Targets
    trajectory: Trajectory
    uncertainty: Uncertainty  # [*space]
    fragility: Fragility
    maps: dict[str, Float[np.ndarray, "*space"]]
    regions: Int[np.ndarray, "..."] | None  # region maps, -1 outside


def choose_targets(
    image: Float[np.ndarray, "*space i"],
    reference: Float[np.ndarray, "*space c"],
    segmentation: Int[np.ndarray, "*space"],
    *,
    wanted: list[Int[np.ndarray, "*space"]],
    config: Config,
) -> tuple[Targets, Int[np.ndarray, "..."] | None]:
    """The pixels or regions that the settings ask for, and the region maps; ValueError if there is none."""
    settings, members = config.targets, config.search.members
    if settings.target == "pixel":
        points = chosen_pixels(settings, segmentation, reference, seed=config.seed)
        if len(points) == 0:
            raise ValueError(f"target: no pixel to ask; pixels {settings.pixels} found none in this segmentation")
        return pixel_targets(points, reference, members=members), None
    maps = region_maps(settings, image, segmentation)
    targets = region_targets(maps, segmentation, wanted, probs=reference, members=members)
    if targets.points.shape[0] == 0:
        raise ValueError(f"target: no region to ask; regions {settings.regions} found none in this segmentation")
    return targets, np.stack(maps)


def quantify_targets(
    prepared: Prepared,
    image: Float[np.ndarray, "*space i"],
    reference: Float[np.ndarray, "*space c"],
    segmentation: Int[np.ndarray, "*space"],
    *,
    wanted: list[Int[np.ndarray, "*space"]],
    config: Config,
    key: Key[jax.Array, ""],
) -> ManyTargets:
    """Search every target of an image, decompose each, and put the results back on the grid."""
    targets, regions = choose_targets(image, reference, segmentation, wanted=wanted, config=config)
    trajectory = search_prepared(prepared, image, targets, key=key, layout=build_layout(config.execution))
    flat = reference.reshape(-1, reference.shape[-1])
    points = np.asarray(targets.points)
    given = flat[points]
    per_point = decompose_targets(trajectory, given, samples=config.samples)
    base = np.asarray(entropy(flat))
    asked = np.asarray(targets.weights) > 0
    counts = np.bincount(points[asked], minlength=len(flat))
    shape = segmentation.shape
    maps = [
        np.where(counts > 0, np.bincount(points[asked], values[asked], len(flat)) / np.maximum(counts, 1), rest)
        .astype(np.float32)
        .reshape(shape)
        for values, rest in zip(per_point, (base, base, np.zeros_like(base)), strict=True)
    ]
    fragility = measure_fragility(trajectory, given, targets)
    uncertainty = Uncertainty(*maps)  # type: ignore[arg-type]  # a record of NumPy maps
    return ManyTargets(targets, trajectory, uncertainty, fragility, fragility_maps(fragility, targets, shape), regions)


def decompose_targets(
    trajectory: Trajectory, reference: Float[np.ndarray, "t p c"], *, samples: SampleConfig
) -> tuple[Float[np.ndarray, "t p"], ...]:
    """Total, aleatoric and epistemic of every point of every target, a block of targets at a time."""
    return decompose_folds((trajectory,), (reference,), samples=samples)


def decompose_folds(
    trajectories: Sequence[Trajectory], references: Sequence[Float[np.ndarray, "t p c"]], *, samples: SampleConfig
) -> tuple[Float[np.ndarray, "t p"], ...]:
    """`decompose_targets` for the same targets searched in several networks, whose samples count alike.

    Where a reference is needed it is the mean of the networks'.
    """
    targets = trajectories[0].objective.shape[0]
    block = min(targets, max(1, BLOCK // max(1, trajectories[0].probs[0].size)))
    parts = []
    for start in range(0, targets, block):
        rows = np.minimum(np.arange(start, start + block), targets - 1)  # the last block is filled up: one compilation
        some = tuple(Trajectory(*(leaf[rows] for leaf in trajectory)) for trajectory in trajectories)
        parts.append([np.asarray(u) for u in _decompose_mixture(some, tuple(r[rows] for r in references), samples)])
    joined = (np.concatenate(leaves)[:targets] for leaves in zip(*parts, strict=True))
    return tuple(joined)


@partial(jax.jit, static_argnames="samples")
def _decompose_mixture(
    trajectories: tuple[Trajectory, ...], references: tuple[Float[jax.Array, "t p c"], ...], samples: SampleConfig
) -> Uncertainty:
    """Weigh the samples of every network by themselves, mix the networks in equal shares, and decompose."""
    parts = [_weighted_samples(*pair, samples) for pair in zip(trajectories, references, strict=True)]
    mixed = Samples(
        jnp.concatenate([part.probs for part in parts], 1), jnp.concatenate([part.weights for part in parts], 1) / len(parts)
    )
    return decompose(mixed, sum(references[1:], references[0]) / len(references), setting=samples.decomposition)


def decompose_weighted(trajectory: Trajectory, reference: Float[jax.Array, "t p c"], samples: SampleConfig) -> Uncertainty:
    """Weigh the recorded samples of every target as the settings say, and decompose their points."""
    return _decompose_mixture((trajectory,), (reference,), samples)


def _weighted_samples(trajectory: Trajectory, reference: Float[jax.Array, "t p c"], samples: SampleConfig) -> Samples:
    weights = trajectory_weights(
        trajectory,
        rule=samples.weighting,
        feasible_only=samples.feasible_only,
        temperature=samples.temperature,
        effective_size=samples.effective_size,
    )
    return to_samples(trajectory, weights, reference=reference, include_reference=samples.include_reference)
