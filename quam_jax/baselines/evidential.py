"""An evidential network: its outputs are the evidence of a Dirichlet distribution (Sensoy et al. 2018).

Any architecture serves: concentrations are alpha = softplus(logits) + 1. It must be trained with `evidential_loss`, by
`training.train(..., loss=evidential_loss)`; an ordinary network's logits are no evidence.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, ArrayLike, Float, Key

from ..core.types import Samples
from ..models.model import SegmentationModel
from .method import Method, with_own_network
from .records import as_samples, check_image

REGULARISATION = 0.1  # weight of the divergence from a flat Dirichlet, on the evidence of wrong classes


def concentration(logits: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
    """Dirichlet concentrations, each at least 1."""
    return jax.nn.softplus(logits) + 1.0


def evidential(
    model: SegmentationModel, image: Float[ArrayLike, "*space i"], *, samples: int = 16, key: Key[Array, ""]
) -> Samples:
    """Draws of the class probabilities of every pixel from its Dirichlet, of equal weight; sample n uses `fold_in(key, n)`.

    The network must have been trained with `evidential_loss`; pixels are drawn independently, as the model has them.
    """
    if samples < 1:
        raise ValueError(f"evidential: expected at least one sample, got {samples}")
    alpha = concentration(model(check_image(model, image)[None])[0])
    return as_samples(jnp.stack([jax.random.dirichlet(jax.random.fold_in(key, n), alpha) for n in range(samples)]))


def evidential_loss(
    logits: Float[Array, "b *space c"], targets: Float[Array, "b *space c"], *, dice_weight: float | Array
) -> Float[Array, ""]:
    """Expected cross-entropy under the Dirichlet, plus 0.1 times its divergence from flat once the true evidence is removed.

    E[-ln p_k] = digamma(S) - digamma(alpha_k), S the sum of alpha (Sensoy et al. 2018, eq. 4); in nats a labelled pixel. The
    soft Dice of the mean alpha/S is added with `dice_weight`, as in `training.segmentation_loss`. Rows of zeros do not count.
    """
    alpha = concentration(logits)
    strength = jnp.sum(alpha, -1, keepdims=True)
    row = jnp.sum(targets, -1, keepdims=True)
    count = jnp.maximum(jnp.sum(row), 1.0)
    fit = jnp.sum(targets * (digamma(strength) - digamma(alpha))) / count
    wrong = targets + (1 - targets) * alpha
    flat = jnp.sum(flat_divergence(wrong) * row[..., 0]) / count
    probs, axes = alpha / strength * row, tuple(range(targets.ndim - 1))
    dice = (2 * jnp.sum(probs * targets, axes) + 1) / (jnp.sum(probs, axes) + jnp.sum(targets, axes) + 1)
    return fit + REGULARISATION * flat + dice_weight * jnp.mean(1 - dice[1:])


def flat_divergence(alpha: Float[Array, "*batch c"]) -> Float[Array, "*batch"]:
    """Kullback-Leibler divergence of a Dirichlet from the flat one, in nats."""
    strength = jnp.sum(alpha, -1)
    return (
        gammaln(strength)
        - jnp.sum(gammaln(alpha), -1)
        - gammaln(float(alpha.shape[-1]))
        + jnp.sum((alpha - 1) * (digamma(alpha) - digamma(strength)[..., None]), -1)
    )


METHODS = (Method("evidential", with_own_network("evidential", evidential), evidential, trained=True, place=7),)
