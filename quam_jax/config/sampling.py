"""How recorded models become weighted samples, and how these are decomposed."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from .settings import require, setting


@dataclass(frozen=True)
class SampleConfig:
    """How a trajectory becomes weighted samples, and how these are decomposed."""

    views: str = setting(
        "auto",
        "test-time views through which every recorded model looks at the image: none, flips, geometric (flips and quarter "
        "turns), standard (these, noise, brightness, blur), or names with commas between them, as identity,flip0,noise:0.3; "
        "auto: standard for masks, none for pixels, regions and the space input; each view is one more forward pass a model",
    )
    views_each: int = setting(
        0,
        "through how many of the views each recorded model looks, the next model through the next ones; 0: a fifth of "
        "them, rounded up, and at least two",
    )
    given: Literal["half", "sample", "none"] = setting(
        "half",
        "what the given network counts beside the models found: half: as much as all of them; sample: as one more of them; none",
    )
    random_directions: int = setting(
        0,
        "random directions in weight space, both ways as far as the slack allows, whose models are a third group of samples "
        "beside the given network and the models found; each is two more models to run",
    )
    blur: float = setting(
        0.0,
        "pixels by which predictions may be displaced: the width of a Gaussian that blurs their mean, and the entropy that they "
        "have by themselves; 0: none",
    )
    weighting: Literal["all", "last", "best", "softmax", "mis"] = setting(
        "all", "weights of the recorded samples: uniform, the last, the best feasible, exp(-L/T), or importance weights"
    )
    feasible_only: bool = setting(True, "leave out samples whose fit loss exceeds the bound")
    temperature: float = setting(1.0, "T of softmax and mis")
    effective_size: float = setting(1.0, "N_eff of mis: exp(-N_eff (L - min L)/T); 1 is the published, nearly flat choice")
    decomposition: Literal["mutual_information", "cross_entropy"] = setting(
        "mutual_information",
        "mutual_information: setting (a), around the mean model; cross_entropy: setting (b), around the given network",
    )

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "a number > 0", self.temperature)
        require(self.effective_size > 0, "effective_size", "a number > 0", self.effective_size)
        require(self.views_each >= 0, "views_each", "a whole number >= 0", self.views_each)
        require(0 <= self.blur < float("inf"), "blur", "a number >= 0", self.blur)
        require(self.blur == 0 or self.decomposition == "mutual_information", "blur", "0 with cross_entropy", self.blur)
        require(self.random_directions >= 0, "random_directions", "a whole number >= 0", self.random_directions)
        if self.views != "auto":
            from ..core.views import Symmetry, named_views  # only where it is asked for: commands start without JAX

            named_views(self.views, Symmetry((0, 1, 2), (1, 2)))

    def each_of(self, views: int) -> int:
        """Through how many of so many views a recorded model looks."""
        return min(views, self.views_each or max(2, -(-views // 5)))

    @staticmethod
    def published(**changes: Any) -> "SampleConfig":
        """The published combination: mis weights at T = 1 over every recorded sample, then setting (a)."""
        published = SampleConfig(views="none", given="none", weighting="mis", feasible_only=False)
        return dataclasses.replace(published, **changes)
