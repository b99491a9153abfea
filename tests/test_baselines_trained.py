"""Baselines with networks of their own: the Probabilistic U-Net and evidential networks, by hand and trained."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.baselines.evidential import evidential, evidential_loss, flat_divergence
from quam_jax.baselines.prob_unet import gaussian_divergence, prob_unet, prob_unet_loss, with_latent
from quam_jax.baselines.records import mean_probabilities
from quam_jax.core.network import Mode
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.training.settings import TrainConfig
from quam_jax.training.trainer import train
from tests.baseline_cases import KEY, image, pixelwise
from tests.small_run import disc, little_model

PROBABILISTIC = Network.create("prob_unet", in_channels=1, n_classes=2, features=(4, 6), latent=3)


_trunk = jax.jit(lambda params, stats, x: PROBABILISTIC.trunk(params, stats, x, cut="last_block"))


_tail = jax.jit(
    lambda params, stats, activation, z: PROBABILISTIC.tail(params, stats, with_latent(activation, z), cut="last_block")[0]
)


_bound = jax.jit(
    lambda params, stats, x, targets: prob_unet_loss(
        PROBABILISTIC, params, stats, x, targets, key=KEY, mode=Mode(), dice_weight=1.0
    )
)


def test_the_divergence_of_gaussians_by_hand() -> None:
    # KL(N(1, 1) || N(0, 4)) = ln 2 - 1/2 + (1 + 1)/8 = 0.44315; of a Gaussian from itself 0
    found = gaussian_divergence(jnp.array([1.0]), jnp.array([0.0]), jnp.array([0.0]), jnp.log(jnp.array([2.0])))
    assert float(found[0]) == pytest.approx(math.log(2) - 0.5 + 0.25, abs=1e-6)
    assert float(gaussian_divergence(*(jnp.array([0.3]),) * 4)[0]) == pytest.approx(0.0, abs=1e-6)


def test_the_network_answers_at_the_mean_of_its_prior_and_samples_around_it() -> None:
    params, stats = PROBABILISTIC.initialise(jax.random.key(0))
    model = SegmentationModel(PROBABILISTIC, params, stats)
    activation = _trunk(params, stats, image()[None])
    at_mean = _tail(params, stats, activation, activation[:, :1, :1, -6:-3])
    np.testing.assert_allclose(at_mean, model(image()[None]), atol=1e-6)
    samples = prob_unet(model, image(), samples=3, key=KEY)
    assert samples.probs.shape == (1, 3, 12 * 14, 2) and float(jnp.abs(samples.probs[0, 0] - samples.probs[0, 1]).max()) > 0
    again = prob_unet(model, image(), samples=2, key=KEY)
    np.testing.assert_array_equal(again.probs[0], samples.probs[0, :2])  # sample n does not depend on how many there are
    narrow = {n: jnp.zeros_like(v) if n.startswith("prior.last.weight") else v for n, v in params.items()}
    narrow["prior.last.bias"] = jnp.array([0.0, 0.0, 0.0, -50.0, -50.0, -50.0])  # a prior without width has one answer
    still = prob_unet(SegmentationModel(PROBABILISTIC, narrow, stats), image(), samples=2, key=KEY)
    np.testing.assert_allclose(still.probs[0, 0], still.probs[0, 1], atol=1e-6)
    with pytest.raises(ValueError, match="expected a network of architecture prob_unet, got"):
        prob_unet(little_model(), image(), key=KEY)


def test_the_bound_of_a_posterior_equal_to_the_prior_is_the_cross_entropy() -> None:
    params, stats = PROBABILISTIC.initialise(jax.random.key(0))
    equal = {n: jnp.zeros_like(v) if ".last." in n else v for n, v in params.items()}  # both Gaussians are standard normal
    targets = jax.nn.one_hot(jnp.asarray(disc(0, 4.0, (12, 14)))[None], 2)
    value, after = _bound(equal, stats, image()[None], targets)
    activation = _trunk(equal, stats, image()[None])
    z = jax.random.normal(KEY, (1, 1, 1, 3))
    logits = _tail(equal, stats, activation, z)
    assert float(value) == pytest.approx(float(-(targets * jax.nn.log_softmax(logits)).sum(-1).mean()), rel=1e-5)
    wide = equal | {"posterior.last.bias": jnp.array([2.0, 0.0, 0.0, 0.0, 0.0, 0.0])}  # 2 nats (2^2/2) over 168 pixels more
    logits = _tail(wide, stats, activation, z + jnp.array([[[[2.0, 0.0, 0.0]]]]))
    expected = -(targets * jax.nn.log_softmax(logits)).sum(-1).mean() + 2 / 168
    value, _ = _bound(wide, stats, image()[None], targets)
    assert float(value) == pytest.approx(float(expected), rel=1e-5) and after == stats


@pytest.mark.long
def test_a_trained_probabilistic_network_draws_what_raters_drew() -> None:
    # half of the raters see the disc, half see nothing: samples must hold both, which their mean alone cannot
    empty, full = np.zeros((12, 12), np.int32), np.asarray(disc(0, 4.0, (12, 12)), np.int32)
    cases = [(image(0, (12, 12)), empty), (image(0, (12, 12)), full)]
    config = TrainConfig(steps=200, batch_size=2, learning_rate=1e-2, flips=False, brightness=0.0, contrast=0.0)
    model = train(PROBABILISTIC, cases, config=config, loss=prob_unet_loss)
    drawn = prob_unet(model, image(0, (12, 12)), samples=32, key=KEY).probs[0, :, :, 1].reshape(32, 12, 12)
    inside = np.asarray(drawn)[:, full == 1].mean(1)
    assert 0.2 < (inside > 0.5).mean() < 0.8 and np.abs(inside - 0.5).mean() > 0.2  # a mean over raters gives 0.5 throughout


def test_the_evidential_loss_by_hand() -> None:
    # logits of -1e9 are no evidence: alpha = (1, 1), E[-ln p] = digamma(2) - digamma(1) = 1, no divergence from flat
    none = jnp.full((1, 1, 1, 2), -1e9)
    target = jnp.array([[[[0.0, 1.0]]]])
    assert float(evidential_loss(none, target, dice_weight=0.0)) == pytest.approx(1.0, abs=1e-5)
    # soft Dice of the mean 1/2: (2*0.5 + 1)/(0.5 + 1 + 1) = 0.8
    assert float(evidential_loss(none, target, dice_weight=1.0)) == pytest.approx(1.2, abs=1e-5)
    # Dirichlet(2, 1) has the density 2p on [0, 1]: its divergence from flat is E ln 2p = ln 2 - 1/2
    assert float(flat_divergence(jnp.array([2.0, 1.0]))) == pytest.approx(math.log(2) - 0.5, abs=1e-5)
    assert float(evidential_loss(none, jnp.zeros_like(none), dice_weight=0.0)) == 0


def test_an_evidential_network_trains_and_draws_around_its_mean() -> None:
    cases = [(image(seed), disc(seed, 4.0, (12, 14)).astype(np.int32)) for seed in range(2)]
    network = pixelwise().network
    losses: list[float] = []
    model = train(
        network,
        cases,
        config=TrainConfig(steps=30, batch_size=2, learning_rate=3e-2),
        loss=evidential_loss,
        progress=lambda step, loss: losses.append(loss),
    )
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    many = evidential(model, image(), samples=200, key=KEY)
    alpha = jax.nn.softplus(model(image()[None])[0]) + 1
    expected = np.asarray(alpha / alpha.sum(-1, keepdims=True))
    np.testing.assert_allclose(mean_probabilities(many, (12, 14)), expected, atol=0.12)  # 200 draws: sd of a mean <= 0.02
