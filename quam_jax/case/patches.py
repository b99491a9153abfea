"""A case as patches that are searched one by one, and what comes of them joined.

A whole image is the case of one patch, which is the image itself, of weight 1. The maps of several patches are joined with the
Gaussian weights of the prediction. Samples exist for one patch at a time: what is kept of an image are maps, labels and sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num

from ..config import Config
from ..core.fragility import Fragility
from ..core.given import view_image
from ..core.types import Targets, ViewMean
from ..data.large import label_type, release, zeros
from ..data.patches import Patches, cut, importance, weight_sum
from ..data.plans import Grid
from ..data.preprocess import PreparedInParts
from ..models.coding import Coding
from ..models.predict import predict
from .audit import MemberAudit, OnWhole, SearchFacts, audit_members
from .samples import Moved, decompose_sums_of
from .shared import CaseModel
from .views import choose_look, look_of

LEAST = 1e-30  # floor of probabilities whose logarithms are averaged

Weights = Mapping[str, Float[np.ndarray, "..."]]
Ask = Callable[[int], Sequence[Targets]]  # from the number of a patch to what is asked there
Regions = tuple[Int[np.ndarray, "*grid"], ...]


class Scene(NamedTuple):
    """An image, or the `slice` of one, as the network takes it, and what the given network says of it, before any search.

    `labels` and `probs` are in classes of the search. Of a model with a plan there are the `grid`, which leads back to the image,
    and the `logits`; without one the image's own pixels are the grid.
    """

    values: Float[np.ndarray, "*grid i"] | PreparedInParts
    patches: Patches
    key: Key[Array, ""]
    labels: Int[Array | np.ndarray, "*grid"]
    probs: Float[Array | np.ndarray, "*grid c"]
    slice: int | None = None
    grid: Grid | None = None
    logits: Float[np.ndarray, "*grid k"] | None = None

    @property
    def alone(self) -> bool:
        """Whether the only patch is the image itself, on its own pixels."""
        return self.grid is None and self.patches.patch == self.patches.shape


class PatchJob(NamedTuple):
    """One patch: what every fold says of it, and what is asked there (nothing, a mask, or groups of pixels or regions).

    Points of the targets are flat indices into the patch. `share` is the part of the joined maps that is this patch's.
    """

    scene: Scene
    number: int
    image: Float[Array, "*patch i"]
    references: tuple[Float[Array, "p c"], ...]
    asked: Sequence[Targets]
    share: Float[np.ndarray, "*inner 1"] | float


class Placed(NamedTuple):
    """What was found at the points of some pixels or regions; `kept` by fold and member, `slack` what their flips cost.

    All of an image's are held until the last patch, so that there is no more here than its maps need. The other costs,
    `fragility`, are those of an image that is its own only patch.
    """

    targets: Targets
    maps: Float[np.ndarray, "u t p"]
    kept: Float[np.ndarray, "n t p c"]
    slack: Float[np.ndarray, "t p"]
    fragility: Fragility | None


class Found(NamedTuple):
    """What came of one patch: maps (total, aleatoric, epistemic) and the probabilities of the kept models by fold and member.

    Where it was searched there are the facts of every fold, the changed pixels of its members, and, of a model with a plan, how
    samples move the volumes of labels. What pixels and regions found stands in `placed`, and the rest is the given network's.
    `whole` is what the kept models lose on the whole fit images, where the search had crops of them, and `weights` what each of
    them has in place of given weights, by name, where they are asked for.
    """

    maps: Float[np.ndarray, "u p"]
    kept: Sequence[Float[np.ndarray, "p c"]]
    facts: Sequence[SearchFacts] = ()
    changed: Sequence[Int[np.ndarray, " m"]] = ()
    moved: Sequence[Moved] = ()
    placed: Sequence[Placed] = ()
    whole: OnWhole | None = None
    weights: Sequence[Weights] = ()


def patch_jobs(shared: CaseModel, scene: Scene, ask: Ask) -> Iterator[PatchJob]:
    """The patches of a scene in order; `ask` gives the targets of a patch by its number."""
    patches, rank = scene.patches, len(scene.patches.patch) if shared.plan is None else shared.plan.rank
    weights = importance(patches.patch) if len(patches.starts) > 1 else None
    for number in range(len(patches.starts)):
        outer, inner = patches.overlap(number)
        share = 1.0 if weights is None else (weights[inner] / weight_sum(patches, outer))[..., None]
        values = cut(scene.values, patches, number)
        image = jnp.asarray(values.reshape(*patches.patch[len(patches.patch) - rank :], -1))
        probs = [jnp.asarray(scene.probs)] if scene.alone else [predict(fold.searched, image) for fold in shared.folds]
        references = tuple(one.reshape(-1, one.shape[-1]) for one in probs)
        yield PatchJob(scene, number, image, references, ask(number), share)


def leave_patch(shared: CaseModel, job: PatchJob, *, config: Config) -> Found:
    """A patch with the folds as its only samples, as they look at it through views."""
    look = choose_look(shared, job.image.shape[:-1], config=config)
    given = []
    if look.views:
        key = jax.random.fold_in(job.scene.key, job.number)
        given = [view_image(fold.prepared, job.image, look_of(fold, look), key=key) for fold in shared.folds]
    shape = job.scene.patches.patch
    maps = decompose_sums_of((), job.references, samples=config.samples, shape=shape, given=given)
    references = [np.asarray(reference) for reference in job.references]
    kept = [r for r in references for _ in range(own_evidence(config))]
    moved = (move_given(shared, job, given, config=config),) if given and shared.plan is not None else ()
    return Found(np.stack([np.asarray(u) for u in maps]), kept, moved=moved)


def volume_change(
    shared: CaseModel, job: PatchJob, probs: Float[Array | np.ndarray, "p c"], reference: Float[Array | np.ndarray, "p c"]
) -> Float[np.ndarray, " structures"]:
    """How many voxels of each structure these probabilities of a patch have more than the given network's."""
    _, inner = job.scene.patches.overlap(job.number)
    shape, coding = job.scene.patches.patch, shared.coding
    after, before = (
        coding.class_to_structure_probs(np.asarray(values).reshape(*shape, -1)[inner]) for values in (probs, reference)
    )
    return ((after - before) * job.share).sum((0, 1, 2), dtype=np.float64)


