"""Masks of a volume: every patch in which a wanted mask differs from the prediction is searched like an image of its own.

Once for each fold, its samples entering running sums a chunk of members at a time; the patches' maps are joined with the
Gaussian weights of the prediction.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...config import Config, SampleConfig
from ...config.build import build_layout
from ...core.layout.choose import choose_layout
from ...core.searching import search_prepared
from ...core.streaming import RunningSums, add_samples, close_sums, decompose_sums, mix, no_samples
from ...core.types import Targets, Trajectory, Uncertainty
from ...core.weighting import counted, log_weights
from ...data.tiles import Tiling, cut, importance
from ...models.predict import predict
from ...models.prepare import model_of
from ...published.combination import published_uncertainty
from ..audit import audit_members, kept_probs, kept_steps
from ..image import wanted_names
from .parts import Joined, Study, TileAudit, leave_tile, start_of, zeros
from .sliding_window import weight_sum

LEAST = 1e-30  # floor of probabilities whose logarithms are averaged


class _Found(NamedTuple):
    """What the search of one patch found; `kept` are the probabilities of the kept adversarial models."""

    maps: Float[np.ndarray, " u *patch"]
    kept: Float[np.ndarray, "n *patch c"]
    trajectories: list[Trajectory]
    references: list[Float[np.ndarray, "*patch c"]]
    audit: list[TileAudit]


def search_masks(
    study: Study,
    volume: np.ndarray,
    tiling: Tiling,
    labels: Int[np.ndarray, "*grid"],
    wanted: dict[str, Int[np.ndarray, "*grid"]],
    *,
    config: Config,
    key: Key[Array, ""],
) -> Joined:
    """Search every patch that has something to move, and join all patches."""
    total, weights = weight_sum(tiling), importance(tiling.patch)
    classes = study.prepared[0].network.classes
    maps = zeros((*tiling.shape, 3))
    kept = [zeros((*tiling.shape, classes)) for _ in range(len(study.folds) * config.search.members)]
    traces: list[list[Trajectory]] = []
    audit: list[TileAudit] = []
    recorded = len(study.folds) * config.search.members * len(study.prepared[0].steps.batch)
    change = np.zeros((recorded, study.coding.labels))
    searched = 0
    for index in range(len(tiling.starts)):
        outer, inner = tiling.overlap(index)
        share = (weights[inner] / total[outer])[..., None]
        moves = any((mask[outer] != labels[outer]).any() for mask in wanted.values())
        patch = cut(volume, tiling, index)
        if moves:
            found = _search_tile(study, patch, tiling, index, wanted, config=config, key=jax.random.fold_in(key, index))
            searched += 1
            traces.append([t._replace(probs=None) for t in found.trajectories])  # type: ignore[arg-type]  # not kept
            audit += found.audit
            change += _volume_change(study, found, share, inner, config.samples)
            patch_maps, patch_kept = found.maps, list(found.kept)
        else:
            left = leave_tile(study, patch, config=config)
            patch_maps, patch_kept = left.maps, [r for r in left.references for _ in range(config.search.members)]
        maps[outer] += np.moveaxis(patch_maps[(slice(None), *inner)], 0, -1) * share
        for evidence, probs in zip(kept, patch_kept, strict=True):
            evidence[outer] += np.log(np.maximum(probs[inner], LEAST)) * share
    return Joined(maps, kept, traces, audit, change, searched, len(tiling.starts))


def _search_tile(
    study: Study,
    patch: np.ndarray,
    tiling: Tiling,
    index: int,
    wanted: dict[str, np.ndarray],
    *,
    config: Config,
    key: Key[Array, ""],
) -> _Found:
    """Search one patch in every fold, its samples a chunk of members at a time."""
    outer, inner = tiling.overlap(index)
    inside = np.zeros(tiling.patch, bool)
    inside[inner] = True
    labels = []
    for name in wanted_names(config):
        asked = np.zeros(tiling.patch, np.int32)
        asked[inner] = wanted[name][outer]
        labels.append(asked.reshape(-1))
    targets = Targets(
        points=jnp.arange(inside.size)[None],
        labels=jnp.asarray(np.stack(labels))[None],
        weights=jnp.asarray((inside / inside.sum()).reshape(1, -1), jnp.float32),
    )
    rank = study.plan.rank
    image = jnp.asarray(patch.reshape(*tiling.patch[3 - rank :], -1))
    references = [predict(model_of(p), image).reshape(inside.size, -1) for p in study.prepared]
    anchor = sum(references[1:], references[0]) / len(references)
    closed, kept, trajectories, audit = [], [], [], []
    for f, prepared in enumerate(study.prepared):
        sums, parts = no_samples(*references[f].shape), []
        for first, part in _chunks(targets, config):
            trajectory = search_prepared(
                prepared,
                image,
                part,
                key=jax.random.fold_in(jax.random.fold_in(key, f), first),
                layout=build_layout(config.execution),
            )
            sums = _add(sums, trajectory, anchor, samples=config.samples)
            best = kept_probs(trajectory, kept_steps(trajectory, np.asarray(counted(trajectory))))[0]
            kept += list(best)
            parts.append(trajectory)
            own = np.argmax(np.asarray(references[f]), -1)
            audit += audit_members(
                TileAudit,
                trajectory,
                names=wanted_names(config)[first : first + len(best)],
                first=first,
                changed=(inside.reshape(-1) & (np.argmax(best, -1) != own)).sum(-1),
                fold=study.folds[f],
                tile=index,
                start=start_of(tiling, index),
            )
        trajectories.append(_joined_trajectory(parts))
        closed.append(close_sums(sums, references[f], anchor, include_reference=config.samples.include_reference))
    uncertainty = _decompose(closed, trajectories, anchor, samples=config.samples)
    shape = tiling.patch
    return _Found(
        np.stack([np.asarray(u).reshape(shape) for u in uncertainty]),
        np.stack(kept).reshape(len(kept), *shape, -1),
        trajectories,
        [np.asarray(r).reshape(*shape, -1) for r in references],
        audit,
    )


def _chunks(targets: Targets, config: Config) -> Iterator[tuple[int, Targets]]:
    """The members that run together; all of them where the published combination needs all samples at once."""
    members = targets.labels.shape[1]
    together = choose_layout(build_layout(config.execution), members=members).chunk or members
    if config.samples == SampleConfig.published():
        together = members
    for first in range(0, members, together):
        yield first, targets._replace(labels=targets.labels[:, first : first + together])


def _add(sums: RunningSums, trajectory: Trajectory, anchor: Array, *, samples: SampleConfig) -> RunningSums:
    weights = log_weights(
        trajectory,
        rule=samples.weighting,
        feasible_only=samples.feasible_only,
        temperature=samples.temperature,
        effective_size=samples.effective_size,
    )
    for member in range(weights.shape[1]):
        sums = add_samples(sums, trajectory.probs[0, member], weights[0, member], anchor)
    return sums


def _decompose(
    closed: Sequence[RunningSums], trajectories: Sequence[Trajectory], anchor: Array, *, samples: SampleConfig
) -> Uncertainty:
    if samples == SampleConfig.published():
        parts = [published_uncertainty(t) for t in trajectories]
        return Uncertainty(*(sum(values[1:], values[0])[0] / len(values) for values in zip(*parts, strict=True)))
    return decompose_sums(mix(closed), anchor, setting=samples.decomposition)


def _joined_trajectory(parts: Sequence[Trajectory]) -> Trajectory:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *values: jnp.concatenate(values, 1), *parts)


def _volume_change(
    study: Study, found: _Found, share: np.ndarray, inner: tuple[slice, ...], samples: SampleConfig
) -> Float[np.ndarray, "n labels"]:
    """How much each recorded sample moves the volume of each label in one patch, in voxels; 0 where it does not count."""
    rows = []
    for trajectory, reference in zip(found.trajectories, found.references, strict=True):
        counts = np.asarray(counted(trajectory, feasible_only=samples.feasible_only))[0]
        before = study.coding.class_to_label_probs(reference[inner])
        for m, s in np.ndindex(*counts.shape):
            if counts[m, s]:
                probs = np.asarray(trajectory.probs[0, m, s]).reshape(reference.shape)[inner]
                rows.append(((study.coding.class_to_label_probs(probs) - before) * share).sum((0, 1, 2), dtype=np.float64))
            else:
                rows.append(np.zeros(study.coding.labels))
    return np.stack(rows)
