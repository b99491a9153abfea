"""From searches to weighted samples: both ways to the maps, and the weights of the samples of a whole volume, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.case import samples as case_samples
from quam_jax.case.quantified import SampledVolumes
from quam_jax.case.samples import Moved, decompose_samples, decompose_sums_of, sum_weights
from quam_jax.case.structures import structure_volumes
from quam_jax.config import SampleConfig
from quam_jax.core.types import Trajectory, ViewMean
from quam_jax.core.weighting import to_samples, trajectory_weights

RULES = [
    SampleConfig(),
    SampleConfig(weighting="last"),
    SampleConfig(weighting="best", given="none"),
    SampleConfig(weighting="softmax", temperature=0.3),
    SampleConfig(weighting="mis", effective_size=4.0, feasible_only=False, given="none"),
]


def searched(*, targets: int = 1, seed: int = 0, points: int = 7) -> Trajectory:
    """Two members of three steps; the bound of 1 holds for some of them, and one prediction is not finite."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(3), (targets, 2, 3, points)).astype(np.float32)
    probs[0, 1, 0, 0] = np.nan
    losses = rng.uniform(0.5, 1.5, (2, targets, 2, 3)).astype(np.float32)
    losses[1, 0] = [[0.7, 1.2, 0.9], [0.8, 0.6, 1.1]]
    bound, zero = np.ones((targets, 2, 3)), np.zeros((targets, 2, 3))
    return Trajectory(*map(jnp.asarray, (probs, losses[0], losses[1], bound, zero, bound / 2)))


def given(fit_loss: list[list[float]], objective: list[list[float]] | None = None) -> Trajectory:
    """One target of one point with these losses, feasible up to 1."""
    loss = np.array([fit_loss], np.float32)
    return Trajectory(
        jnp.full((*loss.shape, 1, 2), 0.5),
        jnp.asarray(loss if objective is None else np.array([objective], np.float32)),
        jnp.asarray(loss),
        jnp.ones(loss.shape),
        jnp.zeros(loss.shape),
        jnp.full(loss.shape, 0.5),
    )


@pytest.mark.parametrize("samples", RULES, ids=lambda s: s.weighting)
@pytest.mark.parametrize("folds", [1, 2])
def test_running_sums_give_what_the_samples_at_hand_give(samples: SampleConfig, folds: int) -> None:
    trajectories = [searched(seed=seed) for seed in range(folds)]
    references = [np.random.default_rng(9 + f).dirichlet(np.ones(3), 7).astype(np.float32) for f in range(folds)]
    direct = decompose_samples(trajectories, [r[None] for r in references], samples=samples)
    running = decompose_sums_of(trajectories, [jnp.asarray(r) for r in references], samples=samples)
    assert float(direct.epistemic.max()) > 0.01
    for one, other in zip(direct, running, strict=True):
        np.testing.assert_allclose(one[0], other, rtol=1e-4, atol=1e-6)


def test_importance_weights_use_the_temperature_and_the_effective_size() -> None:
    samples = SampleConfig(weighting="mis", effective_size=4.0, temperature=0.5, given="none")
    found = sum_weights([given([[0.7, 0.9]])], samples)
    expected = np.exp(-4.0 * np.array([0.7, 0.9]) / 0.5)
    np.testing.assert_allclose(found, [*expected / expected.sum(), 0.0], rtol=1e-6)


