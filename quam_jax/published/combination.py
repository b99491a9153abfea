"""The combination rules, decompositions and morphology of the published QUAM-SM code, number for number.

They differ from weighting.py, decomposition.py and targets.py in their clamps, in what they do with edge
cases and in the layout: arrays are `[b s m c *space]` (without space for classification) with steps before
models, as the published code stores them. Use them to compare with published results, and the other modules
for new work. Everything is computed in numpy in the precision of the input. `best_prediction` and
`published_uncertainty` take this package's `Trajectory`.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from ..core.types import Trajectory, Uncertainty

MEAN_CLAMP = 1e-8  # setting (a): lower bound of a probability, and what is added to the sum of the weights
REFERENCE_SHIFT = 1e-10  # setting (b): what is added to a probability before its logarithm


class Combined(NamedTuple):
    """Predictions and the weights of their (step, model) pairs, which sum to 1 for each image."""

    preds: Float[np.ndarray, "b s m c *space"]
    weights: Float[np.ndarray, "b s m"]


class Selected(NamedTuple):
    """The chosen prediction of each model, and the objective with inf where no feasible window starts."""

    preds: Float[np.ndarray, "b 1 m c *space"]
    objective: Float[np.ndarray, "b s m *entries"]


def combine_mis(
    preds: Float[np.ndarray, "b s m c *space"],
    loss: Float[np.ndarray, "b s m *entries"],
    *,
    temperature: float = 1.0,
    num_samples: int | None = None,
) -> Combined:
    """Published `mis`: weights exp(-loss/T) over the (step, model) pairs of an image.

    Only the first `num_samples` steps count, where it is given. Of a loss with a fourth axis, entry 1 is
    taken, or the only one. ValueError on a loss with more axes.
    """
    preds, loss = _first_steps(preds, loss, num_samples)
    if loss.ndim > 3:
        loss = loss[..., 1] if loss.shape[-1] > 1 else loss.mean(tuple(range(3, loss.ndim)))
    return Combined(preds, _loss_weights(loss, temperature))


def combine_softmax(
    preds: Float[np.ndarray, "b s m c *space"],
    loss: Float[np.ndarray, "b s m *entries"],
    *,
    temperature: float = 1.0,
    num_samples: int | None = None,
) -> Combined:
    """Published `softmax`: as `combine_mis`, but the fourth axis of a loss is averaged.

    ValueError on predictions that are not images of rank 2, which the published code does not take either.
    """
    if np.ndim(preds) != 6:
        raise ValueError(f"softmax combination: expected predictions [b s m c h w], got shape {np.shape(preds)}")
    preds, loss = _first_steps(preds, loss, num_samples)
    return Combined(preds, _loss_weights(_averaged(loss), temperature))


def combine_weighted_all(
    preds: Float[np.ndarray, "b s m c *space"],
    loss: Float[np.ndarray, "b s m *entries"],
    *,
    temperature: float = 1.0,
) -> Combined:
    """Published `weighted_all`: the weights of `combine_softmax` for predictions of any rank."""
    return Combined(np.asarray(preds), _loss_weights(_averaged(np.asarray(loss)), temperature))


def combine_all(preds: Float[np.ndarray, "b s m c *space"]) -> Float[np.ndarray, "b s m c *space"]:
    """Published `all`: every prediction, unweighted."""
    return np.asarray(preds)


def combine_last(preds: Float[np.ndarray, "b s m c *space"]) -> Float[np.ndarray, "b 1 m c *space"]:
    """Published `last`: each model's last step."""
    return np.asarray(preds)[:, -1:]


