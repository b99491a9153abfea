"""Each rule of weighting against a second computation in numpy, the laws of weights, and what NaN does."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config import SampleConfig
from quam_jax.core import weighting
from quam_jax.core.types import Trajectory
from quam_jax.core.weighting import feasible, finite

# one compilation a shape; eager operations would be compiled one by one
trajectory_weights = jax.jit(weighting.trajectory_weights, static_argnames=("rule", "feasible_only"))
to_samples = jax.jit(weighting.to_samples, static_argnames="given")

RULES = ["all", "last", "best", "softmax", "mis"]


def random_trajectory(
    *, seed: int, t: int = 3, m: int = 3, s: int = 4, p: int = 5, c: int = 3, broken: bool = True
) -> Trajectory:
    """Losses around the bound; with `broken`, a NaN prediction, a NaN loss and an infinite objective among them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(c), (t, m, s, p))
    fit_loss, objective = rng.uniform(0.1, 0.5, (2, t, m, s))
    if broken:
        probs[0, 0, 1, 2] = np.nan
        fit_loss[0, 1, 2] = np.nan
        objective[0, 2, 3] = np.inf
        fit_loss[1] = 9.0  # nothing is feasible for this target
    bound = np.full((t, m, s), 0.4)
    arrays = (probs, objective, fit_loss, bound, fit_loss - bound, bound / 2)
    return Trajectory(*(jnp.asarray(a, jnp.float32) for a in arrays))


def brute_weights(trajectory: Trajectory, rule: str, *, feasible_only: bool, scale: float) -> np.ndarray:
    probs, objective, fit_loss, bound = (np.asarray(x, np.float64) for x in trajectory[:4])
    weights = np.zeros(fit_loss.shape)
    for t in range(len(weights)):
        members, steps = weights[t].shape
        counts = {
            (m, s)
            for m in range(members)
            for s in range(steps)
            if np.isfinite(probs[t, m, s]).all()
            and np.isfinite([fit_loss[t, m, s], objective[t, m, s]]).all()
            and (fit_loss[t, m, s] <= bound[t, m, s] or not feasible_only)
        }
        for m in range(members):
            own = sorted(s for k, s in counts if k == m)
            if rule == "last" and own:
                weights[t, m, own[-1]] = 1
            if rule == "best" and own:
                weights[t, m, min(own, key=lambda s: objective[t, m, s])] = 1
        for m, s in counts:
            if rule == "all":
                weights[t, m, s] = 1
            if rule in ("softmax", "mis"):
                weights[t, m, s] = np.exp(-scale * fit_loss[t, m, s])
        if weights[t].sum() > 0:
            weights[t] /= weights[t].sum()
    return weights


