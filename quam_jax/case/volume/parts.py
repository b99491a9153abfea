"""What the ways of searching a volume share: the study, the patches that nothing is asked of, the records of a volume."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ...config import Config
from ...core.searching import Prepared
from ...core.streaming import close_sums, decompose_sums, mix, no_samples
from ...core.types import Trajectory
from ...data.plans import Plan
from ...data.tiles import Tiling
from ...models.coding import Coding
from ...models.model import SegmentationModel
from ...models.predict import predict
from ...models.prepare import model_of
from ..audit import MemberAudit

IN_MEMORY = 2**28  # bytes; a larger array over a volume lies in a temporary file


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


class Joined(NamedTuple):
    """Maps and label evidence on the network's grid, and what is told of the search.

    `change[n, label]` is how much each recorded sample moves the volume of a label, in voxels of the grid. Of pixels and
    regions there are maps of `fragility` too, NaN where nobody asked, and the `regions`.
    """

    maps: Float[np.ndarray, "*grid 3"]
    kept: list[Float[np.ndarray, "*grid c"]]
    traces: list[list[Trajectory]]
    audit: list[TileAudit]
    change: Float[np.ndarray, "n labels"]
    searched: int
    tiles: int
    fragility: dict[str, Float[np.ndarray, "*grid"]] = {}
    regions: tuple[Int[np.ndarray, "*grid"], ...] = ()


class Left(NamedTuple):
    """A patch of which nothing is asked: its maps, and the probabilities of the folds."""

    maps: Float[np.ndarray, " u *patch"]
    references: list[Float[np.ndarray, "*patch c"]]


def leave_tile(study: Study, patch: Float[np.ndarray, "*patch i"], *, config: Config) -> Left:
    """A patch with the references of the folds as its only samples."""
    rank, shape = study.plan.rank, patch.shape[:-1]
    image = jnp.asarray(patch.reshape(*shape[3 - rank :], -1))
    references = [predict(model_of(p), image).reshape(math.prod(shape), -1) for p in study.prepared]
    anchor = sum(references[1:], references[0]) / len(references)
    closed = [close_sums(no_samples(*r.shape), r, anchor, include_reference=True) for r in references]
    maps = decompose_sums(mix(closed), anchor, setting=config.samples.decomposition)
    return Left(np.stack([np.asarray(u).reshape(shape) for u in maps]), [np.asarray(r).reshape(*shape, -1) for r in references])


def start_of(tiling: Tiling, index: int) -> tuple[int, ...]:
    """The first voxel of a patch, in voxels of the grid."""
    return tuple(s - b for s, b in zip(tiling.starts[index], tiling.before, strict=True))


def zeros(shape: Sequence[int]) -> Float[np.ndarray, "..."]:
    """An array of zeros, in a temporary file where it is large."""
    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as handle:
        handle.truncate(size)
        return np.memmap(handle, np.float32, "r+", shape=tuple(shape))
