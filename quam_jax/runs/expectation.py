"""What a run is expected to take, said before its first case: from what such cases took on this machine, else from a probe.

The probe is one forward pass of the given network over one image. A search of masks is counted in such passes (`count_passes`):
backward passes, the fit batch and the given network's own prediction included. Nothing here changes a number of the run.
"""

import dataclasses
import math
import os
import platform
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ..case.prediction import mirrorings
from ..case.views import choose_look
from ..case.windows import lay_windows
from ..config import Config, to_dict
from ..config.build import build_schedule
from ..core.layout.choose import backend_name
from ..core.progress import tell
from ..data.figures import Figure, Figures, Work
from ..data.patches import lay_patches
from ..data.plans import grid_shape
from ..data.preprocess import PreparedInParts
from ..data.records import digest
from ..data.volumes import Image, read_channels
from ..models.model import SegmentationModel
from ..models.predict import predict
from ..report.durations import about
from .quantifier import Quantifier
from .request import RunRequest

BACKWARD = 2.5  # forward passes that a backward pass takes
BROKEN = 0.5  # of the steps differentiate the fit batch, where steps that keep the bound are spared it
TAIL = {"head": 0.06, "last_block": 0.3}  # of a pass that lies behind the cut, with the records of it
PROBED = 2**20  # pixels of an image that the probe runs over, at most
PASSES = 2  # that are measured; the quicker one counts
LONG = 60.0  # seconds of a run from which on a quicker setting is named


class Expectation(NamedTuple):
    """What is expected of a run: its cases (`done` of them by an earlier process), the size of the first, the seconds that each
    and all of them take, the seconds in the space `head` where that is worth knowing, and how it is known; None is unknown.

    The size of a picture is its width and height, that of other images as their axes are stored.
    """

    cases: int
    done: int
    size: tuple[int, ...] | None = None
    each: float | None = None
    whole: float | None = None
    head: float | None = None
    source: str = ""

    def __str__(self) -> str:
        text = f"{self.cases:,} case{'s' if self.cases != 1 else ''}"
        if self.size is not None:
            text += f" of {'x'.join(map(str, self.size))}" + (" (as the first is)" if self.cases > 1 else "")
        if self.done:
            text += f", {self.done:,} of them there from before"
        if self.each is None or self.whole is None:
            return text + ("" if self.done == self.cases else "; how long they take shows after the first")
        text += f", about {about(self.each)} each, about {about(self.whole)} in all"
        if self.head is not None:
            text += f"; with --space head about {about(self.head)} each"
        return f"{text} ({self.source})"


class Forecast:
    """The expectation of a run, and the figures of it for the next one; `figures` None keeps nothing."""

    def __init__(self, quantifier: Quantifier, request: RunRequest, figures: Figures | None) -> None:
        self.quantifier, self.request, self.figures = quantifier, request, figures
        self.work = describe_work(quantifier, request.config)
        self._took: list[tuple[tuple[int, ...], float]] = []
        self._lock = threading.Lock()

    def expect(self, *, lanes: int) -> Expectation:
        """What to expect, with `lanes` cases at a time; cases that cannot be read leave it unknown."""
        cases, part = self.quantifier.cases, self.request.part
        cases = cases if part is None else part.deal(cases)
        names = [case.name for case in cases]
        there = {name for name in names if (self.request.out / f"{name}.json").is_file()}
        first = next((case for case in cases if case.name not in there), None)
        known = Expectation(len(names), len(there))
        if first is None:
            return known
        try:
            image = read_channels(first.files)
            prepared = self.quantifier.prepare(image)
            shape = prepared.shape[:-1]
            known = known._replace(size=shape[::-1] if image.geometry.kind == "raster" else shape)
            each, source = self._seconds(image, prepared)
        except (ValueError, OSError, RuntimeError, MemoryError):  # the run itself says what is wrong with it
            return known
        if each is None:
            return known
        whole = each * math.ceil((len(names) - len(there)) / lanes)
        head = self._head(prepared.shape[:-1], each) if whole > LONG else None
        return known._replace(each=each, whole=whole, head=head, source=source)

    def _seconds(self, image: Image, prepared: np.ndarray | PreparedInParts) -> tuple[float | None, str]:
        shape = prepared.shape[:-1]
        stored = self.figures.seconds(self.work, shape) if self.figures is not None else None
        if stored is not None:
            return stored[0], "as measured here before" if stored[1] else "from another size, measured here before"
        passes = _passes(self.request.config, self.quantifier, shape)
        if passes is None:
            return None, ""
        tell("measuring one forward pass")
        first, plan = self.quantifier.shared.folds[0].model, self.quantifier.shared.plan
        if plan is None:
            rank, channels = first.network.rank, prepared.shape[-1]
            windows = lay_windows(first, shape[:rank], self.request.config.patches)
            seconds = probe_forward(first, np.zeros((*windows.patch, channels), np.float32)) * len(windows.starts)
            return passes * seconds * (math.prod(shape) / math.prod(shape[:rank])), "from one forward pass"
        patches = lay_patches(grid_shape(image.array, image.geometry, plan), plan.patch)
        seconds = probe_forward(first, np.zeros((*plan.patch, prepared.shape[-1]), np.float32))
        # nnU-Net's prediction is mirrored in every patch; a search runs in all that a wanted mask changes: at most all
        each = passes - 1 + len(mirrorings(plan.mirror_axes))
        return seconds * each * len(patches.starts) * len(self.quantifier.shared.folds), "at most, from one forward pass"

    def _head(self, shape: tuple[int, ...], each: float) -> float | None:
        """Seconds of a case in the space `head`, where the whole network is searched for masks and has that cut."""
        config = self.request.config
        other = dataclasses.replace(config, search=dataclasses.replace(config.search, space="head"))
        now, there = (_passes(one, self.quantifier, shape) for one in (config, other))
        if (
            config.search.space != "full"
            or now is None
            or there is None
            or "head" not in self.quantifier.shared.folds[0].model.network.cuts
        ):
            return None
        work = describe_work(self.quantifier, other)
        stored = self.figures.seconds(work, shape) if self.figures is not None else None
        head = each * there / now if stored is None else stored[0]
        return head if head < each / 2 else None

    def took(self, shape: Sequence[int], seconds: float) -> None:
        """The search of a case took so long."""
        with self._lock:
            self._took.append((tuple(shape), seconds))

    def measured(self, shape: Sequence[int], seconds: float, *, cases: int) -> None:
        """Keep what a case of some shape takes, where that was measured with care."""
        if self.figures is not None:
            self.figures.add([Figure(self.work, tuple(shape), seconds, cases)])

    def keep(self) -> None:
        """Keep the medians of what cases took; the first one compiles, and counts only where it is the only one."""
        if self.figures is None:
            return
        shapes = dict.fromkeys(shape for shape, _ in self._took)
        sizes = {shape: [seconds for own, seconds in self._took if own == shape] for shape in shapes}
        known = {figure.shape for figure in self.figures.read() if figure.work == self.work}
        self.figures.add(
            [
                Figure(self.work, shape, statistics.median(seconds[1:] or seconds), len(seconds[1:]))
                for shape, seconds in sizes.items()
                if len(seconds) > 1 or shape not in known
            ]
        )


