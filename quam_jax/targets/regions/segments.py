"""Segments of the boundary band."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from ...config import TargetConfig
from ...evaluation.reference_maps import contour_distance
from ..partition import RegionMap, renumbered

PLACE = 3


def partition(settings: TargetConfig, image: Float[np.ndarray, "*space i"], labels: Int[np.ndarray, "*space"]) -> list[RegionMap]:
    """The band of `band_width` pixels on either side of contours, in pieces of `region_size`."""
    return [boundary_segments(labels, band=settings.band_width, length=settings.region_size)]


def boundary_segments(labels: Int[np.ndarray, "*space"], *, band: float, length: float) -> RegionMap:
    """The band around contours (distance to another label <= `band`), cut into pieces of about `length` pixels of contour.

    In a volume a piece has about length^2 of surface. Pieces are connected (across corners too) and of nearly equal contour:
    a connected part of the band is halved by geodesic distance from one of its ends until the pieces are small enough. An
    image of one label has no contour and no region.
    """
    labels = np.asarray(labels)
    distance = contour_distance(labels)
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
    return renumbered(regions)


def _shifts(shape: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Pairs of windows that lay every pixel beside its neighbours, across corners too, each pair of neighbours once."""
    for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
        if offset > (0,) * len(shape):
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
    for a, b in _shifts(mask.shape):
        both = mask[a] & mask[b]
        pairs.append((index[a][both], index[b][both]))
        weights.append(math.sqrt(sum(x != y for x, y in zip(a, b, strict=True))))
    return _graph(pairs, int(mask.sum()), weights)


def _parts(graph: csr_array, nodes: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " _"]]:
    """The connected parts of some nodes of a graph."""
    if not len(nodes):
        return []
    count, part = connected_components(graph[nodes][:, nodes], directed=False)
    return [nodes[part == p] for p in range(count)]
