"""What a file of a baseline declares: a method as settings, a start on a network, and maps of a case.

`start(subject, settings)` does once what does not depend on the case (a temperature, directions, a posterior) and returns a
function from an image to an Outcome. `grid` is what tuning may choose from on validation cases; its first entry is used
untuned. Every method gets a grid if it has anything to choose, so that nobody is favoured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Key

from ..case.fit import KnownCase, fit_of_cases
from ..config import Config, FitConfig
from ..core.decomposition import decompose
from ..core.types import FitData, Samples
from ..models.model import SegmentationModel
from .records import mean_probabilities

Settings = Mapping[str, Any]


class Subject(NamedTuple):
    """One network with what methods may use: fit and validation cases, and the networks of its ensemble (itself too).

    `trained` holds networks of other kinds by the method that needs them; `memo` keeps total maps that a further method is
    made of, so that they are computed once.
    """

    model: SegmentationModel
    fit_cases: Sequence[KnownCase]
    validation: Sequence[KnownCase]
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


Run = Callable[[np.ndarray, Key[jax.Array, ""]], Outcome]


class MethodOptions(NamedTuple):
    """What a person says of the networks of a study: a rate of dropout for those that have none of their own."""

    inject_dropout: float | None = None


def _always(model: SegmentationModel, options: MethodOptions) -> bool:
    return True


@dataclass(frozen=True)
class Method:
    """One method, as the file of a baseline declares it in `METHODS`: a row of the tables of a study.

    A start that returns None has the raters themselves judged. Rows stand in the order of `place`, controls behind the searches.
    """

    name: str
    start: Callable[[Subject, Settings], Run | None]
    function: Callable[..., Any] | None = None  # of a model (the ensemble: of models) and an image, with settings of its own
    grid: tuple[Settings, ...] = ({},)
    grid_for: Callable[[MethodOptions], tuple[Settings, ...]] | None = None  # in place of `grid`, where it depends on options
    control: bool = False
    about: str = ""  # what else its numbers depend on, for the cache
    parts: tuple[str, ...] = ()  # methods that it is made of
    trained: bool = False  # needs a network of its own kind, from `Subject.trained`
    ensemble: bool = False  # needs several networks, from `Subject.ensemble`
    serves: Callable[[SegmentationModel, MethodOptions], bool] = _always  # whether it can be asked of a network
    place: int = 99


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


def in_one_pass(function: Callable[..., Samples], **fixed: Any) -> Callable[[Subject, Settings], Run]:
    """The start of a method of one pass that needs nothing but the network and its settings."""

    def start(subject: Subject, settings: Settings) -> Run:
        def run(image: np.ndarray, key: Key[jax.Array, ""]) -> Outcome:
            return outcome_of(function(subject.model, image, **fixed, **settings), image.shape[:-1], forward=1)

        return run

    return start


def with_own_network(name: str, function: Callable[..., Samples]) -> Callable[[Subject, Settings], Run]:
    """The start of a method that draws 16 samples from a network of its own kind, in one pass."""

    def start(subject: Subject, settings: Settings) -> Run:
        model = subject.trained[name]

        def run(image: np.ndarray, key: Key[jax.Array, ""]) -> Outcome:
            return outcome_of(function(model, image, samples=16, key=key), image.shape[:-1], forward=1)

        return run

    return start


def fit_of(subject: Subject, settings: FitConfig) -> FitData:
    """The fit data that these settings choose of the subject's fit cases."""
    return fit_of_cases(subject.model, subject.fit_cases, settings)


def slack_grid(*further: float) -> tuple[dict[str, float], ...]:
    """Slacks to choose from, the default's first."""
    return tuple({"slack": slack} for slack in dict.fromkeys((Config().search.slack, 0.2, 1.0, 5.0, *further)))
