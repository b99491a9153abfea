"""An image under its views, prepared for a search, and what the given network says through them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .compilation import jit
from .fit import AT_ONCE
from .layout.fitting import views_at_once
from .layout.programs import add_member_views, begin_group, mean_of_member_views
from .layout.work import pass_operations
from .network import EVAL, Parameters, pad_to_multiple
from .passes import run_pass
from .setup import Frozen, Setup, Target, Viewed
from .solvers import Moving
from .space import Activation, Space
from .types import ViewMean
from .viewing import no_views, view_starts
from .views import Look, View, view_images


@jit(static_argnames=("network", "space"))
def activations_of(network: Any, space: Space, params: Parameters, stats: Parameters, images: Array) -> Activation:
    """Activations in front of everything that moves."""
    return space.prepare(network, params, stats, images)


def with_views(setup: Setup, frozen: Frozen, image: Float[Array | np.ndarray, "*space i"], key: Key[Array, ""]) -> Frozen:
    """The case with its image under the views of the setup; `key` draws their noise. ValueError for views of another shape."""
    seen = pad_to_multiple(_views(setup.views, jnp.asarray(image, jnp.float32), key), setup.network, leading=1)
    size = max(1, AT_ONCE // math.prod(setup.shape))
    parts = [
        activations_of(setup.network, setup.space, frozen.params, frozen.stats, seen[start : start + size])
        for start in range(0, len(seen), size)
    ]
    activations = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    return frozen._replace(viewed=Viewed(activations, _given(setup, frozen)))


@jit(static_argnames="views")
def _views(views: tuple[View, ...], image: Array, key: Key[Array, ""]) -> Array:
    return view_images(views, image, key)


@jit(static_argnames="setup")
def _given(setup: Setup, frozen: Frozen) -> Float[Array, "*space c"]:
    z = setup.space.start(setup.network, frozen.params, frozen.image)
    logits, _ = run_pass(setup, z, frozen.stats, frozen, frozen.image, EVAL)
    return jax.nn.softmax(logits[(0, *(slice(n) for n in setup.shape))])


def view_image(
    prepared: Any, image: Float[Array | np.ndarray, "*space i"], look: Look, *, key: Key[Array, ""]
) -> tuple[ViewMean, ViewMean | None]:
    """What the given network of a prepared search says of an image through views at every pixel in order, and what others do."""
    network, params, stats, procedure = prepared[:4]
    padded = pad_to_multiple(jnp.asarray(image, jnp.float32)[None], network, leading=1)
    with jax.default_matmul_precision(procedure.precision):
        frozen = Frozen(
            params,
            stats,
            activations_of(network, procedure.space, params, stats, padded),
            prepared.fit,
            prepared.fit_labels,
            prepared.reference_loss,
            prepared.bound,
        )
        setup = Setup.of(network, procedure, image.shape[:-1])._replace(views=look.views)
        setup = setup._replace(views_at_once=views_at_once(setup, pass_operations(setup, frozen)))
        frozen = with_views(setup, frozen, image, key)
        return view_given(setup, frozen), view_others(setup, frozen, look)


def view_given(setup: Setup, frozen: Frozen) -> ViewMean:
    """What the given network says through the views of the case, at every pixel in order."""
    state = begin_group(setup, frozen, 1, False)[0]
    return _view(setup, frozen, state.z)


def view_others(setup: Setup, frozen: Frozen, look: Look) -> ViewMean | None:
    """What further models say through the views of the case `[r p]`, at every pixel in order."""
    if look.others is None:
        return None
    said = [_view(setup, frozen, z) for z in look.others()]
    return jax.tree.map(lambda *values: jnp.stack(values), *said)


def _view(setup: Setup, frozen: Frozen, z: Moving) -> ViewMean:
    assert frozen.viewed is not None
    pixels = math.prod(setup.shape)
    target = Target(jnp.arange(pixels), jnp.zeros(pixels, jnp.int32), jnp.ones(pixels))
    sums = no_views(pixels, frozen.viewed.given.shape[-1])
    for start in view_starts(setup):
        sums = add_member_views(setup, frozen, target, z, frozen.stats, jnp.asarray(start), sums)
    return mean_of_member_views(setup, frozen, target, sums)


def at_targets(said: ViewMean, points: Int[Array | np.ndarray, "t p"]) -> ViewMean:
    """What is said `[... pixels]` at the points of targets, `[t ... p]`."""

    def take(values: Array, axis: int) -> Array:
        return jnp.moveaxis(jnp.take(values, jnp.asarray(points), axis=axis), axis, 0)

    axis = said.disagreement.ndim - 1
    return ViewMean(take(said.probs, axis), take(said.disagreement, axis))
