"""One case in memory, read top to bottom: predict, choose targets, search, weigh, decompose, audit.

A volume given to a two-dimensional network is taken slice by slice along its last spatial axis; everything else works on
whole images of the network's rank. No files here.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ..config import Config, SampleConfig, TargetConfig
from ..config.build import build_layout
from ..core.decomposition import entropy
from ..core.layout.choose import choose_group
from ..core.searching import Prepared, search_images
from ..core.types import FitData, Targets, Trajectory, Uncertainty
from ..core.weighting import counted
from ..models.model import SegmentationModel
from ..models.predict import predict
from ..models.prepare import model_of, prepare
from ..published.combination import published_uncertainty
from ..targets.masks import mask_targets, wanted_mask
from .audit import MemberAudit, TargetFacts, audit_members, audit_targets, kept_probs, kept_steps, models_held
from .many_targets import decompose_weighted, quantify_targets


class Quantified(NamedTuple):
    """The maps of one case on its own grid; uncertainties in nats.

    `adversarial` are the label maps of the kept adversarial models, named by `adversarial_names`. The trajectories have
    the axes `[m s]`, with a leading slice axis for volumes seen by a two-dimensional network.
    """

    reference: Float[np.ndarray, "*space c"]
    segmentation: Int[np.ndarray, "*space"]
    total: Float[np.ndarray, "*space"]
    aleatoric: Float[np.ndarray, "*space"]
    epistemic: Float[np.ndarray, "*space"]
    softmax: Float[np.ndarray, "*space"]
    adversarial: Int[np.ndarray, " n *space"]
    adversarial_names: tuple[str, ...]
    audit: tuple[MemberAudit, ...]
    objective: Float[np.ndarray, "... s"]
    fit_loss: Float[np.ndarray, "... s"]
    bound: Float[np.ndarray, "... s"]
    penalty: Float[np.ndarray, "... s"]
    feasible: Bool[np.ndarray, "... s"]
    fragility: dict[str, np.ndarray] = {}  # maps of pixel and region targets; see fragility.fragility_maps
    regions: Int[np.ndarray, "..."] | None = None

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """The uncertainty maps by name, the entropy of the given network's prediction among them."""
        return {"total": self.total, "aleatoric": self.aleatoric, "epistemic": self.epistemic, "softmax": self.softmax}

    def _repr_html_(self) -> str:
        """The maps as pictures with their scales, as a notebook shows them."""
        from ..report.notebook import maps_html  # drawing is the report's

        kept, searched = models_held(self.audit)
        return maps_html(
            self.maps,
            self.segmentation,
            classes=self.reference.shape[-1],
            adversarial=self.adversarial,
            names=self.adversarial_names,
            facts=f"{kept} of {searched} adversarial models held the constraint.",
        )


def quantify(
    model: SegmentationModel, image: Float[np.ndarray, "*space i"], fit: FitData, *, config: Config | None = None
) -> Quantified:
    """Aleatoric, epistemic and total uncertainty of one prepared image.

    `image` is what the network takes (see data.preprocess), `fit` what an adversarial model must still explain (see
    predict.fit_data). For many images prepare once and call `quantify_images`. ValueError for an image that does not fit
    the network, values that are not finite, or settings that the network cannot serve.
    """
    config = config or Config()
    return quantify_prepared(prepare(model, fit, config.search, execution=config.execution), image, config=config)


def quantify_prepared(prepared: Prepared, image: Float[np.ndarray, "*space i"], *, config: Config) -> Quantified:
    """`quantify` with what all cases share already prepared."""
    return quantify_images(prepared, [image], config=config)[0]


def quantify_images(prepared: Prepared, images: Sequence[Float[np.ndarray, "*space i"]], *, config: Config) -> list[Quantified]:
    """`quantify_prepared` for several images: small ones of one size are searched together, as are the slices of a volume."""
    network, key = prepared.network, jax.random.key(config.seed)
    pieces: list[_Piece] = []
    for image in images:
        image = np.asarray(image, np.float32)
        if image.shape[-1] != network.in_channels or image.ndim - 1 not in (network.rank, 3):
            raise ValueError(
                f"image: expected {network.in_channels} channels last and {network.rank} spatial axes (or a volume "
                f"of slices), got shape {image.shape}"
            )
        if not np.isfinite(image).all():
            raise ValueError(f"image: expected finite values, got {int((~np.isfinite(image)).sum())} that are not")
        if image.ndim - 1 == network.rank:
            pieces.append(_Piece(image, key, None))
        else:
            pieces += [_Piece(image[:, :, z], jax.random.fold_in(key, z), z) for z in range(image.shape[2])]
    found = iter(_quantify_pieces(prepared, pieces, config=config))
    return [
        next(found) if np.ndim(image) - 1 == network.rank else _join_slices([next(found) for _ in range(np.shape(image)[2])])
        for image in images
    ]


