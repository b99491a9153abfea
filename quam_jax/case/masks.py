"""Masks: every patch in which a wanted mask differs from the prediction is searched, in every fold, for all pixels at once.

Wanted masks are those of the whole image: moved by pixels, or by millimetres where there is a grid of the network's own.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..config import Config, SampleConfig, TargetConfig
from ..config.build import build_layout
from ..core.progress import SEARCHING, tell
from ..core.searching import search_images
from ..core.solvers import Moving
from ..core.space import WeightSpace
from ..core.types import Samples, Targets, Trajectory
from ..core.weighting import counted
from ..data.large import row_blocks, zeros
from ..targets.masks import mask_targets, wanted_kind, wanted_mask
from ..targets.millimetres import wanted_volume
from .audit import OnWhole, SearchFacts, kept_probs
from .patches import Ask, Found, PatchJob, Regions, Scene, Weights, volume_change
from .samples import Moved, decompose_published, decompose_samples, decompose_sums_of, mix_samples, sum_weights
from .shared import CaseModel
from .views import choose_look, look_of


def mask_names(config: Config) -> tuple[str, ...]:
    """The wanted mask of every member, in order."""
    shapes = config.targets.shapes
    return tuple(shapes[k % len(shapes)] for k in range(config.search.members))


def wanted_masks(shared: CaseModel, scene: Scene, *, config: Config) -> list[Int[np.ndarray, "*grid"]]:
    """The masks that the settings name, in classes of the search."""
    coding = shared.coding
    classes = coding.background_first(np.asarray(scene.labels))
    probs = np.asarray(scene.probs)
    if coding.channel_regions is not None:
        probs = coding.counted_probs(probs)[..., coding.background_first(np.arange(coding.classes))]
    if scene.grid is None or scene.logits is None:
        if scene.alone:
            masks = [np.asarray(mask) for mask in _by_pixels(classes, probs, scene.key, config.targets)]
        else:
            shapes = enumerate(config.targets.shapes)
            masks = [wanted_in_blocks(classes, probs, shape, scene.key, index, config.targets) for index, shape in shapes]
        return [coding.background_first(mask) for mask in masks]
    return [
        coding.background_first(
            wanted_volume(
                classes,
                shape,
                settings=config.targets,
                spacing=scene.grid.spacing,
                probs=probs,
                key=jax.random.fold_in(scene.key, index),
            )
        )
        for index, shape in enumerate(config.targets.shapes)
    ]


def ask_masks(shared: CaseModel, scene: Scene, *, config: Config) -> tuple[Ask, Regions]:
    """The mask target of a patch by its number; none where the masks want nothing new there. A whole image is always asked."""
    if scene.alone and shared.coding.background_first(np.arange(1))[0] == 0:
        whole = (_mask_targets(scene.labels, scene.probs, scene.key, config.targets, config.search.members),)
        return (lambda index: whole), ()
    wanted = wanted_masks(shared, scene, config=config)
    if scene.alone:
        masked = (mask_targets([jnp.asarray(mask) for mask in wanted], members=config.search.members),)
        return (lambda index: masked), ()
    patches = scene.patches

    def ask(index: int) -> Sequence[Targets]:
        outer, inner = patches.overlap(index)
        if not any((mask[outer] != scene.labels[outer]).any() for mask in wanted):
            return ()
        inside = np.zeros(patches.patch, bool)
        inside[inner] = True
        masks = np.zeros((len(wanted), *patches.patch), np.int32)
        for mask, there in zip(wanted, masks, strict=True):
            there[inner] = mask[outer]
        targets = mask_targets([jnp.asarray(mask) for mask in masks], members=config.search.members)
        return (targets._replace(weights=jnp.asarray((inside / inside.sum()).reshape(1, -1), jnp.float32)),)

    return ask, ()


# compiled as a whole: one by one, the small operations of a case take longer than the search of a small image
@partial(jax.jit, static_argnames=("settings", "members"))
def _mask_targets(
    labels: Int[Array, "*space"], probs: Float[Array, "*space c"], key: Key[Array, ""], settings: TargetConfig, members: int
) -> Targets:
    return mask_targets(_by_pixels(labels, probs, key, settings), members=members)


@partial(jax.jit, static_argnames="settings")
def _by_pixels(
    labels: Int[Array, "*space"], probs: Float[Array, "*space c"], key: Key[Array, ""], settings: TargetConfig
) -> list[Int[Array, "*space"]]:
    return [_one_by_pixels(labels, probs, key, index, settings) for index in range(len(settings.shapes))]


@partial(jax.jit, static_argnames=("index", "settings"))
def _one_by_pixels(
    labels: Int[Array, "*space"], probs: Float[Array, "*space c"], key: Key[Array, ""], index: int, settings: TargetConfig
) -> Int[Array, "*space"]:
    return wanted_mask(
        labels,
        settings.shapes[index],
        radius=settings.radius,
        classes=probs.shape[-1],
        element=settings.element,
        outside=settings.outside,
        probs=probs,
        key=jax.random.fold_in(key, index),
    )


def wanted_in_blocks(
    labels: Int[np.ndarray, "*grid"],
    probs: Float[np.ndarray, "*grid c"],
    shape: str,
    key: Key[Array, ""],
    index: int,
    settings: TargetConfig,
) -> Int[np.ndarray, "*grid"]:
    """The wanted mask number `index` of an image, some rows at a time where its kind says how far a pixel looks.

    The type is that of `labels`. Rows beyond a block by the radius make it what it is of the whole image.
    """
    wanted = zeros(labels.shape, labels.dtype)
    blocks = row_blocks(probs.shape) if hasattr(wanted_kind(shape), "LOCAL") else [slice(0, len(labels))]
    for rows in blocks:
        first, last = max(0, rows.start - settings.radius), min(len(labels), rows.stop + settings.radius)
        seen = (jnp.asarray(labels[first:last], jnp.int32), jnp.asarray(probs[first:last]))
        wanted[rows] = np.asarray(_one_by_pixels(*seen, key, index, settings))[rows.start - first : rows.stop - first]
    return wanted


def search_masks(shared: CaseModel, jobs: Sequence[PatchJob], *, config: Config) -> Iterator[Found]:
    """What came of some patches of one shape, which are searched together."""
    keeps = config.outputs.keep_models
    kept: list[list[Moving]] | None = [[] for _ in jobs] if keeps or shared.whole_fit is not None else None
    for n, (job, trajectories) in enumerate(zip(jobs, _search(shared, jobs, config=config, kept=kept), strict=True)):
        found = _weigh(shared, job, trajectories, config=config)
        if shared.whole_fit is not None and kept is not None:
            whole = shared.whole_fit
            images = whole.chosen(None if job.scene.alone else job.number)
            losses = whole.losses(shared.folds[0].prepared, kept[n], images)
            found = found._replace(whole=OnWhole(losses, whole.bound(images)))
        if keeps and kept is not None:
            found = found._replace(weights=[_weights_of(shared, z) for z in kept[n]])
        yield found


def _weights_of(shared: CaseModel, z: Moving) -> Weights:
    """What a kept model has in place of given weights."""
    prepared = shared.folds[0].prepared
    assert isinstance(prepared.procedure.space, WeightSpace)
    return {name: np.asarray(value, np.float32) for name, value in prepared.procedure.space.moved(prepared.params, z).items()}


def sample_masks(shared: CaseModel, job: PatchJob, *, config: Config) -> tuple[Samples, list[Trajectory]]:
    """The weighted samples of one patch that is asked for a mask, all folds mixed in equal shares, and their trajectories."""
    (trajectories,) = _search(shared, [job], config=config)
    return mix_samples(trajectories, [r[None] for r in job.references], samples=config.samples), trajectories


def _search(
    shared: CaseModel, jobs: Sequence[PatchJob], *, config: Config, kept: list[list[Moving]] | None = None
) -> list[list[Trajectory]]:
    """The searches of every patch, one a fold; what was moved of the kept members of every patch is put in its list of `kept`."""
    if not jobs:
        return []
    on_kept = None if kept is None else lambda image, target, member, z: kept[image].append(z)
    searched, look = [], choose_look(shared, jobs[0].image.shape[:-1], config=config)
    for f, fold in enumerate(shared.folds):
        tell(SEARCHING, "fold", f + 1, len(shared.folds))
        images, targets = [job.image for job in jobs], [job.asked[0] for job in jobs]
        keys, layout = [_key(job, f) for job in jobs], build_layout(config.execution)
        searched.append(
            search_images(
                fold.prepared,
                images,
                targets,
                keys=keys,
                layout=layout,
                look=look_of(fold, look),
                on_kept=on_kept,
            )
        )
    return [list(trajectories) for trajectories in zip(*searched, strict=True)]


def _key(job: PatchJob, fold: int) -> Key[Array, ""]:
    """A whole image has one search; of patches every one, every fold and every target (the only one) has a key of its own."""
    return job.scene.key if job.scene.alone else _fold_in(job.scene.key, job.number, fold, 0)


def _fold_in(key: Key[Array, ""], *numbers: int) -> Key[Array, ""]:
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def _weigh(shared: CaseModel, job: PatchJob, trajectories: Sequence[Trajectory], *, config: Config) -> Found:
    """The maps and the kept models of one patch."""
    facts = [SearchFacts.of(trajectory) for trajectory in trajectories]
    kept = [kept_probs(trajectory, own.kept)[0] for trajectory, own in zip(trajectories, facts, strict=True)]
    if config.samples == SampleConfig.published():
        maps = [u[0] for u in decompose_published(trajectories)]
    elif job.scene.alone and not config.samples.blur:  # the faster way, for which samples in three axes are too many
        maps = [u[0] for u in decompose_samples(trajectories, [r[None] for r in job.references], samples=config.samples)]
    else:
        shape = job.scene.patches.patch
        maps = list(decompose_sums_of(trajectories, job.references, samples=config.samples, shape=shape))
    inside = np.asarray(job.asked[0].weights)[0] > 0
    own = [np.asarray(reference).argmax(-1) for reference in job.references]
    changed = [(inside & (probs.argmax(-1) != labels)).sum(-1) for probs, labels in zip(kept, own, strict=True)]
    moved = () if shared.plan is None else (_move(shared, job, trajectories, samples=config.samples),)
    return Found(np.stack([np.asarray(u) for u in maps]), [model for probs in kept for model in probs], facts, changed, moved)


def _move(shared: CaseModel, job: PatchJob, trajectories: Sequence[Trajectory], *, samples: SampleConfig) -> Moved:
    """How much each recorded sample moves the volume of each structure in a patch; where none counts, as the given network."""
    rows, given = [], []
    for trajectory, reference in zip(trajectories, job.references, strict=True):
        counts = np.asarray(counted(trajectory, feasible_only=samples.feasible_only))[0]
        said = trajectory.probs if trajectory.viewed is None else trajectory.viewed.probs
        own = np.zeros(len(shared.coding.structures))
        if trajectory.given is not None:
            own = volume_change(shared, job, trajectory.given.probs[0], reference)
        given.append(own)
        for m, s in np.ndindex(*counts.shape):
            rows.append(volume_change(shared, job, said[0, m, s], reference) if counts[m, s] else own)
        others: Any = [] if trajectory.others is None else trajectory.others.probs[0]
        rows += [volume_change(shared, job, probs, reference) for probs in others]
    return Moved(np.stack(rows), sum_weights(trajectories, samples), 1, np.mean(given, 0))
