"""Voxels and regions of a volume, each with its own adversarial models, on the patch where it lies most central.

Targets are chosen once for the whole volume on the network's grid. A voxel belongs to the patch whose Gaussian weight is the
largest there; a region to the patch that holds all of it at the largest mean weight, and where none does its voxels go to their
own patches, so that a large region is searched in pieces. Where nobody asked stands what the given network says.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...config import Config
from ...config.build import build_layout
from ...core.fragility import measure_fragility
from ...core.searching import search_prepared
from ...core.types import Targets, Trajectory
from ...data.plans import Grid, points_on_grid
from ...data.tiles import Tiling, cut, importance
from ...evaluation.reference_maps import contour_distance
from ...targets.masks import ranked_classes
from ...targets.partition import region_maps, region_points
from ...targets.pixels import chosen_pixels, pixel_targets
from ..audit import TargetFacts, audit_targets, kept_probs
from ..many_targets import decompose_folds
from .parts import Joined, Left, Study, TileAudit, leave_tile, start_of, zeros
from .sliding_window import weight_sum

NUMBERS = 2**25  # recorded probabilities that are held at a time
FILLED = 4096  # targets are filled up to a power of two, from here to a multiple of this: few compilations
LEAST = 1e-30  # floor of probabilities whose logarithms are kept


class Asked(NamedTuple):
    """Targets of one patch that have equally many points: flat voxels of the grid, wanted classes, weights (0: padding)."""

    voxels: Int[np.ndarray, "t p"]
    labels: Int[np.ndarray, "t m p"]
    weights: Float[np.ndarray, "t p"]


class _Found(NamedTuple):
    """What the search of some targets of a patch found; `kept` are the probabilities of the kept models, by fold and member.

    `change[f, m, s, c]` is the sum over the points of how much a recorded sample moves the probability of a class.
    """

    uncertainty: Float[np.ndarray, "u t p"]
    kept: Float[np.ndarray, "n t p c"]
    slack: Float[np.ndarray, "t p"]
    change: Float[np.ndarray, "f m s c"]
    facts: list[TargetFacts]


def search_points(
    study: Study,
    volume: Float[np.ndarray, "*grid i"],
    tiling: Tiling,
    *,
    labels: Int[np.ndarray, "*grid"],
    probs: Float[np.ndarray, "*grid c"],
    wanted: Sequence[Int[np.ndarray, "*grid"]],
    grid: Grid,
    config: Config,
    key: Key[Array, ""],
) -> Joined:
    """Search the voxels or regions that the settings ask for; `labels`, `probs` and `wanted` are in classes of the search.

    ValueError where the settings find none.
    """
    members, classes = config.search.members, probs.shape[-1]
    owner = owners(tiling)
    regions: tuple[Int[np.ndarray, "*grid"], ...] = ()
    groups: list[list[Asked]]
    if config.targets.target == "pixel":
        points = volume_pixels(labels, probs, grid=grid, config=config)
        tiles = _split_voxels(points, owner, len(tiling.starts))
        groups = [[_ask_voxels(voxels, probs, members=members)] if len(voxels) else [] for voxels in tiles]
    else:
        regions = tuple(region_maps(config.targets, volume, labels))
        parts = [part for region_map in regions for part in region_points(region_map)]
        if not parts:
            raise ValueError(f"target: no region to ask; regions {config.targets.regions} found none in this segmentation")
        groups = [
            list(_ask_regions(pieces, labels, probs, wanted, members=members, records=_records(study, config)))
            for pieces in share_out(parts, tiling, owner)
        ]
    total, weights = weight_sum(tiling), importance(tiling.patch)
    maps = zeros((*tiling.shape, 3))
    references = [zeros((*tiling.shape, classes)) for _ in study.folds]
    asked: list[tuple[Asked, _Found]] = []
    audit: list[TileAudit] = []
    traces: list[list[Trajectory]] = []
    for index, group in enumerate(groups):
        outer, inner = tiling.overlap(index)
        share = (weights[inner] / total[outer])[..., None]
        patch = cut(volume, tiling, index)
        left = leave_tile(study, patch, config=config)
        maps[outer] += np.moveaxis(left.maps[(slice(None), *inner)], 0, -1) * share
        for evidence, reference in zip(references, left.references, strict=True):
            evidence[outer] += np.log(np.maximum(reference[inner], LEAST)) * share
        found = [(some, _search(study, patch, tiling, index, some, left, config=config, key=key)) for some in group]
        asked += found
        if found:
            rows, losses = _tell(study, tiling, index, found, left, config=config)
            audit += rows
            traces.append(losses)
    moved = sum((one.change for _, one in asked[1:]), asked[0][1].change) / max(len(regions), 1)
    change = study.coding.class_to_label_probs(moved).reshape(-1, study.coding.labels).astype(np.float64)
    kept: list[np.ndarray] = []
    for reference in (one for one in references for _ in range(members)):
        kept.append(zeros(reference.shape))
        kept[-1][...] = reference
    flipcost = _put(maps, kept, asked, labels.shape)
    return Joined(maps, kept, traces, audit, change, sum(map(bool, groups)), len(tiling.starts), {"slack": flipcost}, regions)


def volume_pixels(
    labels: Int[np.ndarray, "*grid"], probs: Float[np.ndarray, "*grid c"], *, grid: Grid, config: Config
) -> Int[np.ndarray, " t"]:
    """The voxels of the network's grid that the settings ask for, as flat indices; ValueError if there is none.

    The band is measured in millimetres: `band_width` counts steps of the middle one of the three voxel sides, as `radius`
    does. Listed voxels are those of the image as stored.
    """
    settings = config.targets
    if settings.pixels == "band":
        width = settings.band_width * float(np.median(grid.spacing)) + 1e-6
        points = np.flatnonzero(contour_distance(labels, spacing=grid.spacing) <= width)
    elif settings.pixels == "list":
        points = np.ravel_multi_index(tuple(points_on_grid(np.array(settings.listed_points), grid).T), labels.shape)
    else:
        points = chosen_pixels(settings, labels, probs, seed=config.seed)
    if len(points) == 0:
        raise ValueError(f"target: no pixel to ask; pixels {settings.pixels} found none in this segmentation")
    return np.unique(points)


def owners(tiling: Tiling) -> Int[np.ndarray, "*grid"]:
    """The patch in which every voxel of the grid has the largest Gaussian weight; of equal ones the first."""
    weights, best = importance(tiling.patch), np.zeros(tiling.shape, np.float32)
    owner = np.zeros(tiling.shape, np.int32)
    for index in range(len(tiling.starts)):
        outer, inner = tiling.overlap(index)
        better = weights[inner] > best[outer]
        best[outer] = np.where(better, weights[inner], best[outer])
        owner[outer] = np.where(better, index, owner[outer])
    return owner


def share_out(
    parts: Sequence[Int[np.ndarray, " p"]], tiling: Tiling, owner: Int[np.ndarray, "*grid"]
) -> list[list[Int[np.ndarray, " p"]]]:
    """The regions (flat voxels of the grid), whole or in pieces, that every patch searches."""
    weights, starts = importance(tiling.patch), np.array(tiling.starts) - np.array(tiling.before)
    flat = owner.reshape(-1)
    shared: list[list[np.ndarray]] = [[] for _ in tiling.starts]
    for part in parts:
        places = np.stack(np.unravel_index(part, tiling.shape))
        low, high = places.min(1), places.max(1)
        whole = np.flatnonzero(((starts <= low) & (high < starts + np.array(tiling.patch))).all(1))
        if len(whole):
            means = [weights[tuple(places - starts[index][:, None])].mean() for index in whole]
            shared[whole[int(np.argmax(means))]].append(part)
        else:
            for index in np.unique(flat[part]):
                shared[index].append(part[flat[part] == index])
    return shared


def _split_voxels(points: Int[np.ndarray, " t"], owner: Int[np.ndarray, "*grid"], tiles: int) -> list[Int[np.ndarray, " t"]]:
    index = owner.reshape(-1)[points]
    order = np.argsort(index, kind="stable")
    return np.split(points[order], np.cumsum(np.bincount(index, minlength=tiles))[:-1])


def _ask_voxels(voxels: Int[np.ndarray, " t"], probs: Float[np.ndarray, "*grid c"], *, members: int) -> Asked:
    own = probs.reshape(-1, probs.shape[-1])[voxels]
    targets = pixel_targets(np.arange(len(voxels)), own, members=members)
    return Asked(voxels[:, None], np.asarray(targets.labels), np.asarray(targets.weights))


def _records(study: Study, config: Config) -> int:
    """Recorded probabilities of one point of one target."""
    return config.search.members * len(study.prepared[0].steps.batch) * study.prepared[0].network.classes


def _ask_regions(
    pieces: Sequence[Int[np.ndarray, " p"]],
    labels: Int[np.ndarray, "*grid"],
    probs: Float[np.ndarray, "*grid c"],
    wanted: Sequence[Int[np.ndarray, "*grid"]],
    *,
    members: int,
    records: int,
) -> Iterator[Asked]:
    """Pieces of like size together, filled up to a power of two; at most NUMBERS recorded probabilities a group."""
    present, flat = labels.reshape(-1), probs.reshape(-1, probs.shape[-1])
    sizes = np.array([1 << (len(piece) - 1).bit_length() for piece in pieces], int)
    for size in np.unique(sizes):
        alike = [piece for piece, own in zip(pieces, sizes, strict=True) if own == size]
        most = max(1, NUMBERS // (int(size) * records))
        for first in range(0, len(alike), most):
            some = alike[first : first + most]
            voxels = np.stack([np.concatenate([piece, np.repeat(piece[:1], size - len(piece))]) for piece in some])
            inside = np.arange(size) < np.array([len(piece) for piece in some])[:, None]
            ranked = ranked_classes(flat[voxels])
            other = np.where(ranked[..., 0] == present[voxels], ranked[..., 1], ranked[..., 0])
            asked = np.stack([wanted[m % len(wanted)].reshape(-1)[voxels] for m in range(members)], 1)
            nothing_new = (asked == present[voxels][:, None]).all(-1, keepdims=True)
            yield Asked(
                voxels, np.where(nothing_new, other[:, None], asked).astype(np.int32), inside / inside.sum(1, keepdims=True)
            )


def _search(
    study: Study,
    patch: Float[np.ndarray, "*patch i"],
    tiling: Tiling,
    index: int,
    asked: Asked,
    left: Left,
    *,
    config: Config,
    key: Key[Array, ""],
) -> _Found:
    """Search some targets of one patch in every fold; the folds' draws of fit data are the same in all patches."""
    count = len(asked.voxels)
    filled = _filled(count) if config.search.space == "head" else count
    rows = np.minimum(np.arange(filled), count - 1)
    places = np.stack(np.unravel_index(asked.voxels, tiling.shape), -1) - start_of(tiling, index)
    local = np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), tiling.patch)
    targets = Targets(
        jnp.asarray(local[rows], jnp.int32),
        jnp.asarray(asked.labels[rows], jnp.int32),
        jnp.asarray(asked.weights[rows], jnp.float32),
    )
    image = jnp.asarray(patch.reshape(*tiling.patch[3 - study.plan.rank :], -1))
    given = [reference.reshape(-1, reference.shape[-1])[local[rows]] for reference in left.references]
    trajectories, kept, facts, change = [], [], [], []
    slack = np.full(asked.voxels.shape, np.inf, np.float32)
    inside = asked.weights > 0
    for f, prepared in enumerate(study.prepared):
        found = search_prepared(prepared, image, targets, key=jax.random.fold_in(key, f), layout=build_layout(config.execution))
        cost = measure_fragility(found, given[f], targets)
        slack = np.minimum(slack, np.asarray(cost.slack)[:count])
        own = Trajectory(*(np.asarray(leaf)[:count] for leaf in found))  # type: ignore[arg-type]  # NumPy arrays
        told = TargetFacts.of(own)
        kept += list(np.moveaxis(kept_probs(own, told.kept), 1, 0))
        moved = np.where(told.counts[..., None, None], own.probs - given[f][:count, None, None], 0)
        change.append(np.einsum("tmspc,tp->msc", moved, inside.astype(np.float32)))
        trajectories.append(found)
        facts.append(told)
    uncertainty = decompose_folds(trajectories, given, samples=config.samples)
    return _Found(np.stack([u[:count] for u in uncertainty]), np.stack(kept), slack, np.stack(change), facts)


