"""Through which views models look at an image: what the settings name, as far as the image and its network take it."""

from collections.abc import Sequence

from ..config import Config
from ..core.types import Trajectory
from ..core.views import IDENTITY, PLAIN, Look, Symmetry, named_views
from ..core.weighting import counted
from .shared import CaseModel, Fold


def choose_look(shared: CaseModel, space: Sequence[int], *, config: Config) -> Look:
    """The views of images (or patches) of such sides.

    With an nnU-Net plan only the axes that it mirrors are flipped, and nothing is turned: a network was trained without. A volume
    without a plan is not turned either, as nobody knows its spacing here. Without views random directions look at the image
    itself. ValueError where the settings ask for random directions that were not found yet.
    """
    samples, plan = config.samples, shared.plan
    for fold in shared.folds:
        found = 0 if fold.directions is None else len(fold.directions.steps)
        if found != 2 * samples.random_directions:
            raise ValueError(
                f"random_directions: expected those of {samples.random_directions} directions to be found for this model (see "
                f"find_directions), got {found // 2}"
            )
    name = "none" if config.without_views else "standard" if samples.views == "auto" else samples.views
    symmetry = Symmetry.of(space) if plan is None else Symmetry.of(space, mirrored=plan.mirror_axes, turned=False)
    views = named_views(name, symmetry) or ((IDENTITY,) if samples.random_directions else ())
    return Look(views, broken_too=not samples.feasible_only) if views else PLAIN


def look_of(fold: Fold, look: Look) -> Look:
    """The look of one network, with its random directions."""
    return look if fold.directions is None else look._replace(others=fold.directions.models)


def view_passes(shared: CaseModel, trajectory: Trajectory, space: Sequence[int], *, config: Config) -> int:
    """Forward passes that views of such sides took beside one search: of the given network, of models that count, of others."""
    found = int(counted(trajectory, feasible_only=config.samples.feasible_only).sum())
    views = len(choose_look(shared, space, config=config).views)
    return views * (1 + found + 2 * config.samples.random_directions)
