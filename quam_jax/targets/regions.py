"""Partitions of an image into regions, and the targets that they make.

A partition is a region map: the number of its region for every pixel, from 0 in the order in which regions first appear, and
-1 in none. Tiles, connected components and super-pixels cover the image, boundary segments only the band around contours.
All functions are deterministic and take images of any spatial rank.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from ..config import TargetConfig
from ..core.types import Targets
from .masks import ranked_classes
from .pixels import boundary_distance

RegionMap = Int[np.ndarray, "*space"]

SLIC_ROUNDS = 10


def tiles(shape: Sequence[int], size: int) -> RegionMap:
    """Squares (cubes) of `size` pixels a side, cut off at the far borders."""
    cells = [np.arange(side) // size for side in shape]
    counts = [int(cell[-1]) + 1 for cell in cells]
    return np.ravel_multi_index(np.meshgrid(*cells, indexing="ij"), counts).astype(np.int32)


def pyramid(shape: Sequence[int], sizes: Sequence[int]) -> list[RegionMap]:
    """Tiles of several sizes; every pixel lies in one tile of each."""
    return [tiles(shape, size) for size in sizes]


def components(labels: Int[np.ndarray, "*space"]) -> RegionMap:
    """Connected components of each class, background included; pixels touch at faces."""
    labels = np.asarray(labels)
    index = np.arange(labels.size).reshape(labels.shape)
    pairs = [
        (index[a][labels[a] == labels[b]], index[b][labels[a] == labels[b]]) for a, b in _shifts(labels.shape, diagonal=False)
    ]
    return _renumbered(connected_components(_graph(pairs, labels.size), directed=False)[1].reshape(labels.shape))


def boundary_segments(labels: Int[np.ndarray, "*space"], *, band: float, length: float) -> RegionMap:
    """The band around contours (distance to another label <= `band`), cut into pieces of about `length` pixels of contour.

    In a volume a piece has about length^2 of surface. Pieces are connected (across corners too) and of nearly equal contour:
    a connected part of the band is halved by geodesic distance from one of its ends until the pieces are small enough. An
    image of one label has no contour and no region.
    """
    labels = np.asarray(labels)
    distance = boundary_distance(labels)
    inside = distance <= band
    contour = (distance[inside] <= 1).astype(float)
    graph = _neighbours(inside)
    piece = 2 * length ** (labels.ndim - 1)  # a contour has pixels on both of its sides
    pieces = np.zeros(len(contour), np.int64)
    waiting = [(part, max(1, round(contour[part].sum() / piece))) for part in _parts(graph, np.arange(len(contour)))]
    done = 0
    while waiting:
        part, count = waiting.pop()
        if count == 1:
            pieces[part] = done
            done += 1
            continue
        local = graph[part][:, part]
        start = np.argmax(dijkstra(local, directed=False, indices=0))  # the pixel farthest from any other is an end
        ordered = part[np.argsort(dijkstra(local, directed=False, indices=start), kind="stable")]
        reached = np.cumsum(contour[ordered])
        near = int(np.searchsorted(reached, reached[-1] * (count // 2) / count)) + 1
        # a geodesic ball is connected; what is left need not be
        rest = _parts(graph, np.sort(ordered[near:]))
        total = sum(contour[p].sum() for p in rest)
        waiting += [(p, max(1, round((count - count // 2) * contour[p].sum() / max(total, 1)))) for p in rest]
        waiting.append((np.sort(ordered[:near]), count // 2))
    regions = np.full(labels.shape, -1, np.int64)
    regions[inside] = pieces
    return _renumbered(regions)


def superpixels(image: Float[np.ndarray, "*space i"], count: int, compactness: float = 1.0) -> RegionMap:
    """About `count` connected regions of similar values: SLIC (Achanta et al. 2012).

    Pixels are clustered by value and place around seeds on a grid; a pixel looks at the seeds of its own cell and the cells
    around it. A distance of one grid cell counts as `compactness` standard deviations of the image. Pieces that are cut off
    from their cluster, or smaller than a quarter of a cell, are shared out among the neighbours. ValueError if `count` is not
    between 1 and the number of pixels.
    """
    image = np.asarray(image, np.float64)
    space, rank = image.shape[:-1], image.ndim - 1
    if not 1 <= count <= math.prod(space):
        raise ValueError(f"superpixels: expected a count from 1 to {math.prod(space)} pixels, got {count}")
    side = (math.prod(space) / count) ** (1 / rank)
    grid: list[int] = []
    for axis, n in enumerate(space):  # each axis makes up for the rounding of those before it
        left = count / math.prod(grid)
        grid.append(min(n, max(1, round(n / (math.prod(space[axis:]) / left) ** (1 / (rank - axis))))))
    places = np.indices(space).reshape(rank, -1)
    values = (image / (image.std() or 1.0)).reshape(-1, image.shape[-1]).T
    features = np.concatenate([values, places * (compactness / side)])
    owner = np.ravel_multi_index(tuple(p * g // n for p, g, n in zip(places, grid, space, strict=True)), grid)
    cells = region_points(owner)
    centres = np.zeros((len(features), math.prod(grid)))
    for _ in range(SLIC_ROUNDS):
        size = np.bincount(owner, minlength=centres.shape[1])
        sums = np.stack([np.bincount(owner, f, centres.shape[1]) for f in features])
        centres = np.where(size > 0, sums / np.maximum(size, 1), centres)
        before, owner = owner, _nearest_centre(features, centres, cells, grid)
        if np.array_equal(before, owner):
            break
    return _connected(owner.reshape(space), smallest=side**rank / 4)


def _nearest_centre(
    features: Float[np.ndarray, "f pixels"],
    centres: Float[np.ndarray, "f n"],
    cells: Sequence[Int[np.ndarray, " p"]],
    grid: Sequence[int],
) -> Int[np.ndarray, " pixels"]:
    """The nearest of the centres whose cells touch a pixel's cell; of equal ones the first. Cell by cell: it stays in cache."""
    numbers = np.arange(len(cells)).reshape(grid)
    owner = np.empty(features.shape[1], np.int64)
    for place, inside in zip(np.ndindex(*grid), cells, strict=True):
        near = numbers[tuple(slice(max(0, p - 1), p + 2) for p in place)].reshape(-1)
        distance = np.zeros((len(near), len(inside)))
        for feature, centre in zip(features, centres, strict=True):
            distance += (feature[inside] - centre[near][:, None]) ** 2
        owner[inside] = near[np.argmin(distance, 0)]
    return owner