def _filled(count: int) -> int:
    return max(2, 1 << (count - 1).bit_length()) if count <= FILLED else -(-count // FILLED) * FILLED


def _tell(
    study: Study, tiling: Tiling, index: int, found: Sequence[tuple[Asked, _Found]], left: Left, *, config: Config
) -> tuple[list[TileAudit], list[Trajectory]]:
    """The audit rows of one patch, one a fold and member, and the mean losses of its targets as trajectories `[1 m s]`."""
    members = config.search.members
    names = [f"{config.targets.target} {m}" for m in range(members)]
    rows, traces = [], []
    for f, fold in enumerate(study.folds):
        facts = TargetFacts(*(np.concatenate(leaves) for leaves in zip(*(one.facts[f] for _, one in found), strict=True)))
        changed = np.zeros(members, int)
        for asked, one in found:
            places = np.stack(np.unravel_index(asked.voxels, tiling.shape), -1) - start_of(tiling, index)
            own = left.references[f].argmax(-1)[tuple(np.moveaxis(places, -1, 0))]
            moved = one.kept[f * members : (f + 1) * members].argmax(-1) != own
            changed += (moved & (asked.weights > 0)).sum((1, 2))
        rows += audit_targets(
            TileAudit, facts, names=names, changed=changed, tile=index, start=start_of(tiling, index), fold=fold
        )
        means = facts.means()
        traces.append(Trajectory(None, *(means[n][None] for n in ("objective", "fit_loss", "bound", "penalty")), None))  # type: ignore[arg-type, call-arg]
    return rows, traces


def _put(
    maps: Float[np.ndarray, "*grid 3"],
    kept: Sequence[Float[np.ndarray, "*grid c"]],
    asked: Sequence[tuple[Asked, _Found]],
    shape: Sequence[int],
) -> Float[np.ndarray, "*grid"]:
    """Put what the targets found in place of what the given network says; returns what flips cost, NaN where nobody asked.

    Where targets overlap their maps are averaged, the cheapest flip counts, and label evidence is that of the last.
    """
    size = math.prod(shape)
    counts, sums, cost = np.zeros(size, np.int32), np.zeros((3, size)), np.full(size, np.nan, np.float32)
    for some, one in asked:
        inside = some.weights > 0
        voxels = some.voxels[inside]
        counts += np.bincount(voxels, minlength=size).astype(np.int32)
        for row, values in zip(sums, one.uncertainty, strict=True):
            row += np.bincount(voxels, values[inside], size)
        np.fmin.at(cost, voxels, one.slack[inside])
        for evidence, probs in zip(kept, one.kept, strict=True):
            evidence.reshape(-1, probs.shape[-1])[voxels] = np.log(np.maximum(probs[inside], LEAST))
    there = counts > 0
    maps.reshape(-1, 3)[there] = (sums[:, there] / counts[there]).T
    return cost.reshape(tuple(shape))
