"""Random directions with the same slack: what any move inside the constraint shows, without a search.

The control of every adversarial claim: what it finds needs no adversary. Alone, through test-time views, and pooled in equal
shares with the given network through the same views, which is the search's own pool with random directions in its place.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..config import FitConfig, SearchConfig
from ..core.compilation import jit
from ..core.directions import Directions, fit_directions
from ..core.network import pad_to_multiple
from ..core.solvers import Moving
from ..core.space import Space
from ..core.types import Samples
from ..models.model import Network, Parameters, SegmentationModel
from ..models.prepare import prepare
from .method import Method, Outcome, Run, Settings, Subject, fit_of, outcome_of, slack_grid
from .records import as_samples, check_image, predict_batch
from .views import through_views, views_for


def random_directions(
    model: SegmentationModel,
    image: Float[ArrayLike, "*space i"],
    *,
    directions: Directions,
    key: Key[Array, ""] | None = None,
    views: str = "identity",
    pooled: bool = False,
) -> Samples:
    """One sample a moved model and view, of equal weight; `pooled` with the given network through views, half the weight each.

    ValueError for unknown views.
    """
    x = check_image(model, image)
    key = jax.random.key(0) if key is None else key
    chosen = views_for(x, views)
    moved = [through_views(partial(_predict, model, directions.space, z), x, views=chosen, key=key) for z in directions.models()]
    own = [through_views(partial(predict_batch, model), x, views=chosen, key=key)] if pooled else []
    weights = [np.full(len(probs), 0.5 / len(probs)) for probs in own]
    weights += [np.full(len(probs), (0.5 if pooled else 1.0) / len(probs) / len(moved)) for probs in moved]
    return as_samples(jnp.concatenate([*own, *moved]), np.concatenate(weights))


def _predict(model: SegmentationModel, space: Space, z: Moving, images: Float[Array, "b *space i"]) -> Float[Array, "b *space c"]:
    padded = pad_to_multiple(images, model.network, leading=1)
    probs = _probs(model.network, space, z, model.params, model.stats, padded)
    return probs[(slice(None), *(slice(n) for n in images.shape[1:-1]))]


@jit(static_argnums=(0, 1))
def _probs(network: Network, space: Space, z: Moving, params: Parameters, stats: Parameters, images: Array) -> Array:
    activation = space.prepare(network, params, stats, images)
    return jax.nn.softmax(space.logits(network, z, params, stats, activation)[0])


def _start(subject: Subject, settings: Settings, *, count: int, **how: Any) -> Run:
    prepared = prepare(subject.model, fit_of(subject, FitConfig()), SearchConfig(slack=settings["slack"]))
    found = fit_directions(prepared, count=count, key=jax.random.key(subject.seed))

    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = random_directions(subject.model, image, directions=found, key=key, **how)
        return outcome_of(samples, image.shape[:-1], forward=samples.probs.shape[1])

    return run


START = partial(_start, count=2)
START_VIEWS = partial(_start, count=6, views="standard")
START_POOLED = partial(_start, count=6, views="standard", pooled=True)
METHODS = (
    Method("random_directions", START, random_directions, grid=slack_grid(20.0), control=True, place=12),
    Method("random_views", START_VIEWS, grid=slack_grid(), control=True, place=15),
    Method("random_views_pooled", START_POOLED, grid=slack_grid(), control=True, place=16),
)
