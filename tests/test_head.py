"""Many linear heads side by side give the numbers of the whole networks that they stand for."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config import SearchConfig
from quam_jax.config.build import build_procedure
from quam_jax.core import searching
from quam_jax.core.head import HeadProblem, fisher, head_problem, is_linear_head
from quam_jax.core.head.loss import fit_gradient, fit_loss, log_sum, point_loss
from quam_jax.core.head.problem import columns_of, fit_points, head_of
from quam_jax.core.layout.choose import Layout
from quam_jax.core.layout.heads import is_for_heads
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import Targets, Trajectory
from quam_jax.models.model import SegmentationModel
from quam_jax.models.predict import predict
from quam_jax.models.prepare import prepare
from quam_jax.targets.pixels import pixel_targets
from tests.tiny import SIZE, numpy_cross_entropy, tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets

CONFIG = SearchConfig(space="head", members=2, steps=4, learning_rate=0.05, slack=0.01, fit_points=0)
POINTS = np.array([0, 7, 30, 41, 95])


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def asked(model: SegmentationModel, *, members: int = 2) -> Targets:
    return pixel_targets(POINTS, np.asarray(predict(model, tiny_image())), members=members)


def run(model: SegmentationModel, config: SearchConfig, targets: Targets, **layout: Any) -> Trajectory:
    prepared = prepare(model, tiny_fit(model), config)
    return search_prepared(prepared, tiny_image(), targets, key=jax.random.key(5), layout=Layout(**layout))


def side_by_side(config: SearchConfig, model: SegmentationModel, targets: Targets) -> bool:
    """Whether a search runs as linear heads rather than as whole networks."""
    procedure = build_procedure(config, model.network)
    return is_for_heads(model.network, model.params, model.stats, procedure, targets, SIZE)


def test_the_page_says_which_searches_run_as_heads() -> None:
    page = (Path(__file__).parent.parent / "docs" / "method.md").read_text()
    (said,) = (part for part in page.split("\n\n") if part.startswith("Penalty and backtracking"))
    model = tiny_model()
    one = Targets(*(leaf[:1] for leaf in asked(model)))
    for changes, targets, name, runs in (
        ({"optimizer": "lion"}, asked(model), "any optimiser", True),
        ({"stop": "flipped"}, asked(model), "`--stop flipped` included", True),
        ({}, one, "one target or many", True),
        ({}, tiny_targets(), "a mask of the whole image runs as whole networks", False),
        ({"record": "after"}, asked(model), "`--record same`", False),
        ({"mode": "train"}, asked(model), "eval mode", False),
    ):
        assert side_by_side(dataclasses.replace(CONFIG, **changes), model, targets) == runs, changes
        assert name in said.replace("\n", " "), name


def test_one_pixel_keeps_the_bound_on_the_same_points_as_many() -> None:
    model = tiny_model()
    config = dataclasses.replace(CONFIG, fit_points=40)
    many, targets = run(model, config, asked(model)), asked(model)
    for t in range(len(POINTS)):
        alone = run(model, config, Targets(*(leaf[t : t + 1] for leaf in targets)))
        for a, b in zip(alone[:6], many[:6], strict=True):
            np.testing.assert_allclose(a[0], b[t], atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd"},
        {"solver": "backtrack"},
        {"penalty": "linear", "schedule": "linear"},
        {"stop": "flipped", "slack": 0.2, "steps": 12, "learning_rate": 0.01},
        {"stop": "flipped", "slack": 0.2, "steps": 12, "learning_rate": 0.01, "solver": "backtrack"},
        {"optimizer": "lion", "learning_rate": 0.01},
        {"optimizer": "trust_ratio", "learning_rate": 0.3},
    ],
    ids=["adam", "sgd", "backtrack", "linear penalty", "early stop", "early stop, backtrack", "lion", "trust ratio"],
)
def test_heads_equal_whole_networks(monkeypatch: pytest.MonkeyPatch, classes: int, changes: dict[str, Any]) -> None:
    model = tiny_model(classes=classes)
    targets = asked(model)
    config = dataclasses.replace(CONFIG, **changes)
    assert side_by_side(config, model, targets)
    found = run(model, config, targets)
    monkeypatch.setattr(searching, "is_for_heads", lambda *arguments: False)
    expected = run(model, config, targets)
    for name, a, b in zip(Trajectory._fields[:6], found[:6], expected[:6], strict=True):
        assert a.shape == b.shape, name
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg=name)
    reference = np.asarray(predict(model, tiny_image())).reshape(-1, classes)[POINTS]
    assert np.abs(np.asarray(found.probs) - reference[:, None, None, None])[:, 0].max() > 1e-2
    if config.stop == "flipped":  # some heads rest from some step on, and not all from the same one
        resting = np.all(np.diff(np.asarray(found.probs), axis=2) == 0, (3, 4))
        assert resting.any() and len({tuple(row) for row in resting.reshape(-1, resting.shape[-1])}) > 1


def test_regions_weigh_their_points(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    points = np.array([[0, 1, 2, 0], [50, 51, 52, 53]])
    weights = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
    targets = Targets(jnp.asarray(points), jnp.asarray(np.ones((2, 1, 4), int)), jnp.asarray(weights))
    config = dataclasses.replace(CONFIG, members=1)
    found = run(model, config, targets)
    monkeypatch.setattr(searching, "is_for_heads", lambda *arguments: False)
    expected = run(model, config, targets)
    np.testing.assert_allclose(found.objective, expected.objective, atol=1e-5)
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_numbers_do_not_depend_on_the_chunk(chunk: int) -> None:
    model = tiny_model(classes=3)
    targets = asked(model)
    config = dataclasses.replace(CONFIG, fit_points=40)
    whole, parts = run(model, config, targets, chunk=10), run(model, config, targets, chunk=chunk)
    for a, b in zip(whole[:6], parts[:6], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # products of other sizes round otherwise


def test_backtracking_keeps_the_constraint_where_the_penalty_does_not() -> None:
    model = tiny_model()
    targets = asked(model)
    harsh = dataclasses.replace(CONFIG, learning_rate=0.5, steps=12, slack=0.001, coefficient=0.0)
    free = run(model, harsh, targets)
    kept = run(model, dataclasses.replace(harsh, solver="backtrack"), targets)
    assert np.mean(free.fit_loss > free.bound) > 0.5
    # halfway back again and again until the model is inside: a few steps of a dozen, where the penalty never returns
    assert not np.any(free.fit_loss <= free.bound)
    assert np.all((kept.fit_loss <= kept.bound).any(-1))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_line_search_ends_at_the_bound(classes: int) -> None:
    model = tiny_model(classes=classes)
    targets = asked(model)
    config = dataclasses.replace(CONFIG, solver="line_search", slack=0.05)
    found = run(model, config, targets)
    assert found.probs.shape == (len(POINTS), 2, 1, 1, classes)
    slack = np.asarray(found.bound) / 1.05 * 0.05
    used = np.asarray(found.fit_loss - found.bound) / slack + 1
    assert np.all(used <= 1) and np.all(used >= 1 - 2e-3)
    reference = np.asarray(predict(model, tiny_image())).reshape(-1, classes)[POINTS]
    wanted = np.asarray(targets.labels)[:, 0, 0]
    rows = np.arange(len(POINTS))
    assert np.all(np.asarray(found.probs)[rows, 0, 0, 0, wanted] > reference[rows, wanted])


def test_the_line_search_moves_further_than_an_equal_gradient_step() -> None:
    """Of all heads within the slack the one along H^-1 f moves the margin furthest, to second order."""
    model = tiny_model()
    targets = asked(model, members=1)
    found = run(model, dataclasses.replace(CONFIG, members=1, solver="line_search", slack=1e-3, damping=1e-6), targets)
    long = dataclasses.replace(CONFIG, members=1, solver="backtrack", slack=1e-3, steps=60, learning_rate=3e-3)
    many = run(model, long, targets)
    feasible = np.where(many.fit_loss <= many.bound, many.objective, np.inf).min(-1)[:, 0]
    assert np.all(np.asarray(found.objective)[:, 0, 0] <= feasible + 1e-3)


def test_more_slack_moves_further() -> None:
    model = tiny_model()
    objectives = [
        np.asarray(run(model, dataclasses.replace(CONFIG, solver="line_search", slack=slack), asked(model)).objective)
        for slack in (0.0, 0.01, 0.1, 1.0)
    ]
    assert all((a >= b - 1e-6).all() and (a > b).any() for a, b in zip(objectives[:-1], objectives[1:], strict=True))


def test_line_search_needs_linear_heads() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="solver: line_search is for pixels and regions in the space head"):
        run(model, dataclasses.replace(CONFIG, solver="line_search", space="full"), asked(model))


def test_the_problem_of_a_network() -> None:
    model = tiny_model(classes=3)
    assert is_linear_head(model.network, model.params, model.stats)
    fit = tiny_fit(model)
    activation = jnp.stack([model.network.trunk(model.params, model.stats, x, cut="head") for x in fit.images])
    problem = head_problem(
        model.network, model.params, activation, fit.labels, batch=np.array([0, 1, 2]), count=0, key=jax.random.key(0)
    )
    np.testing.assert_allclose(problem.reference_loss, prepare(model, fit, CONFIG).reference_loss, rtol=1e-5)
    logits = np.asarray(problem.features[1] @ columns_of(head_of(model.network, model.params)))
    np.testing.assert_allclose(logits.reshape(2, *SIZE, 3), model(fit.images[1]), atol=1e-5)


def test_fit_points_are_labelled_and_repeat_with_the_key() -> None:
    labels = np.full((2, 1, 4, 4), -1)
    labels[0, 0, 1, 1:3], labels[1, 0, 3, 3] = 1, 0
    drawn = fit_points(labels, np.array([0, 1, 0]), count=50, key=jax.random.key(0))
    assert set(drawn[0]) == {5, 6} and set(drawn[1]) == {31} and drawn.shape == (3, 50)
    assert not np.array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn, fit_points(labels, np.array([0, 1, 0]), count=50, key=jax.random.key(0)))
    every = fit_points(labels, np.array([0, 1]), count=0, key=jax.random.key(0))
    assert list(every[0]) == [5, 6] and list(every[1]) == [31, 31]  # filled up to equal numbers


@pytest.mark.parametrize("columns", [1, 4])
def test_losses_and_gradients_by_hand(columns: int) -> None:
    rng = np.random.default_rng(0)
    features, theta = rng.standard_normal((70, 5)), rng.standard_normal((5, columns, 3)) * 3
    classes = max(columns, 2)
    labels = rng.integers(0, classes, 70)
    hot = (labels[:, None] == (np.arange(columns) if columns > 1 else [1])).astype(float)
    wanted = features.T @ hot / 70
    single = [jnp.asarray(values, jnp.float32) for values in (features, wanted, theta)]
    loss, probs = fit_loss(*single)
    gradient = fit_gradient(single[0].T, single[1], probs)
    logits = np.einsum("qf,fkt->tqk", features, theta)
    if columns == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], -1)
    expected = [numpy_cross_entropy(values, labels) for values in logits]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    small = 1e-3
    for index in ((0, 0, 0), (4, columns - 1, 2)):

        def at(change: float, index: tuple[int, ...] = index) -> float:
            moved = theta.copy()
            moved[index] += change
            values = np.einsum("qf,fk->qk", features, moved[..., index[-1]])
            return numpy_cross_entropy(values if columns > 1 else np.concatenate([np.zeros_like(values), values], -1), labels)

        np.testing.assert_allclose(gradient[index], (at(small) - at(-small)) / (2 * small), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_fisher_matrix_is_the_hessian_of_the_fit_loss(columns: int) -> None:
    """Under cross-entropy they are the same, with or without labels; damped by a fraction of the mean diagonal."""
    rng = np.random.default_rng(0)
    shapes = (40, 4), (4, columns), (4, max(columns, 2))
    features, wanted, kernel = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    problem = HeadProblem(features[None], features.T[None], wanted[None], (kernel,), jnp.zeros(1))

    def loss(flat: jax.Array) -> jax.Array:
        return fit_loss(problem.features[0], problem.wanted[0], flat.reshape(columns, 4).T[..., None])[0][0]

    expected = np.asarray(jax.hessian(loss)(problem.theta.T.reshape(-1)))
    expected = expected + 0.1 * np.trace(expected) / len(expected) * np.eye(len(expected))
    lower = np.tril(fisher(problem, damping=0.1).lower)
    np.testing.assert_allclose(lower @ lower.T, expected, rtol=1e-3, atol=1e-5)


def test_saturated_points_do_not_overflow() -> None:
    features = jnp.asarray([[[200.0]], [[1.0]]])  # [f p t]
    logits, objective, slope = point_loss(features, jnp.zeros((1, 1, 1)), jnp.ones((1, 1)), jnp.ones((2, 1, 1)))
    np.testing.assert_allclose(objective, 201.0, rtol=1e-6)
    assert np.isfinite(slope).all() and np.isfinite(logits).all()


def test_log_sum_is_the_sum_of_logarithms() -> None:
    values = np.random.default_rng(0).uniform(0.25, 1.0, (1001, 7)).astype(np.float32)
    np.testing.assert_allclose(log_sum(jnp.asarray(values)), np.log(values.astype(np.float64)).sum(0), rtol=1e-6)