@pytest.mark.parametrize("targets, points", [(2, 7), (1, 3), (1, 5)])
@pytest.mark.parametrize("looks", [False, True])
def test_what_is_decomposed_in_blocks_is_what_it_is_as_one(
    monkeypatch: pytest.MonkeyPatch, targets: int, points: int, looks: bool
) -> None:
    """Some targets at a time, and some points of one, where a point that is not finite may lie in another block."""
    trajectory, reference = searched(targets=5), np.random.default_rng(9).dirichlet(np.ones(3), (5, 7)).astype(np.float32)
    t, m, s, p, c = trajectory.probs.shape
    if looks:
        rng = np.random.default_rng(4)

        def seen(*leading: int) -> ViewMean:
            return ViewMean(
                rng.dirichlet(np.ones(c), (*leading, p)).astype(np.float32), rng.random((*leading, p), np.float32) / 9
            )

        trajectory = trajectory._replace(viewed=seen(t, m, s), given=seen(t), others=seen(t, 3))
    whole = decompose_samples([trajectory], [reference], samples=RULES[0])
    monkeypatch.setattr(case_samples, "BLOCK", targets * points * m * s * c)
    for one, other in zip(decompose_samples([trajectory], [reference], samples=RULES[0]), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("samples", RULES, ids=lambda s: s.weighting)
def test_weights_are_those_of_the_maps(samples: SampleConfig) -> None:
    trajectory = searched(targets=3)
    weights = trajectory_weights(
        trajectory,
        rule=samples.weighting,
        feasible_only=samples.feasible_only,
        temperature=samples.temperature,
        effective_size=samples.effective_size,
    )
    reference = jnp.full((3, 7, 3), 1 / 3)
    closed = to_samples(trajectory, weights, reference=reference, given=samples.given).weights
    np.testing.assert_allclose(sum_weights([trajectory], samples), np.asarray(closed).sum(0), atol=1e-6)
    both = sum_weights([trajectory, trajectory], samples)
    np.testing.assert_allclose(both[:6], both[6:12])  # folds have equal shares
    np.testing.assert_allclose([both.sum(), both[-1]], [3, np.asarray(closed)[:, -1].sum()], atol=1e-6)


def test_weights_of_volumes_by_hand() -> None:
    here = given([[0.5, 2.0], [0.5, 0.5]])  # the second sample breaks the bound of 1
    np.testing.assert_allclose(sum_weights([here], SampleConfig()), [1 / 6, 0, 1 / 6, 1 / 6, 1 / 2])
    np.testing.assert_allclose(sum_weights([here], SampleConfig(given="sample")), [1 / 4, 0, 1 / 4, 1 / 4, 1 / 4])
    last = SampleConfig(weighting="last", given="sample")
    np.testing.assert_allclose(sum_weights([here], last), [1 / 3, 0, 0, 1 / 3, 1 / 3])
    chosen = given([[0.5, 0.6], [0.5, 0.6]], [[3, 1], [1, 3]])
    np.testing.assert_allclose(sum_weights([chosen], SampleConfig(weighting="best", given="sample")), [0, 1 / 3, 1 / 3, 0, 1 / 3])
    rule = SampleConfig(weighting="softmax", given="none")
    likely = np.exp([-0.2, -0.9])
    np.testing.assert_allclose(sum_weights([given([[0.2, 0.9]])], rule), [*(likely / likely.sum()), 0], rtol=1e-6)
    np.testing.assert_allclose(sum_weights([given([[2.0, 2.0]])], rule), [0, 0, 1])  # the given network alone is left
    np.testing.assert_allclose(sum_weights([given([[0.5]]), given([[2.0]])], SampleConfig()), [1 / 4, 0, 3 / 4])  # two folds


def test_a_sample_of_a_volume_weighs_what_it_does_in_its_patches_on_average() -> None:
    first = sum_weights([given([[0.5, 2.0]])], SampleConfig(given="sample"))  # 1/2, 0 and 1/2
    second = sum_weights([given([[0.5, 0.5]])], SampleConfig(given="sample"))  # a third each
    moves = np.array([[30.0], [0.0]]), np.array([[12.0], [60.0]])  # where it breaks the bound it moves nothing
    both = Moved(moves[0], first, 1).plus(Moved(moves[1], second, 1))
    np.testing.assert_allclose(both.change, [[42], [60]])
    np.testing.assert_allclose(both.weights / both.searches, [5 / 12, 1 / 6, 5 / 12])


def test_the_interval_of_a_structure_leaves_out_samples_without_weight() -> None:
    segmentation = np.zeros((10, 10, 10), np.int32)
    reference = np.stack([np.full((10, 10, 10), 0.5)] * 2, -1)
    ml = np.array([[0.1], [0.4], [0.5]])

    def row(*weights: float) -> dict[str, object]:
        samples = SampledVolumes(ml, np.array(weights))
        none = np.zeros((0, 10, 10, 10), np.int32)
        return structure_volumes(
            segmentation,
            reference[..., 1:],
            none,
            structures=np.array([[False, True]]),
            names=("organ",),
            voxel=0.001,
            samples=samples,
            raters={"r": segmentation},
        )["organ"]

    assert row(1 / 3, 1 / 3, 1 / 3)["sample_interval"] == [0.1, 0.5]
    assert row(0, 1 / 2, 1 / 2)["sample_interval"] == [0.4, 0.5]
    # samples .4 and .5, rater 0: E|X-y| .45 less half of E|X-X'| .025
    assert row(0, 1 / 2, 1 / 2)["crps"] == pytest.approx(0.425)
