"""A network of a hundred weights that compiles fast, for tests of everything around networks.

It has what matters: BatchNorm, channel dropout, two cuts, and sides that have to be even (which nothing in it needs). Its
activations are smooth, so that rounding never decides between two paths and equal computations stay equal over many steps.
"""

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from quam_jax.config import ExecutionConfig, SampleConfig, SearchConfig
from quam_jax.config.build import build_layout
from quam_jax.core.network import EVAL, Mode
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import FitData, Targets, Trajectory
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.predict import fit_data
from quam_jax.models.prepare import prepare
from quam_jax.networks import Architecture, added
from quam_jax.networks.dropout import ChannelDropout
from quam_jax.networks.layers import Conv
from quam_jax.networks.norms import BatchNorm
from quam_jax.targets.masks import mask_targets

SIZE = (8, 12)
NO_VIEWS = SampleConfig(views="none")  # for tests of something else: views take most of the compiler's time


class TinyNet(nnx.Module):
    """A 3x3 convolution, BatchNorm, dropout, and two 1x1 convolutions; image sides must be even."""

    size_multiple = 2
    cuts = {"head": ("head",), "last_block": ("last", "head")}
    calls = 0  # how often Python ran the network: once a compilation and pass

    def __init__(self, in_channels: int, n_classes: int, channels: int = 4, *, drop: float = 0.0, rngs: nnx.Rngs):
        self.first = Conv(in_channels, channels, 3, rngs=rngs)
        self.norm = BatchNorm(channels)
        self.last = Conv(channels, channels, 1, rngs=rngs)
        self.head = Conv(channels, n_classes, 1, rngs=rngs)
        self.dropout = ChannelDropout(drop)

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut."""
        TinyNet.calls += 1
        last = self.dropout(jax.nn.silu(self.norm(self.first(x), mode)), mode)
        return last if cut == "last_block" else jax.nn.silu(self.last(last))

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b h w c"]:
        """Logits from the activation in front of the cut."""
        return self.head(jax.nn.silu(self.last(activation)) if cut == "last_block" else activation)


TINY = Architecture("tiny", TinyNet)


def tiny_network() -> AbstractContextManager[None]:
    """Make the architecture `tiny` known inside the block; blocks may be nested."""
    return added(TINY)


def tiny_model(*, classes: int = 2, drop: float = 0.0, seed: int = 0) -> SegmentationModel:
    """A model with random weights and statistics that are no identity."""
    network = Network.create("tiny", in_channels=2, n_classes=classes, drop=drop)
    rng = np.random.default_rng(seed)
    params, stats = network.shapes()
    params = {n: jnp.asarray(rng.standard_normal(s) * (0.3 if len(s) > 1 else 0.1), jnp.float32) for n, s in params.items()}
    stats = {n: jnp.asarray(rng.uniform(0.5, 1.5, s), jnp.float32) for n, s in stats.items()}
    return SegmentationModel(network, params, stats)


def picture_model() -> SegmentationModel:
    """A tiny model of grey pictures that says how they are prepared; only to be used where `tiny` is known."""
    network = Network.create("tiny", in_channels=1, n_classes=2)
    rng = np.random.default_rng(5)
    params, stats = network.shapes()
    params = {n: jnp.asarray(rng.standard_normal(s) * 0.3, jnp.float32) for n, s in params.items()}
    stats = {n: jnp.ones(s, jnp.float32) for n, s in stats.items()}
    return SegmentationModel(network, params, stats, {"preprocessing": {"normalise": "zscore", "channels": 1}})


def tiny_image(*, size: tuple[int, int] = SIZE, seed: int = 1) -> Float[np.ndarray, "h w 2"]:
    """A random image."""
    return np.random.default_rng(seed).standard_normal((*size, 2)).astype(np.float32)


def tiny_fit(model: SegmentationModel, *, batches: int = 3, size: tuple[int, int] = SIZE, seed: int = 2) -> FitData:
    """Random fit batches of two images."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((batches, 2, *size, 2)).astype(np.float32)
    labels = rng.integers(0, model.network.classes, (batches, 2, *size))
    return fit_data(model, images, labels)


def tiny_targets(*, members: int = 3, size: tuple[int, int] = SIZE, classes: int = 2, seed: int = 3) -> Targets:
    """One target of all pixels with another random mask for each member."""
    rng = np.random.default_rng(seed)
    return mask_targets([jnp.asarray(rng.integers(0, classes, size)) for _ in range(members)], members=members)


def numpy_cross_entropy(logits: Any, labels: Any) -> float:
    """Mean of -log softmax at the labels, in float64 and written out."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    values = [-logp[index][labels[index]] for index in np.ndindex(labels.shape) if labels[index] >= 0]
    return float(np.mean(values))


def search(
    model: SegmentationModel,
    image: Any,
    fit: FitData,
    *,
    targets: Targets,
    config: SearchConfig,
    key: Any,
    execution: ExecutionConfig | None = None,
) -> Trajectory:
    """A search under settings, from the model to the trajectory."""
    execution = execution or ExecutionConfig()
    prepared = prepare(model, fit, config)
    return search_prepared(prepared, image, targets, key=key, layout=build_layout(execution))
