"""Pixels and regions, each with its own adversarial models, in the patch where it lies most central.

Targets are chosen once for the whole grid. A pixel belongs to the patch whose Gaussian weight is the largest there; a region to
the patch that holds all of it at the largest mean weight, and where none does its pixels go to their own patches, so that a
large region is searched in pieces. A pixel gets the uncertainty of the target that asked for it, the mean where targets overlap
(a pyramid). Where nobody asked stands what the given network says.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..config import Config
from ..config.build import build_layout
from ..core.fragility import Fragility, fragility_maps, measure_fragility, scatter
from ..core.progress import SEARCHING, tell
from ..core.searching import search_prepared
from ..core.types import Targets
from ..data.patches import Patches, importance
from ..data.plans import Grid, points_on_grid
from ..evaluation.reference_maps import contour_band
from ..targets.partition import part_targets, region_maps, region_points, region_targets
from ..targets.pixels import chosen_pixels, pixel_targets
from .audit import SearchFacts, kept_probs
from .masks import wanted_masks
from .patches import Ask, Found, Joined, PatchJob, Placed, Regions, Scene, leave_patch
from .samples import Moved, decompose_samples, sum_weights
from .shared import CaseModel

NUMBERS = 2**25  # recorded probabilities of the pixels or regions that are searched together in a patch
FILLED = 4096  # targets are filled up to a power of two, from here to a multiple of this: few compilations


def point_names(config: Config) -> tuple[str, ...]:
    """A name for every member, in order."""
    return tuple(f"{config.targets.target} {m}" for m in range(config.search.members))


def ask_points(shared: CaseModel, scene: Scene, *, config: Config) -> tuple[Ask, Regions]:
    """The pixels or regions that every patch searches, by its number, and the region maps (-1 outside).

    ValueError where the settings find none.
    """
    patches, members = scene.patches, config.search.members
    labels, probs = np.asarray(scene.labels), np.asarray(scene.probs)
    owner = owners(patches)
    shown = shared.coding.background_first(labels)  # what is no background is foreground
    if config.targets.target == "pixel":
        points = _choose_pixels(scene, shown, probs, config=config)
        shares = _split_pixels(points, owner, len(patches.starts))

        most = len(points) if scene.alone else max(1, NUMBERS // (shared.records(config.search) * probs.shape[-1]))

        def ask_pixels(index: int) -> Sequence[Targets]:
            """As many together as have NUMBERS recorded probabilities."""
            groups = [shares[index][first : first + most] for first in range(0, len(shares[index]), most)]
            given = [probs.reshape(-1, probs.shape[-1])[group] for group in groups]
            asked = [pixel_targets(np.arange(len(own)), own, members=members) for own in given]
            return [_in_patch(one, group[:, None], patches, index) for one, group in zip(asked, groups, strict=True)]

        return ask_pixels, ()
    regions = tuple(region_maps(config.targets, np.asarray(scene.values), shown))
    parts = [part for region_map in regions for part in region_points(region_map)]
    if not parts:
        raise ValueError(f"target: no region to ask; regions {config.targets.regions} found none in this segmentation")
    wanted = wanted_masks(shared, scene, config=config)
    if scene.alone:
        whole = region_targets(regions, labels, wanted, probs=probs, members=members)
        return (lambda index: [_in_patch(whole, np.asarray(whole.points), patches, index)]), regions
    pieces = share_out(parts, patches, owner)
    records = shared.records(config.search) * probs.shape[-1]

    def ask_regions(index: int) -> Sequence[Targets]:
        """Pieces of like size together, filled up to a power of two: few compilations."""
        asked = (
            part_targets(group, labels, wanted, probs=probs, members=members, length=_filled_size(group[0]))
            for group in _alike(pieces[index], records=records)
        )
        return [_in_patch(some, np.asarray(some.points), patches, index) for some in asked]

    return ask_regions, regions


def owners(patches: Patches) -> Int[np.ndarray, "*grid"]:
    """The patch in which every pixel of the grid has the largest Gaussian weight; of equal ones the first."""
    owner = np.zeros(patches.shape, np.int32)
    if len(patches.starts) == 1:
        return owner
    weights, best = importance(patches.patch), np.zeros(patches.shape, np.float32)
    for index in range(len(patches.starts)):
        outer, inner = patches.overlap(index)
        better = weights[inner] > best[outer]
        best[outer] = np.where(better, weights[inner], best[outer])
        owner[outer] = np.where(better, index, owner[outer])
    return owner


def share_out(
    parts: Sequence[Int[np.ndarray, " _"]], patches: Patches, owner: Int[np.ndarray, "*grid"]
) -> list[list[Int[np.ndarray, " _"]]]:
    """The regions (flat pixels of the grid), whole or in pieces, that every patch searches."""
    weights, starts = importance(patches.patch), np.array(patches.starts) - np.array(patches.before)
    flat = owner.reshape(-1)
    shared: list[list[np.ndarray]] = [[] for _ in patches.starts]
    for part in parts:
        places = np.stack(np.unravel_index(part, patches.shape))
        low, high = places.min(1), places.max(1)
        whole = np.flatnonzero(((starts <= low) & (high < starts + np.array(patches.patch))).all(1))
        if len(whole):
            means = [weights[tuple(places - starts[index][:, None])].mean() for index in whole]
            shared[whole[int(np.argmax(means))]].append(part)
        else:
            for index in np.unique(flat[part]):
                shared[index].append(part[flat[part] == index])
    return shared


def _choose_pixels(
    scene: Scene, labels: Int[np.ndarray, "*grid"], probs: Float[np.ndarray, "*grid c"], *, config: Config
) -> Int[np.ndarray, " t"]:
    """The pixels that the settings ask for, as flat indices; ValueError if there is none."""
    settings = config.targets
    points = _special_pixels(scene.grid, labels, config=config) if scene.grid else None
    if points is None:
        points = chosen_pixels(settings, labels, probs, seed=config.seed)
    if len(points) == 0:
        raise ValueError(f"target: no pixel to ask; pixels {settings.pixels} found none in this segmentation")
    return points if scene.alone else np.unique(points)


def _special_pixels(grid: Grid, labels: Int[np.ndarray, "*grid"], *, config: Config) -> Int[np.ndarray, " t"] | None:
    """What is chosen otherwise on a grid of the network's own.

    The band is measured in millimetres: `band_width` counts steps of the middle one of the three voxel sides, as `radius`
    does. Listed voxels are those of the image as stored.
    """
    settings = config.targets
    if settings.pixels == "band":
        width = settings.band_width * float(np.median(grid.spacing)) + 1e-6
        return contour_band(labels, width, spacing=grid.spacing)
    if settings.pixels == "list":
        return np.ravel_multi_index(tuple(points_on_grid(np.array(settings.listed_points), grid).T), labels.shape)
    return None


def _split_pixels(points: Int[np.ndarray, " t"], owner: Int[np.ndarray, "*grid"], count: int) -> list[Int[np.ndarray, " _"]]:
    index = owner.reshape(-1)[points]
    order = np.argsort(index, kind="stable")
    return np.split(points[order], np.cumsum(np.bincount(index, minlength=count))[:-1])


def _filled_size(piece: Int[np.ndarray, " p"]) -> int:
    return 1 << (len(piece) - 1).bit_length()


def _alike(pieces: Sequence[Int[np.ndarray, " _"]], *, records: int) -> Iterator[list[Int[np.ndarray, " _"]]]:
    """Pieces of one filled size together; at most NUMBERS recorded probabilities a group."""
    sizes = np.array([_filled_size(piece) for piece in pieces], int)
    for size in np.unique(sizes):
        alike = [piece for piece, own in zip(pieces, sizes, strict=True) if own == size]
        most = max(1, NUMBERS // (int(size) * records))
        for first in range(0, len(alike), most):
            yield alike[first : first + most]


def _in_patch(asked: Targets, pixels: Int[np.ndarray, "t p"], patches: Patches, index: int) -> Targets:
    """The targets in NumPy arrays, with flat indices into the patch for those into the grid."""
    if len(patches.starts) > 1 or patches.patch != patches.shape:
        places = np.stack(np.unravel_index(pixels, patches.shape), -1) - patches.start(index)
        pixels = np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), patches.patch)
    return Targets(*(np.asarray(leaf) for leaf in asked._replace(points=pixels)))  # type: ignore[arg-type]  # NumPy arrays


def search_points(shared: CaseModel, jobs: Sequence[PatchJob], *, config: Config) -> Iterator[Found]:
    """What came of some patches, one after the other."""
    members = config.search.members
    for job in jobs:
        left = leave_patch(shared, job, config=config)
        searched = [_search_group(shared, job, asked, config=config) for asked in job.asked]
        placed = [one for one, _, _ in searched]
        changed = []
        for f, reference in enumerate(job.references):
            own = np.asarray(reference).argmax(-1)
            changed.append(np.array([(_moved_labels(own, placed, f * members + m) != own).sum() for m in range(members)]))
        facts = [SearchFacts.joined([own[f] for _, own, _ in searched]) for f in range(len(shared.folds))]
        moved = [one for _, _, one in searched if one is not None]
        yield left._replace(facts=facts, changed=changed, moved=moved, placed=placed)


def _moved_labels(own: Int[np.ndarray, " p"], placed: Sequence[Placed], model: int) -> Int[np.ndarray, " p"]:
    labels = own.copy()
    for one in placed:
        inside = one.targets.weights > 0
        labels[one.targets.points[inside]] = one.kept[model].argmax(-1)[inside]
    return labels


def _search_group(
    shared: CaseModel, job: PatchJob, asked: Targets, *, config: Config
) -> tuple[Placed, list[SearchFacts], Moved | None]:
    """Search some targets of one patch in every fold: what was found, the facts of every fold, how samples move volumes."""
    count, inside = len(asked.points), asked.weights > 0
    filled = count if job.scene.alone or config.search.space != "head" else _filled(count)
    rows = np.minimum(np.arange(filled), count - 1)
    types = (jnp.int32, jnp.int32, jnp.float32)
    targets = Targets(*(jnp.asarray(leaf[rows], kind) for leaf, kind in zip(asked, types, strict=True)))
    given = [np.asarray(reference)[asked.points[rows]] for reference in job.references]
    searched, kept, facts, costs, change = [], [], [], [], []
    for f, fold in enumerate(shared.folds):
        tell(SEARCHING, "fold", f + 1, len(shared.folds))
        found = search_prepared(fold.prepared, job.image, targets, key=_key(job, f), layout=build_layout(config.execution))
        cost = measure_fragility(found, given[f], targets)
        costs.append(Fragility(*(np.asarray(leaf)[:count] for leaf in cost)))  # type: ignore[arg-type]  # NumPy arrays
        searched.append(found)
        filled_facts = SearchFacts.of(found)  # cut to the targets afterwards: what is compiled for each count stays in memory
        kept += list(np.moveaxis(kept_probs(found, filled_facts.kept)[:count], 1, 0))
        facts.append(SearchFacts(*(leaf[:count] for leaf in filled_facts)))
        if shared.plan is not None:
            counts = facts[f].counts if config.samples.feasible_only else facts[f].usable
            moves = np.where(counts[..., None, None], np.asarray(found.probs)[:count] - given[f][:count, None, None], 0)
            change.append(np.einsum("tmspc,tp->msc", moves, inside.astype(np.float32)))
    moved = None
    if shared.plan is not None:
        structures = shared.coding.class_to_structure_probs(np.stack(change))
        moved = Moved(structures.reshape(-1, structures.shape[-1]), sum_weights(searched, config.samples, count=count), count)
    maps = decompose_samples(searched, given, samples=config.samples)
    found_maps, cheapest = np.stack([np.asarray(u)[:count] for u in maps]), _cheapest(costs)
    placed = Placed(asked, found_maps, np.stack(kept), np.asarray(cheapest.slack), cheapest if job.scene.alone else None)
    return placed, facts, moved


def _key(job: PatchJob, fold: int) -> Key[Array, ""]:
    """Folds draw fit data of their own, the same in all patches, so that patches and groups change no number."""
    return job.scene.key if job.scene.alone else jax.random.fold_in(job.scene.key, fold)


def _filled(count: int) -> int:
    return max(2, 1 << (count - 1).bit_length()) if count <= FILLED else -(-count // FILLED) * FILLED


def _cheapest(costs: Sequence[Fragility]) -> Fragility:
    """What flips cost in the fold where they cost least."""
    least = Fragility(*(np.minimum.reduce(leaves) for leaves in zip(*costs, strict=True)))  # type: ignore[arg-type]
    most = {name: np.maximum.reduce([getattr(cost, name) for cost in costs]) for name in ("flipped", "share")}
    return least._replace(**most)


def place_points(joined: Joined) -> dict[str, Float[np.ndarray, "*grid"]]:
    """Put what the targets found in place of what the given network says; returns maps of what flips cost.

    Where targets overlap their maps are averaged and the cheapest flip counts. Costs are NaN where nobody asked; of patches there
    is only the slack, as the other maps would double what a volume takes.
    """
    patches = joined.scene.patches
    found = [(pixels, *(values[inside] for values in (*one.maps, one.slack))) for pixels, inside, one in joined.points()]
    pixels, *maps, slack = (np.concatenate(values) for values in zip(*found, strict=True))
    there, place = np.unique(pixels, return_inverse=True)
    counts = np.bincount(place)
    flat = joined.maps.reshape(-1, 3)
    for m, values in enumerate(maps):
        flat[there, m] = np.bincount(place, values) / counts
    if joined.scene.alone:
        ((_, one),) = joined.placed
        assert one.fragility is not None
        return fragility_maps(one.fragility, one.targets, patches.shape)
    once = Targets(pixels[None], pixels[None, None], np.ones((1, len(pixels)), np.float32))  # type: ignore[arg-type]
    return {"slack": scatter(slack[None], once, patches.shape)}
