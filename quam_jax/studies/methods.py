"""What a study compares: every method as settings, a start on a network, and maps of a case.

`start(subject, settings)` does once what does not depend on the case (a temperature, directions, a posterior) and returns a
function from an image to an Outcome. `grid` is what tuning may choose from on validation cases; its first entry is used
untuned. Every method gets a grid if it has anything to choose, so that nobody is favoured.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..baselines.blur import blur, blurred_mask
from ..baselines.boundary import boundary
from ..baselines.ensemble import ensemble
from ..baselines.evidential import evidential
from ..baselines.laplace import fit_posterior, laplace
from ..baselines.mc_dropout import mc_dropout
from ..baselines.prob_unet import prob_unet
from ..baselines.random_directions import fit_directions, random_directions
from ..baselines.records import mean_probabilities
from ..baselines.softmax import softmax
from ..baselines.temperature import fit_temperature, temperature
from ..baselines.tta import ALL, GEOMETRIC, transforms, tta
from ..case.quantify import quantify_images
from ..case.shared import whole_image_model
from ..config import Config, FitConfig, SampleConfig, SearchConfig, change, dump_config
from ..core.decomposition import decompose
from ..core.searching import Prepared, prepare, search_prepared
from ..core.types import FitData, Samples
from ..core.weighting import to_samples, trajectory_weights
from ..data.records import digest_arrays
from ..evaluation.agreement import average_ranks
from ..evaluation.reference_maps import rater_mean
from ..models.model import SegmentationModel
from ..models.predict import predict
from ..published.combination import published_uncertainty
from ..targets.masks import mask_targets, wanted_mask
from .cases import StudyCase, case_fit_data

Settings = Mapping[str, Any]
REGIONS = {"target": "region", "regions": "segments", "region_size": 8, "space": "last_block", "learning_rate": 1e-3}
PIXELS = {"target": "pixel", "pixels": "all", "space": "head", "members": 1, "solver": "line_search"}


class Subject(NamedTuple):
    """One network with what methods may use: fit and validation cases, and the networks of its ensemble (itself too).

    `trained` holds networks of other kinds by the method that needs them; `memo` keeps total maps that a further method is
    made of, so that they are computed once.
    """

    model: SegmentationModel
    fit_cases: Sequence[StudyCase]
    validation: Sequence[StudyCase]
    ensemble: Sequence[SegmentationModel]
    trained: Mapping[str, Any]
    seed: int
    memo: dict[tuple[str, ...], np.ndarray] | None = None


class Outcome(NamedTuple):
    """Maps of one case by name (in nats but for controls), mean probabilities, drawn label maps, and passes."""

    maps: dict[str, Float[np.ndarray, "*space"]]
    probabilities: Float[np.ndarray, "*space c"] | None
    samples: Int[np.ndarray, " n *space"] | None
    weights: Float[np.ndarray, " n"] | None
    forward: float
    backward: float


def fit_of(subject: Subject, settings: FitConfig) -> FitData:
    """The fit data that these settings choose, evenly spread over the fit cases."""
    count = len(subject.fit_cases)
    places = np.linspace(0, count - 1, min(settings.fit_cases or count, count)).round().astype(int)
    return case_fit_data(subject.model, [subject.fit_cases[n] for n in np.unique(places)], batch_size=settings.fit_batch)


Run = Callable[[np.ndarray, Key[Array, ""]], Outcome]


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table; a start that returns None has the raters themselves judged (see ceiling.rater_figures)."""

    name: str
    start: Callable[[Subject, Settings], Run | None]
    grid: tuple[Settings, ...] = ({},)
    control: bool = False
    about: str = ""  # what else its numbers depend on, for the cache
    parts: tuple[str, ...] = ()  # methods that it is made of
    trained: bool = False  # needs a network of its own kind, from `Subject.trained`


def search_method(name: str, config: Config, *, grid: tuple[Settings, ...] = ({},), control: bool = False) -> Method:
    """QUAM-SM with some settings as a row."""
    return Method(name, functools.partial(_quam, config), grid, control, dump_config(config))


_decompose = jax.jit(decompose)


