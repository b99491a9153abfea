"""A volume worked out by hand: what the network says of patches, and their searches, joined by loops over voxels in float64.

Only two things are taken from the product: a network's logits of one patch, and the search of one patch in one fold. Weights of
patches, weights of samples, decomposition, the joining of patches and millilitres are written out here.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from quam_jax.case.shared import CaseModel, planned_model
from quam_jax.config import Config
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import Targets, Trajectory
from quam_jax.data.geometry import Geometry
from quam_jax.models.coding import Coding
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.targets.wanted.dilate import dilate_mm
from quam_jax.targets.wanted.erode import erode_mm
from tests.planned import plan_of, record

AS_READ = {"scheme": "NoNormalization", "use_mask": False, "intensity": None}


def tiny_fold(seed: int, *, classes: int, drop: float = 0.0) -> SegmentationModel:
    """A network of two axes and one channel."""
    network = Network.create("tiny", in_channels=1, n_classes=classes, drop=drop)
    rng = np.random.default_rng(seed)
    params, stats = network.shapes()
    params = {n: jnp.asarray(rng.standard_normal(s) * 0.5, jnp.float32) for n, s in params.items()}
    return SegmentationModel(network, params, {n: jnp.ones(s, jnp.float32) for n, s in stats.items()})


def geometry_of(image: np.ndarray, spacing: tuple[float, ...]) -> Geometry:
    """A scan whose axes are x y z."""
    size = image.shape[:3]
    return Geometry("nifti", size, size, np.diag([*spacing, 1.0]), spacing, ".nii.gz", "float32")


def folds_of(
    models: list[SegmentationModel], config: Config, *, patch: tuple[int, ...], spacing: tuple[float, ...], **changes: Any
) -> CaseModel:
    """The folds of a planned model whose fit data are random."""
    settings = {"patch_size": list(patch), "spacing": list(spacing), "normalisation": [AS_READ], **changes}
    plan = plan_of(**settings)
    coding = Coding.of(plan, where="model")
    rng = np.random.default_rng(7)
    images = rng.standard_normal((2, 2, *patch, 1)).astype(np.float32)
    labels = coding.class_of_label[rng.integers(0, coding.labels, (2, 2, *patch))]
    folds = [
        SegmentationModel(m.network, m.params, m.stats, {"nnunet": record(**settings, fold=str(n))}) for n, m in enumerate(models)
    ]
    return planned_model(folds, images, labels, plan=plan, coding=coding, search=config.search)


def softmax(logits: np.ndarray) -> np.ndarray:
    exps = np.exp(np.asarray(logits, np.float64))
    return exps / exps.sum(-1, keepdims=True)


def entropy(probs: np.ndarray) -> float:
    return -sum(float(p) * math.log(p) for p in probs if p > 0)


class Kind(NamedTuple):
    """How a kind of model reads its channels; classes of regions are 0 none, 1 whole, 2 core without whole, 3 both."""

    regions: bool

    def classes(self, logits: np.ndarray) -> np.ndarray:
        if not self.regions:
            return softmax(logits)
        whole, core = np.moveaxis(1 / (1 + np.exp(-np.asarray(logits, np.float64))), -1, 0)
        return np.stack([(1 - whole) * (1 - core), whole * (1 - core), (1 - whole) * core, whole * core], -1)

    def structures(self, classes: np.ndarray) -> np.ndarray:
        """Probabilities of what has a volume: the labels but 0, or the two regions; core lies in whole."""
        if not self.regions:
            return classes[..., 1:]
        return np.stack([1 - classes[..., 0], classes[..., 2] + classes[..., 3]], -1)

    def classify(self, classes: np.ndarray) -> np.ndarray:
        if not self.regions:
            return classes.argmax(-1)
        whole, core = classes[..., 1] + classes[..., 3], classes[..., 2] + classes[..., 3]
        assert min(np.abs(whole - 0.5).min(), np.abs(core - 0.5).min()) > 1e-5  # rounding decides nothing
        return np.where(core > 0.5, 3, whole > 0.5)

    def written(self, classes: np.ndarray) -> np.ndarray:
        return np.array([0, 1, 2, 2])[classes] if self.regions else classes


class Expected(NamedTuple):
    """What a volume should come to; axes are z y x."""

    channels: np.ndarray
    segmentation: np.ndarray
    maps: np.ndarray
    adversarial: np.ndarray
    sample_ml: np.ndarray
    sample_weights: np.ndarray
    rows: list[dict[str, Any]]
    objective: list[np.ndarray]


class Shape(NamedTuple):
    """Where patches lie: nnU-Net's starts on every axis, worked out in the test; the grid begins at voxel `before`."""

    patch: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    before: tuple[int, ...]
    flips: tuple[int, ...]


