"""How the cases of a run are found, prepared and quantified: the model and the fit data, read once, ready on a device."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..case.fit import Known, read_some_fit_cases
from ..case.likeness import Looks, looks_of
from ..case.own_fit import DOUBTFUL, TRIED, OwnFit, compare_preparations, look_at_fit
from ..case.quantified import Quantified
from ..case.quantify import quantify_images, searched_together
from ..case.shared import CaseModel, find_directions, has_plan, planned_model, whole_image_model
from ..case.views import try_views
from ..case.windows import asked_sides, describe_windows, require_plan_patches
from ..config import Config
from ..core.layout.choose import FILLS
from ..core.layout.work import SMALL, pixel_operations
from ..core.progress import tell
from ..data.cases import settle_masks
from ..data.channels import require_channels
from ..data.datasets import Case, find_cases, find_channel_cases
from ..data.left_out import find_left_out
from ..data.mask_settings import MaskSettings
from ..data.masks import MaskCoding
from ..data.patches import STEP
from ..data.plans import Plan
from ..data.preprocess import PreparedInParts, Preprocessing
from ..data.records import digest
from ..data.volumes import Image
from ..models.coding import Coding
from ..models.description import model_digest, preprocessing_of
from ..models.model import SegmentationModel
from ..models.outputs import coding_of
from ..models.predict import fit_data
from ..process import forget_programs, return_large_arrays
from .known import read_known
from .request import RunRequest

LARGE = 2**18  # pixels of an image whose arrays are large however few channels a network has
QUEUED = 2**24  # numbers of an image that counts as one in a queue, where it is searched by itself


class Found(NamedTuple):
    """What there is to say of the files of a run: notes, files that no case uses, and the codings of the masks."""

    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    masks: Mapping[str, Any] = {}


class Quantifier(NamedTuple):
    """The cases of a run, and how each is prepared (on the host alone) and quantified (on the device).

    `preprocessing` is that of whole images; a model with a plan prepares them itself. `own_fit` is how the given network explains
    the fit data. `device` is where everything lies, None where searches may use all devices.
    """

    cases: list[Case]
    shared: CaseModel
    known: Known
    config: Config
    preprocessing: Preprocessing | None
    own_fit: OwnFit
    device: Any = None
    found: Found = Found()
    looks: Looks | None = None

    @property
    def preparation(self) -> dict[str, Any]:
        """How images are prepared, as run.json has it."""
        if self.preprocessing is None:
            return {"nnunet": self.shared.folds[0].model.manifest["nnunet"]}
        return self.preprocessing.to_dict()

    @property
    def patches(self) -> dict[str, Any]:
        """How images are cut into patches, as run.json has it."""
        if self.shared.plan is not None:
            return {"size": list(self.shared.plan.patch), "step": STEP, "weights": "gaussian"}
        return describe_windows(self.shared.folds[0].model, self.config.patches)

    @property
    def notes(self) -> list[str]:
        """What a person should know of the model and of how it explains the fit data."""
        own, search = self.own_fit, self.config.search
        found = [own.warning] if own.findings else []
        return [*self.shared.coding.notes, *found, *own.doubts(search.slack, search.slack_unit), *self.shared.notes]

    def unlike(self, prepared: np.ndarray | PreparedInParts) -> list[str]:
        """In which statistics a prepared image is unlike the fit images, where these are whole images prepared as it is."""
        comparable = self.looks is not None and not isinstance(prepared, PreparedInParts)
        if not comparable or prepared.ndim != self.known.images.ndim - 1:
            return []
        return self.looks.unlike(np.asarray(prepared)) if self.looks is not None else []

    def prepare(self, image: Image) -> np.ndarray | PreparedInParts:
        """What can be done to an image before its search, on the host; ValueError for channels that the network does not take."""
        if self.preprocessing is not None:
            require_channels(image, self.preprocessing.channels)
        return np.asarray(image.array, np.float32) if self.preprocessing is None else self.preprocessing.prepare(image.array)

    def share(self, prepared: np.ndarray | PreparedInParts) -> float:
        """The part that a prepared image fills of what is searched together; a large one counts as two, so that few wait."""
        return max(1 / searched_together(self.shared, prepared, config=self.config), min(2.0, prepared.size / QUEUED))

    def quantify(self, images: Sequence[Image], prepared: Sequence[np.ndarray | PreparedInParts]) -> list[Quantified]:
        """The maps of some images; ValueError naming the image where it does not fit the model's plan."""
        _settle_heap(self.shared.folds[0].model, self.known, max(math.prod(array.shape[:-1]) for array in prepared))
        with jax.default_device(self.device) if self.device is not None else contextlib.nullcontext():
            if self.shared.plan is None:
                return quantify_images(self.shared, prepared, config=self.config)
            found = []
            for image, array in zip(images, prepared, strict=True):
                try:
                    found += quantify_images(self.shared, [array], geometries=[image.geometry], config=self.config)
                except ValueError as error:
                    raise ValueError(f"{image.path}: {error}") from None
            return found

    def on_device(self, device: Any) -> "Quantifier":
        """The same with everything it holds on `device`, and with searches that stay there; nothing is read again."""
        alone = dataclasses.replace(self.config, execution=dataclasses.replace(self.config.execution, devices=1))
        with jax.default_device(device):
            placed = [
                dataclasses.replace(model, params=jax.device_put(model.params, device), stats=jax.device_put(model.stats, device))
                for model in (fold.model for fold in self.shared.folds)
            ]
            shared = _ready(placed, self.known, plan=self.shared.plan, coding=self.shared.coding, config=alone)
        return self._replace(shared=shared, config=alone, device=device)


