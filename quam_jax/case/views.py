"""Through which views models look at an image: what the settings name, as far as the image and its network take it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Int

from ..config import Config
from ..core.progress import tell
from ..core.types import Trajectory
from ..core.views import IDENTITY, PLAIN, Look, Symmetry, View, named_views
from ..core.weighting import counted
from ..data.plans import Plan
from .shared import CaseModel, Fold
from .view_check import views_not_understood


def choose_look(shared: CaseModel, space: Sequence[int], *, config: Config) -> Look:
    """The views of images (or patches) of such sides.

    With an nnU-Net plan only the axes that it mirrors are flipped, and nothing is turned: a network was trained without. A volume
    without a plan is not turned either, as nobody knows its spacing here. Without views random directions look at the image
    itself. Views that the network does not understand are left out where the settings leave the choice open (`try_views`).
    ValueError where the settings ask for random directions that were not found yet.
    """
    samples, plan = config.samples, shared.plan
    for fold in shared.folds:
        found = 0 if fold.directions is None else len(fold.directions.steps)
        if found != 2 * samples.random_directions:
            raise ValueError(
                f"random_directions: expected those of {samples.random_directions} directions to be found for this model (see "
                f"find_directions), got {found // 2}"
            )
    views = _views(space, plan, config) or ((IDENTITY,) if samples.random_directions else ())
    if samples.views == "auto":
        views = tuple(view for view in views if view.name not in shared.not_understood)
    return Look(views, broken_too=not samples.feasible_only, each=samples.each_of(len(views))) if views else PLAIN


def _views(space: Sequence[int], plan: Plan | None, config: Config) -> tuple[View, ...]:
    views = config.samples.views
    name = "none" if config.without_views else "standard" if views == "auto" else views
    return named_views(name, Symmetry.of(space) if plan is None else Symmetry.of(space, mirrored=plan.mirror_axes, turned=False))


def try_views(
    shared: CaseModel,
    images: Float[Array | np.ndarray, "k b *space i"],
    labels: Int[Array | np.ndarray, "k b *space"],
    *,
    config: Config,
) -> CaseModel:
    """The model with the views that it does not understand, as the fit data show, where the settings leave the choice open."""
    views = _views(images.shape[2:-1], shared.plan, config)
    if config.samples.views != "auto" or not views:
        return shared
    tell("trying views on the fit data")
    missed = views_not_understood(shared.folds[0].searched, images, labels, views)
    return shared._replace(not_understood=missed)


def look_of(fold: Fold, look: Look) -> Look:
    """The look of one network, with its random directions."""
    return look if fold.directions is None else look._replace(others=fold.directions.models)


def view_passes(shared: CaseModel, trajectory: Trajectory, space: Sequence[int], *, config: Config) -> int:
    """Forward passes that views of such sides took beside one search: of the given network, of models that count, of others."""
    found = int(counted(trajectory, feasible_only=config.samples.feasible_only).sum())
    look = choose_look(shared, space, config=config)
    return len(look.views) * (1 + 2 * config.samples.random_directions) + look.each * found
