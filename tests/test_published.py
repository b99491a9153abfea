"""The published combination rules by hand, and against this package's own where both say the same.

The numbers of the published code itself are compared in test_golden.py.
"""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core.decomposition import decompose
from quam_jax.core.types import Samples, Trajectory
from quam_jax.core.weighting import trajectory_weights
from quam_jax.published import combination as published
from quam_jax.targets.wanted.dilate import dilate
from quam_jax.targets.wanted.erode import erode


def random_preds(
    *, seed: int, shape: tuple[int, ...] = (2, 4, 3), classes: int = 3, space: tuple[int, ...] = (2, 5)
) -> np.ndarray:
    """[b s m c *space]"""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(classes), (*shape, *space))
    return np.moveaxis(probs, -1, 3).astype(np.float32)


def random_trajectory(*, seed: int) -> Trajectory:
    rng = np.random.default_rng(seed)
    losses = rng.uniform(0.1, 0.6, (5, 2, 3, 5)).astype(np.float32)
    probs = rng.dirichlet(np.ones(2), (2, 3, 5, 6)).astype(np.float32)
    return Trajectory(*(jnp.asarray(x) for x in (probs, *losses)))


# weights


def test_mis_weights_by_hand() -> None:
    # losses 0 and T ln 3: weights 3/4 and 1/4
    preds = random_preds(seed=0, shape=(1, 2, 1))
    loss = np.array([0.0, 0.1 * math.log(3)]).reshape(1, 2, 1)
    for rule in (published.combine_mis, published.combine_softmax, published.combine_weighted_all):
        found = rule(preds, loss, temperature=0.1)
        np.testing.assert_allclose(found.weights.ravel(), [0.75, 0.25], atol=1e-7)
        np.testing.assert_array_equal(found.preds, preds)


def test_what_becomes_of_a_fourth_axis() -> None:
    preds = random_preds(seed=1)
    loss = np.random.default_rng(1).uniform(size=(2, 4, 3, 2))
    np.testing.assert_array_equal(published.combine_mis(preds, loss).weights, published.combine_mis(preds, loss[..., 1]).weights)
    np.testing.assert_allclose(
        published.combine_softmax(preds, loss).weights, published.combine_softmax(preds, loss.mean(-1)).weights
    )
    np.testing.assert_allclose(
        published.combine_mis(preds, loss[..., :1]).weights, published.combine_mis(preds, loss[..., 0]).weights
    )


def test_only_the_first_steps() -> None:
    preds, loss = random_preds(seed=2), np.random.default_rng(2).uniform(size=(2, 4, 3))
    found = published.combine_mis(preds, loss, num_samples=2)
    np.testing.assert_array_equal(found.preds, preds[:, :2])
    assert found.weights.shape == (2, 2, 3)
    np.testing.assert_allclose(found.weights.sum((1, 2)), 1, rtol=1e-6)


def test_mis_agrees_with_this_packages_rule() -> None:
    trajectory = random_trajectory(seed=3)
    ours = trajectory_weights(trajectory, rule="mis", feasible_only=False, temperature=0.2)
    preds = np.asarray(trajectory.probs).transpose(0, 2, 1, 4, 3)
    theirs = published.combine_mis(preds, np.asarray(trajectory.fit_loss).transpose(0, 2, 1), temperature=0.2)
    np.testing.assert_allclose(np.asarray(ours).transpose(0, 2, 1), theirs.weights, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_losses_and_predictions_that_the_published_code_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"softmax combination: expected predictions \[b s m c h w\], got shape \(2, 4, 3, 3\)"):
        published.combine_softmax(random_preds(seed=0, space=()), np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match=r"loss: expected \[b s m\] or \[b s m entries\], got 4 axes"):
        published.combine_mis(random_preds(seed=0), np.zeros((2, 4, 3, 2, 2)))
    with pytest.raises(ValueError, match="objective: expected"):
        published.combine_best(
            random_preds(seed=0),
            train_loss=np.zeros((2, 4, 3)),
            objective=np.zeros((2, 4, 3, 1)),
            reference_loss=np.ones(4),
            reference=np.zeros((2, 3, 2, 5)),
        )


