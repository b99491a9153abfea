"""From what was joined on the network's grid to the result on the image's own grid."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr, softmax

from ..config import Config
from ..core.decomposition import entropy
from ..data.large import by_blocks, label_type, row_blocks, zeros
from ..data.plans import Grid, from_grid, to_image
from ..models.coding import Coding
from .audit import LOSSES
from .patches import Joined, Scene
from .quantified import Quantified, SampledVolumes
from .shared import CaseModel


class _Said(NamedTuple):
    """What the given network says, on the image's own grid."""

    reference: Float[np.ndarray, "*space c"]
    segmentation: Int[np.ndarray, "*space"]
    softmax: Float[np.ndarray, "*space"]
    channels: Float[np.ndarray, "*space k"] | None = None

    def structures(self, coding: Coding) -> Float[np.ndarray, "*space s"]:
        """The probabilities of the structures."""
        return self.reference[..., 1:] if self.channels is None else by_blocks(coding.structure_probs, self.channels)


def on_image(
    shared: CaseModel,
    joined: Joined,
    *,
    fragility: dict[str, Float[np.ndarray, "*grid"]],
    regions: Sequence[Int[np.ndarray, "*grid"]],
    names: Sequence[str],
    config: Config,
) -> Quantified:
    """The result of one image, or of one slice; `names` are those of the members."""
    scene, coding, grid, plain = joined.scene, shared.coding, joined.scene.grid, len(shared.folds) == 1
    said = _say(coding, scene)
    maps = joined.maps
    if grid is None:
        classes = joined.classes(coding)
    else:
        maps = from_grid(maps, grid, lambda values: values, outside=0.0)
        classes = zeros((len(joined.evidence) * joined.members, *grid.geometry.size), label_type(coding.classes))
        for model, evidence in enumerate(joined.models()):
            to_image(evidence, grid, lambda values: coding.classify_classes(softmax(values, -1)), classes[model], outside=0)
        fragility = {name: _nearest(values, grid, outside=np.nan) for name, values in fragility.items()}
        regions = [_nearest(values, grid, outside=-1, dtype=np.int32) for values in regions]
    written = classes if coding.order is None else by_blocks(coding.labels_of, classes, label_type(coding.labels))
    return Quantified(
        reference=said.reference,
        segmentation=said.segmentation,
        total=maps[..., 0],
        aleatoric=maps[..., 1],
        epistemic=maps[..., 2],
        softmax=said.softmax,
        adversarial=written,
        adversarial_names=tuple(n if plain else f"{n}, fold {fold.name}" for fold in shared.folds for n in names),
        audit=tuple(joined.audit),
        **_losses(shared, joined, config=config),
        fragility=fragility,
        regions=np.stack(regions) if regions else None,
        channels=said.channels,
        adversarial_classes=None if said.channels is None else classes,
        volumes=None if grid is None else _volumes(joined, grid, said.structures(coding), levels=len(regions)),
        patches=None if scene.alone else len(scene.patches.starts),
        adversarial_weights=tuple(joined.weights),
    )


def _nearest(values: np.ndarray, grid: Grid, **how: Any) -> np.ndarray:
    """Values that are no quantities, or not finite, of the nearest voxel."""
    return from_grid(values[..., None], grid, lambda slab: slab[..., 0], nearest=True, **how)


def _say(coding: Coding, scene: Scene) -> _Said:
    grid, logits = scene.grid, scene.logits
    if (grid is None or logits is None) and coding.channel_regions is not None:
        probs = np.asarray(scene.probs)
        channels = by_blocks(coding.class_to_channel_probs, probs)
        reference = by_blocks(coding.label_probs, channels)
        segmentation = by_blocks(lambda p: coding.labels_of(coding.classify_channels(p)), channels, np.int32)
        return _Said(reference, segmentation, by_blocks(_entropy_of, probs), channels)
    if grid is None or logits is None:
        if scene.alone:
            return _Said(np.asarray(scene.probs), np.asarray(scene.labels, np.int32), np.asarray(_entropy(scene.probs)))
        probs, entropies = np.asarray(scene.probs), zeros(scene.patches.shape)
        for rows in row_blocks(probs.shape):
            entropies[rows] = _entropy(probs[rows])
        return _Said(probs, np.asarray(scene.labels), entropies)
    first = [1.0] + [0.0] * (coding.labels - 1)
    channels = from_grid(logits, grid, coding.channel_probs, outside=first if coding.channel_regions is None else 0.0)
    segmentation = from_grid(logits, grid, coding.segment, outside=0, dtype=np.int32)
    if coding.channel_regions is None:
        return _Said(channels, segmentation, by_blocks(lambda p: entr(p).sum(-1), channels))
    entropies = by_blocks(lambda p: entr(p).sum(-1) + entr(1 - p).sum(-1), channels)
    reference = from_grid(logits, grid, lambda z: coding.label_probs(coding.channel_probs(z)), outside=first)
    return _Said(reference, segmentation, entropies, channels)


