"""Uncertainty of one pixel from weighted class probabilities, in nats; the caller maps over pixels.

Setting (a) asks how far the samples disagree with their mean, setting (b) how far they disagree with the given network.
Both hold total = aleatoric + epistemic. The published variants, with their clamps, are in published.py.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr, rel_entr
from jaxtyping import Array, ArrayLike, Float

from .types import Samples, Uncertainty

SERIES = 0.1  # relative difference below which the divergence is summed as a series, exact to 1e-7 of its value
ROUNDINGS = 64  # relative difference, in units of rounding, up to which two probabilities count as equal


def entropy(probs: Float[ArrayLike, "*batch c"]) -> Float[Array, "*batch"]:
    """Shannon entropy -sum p ln p over the last axis, in nats, with 0 ln 0 = 0."""
    return jnp.sum(entr(probs), -1)


def expected_entropy(
    probs: Float[Array, "n c"], weights: Float[Array, " n"], disagreement: Float[Array, " n"] | None = None
) -> Uncertainty:
    """Setting (a) for one pixel: total H(sum w p), aleatoric sum w H(p), epistemic their difference.

    The epistemic part is the mutual information of class and model (Depeweg et al. 2018), computed as the weighted
    Kullback-Leibler divergence of the samples from their mean, which cannot become negative by cancellation. A sample that stands
    for several predictions has their `disagreement`: the mean of their entropies is the entropy of their mean less it.
    """
    mean = weights @ probs
    within = 0.0 if disagreement is None else weights @ disagreement
    aleatoric = jnp.maximum(weights @ entropy(probs) - within, 0.0)
    epistemic = weights @ jnp.sum(divergence_terms(probs, mean[None]), -1) + within
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)


def expected_cross_entropy(reference: Float[Array, " c"], probs: Float[Array, "n c"], weights: Float[Array, " n"]) -> Uncertainty:
    """Setting (b) for one pixel: total sum w CE(p*, p), aleatoric H(p*), epistemic sum w KL(p* || p) >= 0.

    Probabilities are floored at the smallest normal float32 where a sample excludes what the reference allows, so that
    the result stays finite (Schweighofer et al. 2023, QUAM, eq. 2).
    """
    aleatoric = entropy(reference)
    floor = jnp.finfo(probs.dtype).tiny
    epistemic = weights @ jnp.sum(divergence_terms(reference[None], jnp.maximum(probs, floor)), -1)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)


def divergence_terms(p: Float[Array, "*#batch c"], q: Float[Array, "*#batch c"]) -> Float[Array, "*batch c"]:
    """Terms p ln(p/q) - p + q >= 0 of the divergence of p from q; the added parts cancel between distributions.

    Axes of size 1 in front of the classes are repeated.

    For p near q the difference of logarithms is lost in rounding, so that the series in u = (p - q)/q takes over:
    q (u^2/2 - u^3/6 + u^4/12 - ...). Relative differences of a few roundings are those of two forward passes of one
    network, not of two networks, and count as none. A class that q excludes is excluded by p.
    """
    possible = q > 0
    q = jnp.where(possible, q, 1.0)
    u = (p - q) / q
    near = jnp.clip(u, -SERIES, SERIES)
    series = q * near**2 * (1 / 2 - near * (1 / 6 - near * (1 / 12 - near * (1 / 20 - near * (1 / 30 - near / 42)))))
    exact = jnp.maximum(rel_entr(p, q) - p + q, 0.0)
    alike = jnp.abs(u) <= ROUNDINGS * jnp.finfo(q.dtype).eps
    return jnp.where(possible & ~alike, jnp.where(jnp.abs(u) < SERIES, series, exact), 0.0)


def decompose(
    samples: Samples,
    reference: Float[Array | np.ndarray, "t p c"] | None = None,
    *,
    setting: Literal["mutual_information", "cross_entropy"] = "mutual_information",
) -> Uncertainty:
    """Either setting for every point of every target: maps the one-pixel functions over `t` and `p`."""
    if setting == "cross_entropy":
        if reference is None:
            raise ValueError("decomposition cross_entropy: expected the reference probabilities, got none")
        if samples.disagreement is not None:
            raise ValueError("decomposition cross_entropy: expected samples that are one prediction each, got means over views")
        per_point = jax.vmap(expected_cross_entropy, (0, 1, None))
        return jax.vmap(per_point)(jnp.asarray(reference), samples.probs, samples.weights)
    return jax.vmap(jax.vmap(expected_entropy, (1, None, 1)))(samples.probs, samples.weights, samples.disagreement)
