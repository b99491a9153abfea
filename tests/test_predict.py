"""Reference predictions and reference losses against numpy, with images that the network cannot take as they are."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config import SearchConfig
from quam_jax.core import fit as core_fit
from quam_jax.core.loss import cross_entropy
from quam_jax.models.model import SegmentationModel
from quam_jax.models.predict import fit_data, predict
from quam_jax.models.prepare import prepare
from tests.tiny import SIZE, numpy_cross_entropy, tiny_image, tiny_model, tiny_network


@pytest.fixture(scope="module")
def model() -> Iterator[SegmentationModel]:
    with tiny_network():
        yield tiny_model(classes=3)


def random_fit(*, size: tuple[int, int] = SIZE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, (3, 2, *size))
    return rng.standard_normal((3, 2, *size, 2)).astype(np.float32), labels


def test_probabilities_are_the_softmax_of_the_logits(model: SegmentationModel) -> None:
    image = tiny_image()
    probs = np.asarray(predict(model, image))
    logits = np.asarray(model(image[None]), np.float64)[0]
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probs, expected, rtol=1e-5)
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-6)


def test_odd_sides_are_padded_by_the_edge_and_cropped_back(model: SegmentationModel) -> None:
    image = tiny_image(size=(7, 11))
    padded = np.pad(image, [(0, 1), (0, 1), (0, 0)], mode="edge")
    np.testing.assert_allclose(predict(model, image), predict(model, padded)[:7, :11], rtol=1e-6)


@pytest.mark.parametrize("size", [SIZE, (7, 11)])
def test_reference_loss_is_the_mean_over_labelled_pixels(model: SegmentationModel, size: tuple[int, int]) -> None:
    images, labels = random_fit(size=size)
    fit = fit_data(model, images, labels)
    assert fit.images.shape == (3, 2, *SIZE, 2) and fit.labels.shape == (3, 2, *SIZE)
    expected = [numpy_cross_entropy(model(x), y) for x, y in zip(images, labels, strict=True)]
    found = prepare(model, fit, SearchConfig()).reference_loss
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(fit.labels[:, :, : size[0], : size[1]], labels)
    assert bool((fit.labels[:, :, size[0] :] == -1).all()) and bool((fit.labels[:, :, :, size[1] :] == -1).all())


def test_large_fit_batches_are_measured_in_parts(model: SegmentationModel, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = random_fit()
    labels[:, 0, :2] = -1  # other numbers of labelled pixels
    fit = fit_data(model, images, labels)
    expected = prepare(model, fit, SearchConfig(space="last_block"))
    monkeypatch.setattr(core_fit, "AT_ONCE", 1)
    assert core_fit.part_size((8, 5, 7)) == 1
    found = prepare(model, fit, SearchConfig(space="last_block"))
    np.testing.assert_allclose(found.reference_loss, expected.reference_loss, rtol=1e-6)
    np.testing.assert_allclose(found.fit, expected.fit, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(core_fit, "AT_ONCE", 200)
    assert [core_fit.part_size((8, 5, n)) for n in (4, 10, 20, 30, 50)] == [8, 4, 2, 1, 1]


def test_cross_entropy_by_hand() -> None:
    # logits (0, ln 3): probabilities 1/4 and 3/4, so -ln(1/4) = 1.3863 and -ln(3/4) = 0.2877; the third is not labelled
    logits = jnp.log(jnp.array([[1.0, 3.0]] * 3))
    assert float(cross_entropy.mean(logits, jnp.array([0, 1, -1]))) == pytest.approx((1.386294 + 0.287682) / 2, abs=1e-5)
    assert float(cross_entropy.mean(logits, jnp.array([-1, -1, -1]))) == 0
    gradient = jax.grad(cross_entropy.mean)(logits, jnp.array([0, 1, -1]))
    np.testing.assert_allclose(gradient, [[-0.375, 0.375], [0.125, -0.125], [0, 0]], atol=1e-6)


def test_fit_data_that_cannot_serve(model: SegmentationModel) -> None:
    images, labels = random_fit()
    with pytest.raises(ValueError, match="fit data: expected at least one fit batch, got none"):
        fit_data(model, images[:0], labels[:0])
    with pytest.raises(ValueError, match=r"fit labels: expected 0..2 \(or -1 to ignore\), got values from -1 to 3"):
        fit_data(model, images, np.where(labels == 2, 3, labels))
    with pytest.raises(ValueError, match="from -2 to 2"):
        fit_data(model, images, np.where(labels == -1, -2, labels))
    without = labels.copy()
    without[1] = -1
    with pytest.raises(ValueError, match="expected labelled pixels in every fit batch, got a batch without any"):
        fit_data(model, images, without)