def outcome_of(samples: Samples, shape: tuple[int, ...], *, forward: float, backward: float = 0.0) -> Outcome:
    """Maps by setting (a) of any Samples; a single sample has a total (its entropy) and nothing else to tell apart."""
    uncertainty = _decompose(samples)
    maps = {name: np.asarray(values[0]).reshape(shape) for name, values in uncertainty._asdict().items()}
    if samples.probs.shape[1] == 1:
        maps = {"total": maps["total"]}
    labels = np.asarray(samples.probs[0]).argmax(-1).reshape(-1, *shape)
    weights = np.asarray(samples.weights[0], np.float64)
    return Outcome(maps, mean_probabilities(samples, shape), labels, weights, forward, backward)


def _simple(function: Callable[..., Samples], **fixed: Any) -> Callable[[Subject, Settings], Run]:
    """A method of one pass that needs nothing but the network and its settings."""

    def start(subject: Subject, settings: Settings) -> Run:
        def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
            return outcome_of(function(subject.model, image, **fixed, **settings), image.shape[:-1], forward=1)

        return run

    return start


def _temperature(subject: Subject, settings: Settings) -> Run:
    classes = subject.model.network.classes
    logits = [np.asarray(subject.model(case.image[None])[0]) for case in subject.validation]
    value = settings.get("temperature") or fit_temperature(
        logits, [rater_mean(case.raters, classes=classes) for case in subject.validation]
    )
    return _simple(temperature, temperature=float(value))(subject, {})


