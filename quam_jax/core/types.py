"""The records that the modules exchange, and the letters that name their axes.

Array records are NamedTuples (pytrees without registration). Axis letters, used in every signature: `b` batch, `*space`
height width (depth), `i` input channels, `c` classes, `k` fit batches, `t` targets, `m` adversarial models of one target,
`p` points of a target, `*points` [t p], [p] or a single one, `s` recorded steps, `r` models of another origin, `n` samples (m*s
of a search, or the passes of a baseline), `a` annotators (raters). Channels come last.
"""

from typing import NamedTuple

from jaxtyping import Array, Float, Int


class Targets(NamedTuple):
    """Points of the image with the labels wanted there; a mask, a region and a pixel are all of this type.

    `points` are flat indices into the image, `labels` are wanted of each of the `m` adversarial models of a target, `weights`
    are >= 0 and 0 marks padding.
    """

    points: Int[Array, "t p"]
    labels: Int[Array, "t m p"]
    weights: Float[Array, "t p"]


class FitData(NamedTuple):
    """What an adversarial model must still explain, in batches; a label of -1 is ignored (padding)."""

    images: Float[Array, "k b *space i"]
    labels: Int[Array, "k b *space"]

    def __repr__(self) -> str:
        return f"FitData(images {list(self.images.shape)}, labels {list(self.labels.shape)})"


class ViewMean(NamedTuple):
    """What one model says through several views of the image: enough to decompose it as the single predictions would.

    `probs` is their mean, `disagreement` the mean divergence KL(p_v | mean) of a view from it in nats (the Jensen-Shannon
    divergence), so that the mean of their entropies is H(probs) - disagreement.
    """

    probs: Float[Array, "*points c"]
    disagreement: Float[Array, "*points"]


class Trajectory(NamedTuple):
    """The recorded steps of a search: predictions at the target's points and the losses beside them, in nats.

    All numbers of a record belong to one fit batch: `reference_loss` is the given network's loss on it and `bound` that loss
    plus the slack, so that a record is feasible iff fit_loss <= bound.

    Where the search looked through views, `viewed` is what every recorded model says through them, and `given` what the given
    network does; records that may not count were spared their passes. `others` is what models of another origin say (random
    directions), where some were asked.
    """

    probs: Float[Array, "t m s p c"]
    objective: Float[Array, "t m s"]
    fit_loss: Float[Array, "t m s"]
    bound: Float[Array, "t m s"]
    penalty: Float[Array, "t m s"]
    reference_loss: Float[Array, "t m s"]
    viewed: ViewMean | None = None  # [t m s p]
    given: ViewMean | None = None  # [t p]
    others: ViewMean | None = None  # [t r p]


class Samples(NamedTuple):
    """Where every method ends: class probabilities and their weights, which sum to 1 over `n`.

    A sample may stand for several views of one model: `probs` is their mean then, with their `disagreement` (see ViewMean);
    without it every sample is one prediction.
    """

    probs: Float[Array, "t n p c"]
    weights: Float[Array, "t n"]
    disagreement: Float[Array, "t n p"] | None = None


class Uncertainty(NamedTuple):
    """Total, aleatoric and epistemic uncertainty in nats; total = aleatoric + epistemic."""

    total: Float[Array, "*points"]
    aleatoric: Float[Array, "*points"]
    epistemic: Float[Array, "*points"]