def move_given(shared: CaseModel, job: PatchJob, given: Sequence[tuple[ViewMean, ViewMean | None]], *, config: Config) -> Moved:
    """How samples move the volumes in a patch that is not searched: those of a search as the given network through views."""
    rows, means = [], []
    for (own, others), reference in zip(given, job.references, strict=True):
        means.append(volume_change(shared, job, own.probs, reference))
        rows += [means[-1]] * shared.records(config.search)
        rows += [volume_change(shared, job, probs, reference) for probs in ([] if others is None else others.probs)]
    return Moved(np.stack(rows), np.zeros(len(rows) + 1), 0, np.mean(means, 0))


def own_evidence(config: Config) -> int:
    """How many members of a fold have label evidence of their own; those of pixels and regions differ at their points alone."""
    return config.search.members if config.targets.target == "mask" else 1


class LabelBand:
    """The labels of one model, decided row by row: evidence is held only where a further patch may still add to it.

    Patches come in the order of their first axis, so that rows before the present patch are done.
    """

    def __init__(self, patches: Patches, classes: int) -> None:
        self.labels = zeros(patches.shape, label_type(classes))
        self._band = np.zeros((patches.patch[0], *patches.shape[1:], classes), np.float32)
        self._top = 0

    def add(self, box: tuple[slice, ...], evidence: Float[np.ndarray, "*box c"]) -> None:
        """Add the weighted evidence of a patch."""
        self._decide(box[0].start)
        self._band[slice(box[0].start - self._top, box[0].stop - self._top), *box[1:]] += evidence

    def close(self) -> Int[np.ndarray, "*grid"]:
        """The labels, when the last patch has come."""
        self._decide(len(self.labels))
        self._band = self._band[:0]
        return self.labels

    def _decide(self, row: int) -> None:
        count = row - self._top
        if count > 0:
            self.labels[self._top : row] = self._band[:count].argmax(-1)
            left = self._band[count:].copy()
            self._band[: len(left)], self._band[len(left) :] = left, 0.0
            self._top = row


