"""Laws of weighted samples: what order, company and repetition may not change, on random searches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quam_jax.case.samples import decompose_samples
from quam_jax.config import SampleConfig
from quam_jax.core import decomposition, weighting
from quam_jax.core.streaming import add_samples, close_sums, decompose_sums, no_samples
from quam_jax.core.types import Samples, Trajectory, Uncertainty
from quam_jax.core.weighting import log_weights

T, M, S, P, C = 3, 3, 4, 5, 3
SEEDS = st.integers(0, 2**20)
CONFIGS = [
    SampleConfig(),
    SampleConfig(weighting="best", given="none"),
    SampleConfig(weighting="softmax", temperature=0.3, feasible_only=False),
    SampleConfig(weighting="mis", effective_size=9.0, decomposition="cross_entropy"),
    SampleConfig(weighting="last"),
]
decompose = jax.jit(decomposition.decompose, static_argnames="setting")
to_samples = jax.jit(weighting.to_samples, static_argnames="given")
laws = settings(max_examples=25, deadline=None, derandomize=True)


def random_search(seed: int) -> tuple[Trajectory, jax.Array]:
    """Targets with samples on both sides of the bound, some of them not finite, and the given network's predictions."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(C), (T, M, S, P))
    objective, fit_loss = rng.uniform(0.1, 0.5, (2, T, M, S))
    fit_loss[rng.uniform(size=fit_loss.shape) < 0.1] = np.nan
    probs[rng.uniform(size=fit_loss.shape) < 0.1] = np.nan
    arrays = (probs, objective, fit_loss, np.full((T, M, S), 0.4), fit_loss, np.full((T, M, S), 0.3))
    return (
        Trajectory(*(jnp.asarray(a, jnp.float32) for a in arrays)),
        jnp.asarray(rng.dirichlet(np.ones(C), (T, P)), jnp.float32),
    )


def reordered(trajectory: Trajectory, order: Any, *, axis: int) -> Trajectory:
    return jax.tree.map(lambda leaf: jnp.take(leaf, jnp.asarray(order), axis), trajectory)


def uncertainty(trajectory: Trajectory, reference: jax.Array, samples: SampleConfig) -> Uncertainty:
    return decompose_samples([trajectory], [reference], samples=samples)


def assert_equal(found: Any, expected: Any, *, atol: float = 1e-6) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


@laws
@given(SEEDS, st.sampled_from(CONFIGS), st.permutations(range(M)), st.permutations(range(T)))
def test_the_order_of_members_and_targets_changes_nothing(
    seed: int, config: SampleConfig, members: list[int], targets: list[int]
) -> None:
    trajectory, reference = random_search(seed)
    found = uncertainty(trajectory, reference, config)
    assert_equal(uncertainty(reordered(trajectory, members, axis=1), reference, config), found)
    turned = uncertainty(reordered(trajectory, targets, axis=0), reference[jnp.asarray(targets)], config)
    assert_equal(turned, [u[jnp.asarray(targets)] for u in found])


@laws
@given(SEEDS, st.sampled_from(CONFIGS[:4]), st.permutations(range(S)))
def test_the_order_of_steps_changes_nothing_unless_the_last_is_asked(seed: int, config: SampleConfig, steps: list[int]) -> None:
    trajectory, reference = random_search(seed)
    found = uncertainty(trajectory, reference, config)
    assert_equal(uncertainty(reordered(trajectory, steps, axis=2), reference, config), found)


@laws
@given(SEEDS, st.permutations(range(M * S)), st.floats(-20, 20))
def test_running_sums_know_neither_order_nor_scale(seed: int, order: list[int], shift: float) -> None:
    rng = np.random.default_rng(seed)
    probs = jnp.asarray(rng.dirichlet(np.ones(C), (M * S, P)), jnp.float32)
    reference = jnp.asarray(rng.dirichlet(np.ones(C), P), jnp.float32)
    logs = np.where(rng.uniform(size=M * S) < 0.3, -np.inf, rng.normal(size=M * S)).astype(np.float32)

    def summed(order: Any, shift: float) -> Uncertainty:
        sums = no_samples(P, C)
        for part in np.split(np.asarray(order), M):
            sums = add_samples(sums, probs[part], jnp.asarray(logs[part] + np.float32(shift)), reference)
        return decompose_sums(close_sums(sums, reference, reference, given="sample"), reference)

    assert_equal(summed(order, shift), summed(range(M * S), 0.0), atol=1e-5)