def find_quantifier(models: Sequence[SegmentationModel], request: RunRequest) -> Quantifier:
    """The quantifier of a run, with its fit data read; ValueError for data or settings that the model cannot use."""
    first, config = models[0], request.config
    settings = request.mask_settings
    tell("looking at the masks")
    preprocessing: Preprocessing | None = None
    plan, coding = None, coding_of(first)
    if has_plan(first):
        if request.preprocessing is not None:
            raise ValueError(f"{request.model_name}: its nnU-Net plan says how images are prepared; expected no --preprocessing")
        channels = len(first.manifest["nnunet"]["channel_names"])
        cases = find_channel_cases(request.images, request.masks, channels=channels)
        if config.outputs.keep_models:
            raise ValueError(
                f"{request.model_name}: keep_models: expected a network whose images are searched whole; with an nnU-Net "
                "plan there is a model a patch"
            )
        plan = Plan.of(first.manifest, where=request.model_name)
        require_plan_patches(config, plan.patch)
        coding = Coding.of(plan, where=request.model_name)
        settings = settings.or_ignored(plan.ignore_label)
    else:
        asked_sides(first, config.patches)
        cases = find_cases(request.images, request.masks)
        preprocessing = request.preprocessing or preprocessing_of(first)
    known, fit_cases, fit_masks = read_known(
        first,
        request.fit_images,
        request.fit_masks,
        plan=plan,
        preprocessing=preprocessing,
        settings=settings,
        config=config,
    )
    # what one folder shows to be unrated is that in the other one too
    settings = settings.or_ignored(next(iter(fit_masks.not_rated), None))
    cases, masks = settle_masks(cases, classes=coding.labels, settings=settings, where=request.masks)
    found = _find_out(request, (cases, fit_cases), known, settings, {"fit": fit_masks, "masks": masks})
    tell("preparing the search")
    _settle_heap(first, known, LARGE if known.whole else known.labels[0, 0].size)
    shared = _ready(models, known, plan=plan, coding=coding, config=config)
    own = look_at_fit(shared.folds[0].searched, known.images, known.labels, coding=coding)
    if own.share > DOUBTFUL:
        some = list(zip(known.images[0], known.labels[0], strict=True))[:TRIED]
        if preprocessing is not None:
            some = read_some_fit_cases(fit_cases, request.fit_masks, count=TRIED, coding=coding, settings=config.fit)
        own = compare_preparations(shared.folds[0].searched, own, some, coding=coding, preprocessing=preprocessing)
    looks = None if preprocessing is None or known.whole else looks_of(known.images, known.labels)
    forget_programs()  # the searches have others
    return Quantifier(_asked(cases, request), shared, known, config, preprocessing, own, found=found, looks=looks)


def _find_out(
    request: RunRequest,
    cases: tuple[Sequence[Case], Sequence[Case]],
    known: Known,
    settings: MaskSettings,
    codings: Mapping[str, MaskCoding],
) -> Found:
    """What there is to say of the files before any case is read, of the cases' own and of those of the fit data."""
    left_out = find_left_out(cases[0], request.images, request.masks, others=cases[1])
    fit_left_out = find_left_out(cases[1], request.fit_images, request.fit_masks, others=cases[0])
    notes = [*dict.fromkeys([*left_out.notes, *fit_left_out.notes]), *(f"fit data: {note}" for note in known.notes)]
    files = [path.name for case in cases[0] for path in case.raters.values()]
    segmentations = [name for name in files if ".seg." in name.lower()]  # named by 3D Slicer, not like their images
    if segmentations:
        more = f" and {len(segmentations) - 3} more" if len(segmentations) > 3 else ""
        notes.append(f"read as masks: {', '.join(segmentations[:3])}{more}")
    for coding in codings.values():
        notes += [note for note in coding.notes if note not in notes]
    masks = {"settings": settings.to_dict(), **{name: coding.to_dict() for name, coding in codings.items()}}
    return Found(tuple(notes), tuple(dict.fromkeys(map(str, left_out.files + fit_left_out.files))), masks)


def _settle_heap(model: SegmentationModel, known: Known, pixels: int) -> None:
    """Have freed memory go back to the system from now on where images of so many pixels make large arrays."""
    if pixels < SMALL:
        return
    if pixels >= LARGE or pixels * pixel_operations(model.network, model.params, model.stats, known.images[0]) >= FILLS:
        return_large_arrays()


def _asked(cases: list[Case], request: RunRequest) -> list[Case]:
    missing = sorted(set(request.only) - {case.name for case in cases})
    if missing:
        raise ValueError(f"{request.images}: expected the cases {', '.join(request.only[:5])}, found none named {missing[0]}")
    return [case for case in cases if case.name in request.only] if request.only else cases


def _ready(models: Sequence[SegmentationModel], known: Known, *, plan: Plan | None, coding: Coding, config: Config) -> CaseModel:
    """The model with its fit data where the models lie."""
    if plan is not None:
        ready = planned_model(models, known.images, known.labels, plan=plan, coding=coding, search=config.search)
    else:
        fit = fit_data(models[0], known.images, known.labels)
        ready = whole_image_model(models[0], fit, config.search, whole=known.whole)
    return try_views(find_directions(ready, config), known.images, known.labels, config=config)


def models_digest(models: Sequence[SegmentationModel], where: str) -> str:
    """SHA-256 of the weights and architecture of a model, of all folds together; ValueError for NaN or infinity in them."""
    first, *others = (_model_digest(model, where) for model in models)
    return digest(first, *others) if others else first


def _model_digest(model: SegmentationModel, where: str) -> str:
    bad = [n for n, v in {**model.params, **model.stats}.items() if not bool(np.isfinite(np.asarray(v)).all())]
    if bad:
        raise ValueError(
            f"{where}: expected finite weights, got NaN or infinity in {', '.join(bad[:3])}"
            + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        )
    return model_digest(model)