_entropy = jax.jit(entropy)


def _entropy_of(probs: Float[np.ndarray, "*space c"]) -> Float[np.ndarray, "*space"]:
    return np.asarray(_entropy(probs))


def _losses(shared: CaseModel, joined: Joined, *, config: Config) -> dict[str, np.ndarray]:
    """The recorded losses `[m s]` of the one search of a whole image, or of patches `[searches m s]`, by patch and fold."""
    records = {name: [means[name] for means in joined.losses] for name in LOSSES} | {"feasible": joined.feasible}
    if joined.scene.alone:
        return {name: values[0] for name, values in records.items()}
    if joined.losses:
        return {name: np.stack(values) for name, values in records.items()}
    members = config.search.members  # nothing was asked
    empty = np.zeros((0, members, shared.records(config.search) // members), np.float32)
    return {name: empty.astype(bool) if name == "feasible" else empty for name in records}


def _volumes(joined: Joined, grid: Grid, probs: Float[np.ndarray, "*space s"], *, levels: int) -> SampledVolumes:
    """The volumes of structures under the samples; each of the `levels` of a pyramid moves the whole volume once."""
    voxel = math.prod(grid.geometry.voxel_sides) / 1000
    sums = [probs[rows].reshape(-1, probs.shape[-1]).sum(0, dtype=np.float64) for rows in row_blocks(probs.shape)]
    expected = np.sum(sums, 0) * voxel
    if joined.moved is None:  # nothing was asked
        return SampledVolumes(expected[None], np.ones(1))
    scale = math.prod(grid.native_shape) / math.prod(grid.shape)  # the grid's voxels have this many of the image's
    change, weights, searches, given = joined.moved
    own = expected + given * scale * voxel
    if not searches:
        return SampledVolumes(own[None], np.ones(1))
    ml = expected + (change / max(levels, 1)).astype(np.float64) * scale * voxel
    return SampledVolumes(np.vstack([ml, own]), weights / searches)


def join_slices(slices: Sequence[Quantified]) -> Quantified:
    """The results of the slices of a volume, along its last spatial axis, as one."""
    joined: dict[str, Any] = {
        name: np.stack([getattr(s, name) for s in slices], 2)
        for name in ("reference", "segmentation", "total", "aleatoric", "epistemic", "softmax")
    }
    whole = slices[0].patches is None  # else a slice has as many searches as patches that were asked
    collect = np.stack if whole else np.concatenate
    joined |= {name: collect([getattr(s, name) for s in slices]) for name in (*LOSSES, "feasible")}
    fragility = {name: np.stack([s.fragility[name] for s in slices], 2) for name in slices[0].fragility}
    regions = None if slices[0].regions is None else np.stack([s.regions for s in slices], -1)  # type: ignore[misc]  # all or none
    if slices[0].channels is not None:
        joined["channels"] = np.stack([s.channels for s in slices], 2)  # type: ignore[misc]
        joined["adversarial_classes"] = np.stack([s.adversarial_classes for s in slices], 3)  # type: ignore[misc]
    return slices[0]._replace(
        **joined,
        fragility=fragility,
        regions=regions,
        adversarial=np.stack([s.adversarial for s in slices], 3),
        audit=tuple(a for s in slices for a in s.audit),
        patches=None if whole else sum(s.patches or 0 for s in slices),
    )
