"""Monte Carlo dropout (Gal and Ghahramani 2016): passes with the network's own dropout switched on.

BatchNorm stays on its running statistics unless the published variant is asked for. A network without dropout can have one
injected: value dropout on the activation in front of the head, so that the trunk runs once.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ..core.compilation import jit
from ..core.network import DrawnNoise, Mode, pad_to_multiple
from ..core.types import Samples
from ..models.model import Network, Parameters, SegmentationModel
from .method import Method, MethodOptions, Outcome, Run, Settings, Subject, outcome_of
from .records import as_samples, check_image, head_features, head_logits
from .views import through_views, views_for


class _Counted:
    """A source of noise that only counts how often it is asked."""

    def __init__(self) -> None:
        self.count = 0

    def keep(self, shape: tuple[int, ...], rate: float) -> Float[Array, "..."]:
        self.count += 1
        return jnp.ones(shape)


def dropout_layers(network: Network) -> int:
    """How many dropout layers with a rate above 0 a forward pass meets."""
    counted = _Counted()
    multiple = network.size_multiple
    sides = (multiple,) * network.rank if isinstance(multiple, int) else multiple
    params, stats = ({n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in shapes.items()} for shapes in network.shapes())
    image = jax.ShapeDtypeStruct((1, *(4 * n for n in sides), network.in_channels), jnp.float32)
    jax.eval_shape(lambda p, s, x: network.apply(p, s, x, Mode(noise=counted))[0], params, stats, image)
    return counted.count


def mc_dropout(
    model: SegmentationModel,
    image: Float[ArrayLike, "*space i"],
    *,
    samples: int = 16,
    key: Key[Array, ""],
    inject: float = 0.0,
    batch_statistics: bool = False,
) -> Samples:
    """`samples` stochastic passes of equal weight; sample n uses `fold_in(key, n)`.

    `inject` > 0 drops values in front of the head at that rate instead of the network's own dropout. `batch_statistics`
    normalises by the image itself, as the published code does. ValueError for a network without dropout, unless injected.
    """
    x = check_image(model, image)
    if samples < 1:
        raise ValueError(f"mc_dropout: expected at least one sample, got {samples}")
    if not 0.0 <= inject < 1.0:
        raise ValueError(f"mc_dropout: --inject-dropout: expected a rate 0 <= rate < 1, got {inject}")
    keys = [jax.random.fold_in(key, n) for n in range(samples)]
    if inject:
        features = head_features(model, x[None])
        kept = (jax.random.bernoulli(k, 1.0 - inject, features.shape) / (1.0 - inject) for k in keys)
        return as_samples(jnp.concatenate([jax.nn.softmax(head_logits(model, features * keep)) for keep in kept]))
    if dropout_layers(model.network) == 0:
        raise ValueError(
            f"mc_dropout: {model.network.architecture}: expected a network with dropout, got one without; "
            "--inject-dropout RATE drops values in front of its head"
        )
    padded = pad_to_multiple(x[None], model.network, leading=1)
    crop = tuple(slice(n) for n in (1, *x.shape[:-1]))
    passes = [_pass(model.network, batch_statistics, model.params, model.stats, padded, k)[crop] for k in keys]
    return as_samples(jnp.concatenate(passes))


@jit(static_argnums=(0, 1))
def _pass(network: Network, batch_statistics: bool, params: Parameters, stats: Parameters, image: Array, key: Any) -> Array:
    return jax.nn.softmax(network.apply(params, stats, image, Mode(batch_statistics, DrawnNoise(key)))[0])


def _start(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = mc_dropout(subject.model, image, key=key, samples=16, **settings)
        # injected dropout sits in front of the head, so that the trunk runs once
        return outcome_of(samples, image.shape[:-1], forward=1 if settings.get("inject") else 16)

    return run


def mc_dropout_views(
    model: SegmentationModel,
    image: Float[ArrayLike, "*space i"],
    *,
    samples: int = 2,
    key: Key[Array, ""],
    views: str = "standard",
    **settings: Any,
) -> Samples:
    """`samples` stochastic passes of every view, of equal weight; ValueError as `mc_dropout`, and for unknown views."""
    x = check_image(model, image)
    chosen = views_for(x, views)

    def draw(seen: Float[Array, "v *space i"]) -> Float[Array, "v n *space c"]:
        drawn = [
            mc_dropout(model, one, samples=samples, key=jax.random.fold_in(key, n), **settings) for n, one in enumerate(seen)
        ]
        return jnp.stack([one.probs[0].reshape(samples, *x.shape[:-1], -1) for one in drawn])

    said = through_views(draw, x, views=chosen, key=key)
    return as_samples(said.reshape(-1, *said.shape[2:]))


def _start_views(subject: Subject, settings: Settings) -> Run:
    def run(image: np.ndarray, key: Key[Array, ""]) -> Outcome:
        samples = mc_dropout_views(subject.model, image, key=key, **settings)
        count = samples.probs.shape[1]
        return outcome_of(samples, image.shape[:-1], forward=count // 2 if settings.get("inject") else count)

    return run


def _rates(options: MethodOptions) -> tuple[Settings, ...]:
    """The injected rates to choose from, the given one first; a network with dropout of its own has nothing to choose."""
    if options.inject_dropout is None:
        return ({},)
    return tuple({"inject": rate} for rate in dict.fromkeys((options.inject_dropout, 0.1, 0.3, 0.5, 0.7)))


def _serves(model: SegmentationModel, options: MethodOptions) -> bool:
    return options.inject_dropout is not None or dropout_layers(model.network) > 0


METHODS = (
    Method("mc_dropout", _start, mc_dropout, grid_for=_rates, serves=_serves, place=5),
    Method("mc_dropout_views", _start_views, mc_dropout_views, grid_for=_rates, serves=_serves, control=True, place=17),
)
