"""Cases in memory, read top to bottom: onto the grid, predict, choose targets, search patch by patch, join, and back.

A whole image is one patch; a volume given to a two-dimensional network without a plan is taken slice by slice along its last
spatial axis; a model with an nnU-Net plan takes images on the plan's grid, in patches. The given network's prediction is then
nnU-Net's: patches with Gaussian weights, mirrored, averaged over folds. No files here.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy.special import entr, softmax

from ..config import Config
from ..core.decomposition import entropy
from ..core.layout.plan import choose_group
from ..core.types import FitData
from ..data.geometry import Geometry
from ..data.patches import lay_patches
from ..data.plans import from_grid, to_grid
from ..models.coding import Coding
from ..models.model import SegmentationModel
from ..models.predict import predict
from .audit import LOSSES
from .masks import ask_masks, mask_names, search_masks
from .patches import Found, Joined, PatchJob, Scene, leave_patch, patch_jobs
from .points import ask_points, place_points, point_names, search_points
from .prediction import predict_logits
from .quantified import Quantified, SampledVolumes
from .shared import CaseModel, whole_image_model


def quantify(
    model: SegmentationModel, image: Float[np.ndarray, "*space i"], fit: FitData, *, config: Config | None = None
) -> Quantified:
    """Aleatoric, epistemic and total uncertainty of one prepared image.

    `image` is what the network takes (see data.preprocess), `fit` what an adversarial model must still explain (see
    predict.fit_data). For many images call `whole_image_model` once and `quantify_images`. ValueError for an image that does not
    fit the network, values that are not finite, or settings that the network cannot serve.
    """
    config = config or Config()
    return quantify_images(whole_image_model(model, fit, config.search), [image], config=config)[0]


def quantify_images(
    shared: CaseModel,
    images: Sequence[Float[np.ndarray, "*space i"]],
    *,
    config: Config,
    geometries: Sequence[Geometry] | None = None,
) -> list[Quantified]:
    """The maps of several images, each on its own grid; small ones of one size are searched together, as are slices and patches.

    Without a plan `images` are prepared as the network takes them; with one they are as read, with their `geometries`. ValueError
    for an image that does not fit the network or the plan, and where there is no pixel or region to ask.
    """
    key = jax.random.key(config.seed)
    if shared.plan is not None:
        if geometries is None:
            raise ValueError("images: expected their geometries for a model with a plan, got none")
        placed = zip(images, geometries, strict=True)
        return list(_quantify_views(shared, (_View(image, key, geometry=g) for image, g in placed), config=config))
    network = shared.folds[0].model.network
    images = [np.asarray(image, np.float32) for image in images]
    for image in images:
        _require_whole(image, network.in_channels, network.rank)
    views = [view for image in images for view in _views_of(image, key, network.rank)]
    found = _quantify_views(shared, views, config=config)
    return [
        next(found) if image.ndim - 1 == network.rank else _join_slices(list(itertools.islice(found, image.shape[2])))
        for image in images
    ]


class _View(NamedTuple):
    """An image, or a slice of one, before it is looked at."""

    image: np.ndarray
    key: Key[Array, ""]
    slice: int | None = None
    geometry: Geometry | None = None


def _require_whole(image: Float[np.ndarray, "*space i"], channels: int, rank: int) -> None:
    if image.shape[-1] != channels or image.ndim - 1 not in (rank, 3):
        raise ValueError(
            f"image: expected {channels} channels last and {rank} spatial axes (or a volume of slices), got shape {image.shape}"
        )
    if not np.isfinite(image).all():
        raise ValueError(f"image: expected finite values, got {int((~np.isfinite(image)).sum())} that are not")


def _views_of(image: Float[np.ndarray, "*space i"], key: Key[Array, ""], rank: int) -> Iterator[_View]:
    if image.ndim - 1 == rank:
        yield _View(image, key)
    else:
        yield from (_View(image[:, :, z], jax.random.fold_in(key, z), z) for z in range(image.shape[2]))


def _quantify_views(shared: CaseModel, views: Iterable[_View], *, config: Config) -> Iterator[Quantified]:
    """In order; patches of one size that follow each other go together, also those of several whole images."""
    for shape, alike in itertools.groupby(views, lambda view: view.image.shape):
        patch = shape[:-1] if shared.plan is None else shared.plan.patch
        together = _together(config, pixels=math.prod(patch))
        while some := list(itertools.islice(alike, together if shared.plan is None else 1)):
            yield from _quantify_together(shared, some, together=together, config=config)


def searched_together(shared: CaseModel, image: Float[np.ndarray, "*space i"], *, config: Config) -> int:
    """How many images like this one are searched together."""
    whole = shared.plan is None and image.ndim - 1 == shared.folds[0].model.network.rank
    return _together(config, pixels=math.prod(image.shape[:-1])) if whole else 1


def _together(config: Config, *, pixels: int) -> int:
    """How many patches of so many pixels are searched together; pixels and regions of one patch are many as they are."""
    if config.targets.target != "mask":
        return 1
    return choose_group(config.execution, members=config.search.members, pixels=pixels)


def _quantify_together(shared: CaseModel, views: Sequence[_View], *, together: int, config: Config) -> Iterator[Quantified]:
    scenes = [_look(shared, view, config=config) for view in views]
    if config.targets.target == "mask":
        asks, regions, names = [ask_masks(shared, s, config=config) for s in scenes], [()] * len(scenes), mask_names(config)
    else:
        asks, regions = zip(*(ask_points(shared, s, config=config) for s in scenes), strict=True)
        names = point_names(config)
    joined = [Joined.empty(shared, scene, config=config) for scene in scenes]
    jobs = itertools.chain.from_iterable(
        ((one, job) for job in patch_jobs(shared, scene, ask)) for one, scene, ask in zip(joined, scenes, asks, strict=True)
    )
    while some := list(itertools.islice(jobs, together)):
        for (one, job), found in zip(some, _search([job for _, job in some], shared, config=config), strict=True):
            one.add(shared, job, found, names=names)
    for one, maps in zip(joined, regions, strict=True):
        fragility = place_points(one) if one.placed else {}
        yield _on_image(shared, one, fragility=fragility, regions=maps, names=names, config=config)


def _search(jobs: Sequence[PatchJob], shared: CaseModel, *, config: Config) -> Iterator[Found]:
    """What came of some patches, in order; where nothing is asked the given network's word stands."""
    asked = [job for job in jobs if job.asked]
    search = search_masks if config.targets.target == "mask" else search_points
    found = search(shared, asked, config=config) if asked else iter(())
    return (next(found) if job.asked else leave_patch(job, config=config) for job in jobs)


