"""Fit data, the known images that an adversarial model must still explain: which are chosen, and how they are batched.

Cases are chosen evenly over the sorted folder; several raters of a case count by their majority. A plain model takes images, or
crops of large ones (see crops.py), and a volume's slices where the network has two axes. A model with an nnU-Net plan takes
patches of the plan's grid that show enough foreground, the same ones in every run: of each case's patches two in three are
centred on a foreground voxel, labels in turn, and the third is anywhere; places come from a generator seeded by the case's
number.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Integer, Num

from ..config import FitConfig
from ..core.progress import tell
from ..core.types import FitData
from ..data.cases import read_case_files
from ..data.channels import require_channels
from ..data.datasets import Case
from ..data.geometry import Geometry
from ..data.plans import Plan, labels_to_grid, to_grid
from ..data.preprocess import IGNORED, Preprocessing, batch_fit, to_slices
from ..data.spread import evenly_spread
from ..data.volumes import Image
from ..evaluation.reference_maps import consensus
from ..models.coding import Coding
from ..models.model import SegmentationModel
from ..models.outputs import coding_of
from ..models.predict import fit_data
from .crops import Pair, crop_side, crops_of, is_cropped

FOREGROUND_SHARE = 3  # every such patch is anywhere, the others show foreground
BATCH_VOXELS = 2**19  # of a batch of patches where the settings leave its size open


@runtime_checkable
class KnownCase(Protocol):
    """A case ready for a network, with the masks of its raters; `digest` covers image and masks, `identity` says who it is."""

    @property
    def identity(self) -> Any: ...
    @property
    def image(self) -> Float[np.ndarray, "*space i"]: ...
    @property
    def raters(self) -> Integer[np.ndarray, " a *space"]: ...
    @property
    def digest(self) -> str: ...


class Known(NamedTuple):
    """The fit data of a run on the host, in batches, with the names of the cases and the hashes of their image files.

    `whole` reads again the images of which they are crops; it is empty where they are not cropped. `notes` say what of the files
    was not taken as it stands.
    """

    images: Float[np.ndarray, "k b *space i"]
    labels: Int[np.ndarray, "k b *space"]
    names: list[str]
    hashes: list[str]
    whole: tuple[Callable[[], list[Pair]], ...] = ()
    notes: tuple[str, ...] = ()


def read_fit_images(
    cases: Sequence[Case],
    where: object,
    *,
    model: SegmentationModel,
    preprocessing: Preprocessing,
    settings: FitConfig,
    seed: int = 0,
) -> Known:
    """Images for a plain model, or the slices of volumes, those without foreground only where there is nothing else; in classes.

    Large ones are used as crops, whose places come from the seed. ValueError if a case has no mask or does not fit the network.
    """
    network, sides, coding = model.network, crop_side(settings, model), coding_of(model)
    chosen = choose_cases(cases, where, settings=settings)
    count = _crops_a_case(settings, len(chosen))
    cropped: list[int] = []
    told: list[str] = []

    def take_whole(image: Image, labels: Int[np.ndarray, "*space"], number: int) -> list[Pair]:
        told.extend(require_channels(image, preprocessing.channels))
        prepared = preprocessing.apply(image.array)
        if prepared.ndim - 1 == network.rank:
            return [(prepared, coding.classes_of(labels))]
        if prepared.ndim - 1 != 3:
            raise ValueError(f"expected {network.rank} spatial axes, got {prepared.ndim - 1}")
        slices, slice_labels, classes = to_slices(prepared), to_slices(labels), to_slices(coding.classes_of(labels))
        some = (slice_labels > 0).reshape(len(slice_labels), -1).any(1)
        shown = np.flatnonzero(some if some.any() else ~some)
        return [(slices[z], classes[z]) for z in shown[evenly_spread(len(shown), settings.fit_cases)]]

    def take(image: Image, labels: Int[np.ndarray, "*space"], number: int) -> list[Pair]:
        whole = take_whole(image, labels, number)
        pairs = _crop(whole, sides, settings=settings, count=count, number=number, seed=seed)
        if pairs is not whole:
            cropped.append(number)
        return pairs

    def again(number: int) -> Callable[[], list[Pair]]:
        return lambda: _read([chosen[number]], take_whole, labels=coding.labels)[0]

    pairs, hashes, notes = _read(chosen, take, labels=coding.labels)
    pairs = [pairs[i] for i in evenly_spread(len(pairs), settings.fit_cases)]
    images, labels = batch_fit(pairs, size=settings.fit_batch, multiple=network.size_multiple)
    whole = tuple(again(number) for number in range(len(chosen))) if cropped and settings.fit_check else ()
    return Known(images, labels, [case.name for case in chosen], hashes, whole, tuple(dict.fromkeys(notes + told)))


def read_some_fit_cases(
    cases: Sequence[Case], where: object, *, count: int, coding: Coding, settings: FitConfig
) -> list[tuple[Num[np.ndarray, "*space i"], Int[np.ndarray, "*space"]]]:
    """The first `count` of the chosen fit cases: images as read, and their classes; ValueError as `read_fit_images`."""
    taken: list[tuple[np.ndarray, np.ndarray]] = []

    def take(image: Image, labels: Int[np.ndarray, "*space"], number: int) -> list[Pair]:
        taken.append((image.array, coding.classes_of(labels)))
        return []

    _read(choose_cases(cases, where, settings=settings)[:count], take, labels=coding.labels)
    return taken


def read_fit_patches(cases: Sequence[Case], where: object, *, plan: Plan, coding: Coding, settings: FitConfig) -> Known:
    """Patches for a model with a plan: as many as `fit_cases` asks for (0: one a case), their labels in classes of the search.

    ValueError for a case without a mask, a mask on another grid than its image, and an image that does not fit the plan.
    """
    chosen = choose_cases(cases, where, settings=settings)
    count = _crops_a_case(settings, len(chosen))

    def take(image: Image, labels: Int[np.ndarray, "*space"], number: int) -> list[Pair]:
        return fit_patches(image.array, labels, image.geometry, plan=plan, coding=coding, count=count, seed=number)

    pairs, hashes, notes = _read(chosen, take, labels=coding.labels, ignore=plan.ignore_label)
    pairs = pairs[: settings.fit_cases or None]
    size = settings.fit_batch or max(1, min(len(pairs), BATCH_VOXELS // pairs[0][1].size))
    return Known(*batch_fit(pairs, size=size), [case.name for case in chosen], hashes, notes=tuple(dict.fromkeys(notes)))


def fit_of_cases(model: SegmentationModel, cases: Sequence[KnownCase], settings: FitConfig) -> FitData:
    """Fit data of cases in memory: evenly chosen, labelled by their raters' majority, large ones as crops, in batches."""
    classes, sides = model.network.classes, crop_side(settings, model)
    some = [cases[n] for n in evenly_spread(len(cases), settings.fit_cases)]
    count = _crops_a_case(settings, len(some))
    pairs: list[Pair] = []
    for number, case in enumerate(some):
        pair = (case.image, consensus(case.raters, classes=classes, ties="smallest"))
        pairs += _crop([pair], sides, settings=settings, count=count, number=number, seed=0)
    pairs = [pairs[n] for n in evenly_spread(len(pairs), settings.fit_cases)]
    return fit_data(model, *batch_fit(pairs, size=settings.fit_batch, multiple=model.network.size_multiple))