def combine_best(
    preds: Float[np.ndarray, "b s m c *space"],
    *,
    train_loss: Float[np.ndarray, "b s m *entries"],
    objective: Float[np.ndarray, "b s m *entries"],
    reference_loss: Float[np.ndarray, " n *one"],
    reference: Float[np.ndarray, "b c *space"],
    window: int = 1,
    slack: float = 1e-2,
) -> Selected:
    """Published `best`: of each model the prediction where the feasible window of smallest objective starts.

    A window of `window` steps is feasible if reference_loss > train_loss - slack at all of them, where step s
    is compared with reference loss s, cyclically if there are fewer; the first window always is. Of losses
    with a fourth axis, entry 1 of the train loss and entry 0 of the objective count. With fewer steps than
    the window it is the last step, and without steps or models the reference. The published code writes the
    infinities into its caller's array; here a copy is returned. ValueError if a loss does not reduce to `[b s
    m]`.
    """
    preds, changed = np.asarray(preds), np.array(objective)
    steps = preds.shape[1]
    if steps < window:
        chosen = preds[:, -1:] if steps and preds.shape[2] else np.asarray(reference)[:, None, None]
        return Selected(chosen, changed)
    train = _entry(np.asarray(train_loss), 1, "train loss")
    judged = _entry(changed, 0, "objective")
    bound = np.resize(np.asarray(reference_loss).reshape(-1), steps)  # repeats it cyclically
    passed = np.asarray(sliding_window_view(bound[:, None] > train - slack, window, axis=1).all(-1))
    passed[:, 0] = True
    starts = judged[:, : passed.shape[1]]
    starts[~passed] = np.inf  # a view: this writes into `changed`
    index = np.argmin(starts, 1)[:, None, :]
    index = index.reshape(*index.shape, *(1,) * (preds.ndim - 3))
    return Selected(np.take_along_axis(preds, index, 1), changed)


def uncertainty_a(preds: Float[np.ndarray, "b s m c *space"], weights: Float[np.ndarray, "b u v"] | None = None) -> Uncertainty:
    """Published setting (a): entropy of the mean prediction, split into the mean entropy and the rest.

    Probabilities are clamped to [1e-8, 1] without being normalised again, and weights are divided by their
    sum + 1e-8. Of the flattened samples only as many count as there are weights. Results `[b *space]`, for
    classification squeezed.
    """
    q, w = _flattened(preds, weights)
    q = np.clip(q, q.dtype.type(MEAN_CLAMP), q.dtype.type(1))
    if w is None:
        mean, aleatoric = q.mean(1), _entropy(q, 2).mean(1)
    else:
        w = w / (w.sum(1, keepdims=True) + w.dtype.type(MEAN_CLAMP))
        mean, aleatoric = _weighted_sum(w, q), _weighted_sum(w, _entropy(q, 2))
    return _result(_entropy(mean, 1), aleatoric, squeeze=np.ndim(preds) == 4)


def uncertainty_b(
    reference: Float[np.ndarray, "b c *space"],
    preds: Float[np.ndarray, "b s m c *space"],
    weights: Float[np.ndarray, "b u v"] | None = None,
) -> Uncertainty:
    """Published setting (b): cross-entropy to the reference, split into the reference's entropy and the rest.

    1e-10 is added to a probability before its logarithm (and to the factor in the entropy); weights are used
    as they are. Of the flattened samples only as many count as there are weights. Results `[b *space]`, for
    classification squeezed.
    """
    q, w = _flattened(preds, weights)
    p = np.asarray(reference)
    crossed = -np.sum(p[:, None] * np.log(q + q.dtype.type(REFERENCE_SHIFT)), 2)
    total = crossed.mean(1) if w is None else _weighted_sum(w, crossed)
    aleatoric = _entropy(p + p.dtype.type(REFERENCE_SHIFT), 1)
    return _result(total, aleatoric, squeeze=p.ndim == 2)


def best_prediction(trajectory: Trajectory) -> Float[np.ndarray, "t m p c"]:
    """The search's own best: each member's step of LARGEST objective among those with penalty <= 0.

    Ties go to the first step; zeros where no step qualifies. This is the published `test_best_pred`, which
    maximises what the search minimises.
    """
    probs, objective, penalty = (np.asarray(x) for x in (trajectory.probs, trajectory.objective, trajectory.penalty))
    qualifies = (penalty <= 0) & (objective == objective)
    best = np.argmax(np.where(qualifies, objective, -np.inf), 2)[..., None]
    chosen = np.take_along_axis(probs, best[..., None, None], 2)[:, :, 0]
    return np.where(np.take_along_axis(qualifies, best, 2)[..., None], chosen, np.zeros((), probs.dtype))