def _look(shared: CaseModel, view: _View, *, config: Config) -> Scene:
    """What the given network says: of a whole image as in a search, on a grid as nnU-Net predicts."""
    if shared.plan is None:
        space, own = view.image.shape[:-1], predict(shared.folds[0].model, view.image)
        return Scene(view.image, lay_patches(space, space), view.key, _largest(own), own, slice=view.slice)
    assert view.geometry is not None
    plan, coding = shared.plan, shared.coding
    values, grid = to_grid(view.image, view.geometry, plan)
    patches = lay_patches(grid.shape, plan.patch)
    models, precision = [fold.model for fold in shared.folds], config.execution.precision
    logits = predict_logits(models, values, patches, mirror_axes=plan.mirror_axes, precision=precision)
    classes = coding.class_of_label[coding.segment(logits)]
    probs = coding.class_probs(coding.channel_probs(logits))
    return Scene(values, patches, view.key, classes, probs, grid=grid, logits=logits)


_largest = jax.jit(partial(jnp.argmax, axis=-1))


class _Said(NamedTuple):
    """What the given network says, on the image's own grid."""

    reference: Float[np.ndarray, "*space c"]
    segmentation: Int[np.ndarray, "*space"]
    softmax: Float[np.ndarray, "*space"]
    channels: Float[np.ndarray, "*space k"] | None = None


def _on_image(
    shared: CaseModel,
    joined: Joined,
    *,
    fragility: dict[str, np.ndarray],
    regions: Sequence[np.ndarray],
    names: Sequence[str],
    config: Config,
) -> Quantified:
    """Everything on the image's own grid."""
    scene, coding, grid = joined.scene, shared.coding, joined.scene.grid

    def back(array: np.ndarray, finish: Callable[[np.ndarray], np.ndarray], **how: Any) -> np.ndarray:
        return finish(array) if grid is None else from_grid(array, grid, finish, **how)

    def labels_of(evidence: np.ndarray) -> np.ndarray:
        return coding.segment_classes(evidence if scene.whole else softmax(evidence, -1))

    def first(slab: np.ndarray) -> np.ndarray:
        return slab[..., 0]

    said = _say(coding, scene)
    maps = back(joined.maps, lambda values: values, outside=0.0)
    return Quantified(
        reference=said.reference,
        segmentation=said.segmentation,
        total=maps[..., 0],
        aleatoric=maps[..., 1],
        epistemic=maps[..., 2],
        softmax=said.softmax,
        adversarial=np.stack([back(one, labels_of, outside=0, dtype=np.int32) for one in joined.evidence]),
        adversarial_names=tuple(
            f"{name}, fold {fold.name}" if len(shared.folds) > 1 else name for fold in shared.folds for name in names
        ),
        audit=tuple(joined.audit),
        **_losses(shared, joined, config=config),
        fragility={
            name: values if grid is None else from_grid(values[..., None], grid, first, outside=np.nan, nearest=True)
            for name, values in fragility.items()
        },
        regions=np.stack(
            [
                r if grid is None else from_grid(r[..., None], grid, first, outside=-1, dtype=np.int32, nearest=True)
                for r in regions
            ]
        )
        if regions
        else None,
        channels=said.channels,
        volumes=None if grid is None else _volumes(shared, joined, said.reference, levels=len(regions), config=config),
        patches=None if grid is None else len(scene.patches.starts),
    )


