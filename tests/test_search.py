"""One step of one member: the table of steps by hand, the loss against numpy, its gradient against finite differences."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config import SearchConfig
from quam_jax.config.build import build_procedure, build_schedule
from quam_jax.core.fit import reference_losses
from quam_jax.core.network import GivenNoise, Mode
from quam_jax.core.schedule import Slack
from quam_jax.core.setup import Frozen, Record, Setup, StepInputs, Target
from quam_jax.core.space import FullSpace, InputSpace
from quam_jax.core.step import begin, measure, step
from quam_jax.models.model import SegmentationModel
from tests.golden_sections.double import as_double, double_precision
from tests.tiny import numpy_cross_entropy, tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets

ADVANCE = jax.jit(step, static_argnums=0)
MEASURE = jax.jit(measure, static_argnums=0)
BEGIN = jax.jit(begin, static_argnums=0)
RATE, COEFFICIENT = 0.05, 3.0


@pytest.fixture(scope="module")
def model() -> Iterator[SegmentationModel]:
    with tiny_network():
        yield tiny_model()


def problem(model: SegmentationModel, config: SearchConfig, *, double: bool = False) -> tuple[Setup, Frozen, Target, StepInputs]:
    """Everything that a step takes besides its state, for fit batch 1."""
    fit = tiny_fit(model)
    image = jnp.asarray(tiny_image()[None])
    procedure = build_procedure(config, model.network)
    setup = Setup.of(model.network, procedure, image.shape[1:-1])

    assert isinstance(setup.space, FullSpace | InputSpace)  # nothing to prepare
    reference = reference_losses(model.network, model.params, model.stats, fit, procedure.loss)
    frozen = Frozen(model.params, model.stats, image, *fit, reference, procedure.slack.bound(reference))
    targets = tiny_targets()
    target = Target(targets.points[0], targets.labels[0, 0], targets.weights[0])
    inputs = StepInputs(jnp.asarray(1), jnp.asarray(COEFFICIENT), jnp.asarray(RATE), None)
    if double:
        frozen, target, inputs = as_double((frozen, target, inputs))
    return setup, frozen, target, inputs


def value(record: Record) -> Any:
    return record.objective + record.penalty


# the table of steps


def test_published_table_of_steps() -> None:
    # 100 fit batches, every 50th, 3 epochs: t = 49, 99, 149, 199, 249, 299; c = 1 + 2*(t//3) one step later
    plan = build_schedule(SearchConfig.published()).plan(100)
    np.testing.assert_array_equal(plan.batch, [49, 99, 49, 99, 49, 99])
    np.testing.assert_array_equal(plan.coefficient, [1, 33, 67, 99, 133, 167])


def test_batches_that_are_left_over_are_not_used() -> None:
    # 12 batches, every 5th, 2 epochs: t = 4, 9, 16, 21; c = 0.5*1.5^(t//5): 0.5, 0.75, 0.5*1.5^3 = 1.6875, one step later
    config = SearchConfig.published(
        epochs=2, batch_stride=5, schedule="exponential", schedule_start=0.5, schedule_rate=1.5, schedule_every=5, coefficient=7.0
    )
    plan = build_schedule(config).plan(12)
    np.testing.assert_array_equal(plan.batch, [4, 9, 4, 9])
    np.testing.assert_allclose(plan.coefficient, [7.0, 0.5, 0.75, 1.6875])


def test_steps_take_the_batches_in_turn() -> None:
    config = SearchConfig(steps=5, schedule="linear", schedule_start=2.0, schedule_rate=1.0, schedule_every=2, coefficient=9.0)
    plan = build_schedule(config).plan(3)
    np.testing.assert_array_equal(plan.batch, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(plan.coefficient, [9, 2, 2, 3, 3])
    constant = build_schedule(SearchConfig(steps=4)).plan(1)
    np.testing.assert_array_equal(constant.batch, [0, 0, 0, 0])
    np.testing.assert_array_equal(constant.coefficient, [10, 10, 10, 10])


def test_too_few_batches_for_the_stride() -> None:
    with pytest.raises(ValueError, match="expected at least batch_stride = 50 fit batches, got 49"):
        build_schedule(SearchConfig.published()).plan(49)


def test_slack_as_a_fraction_and_in_nats() -> None:
    reference = jnp.array([0.1, 0.4])
    np.testing.assert_allclose(Slack(0.5).bound(reference), [0.15, 0.6])
    np.testing.assert_allclose(Slack(-0.2, relative=False).bound(reference), [-0.1, 0.2], atol=1e-7)


# losses


@pytest.mark.parametrize("penalty, slack", [("hinge", 0.5), ("hinge", 0.0), ("linear", 0.5)])
def test_losses_of_the_reference_against_numpy(model: SegmentationModel, penalty: str, slack: float) -> None:
    config = SearchConfig(penalty=penalty, slack=slack)
    setup, frozen, target, inputs = problem(model, config)
    record = MEASURE(setup, frozen, target, BEGIN(setup, frozen), inputs)
    logits = np.asarray(model(tiny_image()[None]))[0].reshape(-1, 2)
    objective = numpy_cross_entropy(logits, target.labels)
    fit_loss = numpy_cross_entropy(model(tiny_fit(model).images[1]), tiny_fit(model).labels[1])
    violation = fit_loss - float(frozen.reference_loss[1]) * (1 + slack)
    assert float(record.objective) == pytest.approx(objective, rel=1e-5)
    assert float(record.fit_loss) == pytest.approx(fit_loss, rel=1e-5)
    assert float(record.bound) == pytest.approx(float(frozen.reference_loss[1]) * (1 + slack))
    expected = COEFFICIENT * (max(violation, 0.0) if penalty == "hinge" else violation)
    assert float(record.penalty) == pytest.approx(expected, abs=1e-5)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(record.probs, probs, rtol=1e-5)


def test_only_the_points_of_a_target_count(model: SegmentationModel) -> None:
    setup, frozen, target, inputs = problem(model, SearchConfig())
    chosen = Target(jnp.array([90, 3, 17]), jnp.array([0, 1, 1]), jnp.array([1.0, 3.0, 0.0]))
    record = MEASURE(setup, frozen, chosen, BEGIN(setup, frozen), inputs)
    logits = np.asarray(model(tiny_image()[None]))[0].reshape(-1, 2)[[90, 3]]
    losses = [numpy_cross_entropy(logits[:1], [0]), numpy_cross_entropy(logits[1:], [1])]
    assert float(record.objective) == pytest.approx((losses[0] + 3 * losses[1]) / 4, rel=1e-5)
    assert record.probs.shape == (3, 2)


@pytest.mark.parametrize("space", ["full", "input:0.5"])
def test_gradient_against_finite_differences(model: SegmentationModel, space: str) -> None:
    """A step of plain descent moves by -rate * gradient; both are compared along random directions in float64."""
    config = SearchConfig(space=space, optimizer="sgd", penalty="linear")
    with double_precision():
        setup, frozen, target, inputs = problem(model, config, double=True)
        start = as_double(BEGIN(setup, frozen))
        # somewhere else than at the start
        leaves, tree = jax.tree.flatten(start.z)
        rng = np.random.default_rng(0)
        leaves = [np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape) for leaf in leaves]
        state = start._replace(z=jax.tree.unflatten(tree, leaves))
        after, _ = ADVANCE(setup, frozen, target, state, inputs)
        gradient = [(a - np.asarray(b)) / RATE for a, b in zip(leaves, jax.tree.leaves(after.z), strict=True)]
        for _ in range(3):
            direction = [rng.standard_normal(leaf.shape) for leaf in leaves]
            along = sum(float(np.sum(g * d)) for g, d in zip(gradient, direction, strict=True))
            h = 1e-5
            ends = []
            for sign in (1, -1):
                z = [leaf + sign * h * d for leaf, d in zip(leaves, direction, strict=True)]
                there = state._replace(z=jax.tree.unflatten(tree, z))
                ends.append(value(MEASURE(setup, frozen, target, there, inputs)))
            assert along == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-9)
            assert abs(along) > 1e-6


def test_hinge_has_no_gradient_inside_the_slack(model: SegmentationModel) -> None:
    wide = SearchConfig(optimizer="sgd", slack=50.0)
    setup, frozen, target, inputs = problem(model, wide)
    with_it, record = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs)
    without, _ = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs._replace(coefficient=jnp.asarray(0.0)))
    assert float(record.penalty) == 0
    for name in with_it.z:
        np.testing.assert_allclose(with_it.z[name], without.z[name], atol=1e-7)
    # outside the slack the constraint pulls
    tight, frozen, target, inputs = problem(model, dataclasses.replace(wide, slack=-1.0, slack_unit="nats"))
    pulled, record = ADVANCE(tight, frozen, target, BEGIN(tight, frozen), inputs)
    assert float(record.penalty) > 0
    assert max(float(np.abs(pulled.z[n] - without.z[n]).max()) for n in without.z) > 1e-4


def test_adam_is_torchs_rule(model: SegmentationModel) -> None:
    """After one step Adam moves by rate * g / (|g| + eps); eps = 1e-8."""
    setup, frozen, target, inputs = problem(model, SearchConfig(optimizer="sgd"))
    plain, _ = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs)
    setup, *_ = problem(model, SearchConfig(optimizer="adam"))
    adam, _ = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs)
    clear = []
    for name, start in model.params.items():
        g = (np.asarray(start, np.float64) - np.asarray(plain.z[name])) / RATE
        expected = np.asarray(start) - RATE * g / (np.abs(g) + 1e-8)
        known = np.abs(g) > 1e-5  # the gradient read off the plain step is exact to about 1e-6
        np.testing.assert_allclose(np.asarray(adam.z[name])[known], expected[known], atol=1e-3 * RATE)
        clear += list(known.ravel())
    assert np.mean(clear) > 0.6


# what is recorded when


def test_records_of_the_same_weights_and_of_the_moved_ones(model: SegmentationModel) -> None:
    same, frozen, target, inputs = problem(model, SearchConfig(record="same"))
    after, *_ = problem(model, SearchConfig(record="after"))
    moved, before = ADVANCE(same, frozen, target, BEGIN(same, frozen), inputs)
    published_moved, published = ADVANCE(after, frozen, target, BEGIN(after, frozen), inputs)
    closing = MEASURE(same, frozen, target, moved, inputs)
    np.testing.assert_allclose(published.probs, closing.probs, rtol=1e-5)
    assert np.abs(np.asarray(before.probs) - closing.probs).max() > 1e-3
    for name in Record._fields[1:6]:
        np.testing.assert_allclose(getattr(published, name), getattr(before, name), rtol=1e-5)
    for name in moved.z:
        np.testing.assert_allclose(moved.z[name], published_moved.z[name], rtol=1e-5, atol=1e-7)


def test_statistics_move_in_train_mode_only(model: SegmentationModel) -> None:
    setup, frozen, target, inputs = problem(model, SearchConfig())
    state, _ = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs)
    for name, stat in model.stats.items():
        np.testing.assert_array_equal(state.stats[name], stat)
    setup, *_ = problem(model, SearchConfig(mode="train", record="after"))
    state, _ = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs)
    # three passes: fit batch and image at the first weights, then the image at the moved ones; 0.9 old + 0.1 new each
    mode = Mode(batch_statistics=True)
    stats = model.stats
    for params, images in ((model.params, frozen.fit[1]), (model.params, frozen.image), (state.z, frozen.image)):
        stats = jax.jit(functools.partial(model.network.apply, mode=mode))(params, stats, images)[1]
    for name in stats:
        np.testing.assert_allclose(state.stats[name], stats[name], rtol=1e-5)
        assert np.abs(np.asarray(state.stats[name]) - model.stats[name]).max() > 1e-3


def test_recorded_dropout_masks_are_used_in_their_order() -> None:
    """The three passes of a step take the masks of fit, image and recording."""
    with tiny_network():
        model = tiny_model(drop=0.5)
        setup, frozen, target, inputs = problem(model, SearchConfig(mode="train", record="after"))
        rng = np.random.default_rng(0)

        def masks(batch: int) -> tuple[jax.Array, ...]:
            return tuple(jnp.asarray(rng.integers(0, 2, (batch, 4)), jnp.float32) for _ in range(2))

        noise = (masks(2), masks(1), masks(1))
        state, record = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs._replace(noise=noise))
        rate = jnp.asarray(0.0)
        still, _ = ADVANCE(setup, frozen, target, BEGIN(setup, frozen), inputs._replace(noise=noise, learning_rate=rate))

        def logits(params: Any, images: Any, layers: tuple[jax.Array, ...]) -> np.ndarray:
            run = jax.jit(lambda *a: model.network.apply(*a[:3], Mode(True, GivenNoise(a[3])))[0])
            return np.asarray(run(params, model.stats, images, layers))

        assert float(record.fit_loss) == pytest.approx(
            numpy_cross_entropy(logits(model.params, frozen.fit[1], noise[0]), frozen.fit_labels[1]), rel=1e-5
        )
        assert float(record.objective) == pytest.approx(
            numpy_cross_entropy(logits(model.params, frozen.image, noise[1])[0].reshape(-1, 2), target.labels), rel=1e-5
        )
        recorded = np.asarray(jax.nn.softmax(logits(state.z, frozen.image, noise[2])))
        np.testing.assert_allclose(record.probs, recorded[0].reshape(-1, 2), rtol=1e-4)
        for name in model.params:
            np.testing.assert_array_equal(still.z[name], model.params[name])
