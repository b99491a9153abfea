"""Which settings there are: frozen dataclasses that check themselves.

Every field carries a help text, from which the command line makes an option of the same name. Field names are unique
over all sections, so `--learning-rate` needs no prefix. A wrong value is a ValueError that says what was expected.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..registry import kinds_in
from .neutral import NEUTRAL, ExecutionConfig, OutputConfig
from .sampling import SampleConfig
from .settings import require, setting
from .sizes import sides_in

# name -> description, of files that are found without importing them
WANTED_MASKS = kinds_in("targets/wanted")
REGION_KINDS = kinds_in("targets/regions")


def _listed(kinds: Mapping[str, str]) -> str:
    *others, last = kinds.values()
    return f"{', '.join(others)}, or {last}"


@dataclass(frozen=True)
class TargetConfig:
    """Which predictions an adversarial model is asked for."""

    target: Literal["mask", "region", "pixel"] = setting(
        "mask", "unit of attack, what one adversarial model is asked to change: the whole mask, a region or a pixel"
    )
    shapes: tuple[str, ...] = setting(
        ("dilate", "erode"),
        f"wanted masks, one adversarial model each: {', '.join(WANTED_MASKS)}",
    )
    radius: int = setting(1, "pixels by which dilate and erode move the boundary")
    element: Literal["square", "cross", "disk"] = setting(
        "square", "structuring element of dilate and erode; disk: the exact Euclidean radius (a ball in a volume)"
    )
    outside: Literal["edge", "background"] = setting("edge", "what erosion assumes outside the image")
    regions: str = setting("tiles", f"regions of target region: {_listed(REGION_KINDS)}", choices=REGION_KINDS)
    region_size: int = setting(
        16, "side of a tile or super-pixel, length of a boundary segment, side of the smallest tile of a pyramid; in pixels"
    )
    pyramid_levels: int = setting(3, "sizes of tiles in a pyramid, each twice the one before")
    compactness: float = setting(
        1.0, "shape of super-pixels: what one super-pixel's side of distance counts, in standard deviations of the image"
    )
    pixels: Literal["all", "band", "uncertain", "stratified", "list"] = setting(
        "all",
        "pixels of target pixel: all, those near a boundary, the most uncertain, a sample stratified by class and "
        "entropy, or those of pixel_list",
    )
    pixel_count: int = setting(1000, "number of pixels for uncertain and stratified; all, where an image has fewer")
    band_width: int = setting(2, "pixels on either side of a boundary that belong to the band of pixels band and segments")
    pixel_list: str = setting("", "pixels of list, from 0, as row,column;row,column (with a third number in a volume)")

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", tuple(self.shapes))
        known = len(self.shapes) > 0 and all(shape in WANTED_MASKS for shape in self.shapes)
        require(known, "shapes", f"some of {', '.join(WANTED_MASKS)}", self.shapes)
        require(self.regions in REGION_KINDS, "regions", f"one of {', '.join(REGION_KINDS)}", self.regions)
        require(self.radius >= 1, "radius", "a whole number >= 1", self.radius)
        require(self.region_size >= 1, "region_size", "a whole number >= 1", self.region_size)
        require(1 <= self.pyramid_levels <= 16, "pyramid_levels", "a whole number from 1 to 16", self.pyramid_levels)
        require(0 < self.compactness < float("inf"), "compactness", "a number > 0", self.compactness)
        require(self.pixel_count >= 1, "pixel_count", "a whole number >= 1", self.pixel_count)
        require(self.band_width >= 1, "band_width", "a whole number >= 1", self.band_width)
        points = self.listed_points
        require(len({len(point) for point in points}) <= 1, "pixel_list", "as many numbers for every pixel", self.pixel_list)
        require(bool(points) or self.pixels != "list", "pixel_list", "at least one pixel for pixels list", self.pixel_list)

    @property
    def listed_points(self) -> tuple[tuple[int, ...], ...]:
        """The pixels of `pixel_list`, one index an axis."""
        texts = [point.strip() for point in self.pixel_list.split(";") if point.strip()]
        for text in texts:
            numbers = text.split(",")
            require(
                len(numbers) in (2, 3) and all(n.strip().isascii() and n.strip().isdigit() for n in numbers),
                "pixel_list",
                "whole numbers >= 0 as row,column;row,column",
                self.pixel_list,
            )
        return tuple(tuple(int(n) for n in text.split(",")) for text in texts)


@dataclass(frozen=True)
class SearchConfig:
    """How an adversarial model is searched for: what moves, how far, what it must still explain, and in which arithmetic."""

    space: str = setting("full", "what may move: full, subset:REGEX, last_block, head, low_rank:R or input:EPS")
    members: int = setting(2, "adversarial models a target; the wanted masks are dealt out in turn")
    steps: int = setting(6, "optimiser steps, when epochs is 0")
    epochs: int = setting(0, "passes over the fit batches, instead of steps (published: 3)")
    batch_stride: int = setting(1, "with epochs: use every n-th fit batch (published: 50)")
    optimizer: str = setting("adam", "adam, sgd, or the NAME of an optax.scale_by_NAME: lion, rms, belief, ...")
    learning_rate: float = setting(1e-3, "learning rate; 0 is the control that shows what the search itself adds")
    mode: Literal["eval", "train"] = setting("eval", "eval: no dropout, running statistics; train: as published")
    penalty: Literal["hinge", "linear"] = setting("hinge", "hinge: max(0, violation); linear: rewards slack (published)")
    schedule: Literal["constant", "linear", "exponential"] = setting("constant", "of the penalty coefficient")
    coefficient: float = setting(10.0, "penalty coefficient of the first step")
    schedule_start: float = setting(1.0, "c0 of the schedule")
    schedule_rate: float = setting(2.0, "eta of the schedule: c0 + eta*(t//every), or c0*eta^(t//every)")
    schedule_every: int = setting(3, "fit batches between two changes of the coefficient")
    slack: float = setting(1.0, "how much worse the fit loss may get: a fraction of the reference loss, or nats a pixel")
    slack_unit: Literal["relative", "nats"] = setting("relative", "what slack is measured in")
    record: Literal["same", "after"] = setting(
        "same", "same: prediction and losses of the same weights; after: the prediction one step later (published)"
    )
    solver: Literal["penalty", "backtrack", "line_search"] = setting(
        "penalty",
        "penalty: objective plus penalty; backtrack: steps on the objective, halfway back to the last feasible "
        "weights where the bound is broken; line_search: closed direction and exact line search (head of pixels and regions)",
    )
    stop: Literal["never", "flipped"] = setting("never", "flipped: a target rests once a feasible model has all it wants")
    fit_points: int = setting(2048, "fit points drawn for each step of a head search of pixels or regions; 0: the whole batch")
    fit_patches: int = setting(4, "fit patches, of 4x4 pixels, drawn for each step of a last-block search of pixels")
    damping: float = setting(1e-3, "of the Fisher matrix of line_search, as a fraction of its mean diagonal")
    precision: Literal["highest", "high", "default"] = setting(
        "highest", "of matrix products; default allows TF32 or bfloat16 where the hardware has them"
    )
    compute: Literal["float32", "bfloat16"] = setting(
        "float32", "type of weights and activations inside a search; losses, constraint and optimiser stay in float32"
    )

    def __post_init__(self) -> None:
        require(self.members >= 1, "members", "a whole number >= 1", self.members)
        require(self.epochs >= 0, "epochs", "a whole number >= 0", self.epochs)
        require(self.steps >= 1 or self.epochs > 0, "steps", "a whole number >= 1", self.steps)
        require(self.batch_stride >= 1, "batch_stride", "a whole number >= 1", self.batch_stride)
        require(self.learning_rate >= 0, "learning_rate", "a number >= 0", self.learning_rate)
        require(self.coefficient >= 0, "coefficient", "a number >= 0", self.coefficient)
        require(self.schedule_every >= 1, "schedule_every", "a whole number >= 1", self.schedule_every)
        require(self.fit_points >= 0, "fit_points", "a whole number >= 0", self.fit_points)
        require(self.fit_patches >= 1, "fit_patches", "a whole number >= 1", self.fit_patches)
        require(0 < self.damping < float("inf"), "damping", "a number > 0", self.damping)
        require(self.solver == "penalty" or self.record == "same", "solver", "penalty with record after", self.solver)
        require(self.slack >= 0 or self.slack_unit == "nats", "slack", "a fraction >= 0, or nats", self.slack)

    @staticmethod
    def published(**changes: Any) -> "SearchConfig":
        """The procedure of the QUAM-SM publication as its code runs it: 2 models, 3 epochs, every 50th fit batch."""
        return dataclasses.replace(
            SearchConfig(
                space="full",
                members=2,
                epochs=3,
                batch_stride=50,
                optimizer="adam",
                learning_rate=5e-4,
                mode="train",
                penalty="linear",
                schedule="linear",
                coefficient=1.0,
                schedule_start=1.0,
                schedule_rate=2.0,
                schedule_every=3,
                slack=0.05,
                slack_unit="nats",
                record="after",
            ),
            **changes,
        )


@dataclass(frozen=True)
class FitConfig:
    """Which known data an adversarial model must still explain."""

    fit_cases: int = setting(8, "fit cases used, evenly spread over the sorted list; 0: all")
    fit_batch: int = setting(0, "cases a fit batch; 0: all of them in one batch, so that the constraint is exact")
    fit_crop: str = setting(
        "auto",
        "side in pixels of the crops that larger fit images are used as, as many as fit_cases asks for; 0: whole images; "
        "auto: the size that the network was trained on if its manifest says it, else 256 (64 in a volume), for images of more "
        "than twice that area",
    )
    fit_check: bool = setting(True, "measure the kept models on the whole fit images too, where the search had crops of them")

    def __post_init__(self) -> None:
        require(self.fit_crop == "auto" or self.fit_crop.isdecimal(), "fit_crop", "auto or a number of pixels", self.fit_crop)
        require(self.fit_cases >= 0, "fit_cases", "a whole number >= 0", self.fit_cases)
        require(self.fit_batch >= 0, "fit_batch", "a whole number >= 0", self.fit_batch)

    @staticmethod
    def published() -> "FitConfig":
        """All fit cases, whole, in batches of four, in order."""
        return FitConfig(fit_cases=0, fit_batch=4, fit_crop="0")


@dataclass(frozen=True)
class PatchConfig:
    """How an image of a network without a plan is cut: whole, or in patches that overlap."""

    patch_size: str = setting(
        "auto",
        "patches of an image: auto: whole up to 2 megapixels, above it as large as in training, or 512; 0: whole; or a side "
        "(512), or one an axis (512x640)",
    )
    patch_step: float = setting(0.5, "from a patch to its neighbour at most, as a fraction of the patch; above 0, up to 1")

    def __post_init__(self) -> None:
        require(0 < self.patch_step <= 1, "patch_step", "a number above 0, up to 1", self.patch_step)
        _ = self.sides

    @property
    def sides(self) -> tuple[int, ...] | None:
        """The sides asked for, one for all axes or one an axis; (0,) for the whole image, None for auto."""
        return None if self.patch_size == "auto" else sides_in(self.patch_size)


@dataclass(frozen=True)
class Config:
    """All settings of a run, one section a concern."""

    targets: TargetConfig = TargetConfig()
    search: SearchConfig = SearchConfig()
    samples: SampleConfig = SampleConfig()
    fit: FitConfig = FitConfig()
    patches: PatchConfig = PatchConfig()
    execution: ExecutionConfig = ExecutionConfig()
    outputs: OutputConfig = OutputConfig()
    seed: int = setting(0, "seed of everything random; the same seed gives the same numbers")

    def __post_init__(self) -> None:
        if self.samples.views not in ("auto", "none"):
            why = self.without_views
            require(not why, "views", f"auto or none with {why}", self.samples.views)
        require(
            self.samples.random_directions == 0 or not self.without_views,
            "random_directions",
            f"0 with {self.without_views}",
            self.samples.random_directions,
        )
        require(
            self.samples.blur == 0 or self.targets.target == "mask", "blur", "0 with other targets than masks", self.samples.blur
        )
        moves_weights = self.targets.target == "mask" and not self.search.space.startswith("input")
        require(
            not self.outputs.keep_models or moves_weights,
            "keep_models",
            "false with targets other than masks and the space input, whose models differ at every place or not at all",
            True,
        )

    @property
    def without_views(self) -> str:
        """The setting because of which models do not look at images through views, where there is one."""
        if self.targets.target != "mask":
            return f"target {self.targets.target}"
        if self.search.space.startswith("input"):
            return f"space {self.search.space}"
        return "" if self.samples.decomposition == "mutual_information" else f"decomposition {self.samples.decomposition}"

    @staticmethod
    def published(**changes: Any) -> "Config":
        """The published setting throughout."""
        return dataclasses.replace(
            Config(
                targets=TargetConfig(radius=3, outside="background"),
                search=SearchConfig.published(),
                samples=SampleConfig.published(),
                fit=FitConfig.published(),
            ),
            **changes,
        )

    @staticmethod
    def thorough() -> "Config":
        """A longer search under a wider slack, pooled with random directions: for networks that are too sure of themselves."""
        return Config(search=SearchConfig(learning_rate=3e-3, slack=5.0), samples=SampleConfig(random_directions=6))

    @staticmethod
    def fast() -> "Config":
        """A search of the head alone: everything in front of it runs once a view."""
        return Config(search=SearchConfig(space="head", learning_rate=3e-2))

    @property
    def setting(self) -> str:
        """The name of the preset whose search, samples, targets and fit these are, or `custom`."""
        own = dataclasses.replace(self.without_layout(), seed=0)
        return next((name for name, preset in PRESETS.items() if preset() == own), "custom")

    def without_layout(self) -> "Config":
        """These settings in the default layout and with the default outputs: all of them that numbers depend on."""
        return dataclasses.replace(self, **{name: section() for name, section in NEUTRAL.items()})


PRESETS: dict[str, Callable[[], Config]] = {
    "default": Config,
    "fast": Config.fast,
    "thorough": Config.thorough,
    "published": Config.published,
}