# best, last, all


def best(
    objective: list[float], train: list[float], reference: list[float], *, window: int = 1, slack: float = 0.0
) -> tuple[int, list[float]]:
    """The chosen step of one model, read off predictions that hold their step's number, and the objective afterwards."""
    steps = len(objective)
    preds = np.arange(steps, dtype=np.float32).reshape(1, steps, 1, 1)
    found = published.combine_best(
        preds,
        train_loss=np.array(train, float).reshape(1, -1, 1),
        objective=np.array(objective, float).reshape(1, -1, 1),
        reference_loss=np.array(reference, float),
        reference=np.full((1, 1), -1.0),
        window=window,
        slack=slack,
    )
    assert found.preds.shape == (1, 1, 1, 1)
    return int(found.preds.item()), found.objective.ravel().tolist()


def test_best_is_the_feasible_step_of_smallest_objective() -> None:
    inf = math.inf
    # step 2 has the smallest objective but explains the data worse than the reference
    assert best([3, 2, 1, 2.5], [0, 0, 5, 0], [1, 1, 1, 1]) == (1, [3, 2, inf, 2.5])
    # with slack it may
    assert best([3, 2, 1, 2.5], [0, 0, 5, 0], [1, 1, 1, 1], slack=4.5) == (2, [3, 2, 1, 2.5])
    # equality is not enough, except in the first step, which always passes
    assert best([3, 2, 1], [1, 1, 1], [1, 1, 1]) == (0, [3, inf, inf])
    # ties go to the first
    assert best([3, 1, 1], [0, 0, 0], [1, 1, 1]) == (1, [3, 1, 1])


def test_reference_losses_are_repeated_in_turn_or_cut() -> None:
    inf = math.inf
    # references 1, 0, 1, 0: steps 1 and 3 fail
    assert best([4, 1, 3, 2], [0.5] * 4, [1, 0]) == (2, [4, inf, 3, inf])
    assert best([4, 1, 3], [0.5] * 3, [1, 0, 1, 9, 9]) == (2, [4, inf, 3])


def test_a_window_is_judged_by_all_its_steps_and_gives_its_first() -> None:
    inf = math.inf
    # windows start at 0, 1, 2; step 3 fails, so the window at 2 does
    assert best([9, 3, 1, 0], [0, 0, 0, 5], [1] * 4, window=2) == (1, [9, 3, inf, 0])
    assert best([9, 3, 1, 0], [0, 0, 0, 5], [1] * 4, window=5) == (3, [9, 3, 1, 0])  # too long: the last step


def test_best_without_steps_is_the_reference() -> None:
    reference = random_preds(seed=4)[:, 0, 0]
    found = published.combine_best(
        random_preds(seed=4)[:, :0],
        train_loss=np.zeros((2, 0, 3)),
        objective=np.zeros((2, 0, 3)),
        reference_loss=np.ones(4),
        reference=reference,
    )
    np.testing.assert_array_equal(found.preds, reference[:, None, None])


def test_best_leaves_its_arguments_alone_and_takes_pairs_of_losses() -> None:
    rng = np.random.default_rng(5)
    train, objective = rng.uniform(size=(2, 2, 4, 3, 2))
    preds, before = random_preds(seed=5), objective.copy()
    arguments = dict(reference_loss=rng.uniform(size=4), reference=preds[:, 0, 0], slack=0.1)
    pairs = published.combine_best(preds, train_loss=train, objective=objective, **arguments)
    single = published.combine_best(preds, train_loss=train[..., 1], objective=objective[..., 0], **arguments)
    np.testing.assert_array_equal(pairs.preds, single.preds)
    np.testing.assert_array_equal(pairs.objective[..., 0], single.objective)
    np.testing.assert_array_equal(pairs.objective[..., 1], before[..., 1])
    np.testing.assert_array_equal(objective, before)
    assert np.isinf(single.objective).any()


