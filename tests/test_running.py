"""Running sums give what the samples themselves give, in any order and however they are cut into chunks."""

import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core.decomposition import decompose
from quam_jax.core.streaming import add_samples, close_sums, decompose_sums, mix, no_samples
from quam_jax.core.types import Trajectory
from quam_jax.core.weighting import Given, Rule, log_weights, to_samples, trajectory_weights

MEMBERS, STEPS, POINTS, CLASSES = 3, 4, 7, 3


def _trajectory(*, seed: int = 0, spread: float = 1.0) -> tuple[Trajectory, np.ndarray]:
    """A random search with infeasible samples and one that is not finite, and its reference."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((POINTS, CLASSES))
    logits = base + spread * rng.standard_normal((1, MEMBERS, STEPS, POINTS, CLASSES))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    probs[0, 1, 2] = np.nan
    losses = rng.uniform(0.5, 1.5, (1, MEMBERS, STEPS))
    arrays = [probs, rng.uniform(0, 1, losses.shape), losses, np.full_like(losses, 1.2), np.zeros_like(losses), losses]
    reference = np.exp(base) / np.exp(base).sum(-1, keepdims=True)
    return Trajectory(*(jnp.asarray(a, jnp.float32) for a in arrays)), np.asarray(reference, np.float32)


@pytest.mark.parametrize("setting", ["mutual_information", "cross_entropy"])
@pytest.mark.parametrize("given", ["half", "sample", "none"])
@pytest.mark.parametrize("rule", ["all", "last", "best", "softmax", "mis"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_equal_to_the_direct_form(rule: Rule, given: Given, setting: str, order: tuple[int, ...]) -> None:
    trajectory, reference = _trajectory()
    choice = {"rule": rule, "feasible_only": True, "temperature": 0.3, "effective_size": 5.0}
    direct = decompose(
        to_samples(trajectory, trajectory_weights(trajectory, **choice), reference=reference[None], given=given),
        reference[None],
        setting=setting,
    )
    weights, sums = log_weights(trajectory, **choice), no_samples(POINTS, CLASSES)
    for member in order:
        sums = add_samples(sums, trajectory.probs[0, member], weights[0, member], reference)
    closed = close_sums(sums, reference, reference, given=given)
    found = decompose_sums(closed, reference, setting=setting)
    assert float(direct.epistemic.max()) > 0.01
    for ours, theirs in zip(found, direct, strict=True):
        np.testing.assert_allclose(ours, theirs[0], rtol=2e-5, atol=2e-6)


def test_a_step_at_a_time_is_all_steps_at_once() -> None:
    trajectory, reference = _trajectory()
    weights = log_weights(trajectory, rule="mis", feasible_only=False, temperature=0.01, effective_size=3.0)
    once = slowly = no_samples(POINTS, CLASSES)
    for member in range(MEMBERS):
        once = add_samples(once, trajectory.probs[0, member], weights[0, member], reference)
        for step in range(STEPS):
            slowly = add_samples(
                slowly, trajectory.probs[0, member, step : step + 1], weights[0, member, step : step + 1], reference
            )
    assert float(once.count) == float(slowly.count) >= MEMBERS
    np.testing.assert_allclose(once.probs / once.weight, slowly.probs / slowly.weight, rtol=1e-5)


def test_nothing_that_counts_leaves_the_reference() -> None:
    trajectory, reference = _trajectory()
    sums = add_samples(no_samples(POINTS, CLASSES), trajectory.probs[0, 0], jnp.full(STEPS, -jnp.inf), reference)
    closed = close_sums(sums, reference, reference, given="none")
    found = decompose_sums(closed, reference)
    assert float(sums.count) == 0 and not np.asarray(found.epistemic).any()
    np.testing.assert_allclose(found.total, -(reference * np.log(reference)).sum(-1), rtol=1e-5)


def test_samples_equal_to_the_reference_have_no_epistemic_part() -> None:
    _, reference = _trajectory()
    probs = np.broadcast_to(reference, (5, *reference.shape)) * (1 + 1e-7)
    sums = add_samples(no_samples(POINTS, CLASSES), jnp.asarray(probs), jnp.zeros(5), reference)
    found = decompose_sums(close_sums(sums, reference, reference, given="sample"), reference)
    assert not np.asarray(found.epistemic).any()


def test_small_disagreement_keeps_its_precision() -> None:
    reference = np.array([[0.7, 0.3]], np.float32)
    shift = 1e-3  # variance of p: 1e-6; mutual information = variance / (2 p q) to first order
    probs = jnp.asarray([[[0.7 + shift, 0.3 - shift]], [[0.7 - shift, 0.3 + shift]]], jnp.float32)
    closed = close_sums(add_samples(no_samples(1, 2), probs, jnp.zeros(2), reference), reference, reference, given="none")
    np.testing.assert_allclose(decompose_sums(closed, reference).epistemic, shift**2 / (2 * 0.7 * 0.3), rtol=1e-3)


def test_a_mixture_of_folds_counts_their_disagreement() -> None:
    first, second = np.array([[0.9, 0.1]], np.float32), np.array([[0.1, 0.9]], np.float32)
    anchor = (first + second) / 2
    closed = [close_sums(no_samples(1, 2), p, anchor, given="sample") for p in (first, second)]
    found = decompose_sums(mix(closed), anchor)
    own = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))  # .325 nats
    np.testing.assert_allclose(found.aleatoric, own, rtol=1e-5)
    np.testing.assert_allclose(found.epistemic, np.log(2) - own, rtol=1e-5)
