"""Decomposition without the samples: sums over them that are kept while they come and go.

A volume's samples would not fit in memory, and their weights are known only when the last has been seen. So each new sample
adds to a few sums under a weight relative to the largest so far (`exp(l - top)`), and the end divides by the sum of weights.
The sums give what decomposition.py gives on the samples themselves. Divergences are taken from a fixed anchor near all
samples, because sum w KL(p | mean) = sum w KL(p | anchor) - KL(mean | anchor) keeps its precision where an entropy minus an
entropy would not.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .decomposition import divergence_terms, entropy
from .types import Uncertainty, ViewMean
from .weighting import Given, given_share, others_share


class RunningSums(NamedTuple):
    """Sums over samples of one target, all under weights relative to `exp(top)`.

    `top` is the largest log-weight so far, `weight` the sum of weights, `count` the samples that count; `probs` sums
    w p, `entropy` w H(p), `from_anchor` w KL(p | anchor), `to_anchor` w KL(anchor | p), in nats.
    """

    top: Float[Array, ""]
    weight: Float[Array, ""]
    count: Float[Array, ""]  # type: ignore[assignment]  # tuple.count is not used
    probs: Float[Array, "p c"]
    entropy: Float[Array, " p"]
    from_anchor: Float[Array, " p"]
    to_anchor: Float[Array, " p"]


def no_samples(points: int, classes: int) -> RunningSums:
    """The sums before the first sample."""
    zero, flat = jnp.zeros(()), jnp.zeros(points)
    return RunningSums(jnp.asarray(-jnp.inf), zero, zero, jnp.zeros((points, classes)), flat, flat, flat)


@jax.jit
def add_samples(
    sums: RunningSums,
    probs: Float[Array, "n p c"],
    log_weight: Float[Array, " n"],
    anchor: Float[Array, "p c"],
    viewed: ViewMean | None = None,
) -> RunningSums:
    """The sums with some more samples; a sample of log-weight -inf may hold anything.

    Of models that looked through views `viewed` counts in place of `probs`; then `to_anchor` is that of their means alone.
    """
    probs = probs if viewed is None else viewed.probs
    top = jnp.maximum(sums.top, jnp.max(log_weight))
    origin = jnp.where(jnp.isfinite(top), top, 0.0)  # all -inf so far
    weight = jnp.exp(log_weight - origin)
    counts = log_weight > -jnp.inf  # a weight that underflows beside a larger one still counts as a sample
    probs = jnp.where(counts[:, None, None], probs, anchor[None])
    floor = jnp.finfo(probs.dtype).tiny
    anchor = jnp.maximum(anchor, floor)
    within = 0.0 if viewed is None else jnp.where(counts[:, None], viewed.disagreement, 0.0)
    terms = (
        weight,
        counts.astype(jnp.float32),
        probs,
        jnp.maximum(entropy(probs) - within, 0.0),
        jnp.sum(divergence_terms(probs, anchor[None]), -1) + within,
        jnp.sum(divergence_terms(anchor[None], jnp.maximum(probs, floor)), -1),
    )
    before = jnp.exp(sums.top - origin)
    new = [before * old + jnp.tensordot(weight, term, 1) for old, term in zip(sums[3:], terms[2:], strict=True)]
    return RunningSums(top, before * sums.weight + jnp.sum(weight), sums.count + jnp.sum(terms[1]), *new)


def close_sums(
    sums: RunningSums,
    reference: Float[Array | np.ndarray, "p c"],
    anchor: Float[Array | np.ndarray, "p c"],
    *,
    given: Given,
    viewed: ViewMean | None = None,
    others: ViewMean | None = None,
) -> RunningSums:
    """The sums as means, with the given network (`reference`, or what it says through views) among them: see `given_share`.

    `others` are what models of another origin say `[r p]`: see `others_share`.
    """
    count, found = sums.count, means(add_one(no_samples(*reference.shape), reference, anchor, viewed))
    if count:
        share = given_share(count, given)
        found = mix([means(sums), found], [1.0 - share, share])
    if others is not None:
        equal = jnp.zeros(len(others.probs))
        further = means(add_samples(no_samples(*reference.shape), others.probs, equal, jnp.asarray(anchor), others))
        found = mix([found, further], [1.0 - others_share(given), others_share(given)])
    return found._replace(count=count)


def add_one(
    sums: RunningSums,
    probs: Float[Array | np.ndarray, "p c"],
    anchor: Float[Array | np.ndarray, "p c"],
    viewed: ViewMean | None = None,
) -> RunningSums:
    """The sums with one sample more, of log-weight 0."""
    several = None if viewed is None else jax.tree.map(lambda values: values[None], viewed)
    return add_samples(sums, jnp.asarray(probs)[None], jnp.zeros(1), jnp.asarray(anchor), several)


def means(sums: RunningSums) -> RunningSums:
    """The sums of some samples as means."""
    return RunningSums(jnp.zeros(()), jnp.ones(()), sums.count, *(value / sums.weight for value in sums[3:]))


def mix(sums: Sequence[RunningSums], shares: Sequence[float | Float[Array, ""]] | None = None) -> RunningSums:
    """Means of several searches as one mixture, of equal shares unless they are given; all of one anchor."""
    weights = [1.0 / len(sums)] * len(sums) if shares is None else shares
    return jax.tree.map(lambda *values: sum(w * value for w, value in zip(weights, values, strict=True)), *sums)


def decompose_sums(
    sums: RunningSums,
    anchor: Float[Array | np.ndarray, "p c"],
    *,
    setting: Literal["mutual_information", "cross_entropy"] = "mutual_information",
) -> Uncertainty:
    """Total, aleatoric and epistemic uncertainty `[p]` of closed sums; setting (b) is around the anchor."""
    if setting == "cross_entropy":
        aleatoric, epistemic = entropy(anchor), sums.to_anchor
    else:
        aleatoric = sums.entropy
        floored = jnp.maximum(anchor, jnp.finfo(anchor.dtype).tiny)  # the identity holds for any positive anchor
        epistemic = jnp.maximum(sums.from_anchor - jnp.sum(divergence_terms(sums.probs, floored), -1), 0.0)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)