@laws
@given(SEEDS, st.sampled_from(CONFIGS))
def test_running_sums_are_the_decomposition_of_the_samples(seed: int, config: SampleConfig) -> None:
    trajectory, reference = random_search(seed)
    one, anchor = jax.tree.map(lambda leaf: leaf[:1], trajectory), reference[0]
    logs = log_weights(
        one,
        rule=config.weighting,
        feasible_only=config.feasible_only,
        temperature=config.temperature,
        effective_size=config.effective_size,
    )
    sums = no_samples(P, C)
    for m in range(M):
        sums = add_samples(sums, one.probs[0, m], logs[0, m], anchor)
    closed = close_sums(sums, anchor, anchor, given=config.given)
    direct = uncertainty(trajectory, reference, config)
    assert_equal(decompose_sums(closed, anchor, setting=config.decomposition), [u[0] for u in direct], atol=1e-5)


@laws
@given(SEEDS, st.sampled_from(CONFIGS))
def test_weights_sum_to_one_and_parts_to_the_total(seed: int, config: SampleConfig) -> None:
    trajectory, reference = random_search(seed)
    weights = weighting.trajectory_weights(
        trajectory,
        rule=config.weighting,
        feasible_only=config.feasible_only,
        temperature=config.temperature,
        effective_size=config.effective_size,
    )
    samples = to_samples(trajectory, weights, reference=reference, given=config.given)
    assert np.asarray(samples.weights).min() >= 0
    np.testing.assert_allclose(samples.weights.sum(1), 1, atol=1e-6)
    total, aleatoric, epistemic = uncertainty(trajectory, reference, config)
    np.testing.assert_allclose(total, aleatoric + epistemic, atol=1e-6)
    assert np.asarray(epistemic).min() >= 0 and np.asarray(aleatoric).min() >= 0
    if config.decomposition == "mutual_information":
        assert np.asarray(total).max() <= np.log(C) + 1e-5


@laws
@given(SEEDS, st.sampled_from(["mutual_information", "cross_entropy"]), st.integers(0, 6), st.floats(0.1, 0.9))
def test_a_sample_listed_twice_counts_like_one_of_both_weights(seed: int, setting: str, twice: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    probs, weights = rng.dirichlet(np.ones(C), (T, 7, P)), rng.dirichlet(np.ones(7), T)
    reference = jnp.asarray(rng.dirichlet(np.ones(C), (T, P)), jnp.float32)
    split = np.concatenate([weights, weights[:, twice : twice + 1] * (1 - share)], 1)
    split[:, twice] *= share
    listed = np.concatenate([probs, probs[:, twice : twice + 1]], 1)
    pairs = ((probs, weights), (listed, split))
    once, both = (Samples(jnp.asarray(p, jnp.float32), jnp.asarray(w, jnp.float32)) for p, w in pairs)
    assert_equal(decompose(both, reference, setting=setting), decompose(once, reference, setting=setting))


@laws
@given(SEEDS, st.integers(0, M - 1), st.sampled_from(["all", "softmax"]))
def test_a_member_searched_twice_has_twice_the_weight(seed: int, twice: int, rule: str) -> None:
    trajectory, _ = random_search(seed)
    once = np.asarray(weighting.trajectory_weights(trajectory, rule=rule), np.float64)  # type: ignore[arg-type]
    both = reordered(trajectory, [*range(M), twice], axis=1)
    found = np.asarray(weighting.trajectory_weights(both, rule=rule), np.float64)  # type: ignore[arg-type]
    expected = np.concatenate([once, once[:, twice : twice + 1]], 1)
    sums = expected.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(found, expected / np.where(sums > 0, sums, 1), rtol=1e-4, atol=1e-7)
