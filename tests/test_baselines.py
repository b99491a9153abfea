"""Baselines: hand-computed cases, laws of samples, exact inverses on an equivariant network, closed form against brute force."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.baselines import BASELINES
from quam_jax.baselines.blur import blur, blurred_mask
from quam_jax.baselines.boundary import boundary
from quam_jax.baselines.ensemble import ensemble
from quam_jax.baselines.laplace import _gauss_newton, fit_posterior, laplace
from quam_jax.baselines.mc_dropout import dropout_layers, mc_dropout
from quam_jax.baselines.random_directions import random_directions
from quam_jax.baselines.records import as_samples, head_features, head_logits, mean_probabilities
from quam_jax.baselines.softmax import softmax
from quam_jax.baselines.temperature import fit_temperature
from quam_jax.baselines.temperature import temperature as scale_temperature
from quam_jax.baselines.tta import tta, tta_blur, tta_ensemble
from quam_jax.config import SearchConfig
from quam_jax.core.directions import fit_directions
from quam_jax.core.types import FitData
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.predict import fit_data, predict
from quam_jax.models.prepare import prepare
from tests.baseline_cases import KEY, image, pixelwise
from tests.small_run import disc, little_model


def fit_of(model: SegmentationModel, count: int = 2) -> FitData:
    images = np.stack([image(seed) for seed in range(count)])[None]
    return fit_data(model, images, np.stack([disc(seed, 4.0, (12, 14)) for seed in range(count)])[None].astype(np.int32))


OF_ONE_MODEL = {name for name, method in BASELINES.items() if method.function is not None and not method.ensemble}


@pytest.mark.parametrize("name", sorted(OF_ONE_MODEL - {"boundary", "prob_unet"}))
def test_every_baseline_gives_probabilities_with_weights_that_sum_to_one(name: str) -> None:
    model = little_model()
    settings = {
        "temperature": {"temperature": 2.0},
        "blur": {"width": 1.0},
        "blurred_mask": {"width": 1.0},
        "tta": {"key": KEY},
        "tta_blur": {"key": KEY, "width": 1.0},
        "mc_dropout": {"key": KEY, "samples": 3, "inject": 0.5},
        "mc_dropout_views": {"key": KEY, "samples": 2, "inject": 0.5, "views": "flips"},
        "random_directions": {
            "directions": fit_directions(prepare(model, fit_of(model), SearchConfig()), count=1, key=KEY),
        },
        "evidential": {"samples": 3, "key": KEY},
        "laplace": {"posterior": fit_posterior(model, fit_of(model)), "samples": 3, "key": KEY},
    }.get(name, {})
    samples = BASELINES[name].function(model, image(), **settings)
    count = samples.probs.shape[1]
    assert samples.probs.shape == (1, count, 12 * 14, 2) and samples.weights.shape == (1, count)
    np.testing.assert_allclose(samples.probs.sum(-1), 1, atol=1e-5)
    assert float(samples.probs.min()) >= 0
    np.testing.assert_allclose(samples.weights.sum(), 1, atol=1e-6)
    assert mean_probabilities(samples, (12, 14)).shape == (12, 14, 2)
    with pytest.raises(ValueError, match="image: expected 2 spatial axes and 1 channels"):
        BASELINES[name].function(model, image()[..., 0], **settings)
    with pytest.raises(ValueError, match="image: expected finite values, got 1"):
        bad = image()
        bad[0, 0] = np.nan
        BASELINES[name].function(model, bad, **settings)


def test_samples_of_unequal_weight_average_by_hand() -> None:
    samples = as_samples(jnp.array([[[[1.0, 0.0]]], [[[0.2, 0.8]]]]), jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(mean_probabilities(samples, (1, 1)), [[[0.4, 0.6]]])  # (1 + 3*0.2)/4


def test_softmax_is_the_prediction_and_temperature_one_too() -> None:
    model = little_model()
    reference = predict(model, jnp.asarray(image())).reshape(-1, 2)
    np.testing.assert_allclose(softmax(model, image()).probs[0, 0], reference, atol=1e-6)
    np.testing.assert_allclose(scale_temperature(model, image(), temperature=1.0).probs[0, 0], reference, atol=1e-6)
    hot = scale_temperature(model, image(), temperature=1e6).probs[0, 0]
    np.testing.assert_allclose(hot, 0.5, atol=1e-4)
    with pytest.raises(ValueError, match="temperature: expected a number > 0"):
        scale_temperature(model, image(), temperature=0.0)


def test_the_fitted_temperature_is_the_one_by_hand() -> None:
    # logits (0, 4) where three of four labels are 1: sigmoid(4/T) = 3/4 at 4/T = ln 3
    logits = [np.tile([0.0, 4.0], (4, 1))]
    targets = [np.array([[0.0, 1.0]] * 3 + [[1.0, 0.0]])]
    assert fit_temperature(logits, targets) == pytest.approx(4 / math.log(3), rel=1e-3)
    assert fit_temperature(logits, [np.tile([0.25, 0.75], (4, 1))]) == pytest.approx(4 / math.log(3), rel=1e-3)
    with pytest.raises(ValueError, match="temperature: expected as many"):
        fit_temperature([], [])


def test_blur_spreads_and_keeps_the_sum() -> None:
    model = little_model()
    np.testing.assert_array_equal(blur(model, image(), width=0.0).probs, softmax(model, image()).probs)
    wide = blur(model, image(), width=50.0).probs[0, 0].reshape(12, 14, 2)
    assert float(wide[..., 1].max() - wide[..., 1].min()) < 0.02
    hard = blurred_mask(model, image(), width=0.0).probs
    assert set(np.unique(hard)) <= {0.0, 1.0}
    with pytest.raises(ValueError, match="blur: expected a width >= 0"):
        blur(model, image(), width=-1.0)


def test_boundary_is_a_gaussian_of_the_distance() -> None:
    model = little_model()
    labels = np.asarray(predict(model, jnp.asarray(image()))).argmax(-1)
    control = boundary(model, image(), sigma=2.0)
    changes = np.zeros(labels.shape, bool)
    changes[1:] |= labels[1:] != labels[:-1]
    if changes.any():
        np.testing.assert_allclose(control[changes], math.exp(-1 / 8))  # one pixel from the other label
    else:
        assert not control.any()


def test_every_change_of_place_is_inverted_exactly_on_an_equivariant_network() -> None:
    model, x = pixelwise(), image(size=(12, 12))
    samples = tta(model, x, key=KEY, views="geometric")
    assert samples.probs.shape[1] == 6
    plain = softmax(model, x).probs[0]
    np.testing.assert_allclose(samples.probs[0], np.repeat(plain, 6, 0), atol=1e-5)


def test_views_of_several_models_are_those_of_each() -> None:
    models, x = [little_model(seed) for seed in range(2)], image()
    both = tta_ensemble(models, x, key=KEY)
    np.testing.assert_allclose(both.probs, np.concatenate([tta(model, x, key=KEY).probs for model in models], 1), atol=1e-6)
    means = np.asarray(tta(models[0], x, key=KEY).probs[0]).mean(0)
    blurred = tta_blur(models[0], x, key=KEY, width=0.0)
    np.testing.assert_allclose(blurred.probs[0, 0], means, atol=1e-6)
    assert float(jnp.abs(tta_blur(models[0], x, key=KEY, width=1.0).probs[0, 0] - means).max()) > 1e-4
    with pytest.raises(ValueError, match="views: expected none, flips.* got 'flip9'"):
        tta(models[0], x, key=KEY, views="flip9")


def test_dropout_is_counted_and_its_absence_is_an_error_that_names_the_way_out() -> None:
    without = little_model()
    assert dropout_layers(without.network) == 0
    with pytest.raises(ValueError, match="mc_dropout: nnunet_plain: expected a network with dropout.*--inject-dropout"):
        mc_dropout(without, image(), key=KEY)
    network = Network.create("plain_unet", in_channels=1, n_classes=2, channels=2, drop=0.3)
    assert dropout_layers(network) > 0
    params, stats = network.initialise(jax.random.key(1))
    model = SegmentationModel(network, params, stats)
    many = mc_dropout(model, image(), key=KEY, samples=3)
    assert float(jnp.abs(many.probs[0, 0] - many.probs[0, 1]).max()) > 1e-4
    np.testing.assert_array_equal(mc_dropout(model, image(), key=KEY, samples=2).probs, many.probs[:, :2])  # keys by index
    with pytest.raises(ValueError, match="--inject-dropout: expected a rate"):
        mc_dropout(model, image(), key=KEY, inject=1.0)


def test_injected_dropout_is_right_on_average() -> None:
    model = little_model()
    features = head_features(model, jnp.asarray(image())[None])
    np.testing.assert_allclose(head_logits(model, features)[0], model(image()[None])[0], atol=1e-5)
    tiny = mc_dropout(model, image(), key=KEY, samples=1, inject=1e-7)
    np.testing.assert_allclose(tiny.probs, softmax(model, image()).probs, atol=1e-4)


def test_ensembles_hold_every_model_once() -> None:
    models = [little_model(seed) for seed in range(3)]
    samples = ensemble(models, image())
    for n, model in enumerate(models):
        np.testing.assert_allclose(samples.probs[:, n], softmax(model, image()).probs[:, 0], atol=1e-6)
    with pytest.raises(ValueError, match="at least two models"):
        ensemble(models[:1], image())
    with pytest.raises(ValueError, match="equal channels"):
        ensemble([models[0], little_model(in_channels=3)], image())


@pytest.mark.parametrize("slack", [0.05, 0.5])
def test_random_directions_use_up_the_slack_and_keep_it(slack: float) -> None:
    model = little_model()
    prepared = prepare(model, fit_of(model), SearchConfig(slack=slack))
    found = fit_directions(prepared, count=2, key=KEY)
    assert found.fit_loss.shape == (4, 1)
    assert (found.fit_loss <= found.bound).all()
    reference = float(prepared.reference_loss[0])
    used = (found.fit_loss[:, 0] - reference) / (slack * reference)
    assert (used[found.steps < 2.0] > 0.9).all()  # unless the largest step was reached, the bound is
    samples = random_directions(model, image(), directions=found)
    assert samples.probs.shape[1] == 4
    pooled = random_directions(model, image(), directions=found, key=KEY, views="flips", pooled=True)
    assert pooled.probs.shape[1] == 3 * (1 + 4)
    np.testing.assert_allclose(pooled.probs[0, :3], tta(model, image(), key=KEY, views="flips").probs[0], atol=1e-6)
    np.testing.assert_allclose([pooled.weights[0, :3].sum(), pooled.weights[0].sum()], [0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(pooled.probs[0, 3::3], samples.probs[0], atol=1e-6)  # the first view is the image itself
    none = fit_directions(prepare(model, fit_of(model), SearchConfig(slack=0.0)), count=1, key=KEY)
    np.testing.assert_array_less(none.fit_loss[:, 0], reference * (1 + 1e-6))


def test_the_gauss_newton_matrix_is_the_hessian_of_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    rows, head = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    labels = jnp.array([0, 2, 1, 1, 0])
    labelled = jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])

    def loss(flat: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(rows @ flat.reshape(3, 3))
        return -jnp.sum(labelled * jnp.take_along_axis(logs, labels[:, None], 1)[:, 0])

    np.testing.assert_allclose(_gauss_newton(rows, head, labelled), jax.jit(jax.hessian(loss))(head.ravel()), atol=1e-4)


def test_laplace_draws_have_the_covariance_of_the_posterior() -> None:
    model = little_model()
    posterior = fit_posterior(model, fit_of(model), prior_precision=10.0)
    draws = np.linalg.solve(posterior.factor.T, np.random.default_rng(0).normal(size=(posterior.mean.size, 40000)))
    precision = posterior.factor @ posterior.factor.T
    np.testing.assert_allclose(np.cov(draws), np.linalg.inv(precision), atol=0.01 * np.abs(np.linalg.inv(precision)).max() * 5)
    still = laplace(model, image(), posterior=posterior, samples=2, scale=0.0, key=KEY)
    np.testing.assert_allclose(still.probs[0, 1], softmax(model, image()).probs[0, 0], atol=1e-5)
    moved = laplace(model, image(), posterior=posterior, samples=4, scale=3.0, key=KEY)
    assert float(jnp.abs(moved.probs[0, 0] - moved.probs[0, 1]).max()) > 1e-5
    with pytest.raises(ValueError, match="prior precision > 0"):
        fit_posterior(model, fit_of(model), prior_precision=0.0)
