"""Laws of a search: it keeps the fit, standing still gives the reference, every record belongs to its step and its inside."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core.decomposition import decompose
from quam_jax.core.types import Targets, Trajectory
from quam_jax.core.weighting import feasible, to_samples, trajectory_weights
from quam_jax.models.model import SegmentationModel
from quam_jax.models.predict import fit_data, predict
from quam_jax.models.prepare import prepare
from tests.member_searches import EVAL, assert_equal, run
from tests.tiny import SIZE, numpy_cross_entropy, search, tiny_fit, tiny_image, tiny_model, tiny_targets

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return tiny_model(drop=0.3)


def test_a_search_lowers_its_objective_and_keeps_the_fit() -> None:
    trajectory = run(dataclasses.replace(EVAL, steps=6, learning_rate=0.02))
    assert (trajectory.objective[..., -1] < trajectory.objective[..., 0]).all()
    assert (trajectory.penalty >= 0).all()
    np.testing.assert_array_equal(np.asarray(feasible(trajectory)), trajectory.fit_loss <= trajectory.bound)


def test_the_record_of_a_step_belongs_to_one_set_of_weights() -> None:
    """With record `same`, the objective is the cross-entropy of the recorded prediction; published, of the one before."""
    labels = np.asarray(tiny_targets().labels)[0]

    def objectives(trajectory: Trajectory) -> np.ndarray:
        return np.array(
            [
                [numpy_cross_entropy(np.log(trajectory.probs[0, m, s]), labels[m]) for s in range(trajectory.probs.shape[2])]
                for m in range(3)
            ]
        )

    same = run(EVAL)
    np.testing.assert_allclose(objectives(same), same.objective[0], rtol=1e-4)
    after = run(dataclasses.replace(EVAL, record="after"))
    np.testing.assert_allclose(objectives(after)[:, :-1], after.objective[0, :, 1:], rtol=1e-4)
    # the same iterates, one shift apart
    np.testing.assert_allclose(after.probs, same.probs, rtol=1e-5, atol=1e-6)


def test_bounds_and_fit_losses_belong_to_the_batch_of_the_step(model: SegmentationModel) -> None:
    still = dataclasses.replace(EVAL, learning_rate=0.0, record="after", steps=4)
    reference = np.asarray(prepare(model, tiny_fit(model), EVAL).reference_loss)
    trajectory = run(still)
    np.testing.assert_allclose(trajectory.fit_loss[0], [reference[[0, 1, 2, 0]]] * 3, rtol=1e-5)
    np.testing.assert_allclose(trajectory.bound, trajectory.fit_loss * 1.05, rtol=1e-5)
    # with record `same`, step s is measured by the pass of step s + 1, on its batch
    np.testing.assert_allclose(
        run(dataclasses.replace(still, record="same")).fit_loss[0], [reference[[1, 2, 0, 1]]] * 3, rtol=1e-5
    )


@pytest.mark.parametrize("space", ["full", "last_block", "low_rank:1", "input:0.5"])
def test_learning_rate_zero_gives_the_reference_and_no_epistemic_part(model: SegmentationModel, space: str) -> None:
    trajectory = run(dataclasses.replace(EVAL, learning_rate=0.0, space=space))
    reference = np.asarray(predict(model, tiny_image())).reshape(1, 1, 1, 96, 2)
    np.testing.assert_allclose(trajectory.probs, np.broadcast_to(reference, trajectory.probs.shape), rtol=1e-4, atol=1e-6)
    assert np.asarray(feasible(trajectory)).all()
    samples = to_samples(trajectory, trajectory_weights(trajectory), reference=jnp.asarray(reference[:, 0, 0]))
    assert float(decompose(samples).epistemic.max()) < 1e-6


def test_spaces_of_the_same_weights_search_alike() -> None:
    # in eval mode the frozen trunk is a constant, whether it is computed once or anew at every step
    by_name, by_cut = (run(dataclasses.replace(EVAL, space=space)) for space in ("subset:last|head", "last_block"))
    assert_equal(by_name, by_cut, rtol=1e-4)


def test_an_image_search_never_leaves_the_fit(model: SegmentationModel) -> None:
    trajectory = run(dataclasses.replace(EVAL, space="input:0.5"))
    np.testing.assert_allclose(
        trajectory.fit_loss[0], [np.asarray(prepare(model, tiny_fit(model), EVAL).reference_loss)[[1, 2]]] * 3, rtol=1e-6
    )
    assert (trajectory.penalty == 0).all()


def test_targets_of_few_points(model: SegmentationModel) -> None:
    """Two targets of three points each, one of them padding."""
    targets = Targets(
        jnp.array([[5, 40, 0], [95, 7, 8]]),
        jnp.array([[[0, 1, 0]] * 2, [[1, 1, 0]] * 2]),
        jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),
    )
    config = dataclasses.replace(EVAL, learning_rate=0.0)
    found = search(model, tiny_image(), tiny_fit(model), targets=targets, config=config, key=jax.random.key(0))
    assert found.probs.shape == (2, 2, 2, 3, 2)
    reference = np.asarray(predict(model, tiny_image())).reshape(96, 2)
    np.testing.assert_allclose(found.probs[:, 1, 1], reference[np.asarray(targets.points)], rtol=1e-4)
    logs = -np.log(reference)
    expected = [(logs[5, 0] + logs[40, 1]) / 2, (logs[95, 1] + logs[7, 1] + logs[8, 0]) / 3]
    np.testing.assert_allclose(found.objective[:, 0, 0], expected, rtol=1e-4)


def test_sides_that_the_network_cannot_take(model: SegmentationModel) -> None:
    """Padding takes part neither in the target nor in the fit: at learning rate 0 all numbers are those of the inside."""
    size = (7, 11)
    image, targets = tiny_image(size=size), tiny_targets(size=size)
    rng = np.random.default_rng(5)
    images, labels = rng.standard_normal((3, 2, *size, 2)).astype(np.float32), rng.integers(0, 2, (3, 2, *size))
    fit = fit_data(model, images, labels)
    assert fit.images.shape[2:4] == SIZE
    config = dataclasses.replace(EVAL, learning_rate=0.0)
    still = search(model, image, fit, targets=targets, config=config, key=jax.random.key(0))
    reference = np.asarray(predict(model, image)).reshape(77, 2)
    assert still.probs.shape == (1, 3, 2, 77, 2)
    np.testing.assert_allclose(still.probs[0, 2, 1], reference, rtol=1e-4)
    np.testing.assert_allclose(
        still.objective[0, :, 0], [numpy_cross_entropy(np.log(reference), y) for y in targets.labels[0]], rtol=1e-4
    )
    np.testing.assert_allclose(still.fit_loss[0, 0, 0], numpy_cross_entropy(model(images[1]), labels[1]), rtol=1e-4)
    moved = search(model, image, fit, targets=targets, config=EVAL, key=jax.random.key(0))
    assert np.isfinite(moved.probs).all() and (moved.objective[..., -1] < still.objective[..., 0]).all()


def test_fit_data_of_other_sides_is_refused(model: SegmentationModel) -> None:
    fit = tiny_fit(model)
    with pytest.raises(ValueError, match=r"fit data: expected sides that the network can take, got \(8, 11\)"):
        prepare(model, fit._replace(images=fit.images[:, :, :, :11], labels=fit.labels[:, :, :, :11]), EVAL)