def gaussian(patch: tuple[int, ...], place: tuple[int, ...]) -> float:
    """The weight of a voxel of a patch: a Gaussian of an eighth of the patch around its middle, 10 at most."""
    return 10 * math.exp(-sum(((p - n // 2) / (n / 8)) ** 2 / 2 for p, n in zip(place, patch, strict=True) if n > 1))


def by_hand(
    shared: CaseModel, grid: np.ndarray, kind: Kind, shape: Shape, *, spacing: tuple[float, ...], config: Config
) -> Expected:
    space, patch, rank = grid.shape[:3], shape.patch, shared.folds[0].model.network.rank
    members = config.search.members
    places = list(itertools.product(*shape.starts))

    def voxels(start: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The voxels of a patch with the grid's, those that the grid has."""
        pairs = [
            (place, tuple(p + s - b for p, s, b in zip(place, start, shape.before, strict=True))) for place in np.ndindex(*patch)
        ]
        return [(place, there) for place, there in pairs if all(0 <= v < n for v, n in zip(there, space, strict=True))]

    def content(start: tuple[int, ...]) -> np.ndarray:
        values = np.zeros((*patch, 1), np.float32)
        for place, there in voxels(start):
            values[place] = grid[there]
        return values.reshape(*patch[3 - rank :], 1)

    # the given network: logits averaged over folds, flips and patches
    weights, sums = np.zeros(space), None
    for start in places:
        image, mean = content(start), 0.0
        for fold, count in itertools.product(shared.folds, range(len(shape.flips) + 1)):
            for flip in itertools.combinations(shape.flips, count):
                mean = mean + np.flip(np.asarray(fold.model(np.flip(image, flip)[None]), np.float64)[0], flip)
        mean = np.reshape(mean / len(shared.folds) / 2 ** len(shape.flips), (*patch, -1))
        sums = np.zeros((*space, mean.shape[-1])) if sums is None else sums
        for place, there in voxels(start):
            weights[there] += gaussian(patch, place)
            sums[there] += gaussian(patch, place) * mean[place]
    logits = sums / weights[..., None]
    probs = kind.classes(logits)
    present = kind.classify(probs)
    radius = float(np.median(spacing))
    masks = [dilate_mm(present, radius=radius, spacing=spacing), erode_mm(present, radius=radius, spacing=spacing)]
    asked = [masks[m % 2] for m in range(members)]

    folds, steps, classes = len(shared.folds), config.search.steps, probs.shape[-1]
    maps, evidence = np.zeros((*space, 3)), np.zeros((folds, members, *space, classes))
    change, drawn, stayed, searches = np.zeros((folds, members, steps, 2)), np.zeros((folds, members, steps)), 0.0, 0
    rows, objective = [], []
    for number, start in enumerate(places):
        image, inside = content(start), voxels(start)
        given = [kind.classes(np.asarray(fold.model(image[None]))[0]).reshape(*patch, -1) for fold in shared.folds]
        share = {place: gaussian(patch, place) / weights[there] for place, there in inside}
        moves = any(mask[there] != present[there] for mask in masks for _, there in inside)
        found: list[Trajectory] = []
        for f, fold in enumerate(shared.folds if moves else ()):
            wanted, counts = np.zeros((members, *patch), np.int32), np.zeros(patch, np.float32)
            for (place, there), m in itertools.product(inside, range(members)):
                wanted[(m, *place)], counts[place] = asked[m][there], 1
            targets = Targets(
                jnp.arange(math.prod(patch))[None],
                jnp.asarray(wanted.reshape(1, members, -1)),
                jnp.asarray(counts.reshape(1, -1) / counts.sum()),
            )
            key = jax.random.key(config.seed)
            for step in (number, f, 0):  # patch, fold, the only target
                key = jax.random.fold_in(key, step)
            found.append(search_prepared(fold.prepared, image, targets, key=key))
            found[-1] = jax.tree.map(lambda leaf: np.asarray(leaf)[0], found[-1])
        objective += [one.objective for one in found]
        searches += moves
        # samples of every fold with their weights, which sum to 1 over all folds
        samples: list[tuple[float, np.ndarray]] = []
        for f in range(folds):
            chosen = (
                []
                if not moves
                else [(m, s) for m, s in np.ndindex(members, steps) if found[f].fit_loss[m, s] <= found[f].bound[m, s]]
            )
            heavy = [
                math.exp(-float(found[f].fit_loss[n]) / config.samples.temperature)
                if config.samples.weighting == "softmax"
                else 1.0
                for n in chosen
            ]
            own = 1 / (len(chosen) + 1)
            samples.append((own / folds, given[f]))
            stayed += own / folds if moves else 0
            for n, weight in zip(chosen, heavy, strict=True):
                moved = np.asarray(found[f].probs[n], np.float64).reshape(given[f].shape)
                samples.append((weight / sum(heavy) * (1 - own) / folds, moved))
                drawn[(f, *n)] += samples[-1][0] if moves else 0
                for place, _ in inside:
                    change[(f, *n)] += share[place] * (kind.structures(moved[place]) - kind.structures(given[f][place]))
        assert abs(sum(weight for weight, _ in samples) - 1) < 1e-9
        for place, there in inside:
            total = entropy(sum(weight * p[place] for weight, p in samples))
            aleatoric = sum(weight * entropy(p[place]) for weight, p in samples)
            maps[there] += share[place] * np.array([total, aleatoric, total - aleatoric])
        for f, m in np.ndindex(folds, members):
            best = given[f]
            if moves:
                feasible = [s for s in range(steps) if found[f].fit_loss[m, s] <= found[f].bound[m, s]]
                order = np.asarray(found[f].objective[m])
                kept = min(feasible, key=order.__getitem__) if feasible else steps - 1
                best = np.asarray(found[f].probs[m, kept], np.float64).reshape(given[f].shape)
                reference = np.asarray(shared.folds[f].prepared.reference_loss)[(kept + 1) % 2]
                flipped = sum(best[place].argmax() != given[f][place].argmax() for place, _ in inside)
                rows.append(
                    dict(
                        patch=number,
                        start=tuple(s - b for s, b in zip(start, shape.before, strict=True)),
                        fold=str(f),
                        member=m,
                        wanted=("dilate", "erode")[m % 2],
                        kept=int(bool(feasible)),
                        searched=1,
                        steps=steps,
                        feasible_steps=len(feasible),
                        changed_pixels=int(flipped),
                        fit_loss=float(found[f].fit_loss[m, kept]),
                        reference_loss=float(reference),
                        bound=float(reference) * (1 + config.search.slack),
                        objective_last=float(found[f].objective[m, kept]),
                    )
                )
            for place, there in inside:
                evidence[(f, m, *there)] += share[place] * np.log(best[place])
    voxel = math.prod(spacing) / 1000
    expected = kind.structures(probs).sum((0, 1, 2)) * voxel
    sample_ml = np.concatenate([expected + change.reshape(-1, 2) * voxel, expected[None]])
    channels = 1 / (1 + np.exp(-logits)) if kind.regions else probs
    adversarial = np.stack([kind.written(kind.classify(softmax(evidence[n]))) for n in np.ndindex(folds, members)])
    sample_weights = np.append(drawn.reshape(-1), stayed) / searches
    return Expected(channels, kind.written(present), maps, adversarial, sample_ml, sample_weights, rows, objective)
