"""Through which views models look at an image: what the settings name, as far as the image and its network take it."""

from collections.abc import Sequence

from ..config import Config
from ..core.views import PLAIN, Look, Symmetry, named_views
from .shared import CaseModel


def choose_look(shared: CaseModel, space: Sequence[int], *, config: Config) -> Look:
    """The views of images (or patches) of such sides.

    With an nnU-Net plan only the axes that it mirrors are flipped, and nothing is turned: a network was trained without. A volume
    without a plan is not turned either, as nobody knows its spacing here.
    """
    samples, plan = config.samples, shared.plan
    if config.without_views or samples.views == "none":
        return PLAIN
    if plan is None:
        symmetry = Symmetry.of(space)
    else:
        symmetry = Symmetry.of(space, mirrored=plan.mirror_axes, turned=False)
    name = "standard" if samples.views == "auto" else samples.views
    return Look(named_views(name, symmetry), broken_too=not samples.feasible_only)
