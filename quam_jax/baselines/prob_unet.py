"""Probabilistic U-Net (Kohl et al. 2018): samples of one network with a latent vector, and the bound that trains it.

The network (`networks.prob_unet`) is trained by `training.train(..., loss=prob_unet_loss)` on one mask of one rater at a time,
so that the latent vector learns how raters differ.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key

from ..core.compilation import jit
from ..core.network import Mode, pad_to_multiple
from ..core.types import Samples
from ..models.model import Network, Parameters, SegmentationModel
from .method import Method, with_own_network
from .records import as_samples, check_image

BETA = 1.0  # weight of the divergence of the posterior from the prior, in nats an image


def prob_unet(model: SegmentationModel, image: Float[ArrayLike, "h w i"], *, samples: int = 16, key: Key[Array, ""]) -> Samples:
    """`samples` predictions of equal weight, each with a latent vector drawn from the image's prior; sample n uses
    `fold_in(key, n)`.

    ValueError for a network of another architecture, or without a sample.
    """
    network = model.network
    if network.architecture != "prob_unet":
        raise ValueError(f"prob_unet: expected a network of architecture prob_unet, got {network.architecture}")
    if samples < 1:
        raise ValueError(f"prob_unet: expected at least one sample, got {samples}")
    x = check_image(model, image)
    activation = _activation(network, model.params, model.stats, pad_to_multiple(x[None], network, leading=1))
    crop = tuple(slice(n) for n in (1, *x.shape[:-1]))
    probs = [_sample(network, model.params, model.stats, activation, jax.random.fold_in(key, n))[crop] for n in range(samples)]
    return as_samples(jnp.concatenate(probs))


@jit(static_argnums=0)
def _activation(network: Network, params: Parameters, stats: Parameters, images: Array) -> Array:
    return network.trunk(params, stats, images, cut="last_block")


@jit(static_argnums=0)
def _sample(network: Network, params: Parameters, stats: Parameters, activation: Array, key: Key[Array, ""]) -> Array:
    latent = dict(network.arguments)["latent"]
    mean, log_deviation = activation[:, :1, :1, -2 * latent : -latent], activation[:, :1, :1, -latent:]
    z = mean + jnp.exp(log_deviation) * jax.random.normal(key, mean.shape)
    return jax.nn.softmax(network.tail(params, stats, with_latent(activation, z), cut="last_block")[0])


def with_latent(activation: Float[Array, "b h w f"], z: Float[Array, "b 1 1 l"]) -> Float[Array, "b h w f"]:
    """The activation in front of the last block with another latent vector in the place of the prior's mean."""
    latent, space = z.shape[-1], activation.shape[:-1]
    return jnp.concatenate([activation[..., : -2 * latent], jnp.broadcast_to(z, (*space, latent)), activation[..., -latent:]], -1)


def prob_unet_loss(
    network: Network,
    params: Parameters,
    stats: Parameters,
    images: Float[Array, "b h w i"],
    targets: Float[Array, "b h w c"],
    *,
    key: Key[Array, ""],
    mode: Mode,
    dice_weight: float | Array,
) -> tuple[Array, Parameters]:
    """The negative evidence lower bound (Kohl et al. 2018, eq. 4) in nats a pixel: the cross-entropy at one latent vector of the
    posterior, plus the divergence of posterior from prior over the number of pixels. `dice_weight` is not used.

    Rows of zeros in `targets` do not count.
    """
    latent = dict(network.arguments)["latent"]
    activation = network.trunk(params, stats, images, cut="last_block")
    posterior = network.trunk(params, stats, jnp.concatenate([images, targets], -1), cut="posterior")
    mean, log_deviation = posterior[..., :latent], posterior[..., latent:]
    z = mean + jnp.exp(log_deviation) * jax.random.normal(key, mean.shape)
    logits, after = network.tail(params, stats, with_latent(activation, z), mode, cut="last_block")
    count = jnp.maximum(jnp.sum(targets), 1.0)
    cross_entropy = -jnp.sum(targets * jax.nn.log_softmax(logits)) / count
    prior = activation[:, :1, :1, -2 * latent :]
    divergence = jnp.sum(gaussian_divergence(mean, log_deviation, prior[..., :latent], prior[..., latent:]))
    return cross_entropy + BETA * divergence / count, after


prob_unet_loss.of_network = True  # type: ignore[attr-defined]  # needs more than logits


def gaussian_divergence(mean: Array, log_deviation: Array, prior_mean: Array, prior_log_deviation: Array) -> Array:
    """Kullback-Leibler divergence of one Gaussian from another, a number for every entry of the vector, in nats."""
    return (
        prior_log_deviation
        - log_deviation
        - 0.5
        + (jnp.exp(2 * log_deviation) + jnp.square(mean - prior_mean)) / (2 * jnp.exp(2 * prior_log_deviation))
    )


METHODS = (Method("prob_unet", with_own_network("prob_unet", prob_unet), prob_unet, trained=True, place=8),)