@dataclass
class Joined:
    """Maps and label evidence on the grid, filled patch by patch, and what is told of the searches.

    The evidence of a whole image is the probabilities; of patches it is the mean of their logarithms, as patches of logits are
    averaged. There is one a fold and member, or of pixels and regions one a fold, in which the points of one member after the
    other are put. On a grid of the network's own it is kept until it is back on the image's; on the
    image's own pixels only the `labels` that it decides are.
    """

    scene: Scene
    maps: Float[np.ndarray, "*grid 3"]
    evidence: list[Float[np.ndarray, "*grid c"]]
    bands: list[LabelBand]
    audit: list[MemberAudit] = field(default_factory=list)
    losses: list[dict[str, Float[np.ndarray, "m s"]]] = field(default_factory=list)
    feasible: list[Bool[np.ndarray, "m s"]] = field(default_factory=list)
    moved: Moved | None = None
    placed: list[tuple[int, Placed]] = field(default_factory=list)
    members: int = 1  # that share an evidence
    weights: list[Weights] = field(default_factory=list)  # of the kept models of a whole image

    @staticmethod
    def empty(shared: CaseModel, scene: Scene, *, config: Config) -> "Joined":
        """Before the first patch."""
        shape, classes = scene.patches.shape, scene.probs.shape[-1]
        models = range(len(shared.folds) * own_evidence(config))
        banded = scene.grid is None and not scene.alone
        return Joined(
            scene,
            zeros((*shape, 3)),
            [] if banded else [zeros((*shape, classes)) for _ in models],
            [LabelBand(scene.patches, classes) for _ in models] if banded else [],
            members=config.search.members // own_evidence(config),
        )

    def as_evidence(self, probs: Float[np.ndarray, "*any c"]) -> Float[np.ndarray, "*any c"]:
        """Probabilities as label evidence."""
        return probs if self.scene.alone else np.log(np.maximum(probs, LEAST))

    def add(self, shared: CaseModel, job: PatchJob, found: Found, *, names: Sequence[str]) -> None:
        """Take up what came of a patch; `names` are those of its members."""
        patches = self.scene.patches
        outer, inner = patches.overlap(job.number)
        self.maps[outer] += np.moveaxis(found.maps.reshape(-1, *patches.patch)[(slice(None), *inner)], 0, -1) * job.share
        for model, probs in enumerate(found.kept):
            evidence = self.as_evidence(probs.reshape(*patches.patch, -1)[inner]) * job.share
            if self.bands:
                self.bands[model].add(outer, evidence)
            else:
                self.evidence[model][outer] += evidence
                release(self.evidence[model])
        release(self.maps)
        for fold, facts, changed in zip(shared.folds, found.facts, found.changed, strict=False):
            place: dict[str, Any] = {"slice": self.scene.slice}
            if not self.scene.alone:
                place |= {"patch": job.number, "start": patches.start(job.number)}
                place |= {} if shared.plan is None else {"fold": fold.name}
            target = -1 if found.placed else 0
            self.audit += audit_members(facts, names=names, changed=changed, target=target, whole=found.whole, **place)
            self.losses.append(facts.means())
            self.feasible.append(np.asarray(facts.counts.all(0)))
        for moved in found.moved:
            self.moved = moved if self.moved is None else self.moved.plus(moved)
        self.placed += [(job.number, one) for one in found.placed]
        self.weights += found.weights

    def points(self) -> Iterator[tuple[Int[np.ndarray, " n"], Bool[np.ndarray, "t p"], Placed]]:
        """The pixels that were asked, as flat indices into the grid, which of the points they are, and what was found there."""
        patches = self.scene.patches
        for index, one in self.placed:
            inside = np.asarray(one.targets.weights) > 0
            places = np.stack(np.unravel_index(np.asarray(one.targets.points)[inside], patches.patch), -1) + patches.start(index)
            yield np.ravel_multi_index(tuple(places.T), patches.shape), inside, one

    def models(self) -> Iterator[Num[np.ndarray, "*grid _"]]:
        """The evidence of every adversarial model, by fold and member, or its labels where there are bands; true until the next.

        Where points overlap that of the last counts.
        """
        asked = list(self.points())
        for number, whole in enumerate([band.close()[..., None] for band in self.bands] or self.evidence):
            flat = whole.reshape(-1, whole.shape[-1])
            for member in range(self.members):
                for pixels, inside, one in asked:  # the same pixels for every member
                    probs = one.kept[number * self.members + member][inside]
                    flat[pixels] = probs.argmax(-1)[:, None] if self.bands else self.as_evidence(probs)
                yield whole

    def classes(self, coding: Coding) -> Int[np.ndarray, "n *grid"]:
        """The classes that all models say, on the image's own pixels."""
        count = self.members * (len(self.bands) or len(self.evidence))
        maps = zeros((count, *self.scene.patches.shape), label_type(coding.classes) if self.bands else np.int32)
        for classes, model in zip(maps, self.models(), strict=True):
            classes[...] = model[..., 0] if self.bands else coding.classify_classes(model)
        return maps
