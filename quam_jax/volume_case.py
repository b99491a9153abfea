"""One volume, read top to bottom: onto the network's grid, predict, move the mask, search patch by patch, join, and back.

The given network's prediction is nnU-Net's: patches with Gaussian weights, mirrored, averaged over folds. The target is one
for the whole volume: its label map moved by millimetres. Every patch whose part of the target asks for a change is searched
like an image of its own, once for each fold, and the patches' maps are joined with the same Gaussian weights. What is kept of
a volume are running sums and maps; samples exist for one patch at a time.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy.special import entr, softmax

from .audit import MemberAudit, audit_members, kept_probs, kept_steps
from .case import Quantified, wanted_names
from .coding import Coding
from .config import Config, SampleConfig
from .data.geometry import Geometry
from .data.plans import Grid, Plan, from_grid, to_grid
from .data.tiles import Tiling, cut, importance, tile
from .execution import Prepared, choose_plan, search_prepared
from .model import SegmentationModel
from .predict import predict
from .published import published_uncertainty
from .running import RunningSums, add_samples, close_sums, decompose_sums, log_weights, mix, no_samples
from .sliding_window import predict_logits, weight_sum
from .types import Targets, Trajectory, Uncertainty
from .volume_targets import wanted_volume
from .weighting import counted

IN_MEMORY = 2**28  # bytes; a larger array over a volume lies in a temporary file
LEAST = 1e-30  # floor of probabilities whose logarithms are averaged


class Study(NamedTuple):
    """What all volumes of a run share: the plan, the models of the folds, and each fold ready to be searched."""

    plan: Plan
    coding: Coding
    folds: tuple[str, ...]
    models: tuple[SegmentationModel, ...]
    prepared: tuple[Prepared, ...]


@dataclass(frozen=True)
class TileAudit(MemberAudit):
    """The audit of a member in one patch; `start` is in grid voxels."""

    tile: int = 0
    start: tuple[int, ...] = ()
    fold: str = ""


class VolumeResult(NamedTuple):
    """What is known of a volume beyond its maps.

    `channels` are the probabilities as nnU-Net exports them, independent of each other where they are `regions`.
    `sample_ml[n, label]` are the volumes of the recorded samples, with weights `sample_weights`; the last sample is the given
    network.
    """

    quantified: Quantified
    channels: Float[np.ndarray, "*space k"]
    regions: bool
    sample_ml: Float[np.ndarray, "n labels"]
    sample_weights: Float[np.ndarray, " n"]
    searched: int
    tiles: int


class _Found(NamedTuple):
    """What the search of one patch found; `kept` are the probabilities of the kept adversarial models."""

    maps: Float[np.ndarray, " u *patch"]
    kept: Float[np.ndarray, "n *patch c"]
    trajectories: list[Trajectory]
    references: list[Float[np.ndarray, "*patch c"]]
    audit: list[TileAudit]


def quantify_volume(study: Study, image: Float[np.ndarray, "*space i"], geometry: Geometry, *,
                    config: Config) -> VolumeResult:
    """Aleatoric, epistemic and total uncertainty of one image as read, on its own grid.

    ValueError for an image that does not fit the plan, and for settings that only whole images know.
    """
    if config.targets.target != "mask":
        raise ValueError(f"target: expected mask for a model that works patch by patch, got {config.targets.target}")
    plan, coding, key = study.plan, study.coding, jax.random.key(config.seed)
    volume, grid = to_grid(image, geometry, plan)
    tiling = tile(grid.shape, plan.patch)
    logits = predict_logits(study.models, volume, tiling, mirror_axes=plan.mirror_axes,
                            precision=config.execution.precision)
    labels = coding.segment(logits)
    names = wanted_names(config)
    probs = coding.label_probs(coding.channel_probs(logits))
    wanted = {shape: coding.class_of_label[wanted_volume(labels, shape, settings=config.targets, spacing=grid.spacing,
                                                         probs=probs, key=jax.random.fold_in(key, i))]
              for i, shape in enumerate(config.targets.shapes)}
    joined = _search_tiles(study, volume, tiling, coding.class_of_label[labels], wanted, config=config, key=key)
    return _on_image(study, logits, grid, joined, names, config=config)


class _Joined(NamedTuple):
    """Maps and label evidence on the network's grid, and what is told of the search."""

    maps: Float[np.ndarray, "*grid 3"]
    kept: list[Float[np.ndarray, "*grid c"]]
    traces: list[list[Trajectory]]
    audit: list[TileAudit]
    change: Float[np.ndarray, "n labels"]
    searched: int
    tiles: int


