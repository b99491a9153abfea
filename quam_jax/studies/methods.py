"""What a study compares: the baselines, QUAM-SM under several settings, and ranks of both; tables have their rows in this order.

Baselines declare themselves (`baselines/`); this file has the rows of the search, and puts all in order.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from ..baselines import BASELINES
from ..baselines.method import Method, MethodOptions, Outcome, Run, Settings, Subject, fit_of, outcome_of, slack_grid
from ..case.displacement import displaced
from ..case.quantify import quantify_images, sample_image
from ..case.shared import find_directions, whole_image_model
from ..case.views import try_views, view_passes
from ..config import Config, SampleConfig, change, dump_config
from ..data.records import digest_arrays
from ..evaluation.agreement import average_ranks
from ..published.combination import published_uncertainty

REGIONS = {"target": "region", "regions": "segments", "region_size": 8, "space": "last_block", "learning_rate": 1e-3}
MOST_VIEWS = 99  # more than there are
PIXELS = {"target": "pixel", "pixels": "all", "space": "head", "members": 1, "solver": "line_search"}


def search_method(name: str, config: Config, *, grid: tuple[Settings, ...] = ({},), control: bool = False) -> Method:
    """QUAM-SM with some settings as a row."""
    return Method(name, functools.partial(_quam, config), grid=grid, control=control, about=dump_config(config.without_layout()))


def _quam(base: Config, subject: Subject, settings: Settings) -> Run:
    """QUAM-SM; mask targets give their samples, other targets the maps of `quantify`."""
    config = change(base, {**settings, "seed": subject.seed})
    fit = fit_of(subject, config.fit)
    if config.search.epochs:  # the published stride of 50 uses 2 batches of 100 in an epoch; fewer batches give 2 as well
        config = change(config, {"batch_stride": min(config.search.batch_stride, max(1, fit.images.shape[0] // 2))})
    shared = find_directions(whole_image_model(subject.model, fit, config.search), config)
    shared = try_views(shared, fit.images, fit.labels, config=config)
    whole = config.search.space == "full"
    prepared = shared.folds[0].prepared
    steps, members = len(prepared.steps.batch), config.search.members
    each = int(fit.images.shape[1]) + 1
    forward = (
        1
        + members * steps * (each + (1 if config.search.record == "after" else 0))
        + (members * each if config.search.record == "same" else 0)
    )

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        if config.targets.target != "mask":
            (found,) = quantify_images(shared, [image], config=config)
            labels = np.concatenate([found.adversarial, found.segmentation[None]])
            maps = {name: found.maps[name] for name in ("total", "aleatoric", "epistemic")}
            models = int(np.prod(found.objective.shape[:-1]))  # a part of the network is no pass: their seconds must do
            passes = (1.0 + models * steps * each, float(models * steps * each)) if whole else (np.nan, np.nan)
            return Outcome(maps, found.reference, labels, np.full(len(labels), 1 / len(labels)), *passes)
        samples, (trajectory,) = sample_image(shared, image, config=config, key=key)
        looked = view_passes(shared, trajectory, image.shape[:-1], config=config)
        passes = (forward + looked, members * steps * each) if whole else (np.nan, np.nan)
        outcome = outcome_of(samples, image.shape[:-1], forward=passes[0], backward=passes[1])
        if config.samples.blur:
            assert outcome.probabilities is not None
            moved = displaced(outcome.maps["aleatoric"], outcome.probabilities, width=config.samples.blur)
            return outcome._replace(maps={name: np.asarray(values) for name, values in moved._asdict().items()})
        if config.samples == SampleConfig.published():
            maps = published_uncertainty(trajectory)._asdict()
            return outcome._replace(maps={n: np.asarray(v).reshape(image.shape[:-1]) for n, v in maps.items()})
        return outcome

    return run


def remembered(method: Method, subject: Subject, settings: Settings) -> Callable[[np.ndarray, Key[Array, ""]], np.ndarray]:
    """A method as a function to its total map alone, read back from the subject's memo where it has the image and the key."""
    begin = functools.cache(lambda: method.start(subject, settings))

    def total(image: np.ndarray, key: Key[Array, ""]) -> np.ndarray:
        memo = {} if subject.memo is None else subject.memo
        identity = memo_key(method.name, settings, image, key)
        if identity not in memo:
            run = begin()
            if run is None:
                raise ValueError(f"{method.name}: expected a method of its own to combine, got one without maps")
            memo[identity] = run(image, key).maps["total"]
        return memo[identity]

    return total


