"""Fragility: trajectories written by hand, a loop over everything, and the closed form against a numerical optimum."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from quam_jax.core.fragility import Fragility, flip_cost_head, fragility_maps, measure_fragility, scatter
from quam_jax.core.types import Targets, Trajectory
from quam_jax.targets.partition import region_targets
from quam_jax.targets.regions.tiles import tiles

INF, NAN = np.inf, np.nan


def trajectory(first: list, fit_loss: list, objective: list, reference_loss: Any, *, bound: float = 0.5) -> Trajectory:
    """From the probability of class 0 `[t m s p]` and the losses `[t m s]`; `reference_loss` broadcasts to them."""
    probability = jnp.asarray(first, jnp.float32)
    losses = jnp.asarray(fit_loss, jnp.float32)
    return Trajectory(
        jnp.stack([probability, 1 - probability], -1),
        jnp.asarray(objective, jnp.float32),
        losses,
        jnp.full(losses.shape, bound),
        jnp.zeros(losses.shape),
        jnp.broadcast_to(jnp.asarray(reference_loss, jnp.float32), losses.shape),
    )


def test_one_target_by_hand() -> None:
    # the reference prefers class 0 at points 0 to 2 and class 1 at point 3
    reference = jnp.asarray([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]]])
    targets = Targets(jnp.arange(4)[None], jnp.zeros((1, 2, 4), jnp.int32), jnp.asarray([[0.25] * 4]))
    found = measure_fragility(
        trajectory(
            #  step 1            step 2             step 3
            [
                [
                    [[0.9, 0.8, 0.4, 0.1], [0.9, 0.4, 0.4, 0.1], [0.4, 0.4, 0.4, 0.6]],
                    [[0.9, 0.8, 0.4, 0.1], [0.9, 0.8, 0.4, 0.6], [0.9, 0.8, 0.3, 0.9]],
                ]
            ],
            #  the third step of the first member breaks the bound of 0.5
            [[[0.30, 0.45, 0.60], [0.25, 0.40, 0.50]]],
            [[[0.9, 0.7, 0.1], [0.8, 0.6, 0.5]]],
            [0.20, 0.25, 0.30],
        ),
        reference,
        targets,
    )
    # point 0 flips only in the infeasible step; 1 in step 2 of member 0; 2 in step 1 of both, cheapest in member 1;
    # 3 in step 2 of member 1
    np.testing.assert_array_equal(found.flipped, [[False, True, True, True]])
    np.testing.assert_array_equal(found.steps, [[INF, 2, 1, 2]])
    np.testing.assert_allclose(found.slack, [[INF, 0.45 - 0.25, 0.25 - 0.20, 0.40 - 0.25]], rtol=1e-6)
    # at once: member 0 flips 1/4, 2/4; member 1 flips 1/4, 2/4, 2/4. Half first in step 2, cheapest in member 1
    np.testing.assert_allclose(found.share, [0.5])
    np.testing.assert_array_equal(found.half_steps, [2])
    np.testing.assert_allclose(found.half_slack, [0.40 - 0.25], rtol=1e-6)
    np.testing.assert_allclose(found.objective, [0.5])  # .1 belongs to the infeasible step


def test_members_that_are_not_finite_are_data() -> None:
    reference = jnp.asarray([[[0.9, 0.1]]] * 3)
    targets = Targets(jnp.arange(3)[:, None], jnp.ones((3, 2, 1), jnp.int32), jnp.ones((3, 1)))
    found = measure_fragility(
        trajectory(
            [
                [[[0.2], [0.2]], [[0.8], [0.4]]],  # target 0: member 0 has no fit loss, member 1 flips in step 2
                [[[NAN], [NAN]], [[NAN], [NAN]]],  # target 1: nothing is left
                [[[0.3], [0.3]], [[0.9], [0.9]]],
            ],  # target 2: flips in step 1, with a better fit than the reference
            [[[NAN, NAN], [0.2, 0.3]], [[0.1, 0.1], [0.1, 0.1]], [[0.05, 0.1], [0.1, 0.1]]],
            [[[0.1, 0.1], [0.4, 0.3]], [[0.1, 0.1], [0.1, 0.1]], [[0.2, 0.7], [0.9, 0.9]]],
            0.1,
        ),
        reference,
        targets,
    )
    np.testing.assert_array_equal(found.steps[:, 0], [2, INF, 1])
    np.testing.assert_allclose(found.slack[:, 0], [0.2, INF, -0.05], rtol=1e-5)
    np.testing.assert_array_equal(found.flipped[:, 0], [True, False, True])
    np.testing.assert_allclose(found.objective, [0.3, INF, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(found.share, [1, 0, 1])
    # with one point the target's figures are the point's
    np.testing.assert_array_equal(found.half_steps, found.steps[:, 0])
    np.testing.assert_array_equal(found.half_slack, found.slack[:, 0])
    assert not any(np.isnan(np.asarray(leaf)).any() for leaf in found)


def test_against_a_loop_over_everything() -> None:
    rng = np.random.default_rng(0)
    t, m, s, p, c = 5, 3, 4, 6, 3
    probs, reference = rng.dirichlet(np.ones(c), (t, m, s, p)), rng.dirichlet(np.ones(c), (t, p))
    probs[1, 2, 1:] = NAN
    objective, fit_loss, bound = rng.random((t, m, s)), rng.random((t, m, s)), rng.random((t, m, s)) + 0.2
    bound[4] = 0.0  # nothing is feasible
    weights = rng.random((t, p))
    weights[2, 3:] = 0
    ref_loss = rng.random((t, m, s))
    run = Trajectory(*(jnp.asarray(x, jnp.float32) for x in (probs, objective, fit_loss, bound, bound, ref_loss)))
    targets = Targets(jnp.asarray(rng.integers(0, 40, (t, p))), jnp.zeros((t, m, p), jnp.int32), jnp.asarray(weights))
    found = measure_fragility(run, jnp.asarray(reference, jnp.float32), targets)

    def ok(i: int, j: int, k: int) -> bool:
        return bool(fit_loss[i, j, k] <= bound[i, j, k] and np.isfinite(probs[i, j, k]).all())

    for i in range(t):
        half = (INF, INF)
        largest = 0.0
        for q in range(p):
            best = (INF, INF)  # the earliest step, then the smallest slack
            for j in range(m):
                for k in range(s):
                    if ok(i, j, k) and probs[i, j, k, q].argmax() != reference[i, q].argmax():
                        best = min(best, (k + 1, fit_loss[i, j, k] - ref_loss[i, j, k]))
            np.testing.assert_allclose((found.steps[i, q], found.slack[i, q]), best, rtol=1e-5, atol=1e-6)
            assert bool(found.flipped[i, q]) == (best[0] < INF)
        for j in range(m):
            for k in range(s):
                if ok(i, j, k):
                    moved = probs[i, j, k].argmax(-1) != reference[i].argmax(-1)
                    share = weights[i][moved].sum() / weights[i].sum()
                    largest = max(largest, share)
                    if share >= 0.5:
                        half = min(half, (k + 1, fit_loss[i, j, k] - ref_loss[i, j, k]))
        np.testing.assert_allclose(found.share[i], largest, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose((found.half_steps[i], found.half_slack[i]), half, rtol=1e-5, atol=1e-6)
    assert not found.flipped[4].any() and found.objective[4] == INF and bool(found.flipped[0].any())


def test_flip_cost_is_the_optimum_of_the_quadratic_model() -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        root, f, margin = rng.standard_normal((4, 4)), rng.standard_normal(4), rng.random() + 0.5
        hessian = root @ root.T + 0.1 * np.eye(4)
        curvature = f @ np.linalg.solve(hessian, f)
        best = optimize.minimize(
            lambda d, h=hessian: d @ h @ d / 2,
            np.zeros(4),
            jac=lambda d, h=hessian: h @ d,
            method="SLSQP",
            options={"ftol": 1e-12},
            constraints={"type": "eq", "fun": lambda d, f=f, r=margin: f @ d - r, "jac": lambda d, f=f: f},
        )
        assert best.success
        assert float(flip_cost_head(jnp.asarray(margin), jnp.asarray(curvature))) == pytest.approx(best.fun, rel=1e-4)
    # 3^2 / (2 * 2); no margin costs nothing; without curvature nothing helps
    np.testing.assert_array_equal(
        flip_cost_head(jnp.asarray([3.0, 0.0, 0.0, 1.0]), jnp.asarray([2.0, 2.0, 0.0, 0.0])), [2.25, 0, 0, INF]
    )


def test_scattered_maps_by_hand() -> None:
    targets = Targets(
        jnp.asarray([[0, 1, 2], [2, 4, 2]]), jnp.zeros((2, 1, 3), jnp.int32), jnp.asarray([[0.3, 0.3, 0.3], [0.5, 0.5, 0.0]])
    )  # the last point of the second target is padding
    values = jnp.asarray([[5.0, 1.0, 4.0], [3.0, INF, 0.0]])
    np.testing.assert_array_equal(scatter(values, targets, (2, 3)), [[5, 1, 3], [NAN, INF, NAN]])
    np.testing.assert_array_equal(scatter(values, targets, (2, 3), largest=True), [[5, 1, 4], [NAN, INF, NAN]])
    np.testing.assert_array_equal(scatter(jnp.asarray([[7.0], [6.0]]), targets, (2, 3)), [[7, 7, 6], [NAN, 6, NAN]])
    # a value that is not a number leaves a pixel to the other target, or unasked
    np.testing.assert_array_equal(
        scatter(values.at[1, 0].set(NAN).at[0, 0].set(NAN), targets, (2, 3)), [[NAN, 1, 4], [NAN, INF, NAN]]
    )


def test_maps_of_a_partition_give_every_pixel_its_region() -> None:
    labels = np.zeros((4, 5, 3), int)
    regions = tiles((4, 5, 3), 2)
    targets = region_targets([regions], labels, [labels], probs=np.full((4, 5, 3, 2), [0.8, 0.2]), members=1)
    count, size = targets.points.shape
    rng = np.random.default_rng(0)
    found = Fragility(
        jnp.asarray(rng.random((count, size)) < 0.5),
        jnp.asarray(rng.random((count, size))),
        *(jnp.asarray(rng.random((count, size) if k == 0 else count)) for k in range(5)),
    )
    maps = fragility_maps(found, targets, (4, 5, 3))
    assert set(maps) == set(Fragility._fields)
    for name in ("objective", "share", "half_steps", "half_slack"):
        np.testing.assert_allclose(maps[name], np.asarray(getattr(found, name))[regions], rtol=1e-6)
    for name in ("flipped", "steps", "slack"):
        values = np.asarray(getattr(found, name), np.float32)
        for r in range(count):
            points = np.flatnonzero(regions == r)
            np.testing.assert_array_equal(maps[name].reshape(-1)[points], values[r, : len(points)])