def _connected(owner: Int[np.ndarray, "*space"], *, smallest: float) -> RegionMap:
    """Keep the largest piece of every cluster where it is not too small; the rest is taken over from its border inwards."""
    pieces = components(owner)
    size = np.bincount(pieces.reshape(-1))
    cluster = np.zeros(len(size), np.int64)
    cluster[pieces.reshape(-1)] = owner.reshape(-1)
    order = np.lexsort((-size, cluster))
    first = np.ones(len(order), bool)
    first[1:] = cluster[order[1:]] != cluster[order[:-1]]
    kept = np.zeros(len(size), bool)
    kept[order[first]] = True
    kept &= size >= smallest
    kept[np.argmax(size)] = True
    nobody = len(size)
    regions = np.where(kept[pieces], pieces, nobody)
    while (regions == nobody).any():
        taken = regions.copy()
        for a, b in _shifts(regions.shape, diagonal=False):
            for here, there in ((a, b), (b, a)):
                taken[here] = np.where(regions[here] == nobody, np.minimum(taken[here], regions[there]), taken[here])
        regions = taken
    return _renumbered(regions)


def region_maps(
    settings: TargetConfig, image: Float[np.ndarray, "*space i"], labels: Int[np.ndarray, "*space"]
) -> list[RegionMap]:
    """The partitions that the settings ask for: one, or one a level of a pyramid."""
    shape, size = labels.shape, settings.region_size
    if settings.regions == "tiles":
        return [tiles(shape, size)]
    if settings.regions == "components":
        return [components(labels)]
    if settings.regions == "segments":
        return [boundary_segments(labels, band=settings.band_width, length=size)]
    if settings.regions == "superpixels":
        count = max(1, round(math.prod(shape) / size ** len(shape)))
        return [superpixels(image, count, settings.compactness)]
    return pyramid(shape, [size * 2**level for level in range(settings.pyramid_levels)])


def region_targets(
    maps: Sequence[RegionMap],
    labels: Int[np.ndarray, "*space"],
    wanted: Sequence[Int[np.ndarray, "*space"]],
    *,
    probs: Float[np.ndarray, "*space c"],
    members: int,
) -> Targets:
    """One target a region, of the first map's regions first; its members want the given masks in turn, inside the region.

    Where a mask asks for nothing new in a region (it equals `labels` there), the member wants the most probable other class
    of each pixel instead, so every member asks for a change. Regions are padded to the longest by repeating their first
    point with weight 0; the other weights are 1/size. Maps without any region give no target (t = 0). ValueError for a map
    of another shape.
    """
    labels = np.asarray(labels)
    for region_map in maps:
        if region_map.shape != labels.shape:
            raise ValueError(f"region map: expected the shape of the labels {labels.shape}, got {region_map.shape}")
    return part_targets(
        [part for region_map in maps for part in region_points(region_map)], labels, wanted, probs=probs, members=members
    )