def published_uncertainty(trajectory: Trajectory) -> Uncertainty:
    """The published way from a search to its maps: mis weights at T = 1 over every sample, then setting (a).

    Samples that are not finite get no weight, where the published code would return only NaN; a target
    without any finite sample gets NaN.
    """
    probs, loss = np.asarray(trajectory.probs), np.asarray(trajectory.fit_loss)
    finite = np.isfinite(probs).all((-2, -1)) & np.isfinite(loss)
    preds = np.where(finite[..., None, None], probs, 1.0 / probs.shape[-1]).astype(probs.dtype)
    loss = np.where(finite, loss, np.inf).astype(loss.dtype)
    loss[~finite.any((1, 2))] = np.nan
    combined = combine_mis(preds.transpose(0, 2, 1, 4, 3), loss.transpose(0, 2, 1))
    return uncertainty_a(combined.preds, combined.weights)


def dilate_published(labels: Int[np.ndarray, "*space"], *, kernel: int = 3, iterations: int = 1) -> Int[np.ndarray, "*space"]:
    """1 where the labels under a square kernel sum to more than 0, so that any label map becomes binary."""
    for _ in range(iterations):
        labels = (_window_sum(labels, kernel) > 0).astype(np.int64)
    return np.asarray(labels)


def erode_published(labels: Int[np.ndarray, "*space"], *, kernel: int = 3, iterations: int = 1) -> Int[np.ndarray, "*space"]:
    """1 where the labels under a square kernel sum to its size, with background outside the image.

    Labels above 1 can stand in for absent neighbours; only for a binary mask is this an erosion.
    """
    for _ in range(iterations):
        labels = (_window_sum(labels, kernel) == kernel ** np.ndim(labels)).astype(np.int64)
    return np.asarray(labels)


def _window_sum(labels: Int[np.ndarray, "*space"], kernel: int) -> Int[np.ndarray, "*space"]:
    padded = np.pad(np.asarray(labels, np.int64), kernel // 2)
    windows = sliding_window_view(padded, (kernel,) * padded.ndim)
    return windows.sum(tuple(range(padded.ndim, windows.ndim)))


def _first_steps(preds: np.ndarray, loss: np.ndarray, num_samples: int | None) -> tuple[np.ndarray, np.ndarray]:
    loss = np.asarray(loss)
    count = loss.shape[1] if num_samples is None else num_samples
    return np.asarray(preds)[:, :count], loss[:, :count]


def _averaged(loss: np.ndarray) -> np.ndarray:
    return loss.mean(-1) if loss.ndim == 4 else loss


def _loss_weights(loss: np.ndarray, temperature: float) -> np.ndarray:
    if loss.ndim != 3:
        raise ValueError(f"loss: expected [b s m] or [b s m entries], got {loss.ndim} axes after its reduction")
    logits = (-loss / temperature).reshape(len(loss), -1)
    weights = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    return (weights / weights.sum(1, keepdims=True)).reshape(loss.shape)


def _entry(loss: np.ndarray, index: int, name: str) -> np.ndarray:
    if loss.ndim == 4 and loss.shape[-1] > 1:
        return loss[..., index]
    if loss.ndim != 3:
        raise ValueError(f"{name}: expected [b s m] or [b s m entries] with at least two entries, got {loss.shape}")
    return loss


def _flattened(preds: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples `[b n c *space]`, cut to the number of weights, and weights `[b n]`."""
    q = np.asarray(preds)
    q = q.reshape(q.shape[0], q.shape[1] * q.shape[2], *q.shape[3:])
    if weights is None:
        return q, None
    w = np.asarray(weights)
    w = w.reshape(len(w), -1)
    if w.shape[1] > q.shape[1]:
        raise ValueError(f"weights: expected at most {q.shape[1]} an image, got {w.shape[1]}")
    return q[:, : w.shape[1]], w


def _weighted_sum(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.sum(weights.reshape(*weights.shape, *(1,) * (values.ndim - 2)) * values, 1)


def _entropy(p: np.ndarray, axis: int) -> np.ndarray:
    return -np.sum(p * np.log(p), axis)


def _result(total: np.ndarray, aleatoric: np.ndarray, *, squeeze: bool) -> Uncertainty:
    parts: tuple[Any, ...] = (total, aleatoric, total - aleatoric)
    return Uncertainty(*(np.squeeze(part) for part in parts) if squeeze else parts)
