"""What all cases of a run share: the given model, every fold of it ready to be searched, and how its images are taken.

There are two kinds. Images of a plain model's rank (and slices of volumes) are taken whole, as they are prepared. A model with an
nnU-Net plan takes them on the plan's grid, in patches; each of its folds is searched by itself and keeps its own loss on the
same fit patches.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ..config import Config, SearchConfig
from ..core.directions import Directions, fit_directions
from ..core.progress import tell
from ..core.searching import Prepared
from ..core.types import FitData
from ..data.plans import Plan
from ..models.coding import Coding
from ..models.model import SegmentationModel
from ..models.outputs import coding_of
from ..models.predict import fit_data
from ..models.prepare import prepare
from .crops import Pair, WholeFit


class Fold(NamedTuple):
    """One network: as given, with one channel a class for the search, its search prepared, and its random directions if asked."""

    name: str
    model: SegmentationModel
    searched: SegmentationModel
    prepared: Prepared
    directions: Directions | None = None


class CaseModel(NamedTuple):
    """The model as every case sees it; without a `plan` images are taken whole.

    Where the fit data are crops there are the whole images behind them, on which kept models are measured.
    `coding` says what the channels of the given network mean as labels and as classes of the search. `not_understood` are views
    under which the given network does not find its own fit data.
    """

    folds: tuple[Fold, ...]
    coding: Coding
    plan: Plan | None = None
    whole_fit: WholeFit | None = None
    not_understood: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What a person should know of how images are looked at."""
        missed = ", ".join(self.not_understood)
        return [f"views left out, under which the network does not find its own fit data: {missed}"] if missed else []

    def records(self, search: SearchConfig) -> int:
        """How many samples the search of one target records in each fold."""
        return search.members * len(self.folds[0].prepared.steps.batch)


def whole_image_model(
    model: SegmentationModel, fit: FitData, search: SearchConfig, *, whole: Sequence[Callable[[], list[Pair]]] = ()
) -> CaseModel:
    """A plain model with its fit data (see predict.fit_data), whose labels are classes of its logits, ready for whole images.

    `whole` reads the images again of which the fit data are crops. ValueError as `models.prepare`.
    """
    prepared = prepare(model, fit, search)
    whole_fit = WholeFit.of(whole, prepared) if whole else None
    return CaseModel((Fold("0", model, model, prepared),), coding_of(model), whole_fit=whole_fit)


def planned_model(
    models: Sequence[SegmentationModel],
    images: Float[np.ndarray, "k b *patch i"],
    labels: Int[np.ndarray, "k b *patch"],
    *,
    plan: Plan,
    coding: Coding,
    search: SearchConfig,
) -> CaseModel:
    """The folds of a model with an nnU-Net plan and batches of fit patches, whose labels are classes of the search.

    ValueError as `models.prepare`.
    """
    folds = []
    for index, model in enumerate(models):
        searched = coding.searchable(model)
        name = str(model.manifest["nnunet"].get("fold", index))
        folds.append(Fold(name, model, searched, prepare(searched, fit_data(searched, images, labels), search)))
    return CaseModel(tuple(folds), coding, plan)


def find_directions(shared: CaseModel, config: Config) -> CaseModel:
    """The model with the random directions that the settings ask for, drawn from their seed; ValueError as `fit_directions`."""
    count = config.samples.random_directions
    if not count:
        return shared
    tell("random directions")
    keys = [jax.random.fold_in(jax.random.key(config.seed), f) for f in range(len(shared.folds))]
    found = [fit_directions(fold.prepared, count=count, key=key) for fold, key in zip(shared.folds, keys, strict=True)]
    return shared._replace(folds=tuple(f._replace(directions=d) for f, d in zip(shared.folds, found, strict=True)))


def has_plan(model: SegmentationModel) -> bool:
    """Whether a model comes with an nnU-Net plan, which says how images are prepared and cut into patches."""
    return "nnunet" in model.manifest
