"""The rules of a search over many steps, backtracking and the early stop, against the same steps written out in numpy.

What moves is a linear head, so that the loss and its gradient are a few lines of float64. The search runs as whole networks, and
as heads side by side; both must take the same steps.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.config import SearchConfig
from quam_jax.core import searching
from quam_jax.core.types import FitData, Trajectory
from quam_jax.models.model import SegmentationModel
from quam_jax.models.predict import predict
from quam_jax.targets.pixels import pixel_targets
from tests.tiny import search, tiny_fit, tiny_image, tiny_model, tiny_network

POINTS = np.array([0, 30, 41, 95])
CONFIG = SearchConfig(space="head", members=1, steps=14, fit_points=0, learning_rate=0.2, slack=0.02)


class Path(NamedTuple):
    """The weights of one search after each step, and what was measured on them."""

    probs: np.ndarray
    objective: np.ndarray
    fit_loss: np.ndarray
    bound: np.ndarray
    has_all: np.ndarray


def softmax(logits: np.ndarray) -> np.ndarray:
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def loss_and_gradient(theta: np.ndarray, features: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of a linear head, and its gradient."""
    probs = softmax(features @ theta)
    rows = np.arange(len(labels))
    error = probs.copy()
    error[rows, labels] -= 1
    return float(-np.log(probs[rows, labels]).mean()), features.T @ error / len(labels)


def with_one(features: np.ndarray) -> np.ndarray:
    flat = np.asarray(features, np.float64).reshape(-1, features.shape[-1])
    return np.concatenate([flat, np.ones((len(flat), 1))], 1)


def by_hand(model: SegmentationModel, fit: FitData, point: int, wanted: int, config: SearchConfig) -> Path:
    """The search of one pixel in the space `head`, step by step."""

    def features(images: jax.Array) -> np.ndarray:
        return with_one(model.network.trunk(model.params, model.stats, images, cut="head"))

    batches = [(features(x), np.asarray(y).reshape(-1)) for x, y in zip(fit.images, fit.labels, strict=True)]
    own, labels = features(jnp.asarray(tiny_image())[None])[[point]], np.array([wanted])
    theta = np.concatenate(
        [np.asarray(model.params["head.weight"], np.float64)[0, 0], np.asarray(model.params["head.bias"], np.float64)[None]]
    )
    bounds = [loss_and_gradient(theta, *batch)[0] * (1 + config.slack) for batch in batches]
    held, first, second, count, rests = theta, 0.0, 0.0, 0, False
    rows = []
    for s in range(config.steps + 1):
        k = s % len(batches)
        fit_loss, fit_gradient = loss_and_gradient(theta, *batches[k])
        objective, gradient = loss_and_gradient(theta, own, labels)
        feasible = fit_loss <= bounds[k]
        probs = softmax(own @ theta)
        has_all = bool(probs.argmax(-1)[0] == wanted)
        rows.append((probs, objective, fit_loss, bounds[k], has_all))
        rests = rests or (config.stop == "flipped" and feasible and has_all)
        if rests:
            continue
        if config.solver == "backtrack" and not feasible:
            theta = (theta + held) / 2  # and Adam remembers nothing of it
            continue
        held = theta
        if config.solver == "penalty" and not feasible:
            gradient = gradient + config.coefficient * fit_gradient
        count += 1
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        theta = theta - config.learning_rate * (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
    return Path(*(np.array(column[1:]) for column in zip(*rows, strict=True)))


def paths(config: SearchConfig, *, classes: int, heads: bool) -> tuple[Trajectory, list[Path]]:
    """The searches of all points, as the product does them and by hand."""
    with tiny_network():
        model = tiny_model(classes=classes)
        fit = tiny_fit(model, batches=2)
        targets = pixel_targets(POINTS, np.asarray(predict(model, tiny_image())), members=1)
        with pytest.MonkeyPatch.context() as patch:
            if not heads:
                patch.setattr(searching, "is_for_heads", lambda *arguments: False)
            found = search(model, tiny_image(), fit, targets=targets, config=config, key=jax.random.key(0))
        return found, [by_hand(model, fit, int(p), int(targets.labels[t, 0, 0]), config) for t, p in enumerate(POINTS)]


def assert_alike(found: Trajectory, expected: list[Path]) -> None:
    for t, path in enumerate(expected):
        assert np.abs(path.fit_loss - path.bound).min() > 1e-5  # rounding decides nothing
        for name in ("fit_loss", "objective", "bound", "probs"):
            own, told = getattr(found, name)[t, 0], getattr(path, name)
            np.testing.assert_allclose(own, told, rtol=2e-3, atol=2e-4, err_msg=f"{name} {t}")


TOGETHER = pytest.mark.parametrize("heads", [False, True], ids=["networks", "heads"])


@pytest.mark.parametrize("classes", [2, 3])
@TOGETHER
def test_backtracking_goes_halfway_back_to_the_last_feasible_weights(heads: bool, classes: int) -> None:
    found, expected = paths(dataclasses.replace(CONFIG, solver="backtrack"), classes=classes, heads=heads)
    inside = np.array([path.fit_loss <= path.bound for path in expected])
    changes = np.diff(inside.astype(int), axis=1)
    assert ((changes == 1).sum(1) >= 1).all() and (~inside[:, 1:] & ~inside[:, :-1]).any()  # there and back, in several steps
    assert_alike(found, expected)


@pytest.mark.parametrize("solver", ["penalty", "backtrack"])
@TOGETHER
def test_a_target_rests_only_where_a_feasible_model_has_all_it_wants(heads: bool, solver: str) -> None:
    config = dataclasses.replace(
        CONFIG,
        solver=solver,
        stop="flipped",
        learning_rate=0.4,
        slack=0.005,  # type: ignore[arg-type]
        coefficient=3.0,
    )
    found, expected = paths(config, classes=2, heads=heads)
    inside = np.array([path.fit_loss <= path.bound for path in expected])
    flipped = np.array([path.has_all for path in expected])
    assert (flipped & ~inside).any() and (flipped & inside).any()
    assert_alike(found, expected)
    moves = np.abs(np.diff(np.asarray(found.probs)[:, 0], axis=1)).max((2, 3)) > 0
    for t in range(len(POINTS)):
        enough = np.flatnonzero(flipped[t] & inside[t])
        rests = int(enough[0]) if len(enough) else len(flipped[t])
        assert moves[t, :rests].all() and not moves[t, rests:].any()