def describe_machine() -> str:
    """The hardware as far as the time of a case depends on it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{backend_name()}, {jax.local_device_count()} devices, {cores} cores, {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def describe_work(quantifier: Quantifier, config: Config) -> Work:
    """What the time of a case depends on; weights, seed and layout have no part in it, the sizes of the fit data do."""
    network, plan = quantifier.shared.folds[0].model.network, quantifier.shared.plan
    settings = to_dict(dataclasses.replace(config.without_layout(), seed=0))
    return Work(
        describe_machine(),
        digest(network.architecture, network.arguments, len(quantifier.shared.folds))[:32],
        digest(settings, quantifier.known.images.shape, None if plan is None else plan.patch)[:32],
    )


def count_passes(config: Config, *, batches: int, fit_share: float, views: int = 0) -> float | None:
    """Forward passes over one image that a search of masks takes, the given network's own included; None for other targets.

    `fit_share` are the pixels of a fit batch over those of the image. A step is a pass forward and one backward over the image
    and over its fit batch; on a CPU the latter is left out in steps that keep the bound. Behind a cut only the tail counts, and
    the trunk runs once, for the image and for each of its `views`. Through these look the given network, random directions, and
    every model after a step: on a CPU those alone that keep the bound.
    """
    search = config.search
    if config.targets.target != "mask":
        return None
    steps = len(build_schedule(search).plan(batches).batch)
    hinged = search.penalty == "hinge" or search.solver != "penalty"
    spared = jax.default_backend() == "cpu" and search.mode == "eval" and hinged
    fit = 0.0 if search.space.startswith("input:") else fit_share
    step = (1 + BACKWARD) + fit * (1 + BACKWARD * (BROKEN if spared else 1))
    # the record of the last step: a pass of its own in every step, or one more evaluation at the end
    search_passes = search.members * (steps * (step + (search.record == "after")) + (0 if search.record == "after" else 1 + fit))
    kept = BROKEN if config.samples.feasible_only and jax.default_backend() == "cpu" else 1
    search_passes += (
        views * (1 + 2 * config.samples.random_directions) + config.samples.each_of(views) * kept * search.members * steps
    )
    tail = TAIL.get(search.space)
    return 1 + (search_passes if tail is None else 1 + views + tail * search_passes)


def _passes(config: Config, quantifier: Quantifier, shape: Sequence[int]) -> float | None:
    """Of a case: those of one whole image, slice or patch of it, which is what the probe runs over.

    Whole fit images that kept models are measured on count by their pixels.
    """
    batches, size, *fit_sides = quantifier.known.images.shape[:-1]
    plan, model, whole = quantifier.shared.plan, quantifier.shared.folds[0].model, quantifier.shared.whole_fit
    patches = lay_windows(model, shape[: model.network.rank], config.patches) if plan is None else None
    sides = plan.patch if plan is not None else patches.patch if patches is not None else ()
    pixels = math.prod(sides)
    views = len(choose_look(quantifier.shared, sides[len(sides) - model.network.rank :], config=config).views)
    passes = count_passes(config, batches=batches, fit_share=size * math.prod(fit_sides) / pixels, views=views)
    if passes is None or whole is None or patches is None:
        return passes
    looked_at = whole.chosen(None if len(patches.starts) == 1 else 0)
    return passes + config.search.members * sum(whole.pixels[n] for n in looked_at) / pixels


def probe_forward(model: SegmentationModel, image: Float[np.ndarray, "*space i"]) -> float:
    """Seconds of one forward pass over a prepared image, compiled before; a large one is measured on a corner of it."""
    *sides, _ = image.shape
    shrunk = min(1.0, (PROBED / math.prod(sides)) ** (1 / len(sides)))
    corner = image[tuple(slice(max(1, round(n * shrunk))) for n in sides)]
    times = []
    for _ in range(1 + PASSES):
        start = time.perf_counter()
        jax.block_until_ready(predict(model, corner))
        times.append(time.perf_counter() - start)
    return min(times[1:]) * image.size / corner.size
