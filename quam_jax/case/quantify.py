"""Cases in memory, read top to bottom: onto the grid, predict, choose targets, search patch by patch, join, and back.

A whole image is one patch, a large one many (windows.py); a volume given to a two-dimensional network without a plan is taken
slice by slice along its last spatial axis; a model with an nnU-Net plan takes images on the plan's grid, in patches. Of patches
the given network's prediction is nnU-Net's: joined with Gaussian weights, with a plan also mirrored and averaged over folds. No
files here.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from ..config import Config, change
from ..config.build import build_layout
from ..core.layout.choose import choose_group
from ..core.progress import SEARCHING, tell
from ..core.types import FitData, Samples, Trajectory
from ..data.geometry import Geometry
from ..data.large import by_blocks, label_type, row_blocks
from ..data.patches import lay_patches
from ..data.plans import to_grid
from ..data.preprocess import PreparedInParts
from ..models.arrays import as_images
from ..models.model import SegmentationModel
from ..models.predict import predict
from .masks import ask_masks, mask_names, sample_masks, search_masks
from .on_image import join_slices, on_image
from .patches import Ask, Found, Joined, Regions, Scene, leave_patch, patch_jobs
from .points import ask_points, place_points, point_names, search_points
from .prediction import predict_logits, to_probs
from .quantified import Quantified
from .shared import CaseModel, find_directions, whole_image_model
from .views import try_views
from .windows import lay_windows, require_plan_patches


def quantify(
    model: SegmentationModel,
    image: Any,
    fit: FitData,
    *,
    config: Config | None = None,
    volume: bool = False,
) -> Quantified:
    """Aleatoric, epistemic and total uncertainty of one prepared image.

    Args:
        model: The given network, from `load_model`, `wrap` or `from_torch`.
        image: The prepared image `[*space i]` (`preprocessing_of(model).apply(...)`), an array of NumPy, JAX, PyTorch or MONAI.
            Channels first are moved, with a warning; the axis of one channel may be missing. A large image is cut into patches
            as `config.patches` says.
        fit: What an adversarial model must still explain, from `fit_data`.
        config: Every setting; without it the defaults.
        volume: Whether a network of two axes takes an image `[x y z i]` slice by slice along z; without it a further axis is
            refused, since it may be that of a batch.

    Returns:
        The maps on the image's own pixels, in nats (see `Quantified`).

    Raises:
        ValueError: For an image that does not fit the network (the axis, and what to do), values that are not finite, or
            settings that the network cannot serve.

    For many images in memory call `case.shared.whole_image_model` once and `quantify_images`; for a folder, `quam_jax.run`.
    """
    config, rank = config or Config(), model.network.rank
    if np.ndim(image) == rank + 2 and not volume:
        raise ValueError(
            f"image: expected {rank} spatial axes and the channels, got shape {np.shape(image)}; of a batch give one image at a "
            "time, of a volume whose third axis counts slices say volume=True"
        )
    image = np.asarray(as_images(image, model.network, what="image", rank=3 if volume else None), np.float32)
    shared = find_directions(whole_image_model(model, fit, config.search), config)
    shared = try_views(shared, fit.images, fit.labels, config=config)
    for note in shared.notes:
        warnings.warn(note, stacklevel=2)
    return quantify_images(shared, [image], config=config)[0]


def quantify_images(
    shared: CaseModel,
    images: Sequence[Float[np.ndarray, "... i"] | PreparedInParts],
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
        require_plan_patches(config, shared.plan.patch)
        placed = zip(images, geometries, strict=True)
        return list(_quantify_views(shared, (_View(image, key, geometry=g) for image, g in placed), config=config))
    network = shared.folds[0].model.network
    images = [image if isinstance(image, PreparedInParts) else np.asarray(image, np.float32) for image in images]
    for image in images:
        _require_whole(image, network.in_channels, network.rank)
    views = [view for image in images for view in _views_of(image, key, network.rank)]
    found = _quantify_views(shared, _counted(views), config=config)
    return [
        next(found) if image.ndim - 1 == network.rank else join_slices(list(itertools.islice(found, image.shape[2])))
        for image in images
    ]


def sample_image(
    shared: CaseModel, image: Float[np.ndarray, "*space i"], *, config: Config, key: Key[jax.Array, ""]
) -> tuple[Samples, list[Trajectory]]:
    """The weighted samples of the mask search of one whole image, for more than maps, and the trajectories of its folds.

    The image is taken whole, however large: samples of patches are not those of an image. ValueError for settings of another
    target, and for an image that does not fit the network.
    """
    if config.targets.target != "mask":
        raise ValueError(f"target: expected mask, whose samples are of whole images, got {config.targets.target}")
    image, network = np.asarray(image, np.float32), shared.folds[0].model.network
    _require_whole(image, network.in_channels, network.rank)
    scene = _look(shared, _View(image, key), config=change(config, {"patch_size": "0"}))
    ask, _ = ask_masks(shared, scene, config=config)
    (job,) = patch_jobs(shared, scene, ask)
    return sample_masks(shared, job, config=config)


class _View(NamedTuple):
    """An image, or a slice of one, before it is looked at."""

    image: np.ndarray | PreparedInParts
    key: Key[jax.Array, ""]
    slice: int | None = None
    geometry: Geometry | None = None


def _require_whole(image: Float[np.ndarray, "*space i"] | PreparedInParts, channels: int, rank: int) -> None:
    if image.shape[-1] != channels or image.ndim - 1 not in (rank, 3):
        raise ValueError(
            f"image: expected {channels} channels last and {rank} spatial axes (or a volume of slices), got shape {image.shape}"
        )
    strange = sum(int(np.count_nonzero(~np.isfinite(image[rows]))) for rows in row_blocks(image.shape))
    if strange:
        raise ValueError(f"image: expected finite values, got {strange} that are not")


def _views_of(image: Float[np.ndarray, "*space i"] | PreparedInParts, key: Key[jax.Array, ""], rank: int) -> Iterator[_View]:
    if image.ndim - 1 == rank:
        yield _View(image, key)
    else:
        yield from (_View(image[:, :, z], jax.random.fold_in(key, z), z) for z in range(image.shape[2]))


def _counted(views: Sequence[_View]) -> Iterator[_View]:
    for number, view in enumerate(views, 1):
        if view.slice is not None:
            tell(SEARCHING, "slice", number, len(views))
        yield view


def _quantify_views(shared: CaseModel, views: Iterable[_View], *, config: Config) -> Iterator[Quantified]:
    """In order; patches of one size that follow each other go together, also those of several whole images."""
    for shape, alike in itertools.groupby(views, lambda view: view.image.shape):
        patches = None if shared.plan is not None else lay_windows(shared.folds[0].model, shape[:-1], config.patches)
        patch = shared.plan.patch if shared.plan is not None else patches.patch if patches is not None else ()
        together = _together(config, pixels=math.prod(patch))
        whole = patches is not None and len(patches.starts) == 1
        while some := list(itertools.islice(alike, together if whole else 1)):
            if config.outputs.keep_models and not (whole and all(view.slice is None for view in some)):
                raise ValueError(
                    "keep_models: expected images that are searched whole, which have one model a mask; in patches, as here, and "
                    "in volumes there is one a patch; leave --keep-models out, or --patch-size 0 where the memory takes it"
                )
            yield from _quantify_together(shared, some, together=together, config=config)


def searched_together(shared: CaseModel, image: Float[np.ndarray, "*space i"] | PreparedInParts, *, config: Config) -> int:
    """How many images like this one are searched together."""
    model = shared.folds[0].model
    if shared.plan is not None or image.ndim - 1 != model.network.rank:
        return 1
    patches = lay_windows(model, image.shape[:-1], config.patches)
    return _together(config, pixels=math.prod(patches.patch)) if len(patches.starts) == 1 else 1


def _together(config: Config, *, pixels: int) -> int:
    """How many patches of so many pixels are searched together; pixels and regions of one patch are many as they are."""
    if config.targets.target != "mask":
        return 1
    return choose_group(build_layout(config.execution), members=config.search.members, pixels=pixels)


class _Way(NamedTuple):
    """How a kind of target is asked for and searched, and the names of its members."""

    ask: Callable[..., tuple[Ask, Regions]]
    search: Callable[..., Iterator[Found]]
    names: tuple[str, ...]


def _way(config: Config) -> _Way:
    if config.targets.target == "mask":
        return _Way(ask_masks, search_masks, mask_names(config))
    return _Way(ask_points, search_points, point_names(config))


def _quantify_together(shared: CaseModel, views: Sequence[_View], *, together: int, config: Config) -> Iterator[Quantified]:
    """Predict, choose targets, search `together` patches at a time, join, and back."""
    way = _way(config)
    scenes = [_look(shared, view, config=config) for view in views]
    asks, regions = zip(*(way.ask(shared, scene, config=config) for scene in scenes), strict=True)
    joined = [Joined.empty(shared, scene, config=config) for scene in scenes]
    jobs = ((one, job) for one, ask in zip(joined, asks, strict=True) for job in patch_jobs(shared, one.scene, ask))
    done, total = 0, sum(len(scene.patches.starts) for scene in scenes)
    while some := list(itertools.islice(jobs, together)):
        tell(SEARCHING, "patch", done + 1, total)
        done += len(some)
        asked = [job for _, job in some if job.asked]
        found = way.search(shared, asked, config=config)
        for one, job in some:
            one.add(shared, job, next(found) if job.asked else leave_patch(shared, job, config=config), names=way.names)
    for one, maps in zip(joined, regions, strict=True):
        fragility = place_points(one) if one.placed else {}
        yield on_image(shared, one, fragility=fragility, regions=maps, names=way.names, config=config)


def _look(shared: CaseModel, view: _View, *, config: Config) -> Scene:
    """What the given network says: of a whole image as in a search, of patches as nnU-Net predicts."""
    if view.slice is None:
        tell("predicting")
    models, precision = [fold.model for fold in shared.folds], config.search.precision
    if shared.plan is None:
        patches = lay_windows(models[0], view.image.shape[:-1], config.patches)
        if len(patches.starts) == 1:
            image = np.asarray(view.image, np.float32)
            own = predict(models[0], image)
            return Scene(image, patches, view.key, _largest(own), own, slice=view.slice)
        logits = predict_logits(models, view.image, patches, precision=precision)
        labels = to_probs(logits)
        return Scene(view.image, patches, view.key, labels, logits, slice=view.slice)
    assert view.geometry is not None
    plan, coding = shared.plan, shared.coding
    values, grid = to_grid(np.asarray(view.image), view.geometry, plan)
    patches = lay_patches(grid.shape, plan.patch)
    logits = predict_logits(models, values, patches, mirror_axes=plan.mirror_axes, precision=precision)
    classes = by_blocks(lambda z: coding.counted(coding.classify(z)), logits, label_type(coding.classes))
    probs = by_blocks(lambda z: coding.class_probs(coding.channel_probs(z)), logits)
    return Scene(values, patches, view.key, classes, probs, grid=grid, logits=logits)


_largest = jax.jit(partial(jnp.argmax, axis=-1))