def part_targets(
    parts: Sequence[Int[np.ndarray, " p"]],
    labels: Int[np.ndarray, "*space"],
    wanted: Sequence[Int[np.ndarray, "*space"]],
    *,
    probs: Float[np.ndarray, "*space c"],
    members: int,
    length: int = 0,
) -> Targets:
    """`region_targets` of regions given by their pixels as flat indices; `length` is what they are padded to (0: the longest)."""
    present, flat = labels.reshape(-1), np.asarray(probs).reshape(-1, probs.shape[-1])
    sizes = np.array([len(part) for part in parts], int)
    column = np.arange(length or max(sizes, default=1))
    inside = column < sizes[:, None]
    starts = np.cumsum(sizes) - sizes
    joined = np.concatenate([*parts, np.zeros(0, int)])
    points = joined[starts[:, None] + np.where(inside, column, 0)]
    first, second = np.moveaxis(ranked_classes(flat[points])[..., :2], -1, 0)
    other = np.where(first == present[points], second, first)
    asked = np.stack([np.asarray(wanted[m % len(wanted)]).reshape(-1)[points] for m in range(members)], 1)
    nothing_new = np.all(asked == present[points][:, None], -1, keepdims=True)
    return Targets(
        points=jnp.asarray(points, jnp.int32),
        labels=jnp.asarray(np.where(nothing_new, other[:, None], asked), jnp.int32),
        weights=jnp.asarray(inside / np.maximum(sizes, 1)[:, None], jnp.float32),
    )


def region_points(region_map: RegionMap) -> list[Int[np.ndarray, " p"]]:
    """Flat indices of the pixels of every region, in order."""
    flat = region_map.reshape(-1)
    order = np.argsort(flat, kind="stable")
    numbers, starts = np.unique(flat[order], return_index=True)
    return [part for number, part in zip(numbers, np.split(order, starts[1:]), strict=True) if number >= 0]


def _renumbered(regions: Int[np.ndarray, "*space"]) -> RegionMap:
    """The same regions with numbers from 0 in the order of their first pixels; -1 stays."""
    numbers, first, inverse = np.unique(regions.reshape(-1), return_index=True, return_inverse=True)
    new = np.full(len(numbers), -1, np.int32)
    kept = np.flatnonzero(numbers >= 0)
    new[kept[np.argsort(first[kept])]] = np.arange(len(kept))
    return new[inverse.reshape(-1)].reshape(regions.shape)


def _shifts(shape: Sequence[int], *, diagonal: bool) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Pairs of windows that lay every pixel beside its neighbours, each pair of neighbours once."""
    for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
        if offset > (0,) * len(shape) and (diagonal or sum(map(abs, offset)) == 1):
            yield (
                tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True)),
                tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True)),
            )


def _graph(pairs: Sequence[tuple[np.ndarray, np.ndarray]], size: int, weights: Sequence[float] | None = None) -> csr_array:
    rows, columns = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
    values = np.repeat(np.ones(len(pairs)) if weights is None else np.asarray(weights), [len(pair[0]) for pair in pairs])
    return csr_array(coo_array((values, (rows, columns)), shape=(size, size)))


def _neighbours(mask: Bool[np.ndarray, "*space"]) -> csr_array:
    """The set pixels, numbered in order, joined to all their set neighbours by the distance between the centres."""
    index = np.where(mask, np.cumsum(mask).reshape(mask.shape) - 1, -1)
    pairs, weights = [], []
    for a, b in _shifts(mask.shape, diagonal=True):
        both = mask[a] & mask[b]
        pairs.append((index[a][both], index[b][both]))
        weights.append(math.sqrt(sum(x != y for x, y in zip(a, b, strict=True))))
    return _graph(pairs, int(mask.sum()), weights)


def _parts(graph: csr_array, nodes: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " n"]]:
    """The connected parts of some nodes of a graph."""
    if not len(nodes):
        return []
    count, part = connected_components(graph[nodes][:, nodes], directed=False)
    return [nodes[part == p] for p in range(count)]