@pytest.mark.parametrize("feasible_only", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_rules_against_numpy(rule: str, feasible_only: bool) -> None:
    trajectory = random_trajectory(seed=1)
    found = trajectory_weights(trajectory, rule=rule, feasible_only=feasible_only, temperature=0.5, effective_size=20.0)
    scale = {"softmax": 1 / 0.5, "mis": 20 / 0.5}.get(rule, 0.0)
    expected = brute_weights(trajectory, rule, feasible_only=feasible_only, scale=scale)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_weights_sum_to_one_or_to_zero(rule: str) -> None:
    trajectory = random_trajectory(seed=2)
    sums = np.asarray(trajectory_weights(trajectory, rule=rule).sum((1, 2)))
    np.testing.assert_allclose(sums, [1, 0, 1], atol=1e-6)  # target 1 has no feasible sample
    anyway = np.asarray(trajectory_weights(trajectory, rule=rule, feasible_only=False).sum((1, 2)))
    np.testing.assert_allclose(anyway, [1, 1, 1], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_samples_that_are_not_finite_get_no_weight(rule: str) -> None:
    weights = np.asarray(trajectory_weights(random_trajectory(seed=3), rule=rule, feasible_only=False))
    assert np.isfinite(weights).all()
    assert weights[0, 0, 1] == weights[0, 1, 2] == weights[0, 2, 3] == 0
    assert not np.asarray(finite(random_trajectory(seed=3)))[0, [0, 1, 2], [1, 2, 3]].any()


@pytest.mark.parametrize("rule", ["all", "softmax", "mis"])
def test_order_of_members_and_steps_does_not_matter(rule: str) -> None:
    trajectory = random_trajectory(seed=4, broken=False)
    rng = np.random.default_rng(0)
    members, steps = rng.permutation(3), rng.permutation(4)
    shuffled = jax.tree.map(lambda x: x[:, members][:, :, steps], trajectory)
    np.testing.assert_allclose(
        trajectory_weights(trajectory, rule=rule)[:, members][:, :, steps], trajectory_weights(shuffled, rule=rule), rtol=1e-6
    )


def test_a_constant_added_to_the_losses_does_not_matter() -> None:
    trajectory = random_trajectory(seed=5, broken=False)
    far = trajectory._replace(fit_loss=trajectory.fit_loss + 300.0)  # exp(-300 N) alone would be 0
    for rule in ("softmax", "mis"):
        np.testing.assert_allclose(
            trajectory_weights(trajectory, rule=rule, feasible_only=False),
            trajectory_weights(far, rule=rule, feasible_only=False),
            rtol=1e-4,
        )


def test_softmax_of_two_losses_by_hand() -> None:
    # exp(-0.2/0.1) : exp(-0.3/0.1) = 1 : exp(-1), so 0.7311 and 0.2689
    trajectory = random_trajectory(seed=6, t=1, m=1, s=2, broken=False)
    trajectory = trajectory._replace(fit_loss=jnp.array([[[0.2, 0.3]]]))
    found = trajectory_weights(trajectory, rule="softmax", temperature=0.1)
    np.testing.assert_allclose(found[0, 0], [0.731059, 0.268941], atol=1e-5)
    # mis with N_eff = 10 and T = 1 is the same
    np.testing.assert_allclose(trajectory_weights(trajectory, rule="mis", effective_size=10.0), found, atol=1e-6)


def test_best_takes_the_first_of_equal_objectives() -> None:
    trajectory = random_trajectory(seed=7, t=1, m=2, s=3, broken=False)
    trajectory = trajectory._replace(
        objective=jnp.array([[[0.2, 0.1, 0.1], [0.1, 0.3, 0.2]]]), fit_loss=jnp.array([[[0.1, 0.1, 0.1], [0.9, 0.1, 0.1]]])
    )  # the second member's best step is not feasible
    np.testing.assert_array_equal(trajectory_weights(trajectory, rule="best")[0], [[0, 0.5, 0], [0, 0, 0.5]])


def test_a_sample_at_the_bound_is_feasible() -> None:
    trajectory = random_trajectory(seed=8, broken=False)
    trajectory = trajectory._replace(fit_loss=trajectory.bound)
    assert bool(feasible(trajectory).all())


def test_samples_with_the_reference_among_them() -> None:
    trajectory = random_trajectory(seed=9)
    reference = jnp.full((3, 5, 3), 1 / 3)
    weights = trajectory_weights(trajectory, rule="all")
    half = to_samples(trajectory, weights, reference=reference)
    np.testing.assert_allclose(half.weights[:, -1], np.where((weights > 0).any((1, 2)), 0.5, 1.0))
    np.testing.assert_allclose(half.weights[2, :-1].reshape(3, 4), np.asarray(weights[2]) / 2)
    samples = to_samples(trajectory, weights, reference=reference, given="sample")
    assert samples.probs.shape == (3, 13, 5, 3) and samples.weights.shape == (3, 13)
    np.testing.assert_allclose(samples.weights.sum(1), 1, atol=1e-6)
    # with k samples of equal weight, the reference is one more of them
    counting = np.asarray((weights > 0).sum((1, 2)))
    np.testing.assert_allclose(samples.weights[:, -1], 1 / (counting + 1), atol=1e-6)
    np.testing.assert_array_equal(samples.probs[:, -1], reference)
    np.testing.assert_allclose(
        samples.weights[2, :-1].reshape(3, 4), np.asarray(weights[2]) * counting[2] / (counting[2] + 1), atol=1e-6
    )
    assert bool(jnp.isfinite(samples.probs).all())


def test_samples_without_the_reference() -> None:
    trajectory = random_trajectory(seed=10)
    weights = trajectory_weights(trajectory, rule="softmax")
    samples = to_samples(trajectory, weights, reference=jnp.full((3, 5, 3), 1 / 3), given="none")
    np.testing.assert_allclose(samples.weights[:, :-1], weights.reshape(3, 12), atol=1e-7)
    # where nothing counts the reference stands alone, so that the maps exist and show no epistemic part
    np.testing.assert_array_equal(samples.weights[:, -1], [0, 1, 0])


@pytest.mark.usefixtures("unchecked")
def test_every_configured_rule_is_known() -> None:
    (rules,) = [typing.get_args(f.type) for f in dataclasses.fields(SampleConfig) if f.name == "weighting"]
    assert sorted(rules) == sorted(RULES)
    with pytest.raises(ValueError, match="expected all, last, best, softmax or mis, got 'first'"):
        trajectory_weights(random_trajectory(seed=11), rule="first")  # type: ignore[arg-type]