class _Piece(NamedTuple):
    """An image of the network's rank: a case, or the slice at `place` of one."""

    image: np.ndarray
    key: Key[Array, ""]
    place: int | None


def _quantify_pieces(prepared: Prepared, pieces: Sequence[_Piece], *, config: Config) -> Iterator[Quantified]:
    """In order; neighbours of one size go together, as many as choose_group says."""
    if config.targets.target != "mask":
        for piece in pieces:
            yield _quantify_many(
                prepared, piece.image, predict(model_of(prepared), piece.image), config=config, key=piece.key, place=piece.place
            )
        return
    for shape, alike in itertools.groupby(pieces, lambda piece: piece.image.shape):
        group = choose_group(build_layout(config.execution), members=config.search.members, pixels=math.prod(shape[:-1]))
        while part := list(itertools.islice(alike, group)):
            yield from _quantify_group(prepared, part, config=config)


def _quantify_group(prepared: Prepared, pieces: Sequence[_Piece], *, config: Config) -> Iterator[Quantified]:
    references = [predict(model_of(prepared), piece.image) for piece in pieces]
    read = [_read_off(reference) for reference in references]
    targets = [
        case_targets(segmentation, reference, config=config, key=piece.key)
        for (segmentation, _), reference, piece in zip(read, references, pieces, strict=True)
    ]
    trajectories = search_images(
        prepared,
        [piece.image for piece in pieces],
        targets,
        keys=[piece.key for piece in pieces],
        layout=build_layout(config.execution),
    )
    for piece, reference, (segmentation, softmax), trajectory in zip(pieces, references, read, trajectories, strict=True):
        yield _weigh(prepared, trajectory, reference, segmentation, softmax, config=config, place=piece.place)


def _weigh(
    prepared: Prepared,
    trajectory: Trajectory,
    reference: Float[Array, "*space c"],
    segmentation: Int[Array, "*space"],
    softmax: Float[Array, "*space"],
    *,
    config: Config,
    place: int | None,
) -> Quantified:
    """Decomposition and audit of the mask targets of one image."""
    space = segmentation.shape
    flat = reference.reshape(1, -1, reference.shape[-1])
    uncertainty = _decompose(trajectory, flat, samples=config.samples)
    counts = np.asarray(counted(trajectory))
    label_maps = kept_probs(trajectory, kept_steps(trajectory, counts))[0].argmax(-1)
    labels = np.asarray(segmentation)
    total, aleatoric, epistemic = (np.asarray(u).reshape(space) for u in uncertainty)
    return Quantified(
        reference=np.asarray(reference),
        segmentation=labels.astype(np.int32),
        total=total,
        aleatoric=aleatoric,
        epistemic=epistemic,
        softmax=np.asarray(softmax),
        adversarial=label_maps.reshape(-1, *space),
        adversarial_names=wanted_names(config),
        audit=tuple(
            audit_members(
                MemberAudit,
                trajectory,
                names=wanted_names(config),
                changed=(label_maps != labels.reshape(-1)).sum(-1),
                slice=place,
            )
        ),
        objective=np.asarray(trajectory.objective)[0],
        fit_loss=np.asarray(trajectory.fit_loss)[0],
        bound=np.asarray(trajectory.bound)[0],
        penalty=np.asarray(trajectory.penalty)[0],
        feasible=counts[0],
    )