def _search_tiles(study: Study, volume: np.ndarray, tiling: Tiling, labels: Int[np.ndarray, "*grid"],
                  wanted: dict[str, Int[np.ndarray, "*grid"]], *, config: Config, key: Key[Array, ""]) -> _Joined:
    """Search every patch that has something to move, and join all patches."""
    total, weights = weight_sum(tiling), importance(tiling.patch)
    classes = study.prepared[0].model.network.classes
    maps = _zeros((*tiling.shape, 3))
    kept = [_zeros((*tiling.shape, classes)) for _ in range(len(study.folds) * config.search.members)]
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
        else:
            found = _leave_tile(study, patch, config=config)
        maps[outer] += np.moveaxis(found.maps[(slice(None), *inner)], 0, -1) * share
        for evidence, probs in zip(kept, found.kept, strict=True):
            evidence[outer] += np.log(np.maximum(probs[inner], LEAST)) * share
    return _Joined(maps, kept, traces, audit, change, searched, len(tiling.starts))


def _search_tile(study: Study, patch: np.ndarray, tiling: Tiling, index: int, wanted: dict[str, np.ndarray], *,
                 config: Config, key: Key[Array, ""]) -> _Found:
    """Search one patch in every fold, its samples a chunk of members at a time."""
    outer, inner = tiling.overlap(index)
    inside = np.zeros(tiling.patch, bool)
    inside[inner] = True
    labels = []
    for name in wanted_names(config):
        asked = np.zeros(tiling.patch, np.int32)
        asked[inner] = wanted[name][outer]
        labels.append(asked.reshape(-1))
    targets = Targets(points=jnp.arange(inside.size)[None], labels=jnp.asarray(np.stack(labels))[None],
                      weights=jnp.asarray((inside / inside.sum()).reshape(1, -1), jnp.float32))
    rank = study.plan.rank
    image = jnp.asarray(patch.reshape(*tiling.patch[3 - rank:], -1))
    references = [predict(p.model, image).reshape(inside.size, -1) for p in study.prepared]
    anchor = sum(references[1:], references[0]) / len(references)
    closed, kept, trajectories, audit = [], [], [], []
    for f, prepared in enumerate(study.prepared):
        sums, parts = no_samples(*references[f].shape), []
        for first, part in _chunks(targets, config):
            trajectory = search_prepared(prepared, image, part, key=jax.random.fold_in(jax.random.fold_in(key, f), first),
                                         execution=config.execution)
            sums = _add(sums, trajectory, anchor, samples=config.samples)
            best = kept_probs(trajectory, kept_steps(trajectory, np.asarray(counted(trajectory))))[0]
            kept += list(best)
            parts.append(trajectory)
            own = np.argmax(np.asarray(references[f]), -1)
            audit += audit_members(
                TileAudit, trajectory, reference_loss=prepared.recorded_loss,
                names=wanted_names(config)[first:first + len(best)], first=first,
                changed=(inside.reshape(-1) & (np.argmax(best, -1) != own)).sum(-1), fold=study.folds[f], tile=index,
                start=_start(tiling, index))
        trajectories.append(_joined_trajectory(parts))
        closed.append(close_sums(sums, references[f], anchor, include_reference=config.samples.include_reference))
    uncertainty = _decompose(closed, trajectories, anchor, samples=config.samples)
    shape = tiling.patch
    return _Found(np.stack([np.asarray(u).reshape(shape) for u in uncertainty]), np.stack(kept).reshape(len(kept), *shape, -1),
                  trajectories, [np.asarray(r).reshape(*shape, -1) for r in references], audit)


def _leave_tile(study: Study, patch: np.ndarray, *, config: Config) -> _Found:
    """A patch in which no mask moves: the references are its only samples."""
    rank, shape = study.plan.rank, patch.shape[:-1]
    image = jnp.asarray(patch.reshape(*shape[3 - rank:], -1))
    references = [predict(p.model, image).reshape(math.prod(shape), -1) for p in study.prepared]
    anchor = sum(references[1:], references[0]) / len(references)
    closed = [close_sums(no_samples(*r.shape), r, anchor, include_reference=True) for r in references]
    maps = decompose_sums(mix(closed), anchor, setting=config.samples.decomposition)
    kept = [np.asarray(r).reshape(*shape, -1) for r in references for _ in range(config.search.members)]
    return _Found(np.stack([np.asarray(u).reshape(shape) for u in maps]), np.stack(kept), [], [], [])


def _chunks(targets: Targets, config: Config) -> Iterator[tuple[int, Targets]]:
    """The members that run together; all of them where the published combination needs all samples at once."""
    members = targets.labels.shape[1]
    together = choose_plan(config.execution, members=members).chunk or members
    if config.samples == SampleConfig.published():
        together = members
    for first in range(0, members, together):
        yield first, targets._replace(labels=targets.labels[:, first:first + together])