def _boundary(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        return Outcome({"total": boundary(subject.model, image, sigma=settings["sigma"])}, None, None, None, 1, 0)

    return run


def _random_directions(subject: Subject, settings: Settings) -> Run:
    prepared = prepare(subject.model, fit_of(subject, FitConfig()), SearchConfig(slack=settings["slack"]))
    found = fit_directions(prepared, count=2, key=jax.random.key(subject.seed))

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = random_directions(subject.model, image, directions=found)
        return outcome_of(samples, image.shape[:-1], forward=len(found.moved))

    return run


def _mc_dropout(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = mc_dropout(subject.model, image, key=key, samples=16, **settings)
        # injected dropout sits in front of the head, so that the trunk runs once
        return outcome_of(samples, image.shape[:-1], forward=1 if settings.get("inject") else 16)

    return run


def _tta(subject: Subject, settings: Settings) -> Run:
    known = transforms()
    names = GEOMETRIC if settings["transforms"] == "geometric" else ALL

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = tta(subject.model, image, key=key, names=names, strength=settings.get("strength", 0.1))
        return outcome_of(samples, image.shape[:-1], forward=sum(known[n].cost for n in names))

    return run


def _ensemble(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        return outcome_of(ensemble(subject.ensemble, image), image.shape[:-1], forward=len(subject.ensemble))

    return run


def _laplace(subject: Subject, settings: Settings) -> Run:
    posterior = fit_posterior(subject.model, fit_of(subject, FitConfig(fit_cases=0)))

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = laplace(subject.model, image, posterior=posterior, samples=16, scale=settings["scale"], key=key)
        return outcome_of(samples, image.shape[:-1], forward=1)

    return run


def _own(name: str, function: Callable[..., Samples], subject: Subject, settings: Settings) -> Run:
    """A method with a network of its own kind."""
    model = subject.trained[name]

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        return outcome_of(function(model, image, samples=16, key=key), image.shape[:-1], forward=1)

    return run


def quam_samples(
    prepared: Prepared, image: Float[np.ndarray, "*space i"], *, config: Config, key: Key[Array, ""]
) -> tuple[Samples, Any]:
    """Samples of the mask search on one image, and its trajectory."""
    x = jnp.asarray(image, jnp.float32)
    reference = predict(prepared.model, x)
    labels, settings = jnp.argmax(reference, -1), config.targets
    wanted = [
        wanted_mask(
            labels,
            shape,
            radius=settings.radius,
            classes=reference.shape[-1],
            element=settings.element,
            outside=settings.outside,
            probs=reference,
            key=jax.random.fold_in(key, n),
        )
        for n, shape in enumerate(settings.shapes)
    ]
    trajectory = search_prepared(
        prepared, x, mask_targets(wanted, members=config.search.members), key=key, execution=config.execution
    )
    rule = config.samples
    weights = trajectory_weights(
        trajectory,
        rule=rule.weighting,
        feasible_only=rule.feasible_only,
        temperature=rule.temperature,
        effective_size=rule.effective_size,
    )
    flat = reference.reshape(1, -1, reference.shape[-1])
    return to_samples(trajectory, weights, reference=flat, include_reference=rule.include_reference), trajectory


def _quam(base: Config, subject: Subject, settings: Settings) -> Run:
    """QUAM-SM; mask targets give their samples, other targets the maps of `quantify`."""
    config = change(base, {**settings, "seed": subject.seed})
    fit = fit_of(subject, config.fit)
    if config.search.epochs:  # the published stride of 50 uses 2 batches of 100 in an epoch; fewer batches give 2 as well
        config = change(config, {"batch_stride": min(config.search.batch_stride, max(1, fit.images.shape[0] // 2))})
    shared, whole = whole_image_model(subject.model, fit, config.search), config.search.space == "full"
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
        samples, trajectory = quam_samples(prepared, image, config=config, key=key)
        outcome = outcome_of(samples, image.shape[:-1], forward=forward, backward=members * steps * each)
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


def slack_grid(*further: float) -> tuple[dict[str, float], ...]:
    """Slacks to choose from, the default's first."""
    return tuple({"slack": slack} for slack in dict.fromkeys((Config().search.slack, 0.2, 1.0, 5.0, *further)))


def methods(*, inject_dropout: float | None = None, configs: Mapping[str, Config] | None = None) -> dict[str, Method]:
    """Every method by name.

    `inject_dropout` is the first rate for networks without dropout of their own (without it such a network is an error);
    `configs` adds searches with other settings, such as region or pixel targets.
    """
    default, published = Config(), Config.published()
    # without dropout and batch statistics every step at rate 0 is the same one, so one is enough
    still = dataclasses.replace(default, search=dataclasses.replace(default.search, learning_rate=0.0, steps=1))
    published_still = dataclasses.replace(published, search=dataclasses.replace(published.search, learning_rate=0.0))
    rates = () if inject_dropout is None else dict.fromkeys((inject_dropout, 0.1, 0.3, 0.5, 0.7))
    dropout = tuple({"inject": rate} for rate in rates) or ({},)
    widths = (1.0, 0.25, 0.5, 0.75, 1.5, 2.0, 3.0)
    rows = [
        Method("softmax", _simple(softmax)),
        Method("temperature", _temperature),
        Method(
            "tta",
            _tta,
            ({"transforms": "geometric"}, {"transforms": "all", "strength": 0.1}, {"transforms": "all", "strength": 0.3}),
        ),
        Method("ensemble", _ensemble),
        Method("mc_dropout", _mc_dropout, dropout),
        Method("laplace", _laplace, tuple({"scale": s} for s in (1.0, 3.0, 10.0, 30.0, 100.0))),
        Method("evidential", functools.partial(_own, "evidential", evidential), trained=True),
        Method("prob_unet", functools.partial(_own, "prob_unet", prob_unet), trained=True),
        search_method("quam", default),
        search_method("quam_tuned", default, grid=quam_grid()),
        search_method("quam_published", published),
        search_method("quam_regions", change(default, REGIONS), grid=slack_grid()),
        search_method("quam_pixels", change(default, PIXELS), grid=slack_grid()),
        Method("boundary", _boundary, tuple({"sigma": s} for s in (2.0, 0.5, 0.75, 1.0, 1.5, 3.0, 4.0)), control=True),
        Method("blur", _simple(blur), tuple({"width": w} for w in widths), control=True),
        Method("blurred_mask", _simple(blurred_mask), tuple({"width": w} for w in widths), control=True),
        Method("random_directions", _random_directions, slack_grid(20.0), control=True),
        search_method("quam_no_search", still, control=True),
        search_method("quam_published_no_search", published_still, control=True),
    ]
    rows += [search_method(name, config) for name, config in (configs or {}).items()]
    known = {row.name: row for row in rows}
    further = [
        rank_mean("tta_quam_ranks", [known["tta"], known["quam_tuned"]]),
        rank_mean("tta_random_ranks", [known["tta"], known["random_directions"]]),
    ]
    further[1] = dataclasses.replace(further[1], control=True)
    return known | {row.name: row for row in further} | {"raters_halves": Method("raters_halves", lambda *_: None, control=True)}