def _crop(pairs: list[Pair], sides: Sequence[int], *, settings: FitConfig, count: int, number: int, seed: int) -> list[Pair]:
    """What is used of a case, the `number`-th: itself, or `count` crops of its image, or one of each of its slices."""
    if not is_cropped(pairs[0][1].shape, sides, settings):
        return pairs
    rng, each = np.random.default_rng([seed, number]), count if len(pairs) == 1 else 1
    parts = [crops_of(pair, sides, count=each, first=number * each + n, rng=rng) for n, pair in enumerate(pairs)]
    return [crop for part in parts for crop in part]


def _crops_a_case(settings: FitConfig, cases: int) -> int:
    """How many crops or patches of each of so many cases make as many as the settings ask for; one where they ask for all."""
    return max(1, -(-settings.fit_cases // cases))


def choose_cases(cases: Sequence[Case], where: object, *, settings: FitConfig) -> list[Case]:
    """The fit cases that the settings ask for, evenly spread; ValueError, saying `where`, if one of them has no mask."""
    unlabelled = [case.name for case in cases if not case.raters]
    if unlabelled:
        raise ValueError(f"{where}: expected a mask for every fit image, got none for {', '.join(unlabelled[:5])}")
    return [cases[i] for i in evenly_spread(len(cases), settings.fit_cases)]


def _read(
    cases: Sequence[Case],
    take: Callable[[Image, Int[np.ndarray, "*space"], int], list[Pair]],
    *,
    labels: int,
    ignore: int | None = None,
) -> tuple[list[Pair], list[str], list[str]]:
    """What is taken of every case, by its image, its raters' majority and its number; hashes of the image files; notes."""
    pairs: list[Pair] = []
    hashes: list[str] = []
    notes: list[str] = []
    for number, case in enumerate(cases):
        if len(cases) > 1:  # one alone is read again to be checked
            tell("reading fit data", "case", number + 1, len(cases))
        image, raters = read_case_files(case, classes=labels, ignore=ignore)
        try:
            pairs += take(image, consensus(np.stack(list(raters.values())), classes=labels, ties="smallest"), number)
        except ValueError as error:
            raise ValueError(f"{case.image}: {error}") from None
        hashes.append(image.sha256)
        notes += image.notes
    return pairs, hashes, notes


def fit_patches(
    image: Float[np.ndarray, "*space i"],
    labels: Int[np.ndarray, "*space"],
    geometry: Geometry,
    *,
    plan: Plan,
    coding: Coding,
    count: int,
    seed: int,
) -> list[Pair]:
    """Some patches of a case as read, with their classes; -1 marks padding and what is not rated."""
    volume, grid = to_grid(image, geometry, plan)
    placed = labels_to_grid(labels, grid)
    classes = coding.classes_of(placed).astype(np.int32)
    size = (1,) * (3 - plan.rank) + plan.patch
    rng = np.random.default_rng(seed)
    present = [label for label in np.unique(placed) if label > 0]
    patches = []
    for number in range(count):
        if present and number % FOREGROUND_SHARE != FOREGROUND_SHARE - 1:
            places = np.argwhere(placed == present[number % len(present)])
            centre = places[rng.integers(len(places))]
        else:
            centre = np.array([rng.integers(n) for n in placed.shape])
        patches.append((_around(volume, centre, size, 0), _around(classes, centre, size, IGNORED)))
    lead = tuple(range(3 - plan.rank))
    return [(x.squeeze(lead), y.squeeze(lead)) for x, y in patches]


def _around(array: np.ndarray, centre: Int[np.ndarray, " 3"], size: Sequence[int], fill: int) -> np.ndarray:
    """The patch around a voxel, moved inside the volume; what a small volume lacks is `fill`."""
    patch = np.full((*size, *array.shape[3:]), fill, array.dtype)
    outer, inner = [], []
    for n, p, c in zip(array.shape, size, centre, strict=False):
        start = min(max(int(c) - p // 2, 0), n - p) if n >= p else -((p - n) // 2)
        low, high = max(start, 0), min(start + p, n)
        outer.append(slice(low, high))
        inner.append(slice(low - start, high - start))
    patch[tuple(inner)] = array[tuple(outer)]
    return patch