def _quantify_many(
    prepared: Prepared,
    image: np.ndarray,
    reference: Float[Array, "*space c"],
    *,
    config: Config,
    key: Key[Array, ""],
    place: int | None,
) -> Quantified:
    probabilities = np.asarray(reference)
    segmentation = probabilities.argmax(-1).astype(np.int32)
    masks = [np.asarray(mask) for mask in _wanted_masks(segmentation, reference, key, config.targets)]
    found = quantify_targets(prepared, image, probabilities, segmentation, wanted=masks, config=config, key=key)
    trajectory, points = found.trajectory, np.asarray(found.targets.points)
    asked = np.asarray(found.targets.weights) > 0
    facts = TargetFacts.of(trajectory)
    label_maps = kept_probs(trajectory, facts.kept).argmax(-1)
    adversarial = []
    for m in range(config.search.members):
        moved = segmentation.reshape(-1).copy()
        moved[points[asked]] = label_maps[:, m][asked]
        adversarial.append(moved.reshape(segmentation.shape))
    names = tuple(f"{config.targets.target} {m}" for m in range(config.search.members))
    changed = np.array([(moved != segmentation).sum() for moved in adversarial])
    audit = audit_targets(MemberAudit, facts, names=names, changed=changed, slice=place)
    return Quantified(
        reference=probabilities,
        segmentation=segmentation,
        total=np.asarray(found.uncertainty.total),
        aleatoric=np.asarray(found.uncertainty.aleatoric),
        epistemic=np.asarray(found.uncertainty.epistemic),
        softmax=np.asarray(entropy(reference)),
        adversarial=np.stack(adversarial),
        adversarial_names=names,
        audit=tuple(audit),
        **facts.means(),
        feasible=np.asarray(facts.counts.all(0)),
        fragility=found.maps,
        regions=found.regions,
    )


def wanted_names(config: Config) -> tuple[str, ...]:
    """The wanted mask of every member, in order."""
    shapes = config.targets.shapes
    return tuple(shapes[k % len(shapes)] for k in range(config.search.members))


def case_targets(
    segmentation: Int[Array, "*space"], reference: Float[Array, "*space c"], *, config: Config, key: Key[Array, ""]
) -> Targets:
    """The mask targets of one case."""
    return _mask_targets(segmentation, reference, key, config.targets, config.search.members)


# compiled as a whole: one by one, the small operations of a case take longer than the search of a small image
@jax.jit
def _read_off(reference: Float[Array, "*space c"]) -> tuple[Int[Array, "*space"], Float[Array, "*space"]]:
    return jnp.argmax(reference, -1), entropy(reference)


@partial(jax.jit, static_argnames=("settings", "members"))
def _mask_targets(
    segmentation: Int[Array, "*space"],
    reference: Float[Array, "*space c"],
    key: Key[Array, ""],
    settings: TargetConfig,
    members: int,
) -> Targets:
    return mask_targets(_wanted_masks(segmentation, reference, key, settings), members=members)


@partial(jax.jit, static_argnames="settings")
def _wanted_masks(
    segmentation: Int[Array, "*space"], reference: Float[Array, "*space c"], key: Key[Array, ""], settings: TargetConfig
) -> list[Int[Array, "*space"]]:
    return [
        wanted_mask(
            segmentation,
            shape,
            radius=settings.radius,
            classes=reference.shape[-1],
            element=settings.element,
            outside=settings.outside,
            probs=reference,
            key=jax.random.fold_in(key, index),
        )
        for index, shape in enumerate(settings.shapes)
    ]


def _decompose(trajectory: Trajectory, reference: Float[Array, "t p c"], *, samples: SampleConfig) -> Uncertainty:
    if samples == SampleConfig.published():
        return published_uncertainty(trajectory)
    return decompose_weighted(trajectory, reference, samples)


def _join_slices(slices: Sequence[Quantified]) -> Quantified:
    stacked = {
        name: np.stack([getattr(s, name) for s in slices], 2)
        for name in ("reference", "segmentation", "total", "aleatoric", "epistemic", "softmax")
    }
    leading = {
        name: np.stack([getattr(s, name) for s in slices]) for name in ("objective", "fit_loss", "bound", "penalty", "feasible")
    }
    fragility = {name: np.stack([s.fragility[name] for s in slices], 2) for name in slices[0].fragility}
    regions = None if slices[0].regions is None else np.stack([s.regions for s in slices], -1)  # type: ignore[misc]  # all or none
    return Quantified(
        **stacked,
        **leading,
        fragility=fragility,
        regions=regions,
        adversarial=np.stack([s.adversarial for s in slices], 3),
        adversarial_names=slices[0].adversarial_names,
        audit=tuple(a for s in slices for a in s.audit),
    )


def audit_rows(quantified: Quantified) -> list[dict]:
    """The audit as plain rows; `slice` only where there are slices."""
    return [{k: v for k, v in asdict(a).items() if v is not None} for a in quantified.audit]