def test_last_and_all() -> None:
    preds = random_preds(seed=6)
    np.testing.assert_array_equal(published.combine_last(preds), preds[:, 3:4])
    np.testing.assert_array_equal(published.combine_all(preds), preds)


# decompositions


def as_samples(preds: np.ndarray, weights: np.ndarray) -> Samples:
    """[b s m c *space] -> [t n p c]"""
    b, s, m, c = preds.shape[:4]
    return Samples(jnp.asarray(np.moveaxis(preds.reshape(b, s * m, c, -1), 2, 3)), jnp.asarray(weights.reshape(b, s * m)))


@pytest.mark.parametrize("setting", ["a", "b"])
def test_published_decompositions_agree_with_ours_away_from_the_clamps(setting: str) -> None:
    preds = random_preds(seed=7)
    weights = np.random.default_rng(7).dirichlet(np.ones(12), 2).reshape(2, 4, 3).astype(np.float32)
    reference = random_preds(seed=8)[:, 0, 0]
    if setting == "a":
        theirs, ours = published.uncertainty_a(preds, weights), decompose(as_samples(preds, weights))
    else:
        theirs = published.uncertainty_b(reference, preds, weights)
        points = jnp.asarray(np.moveaxis(reference.reshape(2, 3, -1), 1, 2))
        ours = decompose(as_samples(preds, weights), points, setting="cross_entropy")
    for a, b in zip(theirs, ours, strict=True):
        assert a.shape == (2, 2, 5)
        np.testing.assert_allclose(a.reshape(2, -1), b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(theirs.total, theirs.aleatoric + theirs.epistemic, rtol=1e-6)


def test_without_weights_all_samples_count_alike() -> None:
    preds, uniform = random_preds(seed=9), np.full((2, 4, 3), 1 / 12, np.float32)
    for a, b in zip(published.uncertainty_a(preds), published.uncertainty_a(preds, uniform), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # setting (a) divides by the sum of the weights, setting (b) does not
    reference = preds[:, 0, 0]
    twice = published.uncertainty_b(reference, preds, 2 * uniform)
    np.testing.assert_allclose(twice.total, 2 * published.uncertainty_b(reference, preds).total, rtol=1e-5)
    np.testing.assert_allclose(published.uncertainty_a(preds, 2 * uniform).total, published.uncertainty_a(preds).total, rtol=1e-5)


def test_clamps_by_hand() -> None:
    # one certain sample: the clamp leaves 1e-8 for the other class, whose entropy is 1e-8 ln 1e8 = 1.842e-7
    certain = np.array([1.0, 0.0]).reshape(1, 1, 1, 2)
    total, aleatoric, epistemic = published.uncertainty_a(certain)
    assert total == pytest.approx(1e-8 * math.log(1e8), rel=1e-6) and epistemic == 0 and total == aleatoric
    # the reference allows what the sample excludes: -ln 1e-10 / 2 = 11.513
    half = np.array([[0.5, 0.5]])
    total, aleatoric, _ = published.uncertainty_b(half, certain)
    assert total == pytest.approx(-math.log(1e-10) / 2, rel=1e-6) and aleatoric == pytest.approx(math.log(2), rel=1e-6)


def test_too_few_weights_leave_the_last_samples_out() -> None:
    preds = random_preds(seed=10)
    weights = np.random.default_rng(10).uniform(size=(2, 2, 3))
    for a, b in zip(published.uncertainty_a(preds, weights), published.uncertainty_a(preds[:, :2], weights), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="weights: expected at most 6 an image, got 12"):
        published.uncertainty_a(preds[:, :2], np.ones((2, 4, 3)))


@pytest.mark.parametrize("images, shape", [(3, (3,)), (1, ())])
def test_classification_is_squeezed(images: int, shape: tuple[int, ...]) -> None:
    preds = random_preds(seed=11, shape=(images, 2, 2), space=())
    for part in (*published.uncertainty_a(preds), *published.uncertainty_b(preds[:, 0, 0], preds)):
        assert part.shape == shape


# a search of this package


def test_best_prediction_of_a_search() -> None:
    trajectory = random_trajectory(seed=12)
    penalty = np.asarray(trajectory.fit_loss) - 0.35
    penalty[0, 0] = 1.0  # nothing qualifies
    objective = np.asarray(trajectory.objective).copy()
    objective[1, 2] = [0.1, 0.9, 0.9, np.nan, 5.0]
    penalty[1, 2] = [-1, 0, -1, -1, 1]  # the largest that qualifies is 0.9, first at step 1
    trajectory = trajectory._replace(objective=jnp.asarray(objective), penalty=jnp.asarray(penalty))
    found = published.best_prediction(trajectory)
    assert found.shape == (2, 3, 6, 2)
    np.testing.assert_array_equal(found[0, 0], 0)
    np.testing.assert_array_equal(found[1, 2], trajectory.probs[1, 2, 1])
    for t, m in [(0, 1), (0, 2), (1, 0), (1, 1)]:
        qualified = [s for s in range(5) if penalty[t, m, s] <= 0]
        expected = trajectory.probs[t, m, max(qualified, key=lambda s: objective[t, m, s])] if qualified else np.zeros((6, 2))
        np.testing.assert_array_equal(found[t, m], expected)


def test_published_uncertainty_of_a_search() -> None:
    trajectory = random_trajectory(seed=13)
    found = published.published_uncertainty(trajectory)
    weights = trajectory_weights(trajectory, rule="mis", feasible_only=False)
    ours = decompose(Samples(trajectory.probs.reshape(2, 15, 6, 2), weights.reshape(2, 15)))
    for a, b in zip(found, ours, strict=True):
        assert a.shape == (2, 6)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_broken_sample_does_not_spoil_the_published_maps() -> None:
    trajectory = random_trajectory(seed=14)
    probs = np.asarray(trajectory.probs).copy()
    probs[0, 1, 2, 3] = np.nan
    fit_loss = np.asarray(trajectory.fit_loss).copy()
    fit_loss[0, 2, 0] = np.nan
    fit_loss[1] = np.nan
    found = published.published_uncertainty(trajectory._replace(probs=jnp.asarray(probs), fit_loss=jnp.asarray(fit_loss)))
    kept = [k for k in range(15) if k not in (1 * 5 + 2, 2 * 5 + 0)]
    preds = np.moveaxis(np.asarray(trajectory.probs[0]).reshape(15, 6, 2)[kept], 1, 2)[None, :, None]
    loss = np.asarray(trajectory.fit_loss[0]).reshape(15)[kept].reshape(1, -1, 1)
    expected = published.uncertainty_a(preds, published.combine_mis(preds, loss).weights)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-4, atol=1e-6)
        assert np.isnan(a[1]).all()  # nothing is left of the second target


# morphology


def test_published_morphology_of_binary_masks_is_ours() -> None:
    mask = (np.random.default_rng(0).uniform(size=(9, 11)) > 0.4).astype(np.int32)
    for kernel, iterations in ((3, 1), (3, 2), (5, 1)):
        radius = kernel // 2 * iterations
        np.testing.assert_array_equal(
            published.dilate_published(mask, kernel=kernel, iterations=iterations), dilate(jnp.asarray(mask), radius=radius)
        )
        np.testing.assert_array_equal(
            published.erode_published(mask, kernel=kernel, iterations=iterations),
            erode(jnp.asarray(mask), radius=radius, outside="background"),
        )


def test_published_morphology_adds_labels_up() -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 2, 1]])
    np.testing.assert_array_equal(published.dilate_published(labels), np.ones((3, 3)))
    # the sum is 9 although the middle is background, because one label is 2
    np.testing.assert_array_equal(published.erode_published(labels), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