def memo_key(name: str, settings: Settings, image: np.ndarray, key: Key[Array, ""]) -> tuple[str, ...]:
    """What a remembered map depends on, within one network."""
    return name, repr(sorted(settings.items())), digest_arrays({"image": image, "key": np.asarray(jax.random.key_data(key))})


def rank_mean(name: str, parts: Sequence[Method]) -> Method:
    """The mean of the ranks of several methods' total maps, each from 0 to 1 within the image; a map and no samples.

    `settings` of this method are the settings of its parts by their names.
    """

    def start(subject: Subject, settings: Settings) -> Run:
        totals = [remembered(part, subject, settings.get(part.name, part.grid[0])) for part in parts]

        def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
            ranks = [average_ranks(total(image, key)) / image[..., 0].size for total in totals]
            return Outcome({"total": np.mean(ranks, axis=0)}, None, None, None, np.nan, np.nan)

        return run

    return Method(name, start, about=" ".join(part.about for part in parts), parts=tuple(part.name for part in parts))


def quam_grid() -> tuple[dict[str, Any], ...]:
    """The small grid of the search: the default first, then radius and learning rate with the slack that a longer move needs."""
    default = Config()
    triples = (
        (default.targets.radius, default.search.learning_rate, default.search.slack),
        (1, 1e-4, 0.2),
        (1, 1e-3, 0.2),
        (1, 1e-3, 1.0),
        (1, 1e-3, 5.0),
        (1, 3e-3, 5.0),
        (1, 3e-3, 20.0),
        (2, 2e-4, 0.2),
        (2, 1e-3, 5.0),
    )
    return tuple({"radius": radius, "learning_rate": rate, "slack": slack} for radius, rate, slack in dict.fromkeys(triples))


def methods(*, inject_dropout: float | None = None, configs: Mapping[str, Config] | None = None) -> dict[str, Method]:
    """Every method by name: baselines, searches, controls, further searches, ranks, and the raters.

    `inject_dropout` is the first rate for networks without dropout of their own (without it such a network is an error);
    `configs` adds searches with other settings, such as region or pixel targets.
    """
    default, published = Config(), Config.published()
    # without dropout and batch statistics every step at rate 0 is the same one, so one is enough, which has all views then
    twin = {"learning_rate": 0.0, "steps": 1, "views_each": MOST_VIEWS}
    still, thorough_still = change(default, twin), change(Config.thorough(), twin)
    published_still = dataclasses.replace(published, search=dataclasses.replace(published.search, learning_rate=0.0))
    options = MethodOptions(inject_dropout)
    baselines = [
        row if row.grid_for is None else dataclasses.replace(row, grid=row.grid_for(options)) for row in BASELINES.values()
    ]
    rows = [
        *(row for row in baselines if not row.control),
        search_method("quam", default),
        search_method("quam_thorough", Config.thorough()),
        search_method("quam_fast", Config.fast()),
        search_method("quam_blur", default, grid=tuple({"blur": width} for width in (0.75, 0.5, 1.0, 1.5))),
        search_method("quam_plain", change(default, {"views": "none"})),
        search_method("quam_tuned", default, grid=quam_grid()),
        search_method("quam_published", published),
        search_method("quam_regions", change(default, REGIONS), grid=slack_grid()),
        search_method("quam_pixels", change(default, PIXELS), grid=slack_grid()),
        *(row for row in baselines if row.control),
        search_method("quam_no_search", still, control=True),
        search_method("quam_thorough_no_search", thorough_still, control=True),
        search_method("quam_published_no_search", published_still, control=True),
        *(search_method(name, config) for name, config in (configs or {}).items()),
    ]
    known = {row.name: row for row in rows}
    further = [
        rank_mean("tta_quam_ranks", [known["tta"], known["quam_tuned"]]),
        rank_mean("tta_random_ranks", [known["tta"], known["random_directions"]]),
        Method("raters_halves", lambda *_: None),
    ]
    further[1:] = [dataclasses.replace(row, control=True) for row in further[1:]]
    return known | {row.name: row for row in further}
