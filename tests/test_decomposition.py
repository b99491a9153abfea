"""Both settings of the decomposition against a second computation written out in numpy, and their laws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core import decomposition
from quam_jax.core.decomposition import entropy
from quam_jax.core.types import Samples

# one compilation a shape; eager operations would be compiled one by one
decompose = jax.jit(decomposition.decompose, static_argnames="setting")
expected_entropy = jax.jit(decomposition.expected_entropy)
expected_cross_entropy = jax.jit(decomposition.expected_cross_entropy)


def random_samples(*, seed: int, t: int = 2, n: int = 5, p: int = 4, c: int = 3, sharp: bool = False) -> Samples:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(c, 0.4), (t, n, p))
    if sharp:  # certain predictions at the first point, and one class excluded at the second
        probs[:, :, 0] = np.eye(c)[rng.integers(0, c, (t, n))]
        probs[:, :, 1, 0] = 0
        probs[:, :, 1] /= probs[:, :, 1].sum(-1, keepdims=True)
    weights = rng.dirichlet(np.ones(n), t)
    if n > 1:
        weights[0, -1] = 0
        weights[0] /= weights[0].sum()
    return Samples(jnp.asarray(probs, jnp.float32), jnp.asarray(weights, jnp.float32))


def plain_entropy(p: np.ndarray) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def brute_a(probs: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    mean = sum(w * p for w, p in zip(weights, probs, strict=True))
    total = plain_entropy(mean)
    aleatoric = sum(w * plain_entropy(p) for w, p in zip(weights, probs, strict=True))
    return total, aleatoric, total - aleatoric


def brute_b(reference: np.ndarray, probs: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    tiny = float(np.finfo(np.float32).tiny)
    total = -sum(
        w * sum(r * math.log(max(q, tiny)) for r, q in zip(reference, p, strict=True) if r > 0)
        for w, p in zip(weights, probs, strict=True)
    )
    return total, plain_entropy(reference), total - plain_entropy(reference)


@pytest.mark.parametrize("sharp", [False, True])
def test_mutual_information_against_numpy(sharp: bool) -> None:
    samples = random_samples(seed=1, sharp=sharp)
    found = decompose(samples)
    probs, weights = (np.asarray(x, np.float64) for x in samples[:2])
    for t, p in np.ndindex(*found.total.shape):
        expected = brute_a(probs[t, :, p], weights[t])
        np.testing.assert_allclose([x[t, p] for x in found], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sharp", [False, True])
def test_cross_entropy_against_numpy(sharp: bool) -> None:
    samples = random_samples(seed=2, sharp=sharp)
    reference = random_samples(seed=3, n=1, sharp=sharp).probs[:, 0]
    found = decompose(samples, reference, setting="cross_entropy")
    probs, weights = (np.asarray(x, np.float64) for x in samples[:2])
    for t, p in np.ndindex(*found.total.shape):
        expected = brute_b(np.asarray(reference[t, p], np.float64), probs[t, :, p], weights[t])
        np.testing.assert_allclose([x[t, p] for x in found], expected, rtol=1e-5, atol=1e-6)


def test_two_certain_samples_that_disagree() -> None:
    # mean (1/2, 1/2): ln 2 = 0.6931, all of it disagreement
    total, aleatoric, epistemic = expected_entropy(jnp.eye(2), jnp.array([0.5, 0.5]))
    assert (float(total), float(aleatoric), float(epistemic)) == pytest.approx((math.log(2), 0, math.log(2)))
    # two equal samples of (1/2, 1/2): ln 2, none of it disagreement
    total, aleatoric, epistemic = expected_entropy(jnp.full((2, 2), 0.5), jnp.array([0.3, 0.7]))
    assert (float(total), float(aleatoric), float(epistemic)) == pytest.approx((math.log(2), math.log(2), 0))
    # reference (1/2, 1/2), one sample (1/4, 3/4): CE = -(ln 1/4 + ln 3/4)/2 = 0.8370
    total, aleatoric, epistemic = expected_cross_entropy(jnp.array([0.5, 0.5]), jnp.array([[0.25, 0.75]]), jnp.ones(1))
    assert float(total) == pytest.approx(0.836988, abs=1e-6)
    assert float(aleatoric) == pytest.approx(math.log(2))
    assert float(epistemic) == pytest.approx(0.836988 - math.log(2), abs=1e-6)


def test_a_sample_that_excludes_what_the_reference_allows_stays_finite() -> None:
    total, _, epistemic = expected_cross_entropy(jnp.array([0.5, 0.5]), jnp.eye(2), jnp.array([0.5, 0.5]))
    assert np.isfinite([total, epistemic]).all()
    assert float(epistemic) > 40  # ln of the smallest normal float32 is -87.3, half of it for each sample


@pytest.mark.parametrize("setting", ["mutual_information", "cross_entropy"])
def test_laws(setting: str) -> None:
    samples = random_samples(seed=4, t=3, n=7, p=50, c=4, sharp=True)
    reference = random_samples(seed=5, t=3, n=1, p=50, c=4).probs[:, 0]
    found = decompose(samples, reference, setting=setting)
    np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic, rtol=1e-6)
    assert float(found.epistemic.min()) >= 0 and float(found.aleatoric.min()) >= 0
    if setting == "mutual_information":
        assert float(found.total.max()) <= math.log(4) + 1e-5
    order = np.random.default_rng(0).permutation(7)
    shuffled = decompose(Samples(samples.probs[:, order], samples.weights[:, order]), reference, setting=setting)
    for a, b in zip(found, shuffled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_equal_samples_have_exactly_no_epistemic_part() -> None:
    rng = np.random.default_rng(6)
    probs = rng.dirichlet(np.ones(3), (1, 1, 40)).astype(np.float32)
    # the same network seen by two compiled programs: a relative difference of some roundings of 6e-8
    again = probs * (1 + 1e-6 * rng.choice([-1, 1], probs.shape)).astype(np.float32)
    for other in (probs, again):
        samples = Samples(jnp.asarray(np.concatenate([probs, other, probs, other], 1)), jnp.full((1, 4), 0.25))
        np.testing.assert_array_equal(decompose(samples).epistemic, 0)
        np.testing.assert_array_equal(decompose(samples, jnp.asarray(probs[:, 0]), setting="cross_entropy").epistemic, 0)


@pytest.mark.parametrize("setting", ["mutual_information", "cross_entropy"])
@pytest.mark.parametrize("size", [1e-3, 1e-2, 0.05, 0.09, 0.11, 0.5])
def test_small_disagreements_are_not_lost_in_rounding(setting: str, size: float) -> None:
    """Differences of 1e-3 make 1e-7 nats, which a difference of float32 entropies cannot hold; here most digits are there."""
    rng = np.random.default_rng(9)
    first = rng.dirichlet(np.full(3, 5.0), 20)
    second = first * (1 + size * rng.uniform(-1, 1, first.shape))
    second /= second.sum(-1, keepdims=True)
    first, second = first.astype(np.float32), second.astype(np.float32)
    samples = Samples(jnp.asarray(np.stack([first, second])[None]), jnp.array([[0.25, 0.75]]))
    found = decompose(samples, jnp.asarray(first)[None], setting=setting).epistemic[0]

    def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        u = (p - q) / q
        return np.sum(q * ((1 + u) * np.log1p(u) - u), -1)

    p, q = first.astype(np.float64), second.astype(np.float64)
    centre = 0.25 * p + 0.75 * q
    expected = (
        0.25 * divergence(p, centre) + 0.75 * divergence(q, centre)
        if setting == "mutual_information"
        else 0.75 * divergence(p, q)
    )
    # the mean is rounded to 6e-8 of it; what counts as equal costs at most u^2/2 = (64 * 1.2e-7)^2 / 2 = 3e-11 nats
    np.testing.assert_allclose(found, expected, rtol=1e-4 + 1e-6 / size, atol=3e-11)


def test_samples_without_weight_do_not_count() -> None:
    samples = random_samples(seed=7)
    weights = samples.weights.at[:, 0].set(0.0)
    weights = weights / weights.sum(1, keepdims=True)
    with_it = decompose(Samples(samples.probs, weights))
    without = decompose(Samples(samples.probs[:, 1:], weights[:, 1:]))
    for a, b in zip(with_it, without, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_entropy_of_a_certain_prediction_is_zero() -> None:
    np.testing.assert_array_equal(entropy(jnp.eye(3)), np.zeros(3))
    assert float(entropy(jnp.full(4, 0.25))) == pytest.approx(math.log(4))


def test_gradient_is_finite_at_certain_predictions() -> None:
    gradient = jax.grad(lambda p: expected_entropy(p, jnp.array([0.5, 0.5])).total)(jnp.array([[0.2, 0.8], [0.6, 0.4]]))
    assert np.isfinite(gradient).all()


def test_cross_entropy_needs_a_reference() -> None:
    with pytest.raises(ValueError, match="expected the reference probabilities, got none"):
        decompose(random_samples(seed=8), setting="cross_entropy")
