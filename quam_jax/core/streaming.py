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
from .types import Uncertainty


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
    sums: RunningSums, probs: Float[Array, "n p c"], log_weight: Float[Array, " n"], anchor: Float[Array, "p c"]
) -> RunningSums:
    """The sums with some more samples; a sample of log-weight -inf may hold anything."""
    top = jnp.maximum(sums.top, jnp.max(log_weight))
    origin = jnp.where(jnp.isfinite(top), top, 0.0)  # all -inf so far
    weight = jnp.exp(log_weight - origin)
    counts = log_weight > -jnp.inf  # a weight that underflows beside a larger one still counts as a sample
    probs = jnp.where(counts[:, None, None], probs, anchor[None])
    floor = jnp.finfo(probs.dtype).tiny
    anchor = jnp.maximum(anchor, floor)
    terms = (
        weight,
        counts.astype(jnp.float32),
        probs,
        entropy(probs),
        jnp.sum(divergence_terms(probs, anchor[None]), -1),
        jnp.sum(divergence_terms(anchor[None], jnp.maximum(probs, floor)), -1),
    )
    before = jnp.exp(sums.top - origin)
    new = [before * old + jnp.tensordot(weight, term, 1) for old, term in zip(sums[3:], terms[2:], strict=True)]
    return RunningSums(top, before * sums.weight + jnp.sum(weight), sums.count + jnp.sum(terms[1]), *new)


@jax.jit
def _with_weight(
    sums: RunningSums, probs: Float[Array, "p c"], weight: Float[Array, ""], anchor: Float[Array, "p c"]
) -> RunningSums:
    """One sample more, its weight relative to the sums' own scale."""
    return add_samples(sums._replace(top=jnp.zeros(())), probs[None], jnp.log(weight)[None], anchor)


def close_sums(
    sums: RunningSums,
    reference: Float[Array | np.ndarray, "p c"],
    anchor: Float[Array | np.ndarray, "p c"],
    *,
    include_reference: bool,
) -> RunningSums:
    """The sums as means, the reference among the samples: it counts as one more of the average weight when included.

    Where no sample counts the reference has all the weight.
    """
    empty = sums.count == 0
    if include_reference or bool(empty):
        sums = _with_weight(sums, reference, jnp.where(empty, 1.0, sums.weight / jnp.maximum(sums.count, 1)), anchor)
    means = [value / sums.weight for value in sums[3:]]
    return RunningSums(jnp.zeros(()), jnp.ones(()), sums.count, *means)


def mix(sums: Sequence[RunningSums]) -> RunningSums:
    """Closed sums of several searches as one mixture of equal shares; all of one anchor."""
    return jax.tree.map(lambda *values: sum(values[1:], values[0]) / len(values), *sums)


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
