"""One volume, read top to bottom: onto the network's grid, predict, choose targets, search patch by patch, join, and back.

The given network's prediction is nnU-Net's: patches with Gaussian weights, mirrored, averaged over folds. Targets are those of
the whole volume: its label map moved by millimetres (volume_masks.py), or its voxels and regions (volume_points.py). What is
kept of a volume are running sums and maps; samples exist for one patch at a time.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import entr, softmax

from ...config import Config
from ...data.geometry import Geometry
from ...data.plans import Grid, from_grid, to_grid
from ...data.tiles import tile
from ...models.coding import Coding
from ...targets.millimetres import wanted_volume
from ..image import Quantified, wanted_names
from .masks import search_masks
from .parts import Joined, Study
from .points import search_points
from .sliding_window import predict_logits

__all__ = ["Study", "VolumeResult", "quantify_volume"]


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


def quantify_volume(study: Study, image: Float[np.ndarray, "*space i"], geometry: Geometry, *, config: Config) -> VolumeResult:
    """Aleatoric, epistemic and total uncertainty of one image as read, on its own grid.

    ValueError for an image that does not fit the plan, and where there is no pixel or region to ask.
    """
    plan, coding, key = study.plan, study.coding, jax.random.key(config.seed)
    volume, grid = to_grid(image, geometry, plan)
    tiling = tile(grid.shape, plan.patch)
    logits = predict_logits(study.models, volume, tiling, mirror_axes=plan.mirror_axes, precision=config.search.precision)
    labels = coding.segment(logits)
    channels = coding.channel_probs(logits)
    wanted = (
        {}
        if config.targets.target == "pixel"
        else {
            shape: coding.class_of_label[
                wanted_volume(
                    labels,
                    shape,
                    settings=config.targets,
                    spacing=grid.spacing,
                    probs=coding.label_probs(channels),
                    key=jax.random.fold_in(key, i),
                )
            ]
            for i, shape in enumerate(config.targets.shapes)
        }
    )
    classes = coding.class_of_label[labels]
    if config.targets.target == "mask":
        names = wanted_names(config)
        joined = search_masks(study, volume, tiling, classes, wanted, config=config, key=key)
    else:
        names = tuple(f"{config.targets.target} {m}" for m in range(config.search.members))
        joined = search_points(
            study,
            volume,
            tiling,
            labels=classes,
            probs=coding.class_probs(channels),
            wanted=list(wanted.values()),
            grid=grid,
            config=config,
            key=key,
        )
    return _on_image(study, logits, grid, joined, names, config=config)


def _on_image(
    study: Study, logits: Float[np.ndarray, "*grid k"], grid: Grid, joined: Joined, names: tuple[str, ...], *, config: Config
) -> VolumeResult:
    """Everything on the image's own grid."""
    coding = study.coding
    first = [1.0] + [0.0] * (coding.labels - 1)
    outside = first if coding.regions is None else 0.0
    channels = from_grid(logits, grid, coding.channel_probs, outside=outside)
    segmentation = from_grid(logits, grid, coding.segment, outside=0, dtype=np.int32)
    reference = (
        channels
        if coding.regions is None
        else from_grid(logits, grid, lambda z: coding.label_probs(coding.channel_probs(z)), outside=first)
    )
    maps = from_grid(joined.maps, grid, lambda values: values, outside=0.0)
    adversarial = [
        from_grid(evidence, grid, lambda values: coding.segment_classes(softmax(values, -1)), outside=0, dtype=np.int32)
        for evidence in joined.kept
    ]
    fragility = {
        name: from_grid(values[..., None], grid, lambda slab: slab[..., 0], outside=np.nan, nearest=True)
        for name, values in joined.fragility.items()
    }
    regions = [
        from_grid(values[..., None], grid, lambda slab: slab[..., 0], outside=-1, dtype=np.int32, nearest=True)
        for values in joined.regions
    ]
    labelled = [f"{name}, fold {fold}" if len(study.folds) > 1 else name for fold in study.folds for name in names]
    voxel = math.prod(grid.native_spacing if grid.geometry.rank == 3 else grid.geometry.spacing) / 1000
    expected = reference.reshape(-1, coding.labels).sum(0, dtype=np.float64) * voxel
    scale = math.prod(grid.native_shape) / math.prod(grid.shape)  # the grid's voxels have this many of the image's
    members = len(joined.change)
    weights = np.full(members + 1, 1 / (members + 1))
    quantified = Quantified(
        reference=reference,
        segmentation=segmentation,
        total=maps[..., 0],
        aleatoric=maps[..., 1],
        epistemic=maps[..., 2],
        softmax=_entropy(channels, coding),
        adversarial=np.stack(adversarial),
        adversarial_names=tuple(labelled),
        audit=tuple(joined.audit),
        fragility=fragility,
        regions=np.stack(regions) if regions else None,
        **_traces(joined, study, config),
    )  # type: ignore[arg-type]  # field by field
    sample_ml = np.vstack([expected + joined.change * scale * voxel, expected])
    return VolumeResult(quantified, channels, coding.regions is not None, sample_ml, weights, joined.searched, joined.tiles)


def _entropy(channels: Float[np.ndarray, "*space k"], coding: Coding) -> Float[np.ndarray, "*space"]:
    entropy = entr(channels).sum(-1)
    return (entropy if coding.regions is None else entropy + entr(1 - channels).sum(-1)).astype(np.float32)


def _traces(joined: Joined, study: Study, config: Config) -> dict[str, np.ndarray]:
    """The recorded losses `[searches m s]`, a search for each patch and fold."""
    flat = [t for tile_traces in joined.traces for t in tile_traces]
    steps, members = len(study.prepared[0].steps.batch), config.search.members
    empty = np.zeros((0, members, steps), np.float32)
    traces = {
        name: np.concatenate([np.asarray(getattr(t, name)) for t in flat]) if flat else empty
        for name in ("objective", "fit_loss", "bound", "penalty")
    }
    finite_losses = np.isfinite(traces["objective"]) & np.isfinite(traces["fit_loss"])
    return {**traces, "feasible": (traces["fit_loss"] <= traces["bound"]) & finite_losses}