def _add(sums: RunningSums, trajectory: Trajectory, anchor: Array, *, samples: SampleConfig) -> RunningSums:
    weights = log_weights(trajectory, rule=samples.weighting, feasible_only=samples.feasible_only,
                          temperature=samples.temperature, effective_size=samples.effective_size)
    for member in range(weights.shape[1]):
        sums = add_samples(sums, trajectory.probs[0, member], weights[0, member], anchor)
    return sums


def _decompose(closed: Sequence[RunningSums], trajectories: Sequence[Trajectory], anchor: Array, *,
               samples: SampleConfig) -> Uncertainty:
    if samples == SampleConfig.published():
        parts = [published_uncertainty(t) for t in trajectories]
        return Uncertainty(*(sum(values[1:], values[0])[0] / len(values) for values in zip(*parts, strict=True)))
    return decompose_sums(mix(closed), anchor, setting=samples.decomposition)


def _joined_trajectory(parts: Sequence[Trajectory]) -> Trajectory:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *values: jnp.concatenate(values, 1), *parts)


def _volume_change(study: Study, found: _Found, share: np.ndarray, inner: tuple[slice, ...],
                   samples: SampleConfig) -> Float[np.ndarray, "n labels"]:
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


def _on_image(study: Study, logits: Float[np.ndarray, "*grid k"], grid: Grid, joined: _Joined, names: tuple[str, ...], *,
              config: Config) -> VolumeResult:
    """Everything on the image's own grid."""
    coding = study.coding
    first = [1.0] + [0.0] * (coding.labels - 1)
    outside = first if coding.regions is None else 0.0
    channels = from_grid(logits, grid, coding.channel_probs, outside=outside)
    segmentation = from_grid(logits, grid, coding.segment, outside=0, dtype=np.int32)
    reference = channels if coding.regions is None else from_grid(
        logits, grid, lambda z: coding.label_probs(coding.channel_probs(z)), outside=first)
    maps = from_grid(joined.maps, grid, lambda values: values, outside=0.0)
    adversarial = [from_grid(evidence, grid, lambda values: coding.segment_classes(softmax(values, -1)), outside=0,
                             dtype=np.int32) for evidence in joined.kept]
    labelled = [f"{name}, fold {fold}" if len(study.folds) > 1 else name for fold in study.folds for name in names]
    voxel = math.prod(grid.native_spacing if grid.geometry.rank == 3 else grid.geometry.spacing) / 1000
    expected = reference.reshape(-1, coding.labels).sum(0, dtype=np.float64) * voxel
    scale = math.prod(grid.native_shape) / math.prod(grid.shape)  # the grid's voxels have this many of the image's
    members = len(joined.change)
    weights = np.full(members + 1, 1 / (members + 1))
    quantified = Quantified(
        reference=reference, segmentation=segmentation, total=maps[..., 0], aleatoric=maps[..., 1], epistemic=maps[..., 2],
        softmax=_entropy(channels, coding), adversarial=np.stack(adversarial), adversarial_names=tuple(labelled),
        audit=tuple(joined.audit), **_traces(joined, study, config))  # type: ignore[arg-type]  # field by field
    sample_ml = np.vstack([expected + joined.change * scale * voxel, expected])
    return VolumeResult(quantified, channels, coding.regions is not None, sample_ml, weights, joined.searched, joined.tiles)


def _entropy(channels: Float[np.ndarray, "*space k"], coding: Coding) -> Float[np.ndarray, "*space"]:
    entropy = entr(channels).sum(-1)
    return (entropy if coding.regions is None else entropy + entr(1 - channels).sum(-1)).astype(np.float32)


def _traces(joined: _Joined, study: Study, config: Config) -> dict[str, np.ndarray]:
    """The recorded losses `[searches m s]`, a search for each patch and fold."""
    flat = [t for tile_traces in joined.traces for t in tile_traces]
    steps, members = len(study.prepared[0].steps.batch), config.search.members
    empty = np.zeros((0, members, steps), np.float32)
    traces = {name: np.concatenate([np.asarray(getattr(t, name)) for t in flat]) if flat else empty
              for name in ("objective", "fit_loss", "bound", "penalty")}
    finite_losses = np.isfinite(traces["objective"]) & np.isfinite(traces["fit_loss"])
    return {**traces, "feasible": (traces["fit_loss"] <= traces["bound"]) & finite_losses}


def _start(tiling: Tiling, index: int) -> tuple[int, ...]:
    return tuple(s - b for s, b in zip(tiling.starts[index], tiling.before, strict=True))


def _zeros(shape: Sequence[int]) -> Float[np.ndarray, "..."]:
    """An array of zeros, in a temporary file where it is large."""
    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as handle:
        handle.truncate(size)
        return np.memmap(handle, np.float32, "r+", shape=tuple(shape))
