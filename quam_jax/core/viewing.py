"""What a model says through the views of an image: some views a pass, sums over them, and their mean at the end.

Sums are enough for the decomposition, so that one number a point is recorded of a model beside its mean prediction. Divergences
are taken from a fixed anchor near all predictions, what the given network says of the image itself: the difference of two
entropies would lose what views that hardly differ have to say.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .decomposition import divergence_terms
from .network import EVAL, Parameters
from .passes import at_points, run_pass
from .setup import Frozen, Setup, State, Target, Viewed
from .solvers import Moving
from .types import ViewMean
from .views import invert_view


class ViewSums(NamedTuple):
    """Sums over views: of probabilities, and of divergences from the anchor in nats."""

    probs: Float[Array, "p c"]
    from_anchor: Float[Array, " p"]


def no_views(points: int, classes: int) -> ViewSums:
    """The sums before the first view."""
    return ViewSums(jnp.zeros((points, classes)), jnp.zeros(points))


def view_starts(setup: Setup) -> range:
    """Where the views of every pass begin, counted from a model's first."""
    return range(0, setup.looked, setup.views_at_once)


def first_view(setup: Setup, record: Int[Array, ""] | int) -> Int[Array, ""] | int:
    """The first view of the model of a record: where that of the record before has stopped, so that all take their turn."""
    return 0 if setup.looked == len(setup.views) else record * setup.looked % len(setup.views)


def add_views(
    setup: Setup,
    frozen: Frozen,
    target: Target,
    z: Moving,
    stats: Parameters,
    start: Int[Array, ""] | int,
    sums: ViewSums,
) -> ViewSums:
    """The sums with what the model says through `setup.views_at_once` views from `start` on, the first after the last."""
    viewed, total = _viewed(frozen, target), len(setup.views)
    numbers = [(start + i) % total for i in range(setup.views_at_once)]
    some = viewed.activations
    if not isinstance(start, int) or numbers != [*range(total)]:
        some = jax.tree.map(lambda x: jnp.stack([jax.lax.dynamic_index_in_dim(x, n, keepdims=False) for n in numbers]), some)
    logits, _ = run_pass(setup, z, stats, frozen, some, EVAL)
    anchor = _anchor(setup, viewed, target)
    inside = tuple(slice(n) for n in setup.shape)
    for i, number in enumerate(numbers):
        probs = invert_view(setup.views, number, jax.nn.softmax(logits[(i, *inside)]))
        own = at_points(setup, probs[None], target.points)
        sums = ViewSums(sums.probs + own, sums.from_anchor + jnp.sum(divergence_terms(own, anchor), -1))
    return sums


def mean_of_views(setup: Setup, frozen: Frozen, target: Target, sums: ViewSums) -> ViewMean:
    """The mean over the views of a model: mean KL(p_v | mean) = mean KL(p_v | anchor) - KL(mean | anchor)."""
    anchor = _anchor(setup, _viewed(frozen, target), target)
    probs, from_anchor = (value / setup.looked for value in sums)
    return ViewMean(probs, jnp.maximum(from_anchor - jnp.sum(divergence_terms(probs, anchor), -1), 0.0))


def view(setup: Setup, frozen: Frozen, target: Target, state: State, first: Int[Array, ""] | int = 0) -> ViewMean:
    """What the model of a state says through its views, from `first` on, as one program."""
    sums = no_views(target.points.shape[0], _viewed(frozen, target).given.shape[-1])
    starts = view_starts(setup)
    if jax.default_backend() == "cpu" or len(starts) == 1:  # convolutions inside a scan are slow there
        for start in starts:
            sums = add_views(setup, frozen, target, state.z, state.stats, first + start, sums)
    else:
        sums, _ = jax.lax.scan(
            lambda some, start: (add_views(setup, frozen, target, state.z, state.stats, start, some), None),
            sums,
            jnp.asarray(starts) + first,
        )
    return mean_of_views(setup, frozen, target, sums)


def blank_view(probs: Float[Array, "*points c"]) -> ViewMean:
    """What stands for a model that was spared its views, from what it says of the image itself."""
    return ViewMean(probs, jnp.zeros(probs.shape[:-1], probs.dtype))


def _viewed(frozen: Frozen, target: Target) -> Viewed:
    return frozen.viewed if target.viewed is None else target.viewed


def _anchor(setup: Setup, viewed: Viewed, target: Target) -> Float[Array, "p c"]:
    """The given prediction at the points, positive: the identity of the divergences holds for any positive anchor."""
    given = at_points(setup, viewed.given[None], target.points)
    return jnp.maximum(given, jnp.finfo(given.dtype).tiny)