def _say(coding: Coding, scene: Scene) -> _Said:
    grid, logits = scene.grid, scene.logits
    if grid is None or logits is None:
        return _Said(np.asarray(scene.probs), np.asarray(scene.labels, np.int32), np.asarray(_entropy(scene.probs)))
    first = [1.0] + [0.0] * (coding.labels - 1)
    channels = from_grid(logits, grid, coding.channel_probs, outside=first if coding.regions is None else 0.0)
    segmentation = from_grid(logits, grid, coding.segment, outside=0, dtype=np.int32)
    entropies = entr(channels).sum(-1)
    if coding.regions is None:
        return _Said(channels, segmentation, entropies.astype(np.float32))
    entropies = (entropies + entr(1 - channels).sum(-1)).astype(np.float32)
    reference = from_grid(logits, grid, lambda z: coding.label_probs(coding.channel_probs(z)), outside=first)
    return _Said(reference, segmentation, entropies, channels)


_entropy = jax.jit(entropy)


def _losses(shared: CaseModel, joined: Joined, *, config: Config) -> dict[str, np.ndarray]:
    """The recorded losses `[m s]` of the one search of a whole image, or of patches `[searches m s]`, by patch and fold."""
    records = {name: [means[name] for means in joined.losses] for name in LOSSES} | {"feasible": joined.feasible}
    if joined.scene.whole:
        return {name: values[0] for name, values in records.items()}
    if joined.losses:
        return {name: np.stack(values) for name, values in records.items()}
    members = config.search.members  # nothing was asked
    empty = np.zeros((0, members, shared.records(config.search) // members), np.float32)
    return {name: empty.astype(bool) if name == "feasible" else empty for name in records}


def _volumes(
    shared: CaseModel, joined: Joined, reference: Float[np.ndarray, "*space labels"], *, levels: int, config: Config
) -> SampledVolumes:
    """The volumes under the samples; each of the `levels` of a pyramid moves the whole volume once."""
    grid, labels = joined.scene.grid, shared.coding.labels
    assert grid is not None
    voxel = math.prod(grid.native_spacing if grid.geometry.rank == 3 else grid.geometry.spacing) / 1000
    expected = reference.reshape(-1, labels).sum(0, dtype=np.float64) * voxel
    if joined.moved is None:  # nothing was asked
        return SampledVolumes(expected[None], np.ones(1))
    scale = math.prod(grid.native_shape) / math.prod(grid.shape)  # the grid's voxels have this many of the image's
    change, weights, searches = joined.moved
    ml = expected + (change / max(levels, 1)).astype(np.float64) * scale * voxel
    return SampledVolumes(np.vstack([ml, expected]), weights / searches)


def _join_slices(slices: Sequence[Quantified]) -> Quantified:
    joined: dict[str, Any] = {
        name: np.stack([getattr(s, name) for s in slices], 2)
        for name in ("reference", "segmentation", "total", "aleatoric", "epistemic", "softmax")
    }
    joined |= {name: np.stack([getattr(s, name) for s in slices]) for name in (*LOSSES, "feasible")}
    fragility = {name: np.stack([s.fragility[name] for s in slices], 2) for name in slices[0].fragility}
    regions = None if slices[0].regions is None else np.stack([s.regions for s in slices], -1)  # type: ignore[misc]  # all or none
    return slices[0]._replace(
        **joined,
        fragility=fragility,
        regions=regions,
        adversarial=np.stack([s.adversarial for s in slices], 3),
        audit=tuple(a for s in slices for a in s.audit),
    )
