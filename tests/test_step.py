"""One step in cases that are exact: the bound itself, padding of a target, and the noise of each pass."""

import sys
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.core import searching
from quam_jax.core.fit import reference_losses
from quam_jax.core.layout.choose import Layout
from quam_jax.core.network import EVAL, DrawnNoise, Mode
from quam_jax.core.schedule import Slack, Steps
from quam_jax.core.searching import prepare, search, search_prepared
from quam_jax.core.setup import Procedure
from quam_jax.core.solvers import Backtrack, Penalty
from quam_jax.core.space import InputSpace, LowRankSpace, SubsetSpace, TailSpace
from quam_jax.core.types import FitData, Targets, Trajectory

KEY = jax.random.key(0)
BY_LOOP, AT_ONCE = Layout("loop", "loop", 1), Layout("vmap", "scan", 8)


@dataclass(frozen=True)
class Linear:
    """Logits are the pixel times a matrix; in train mode some pixels are dropped. It can be cut in front of all of it."""

    cuts = ("head",)

    def apply(self, params: Any, stats: Any, images: Any, mode: Mode = EVAL) -> tuple[Any, Any]:
        if mode.noise is not None:
            images = images * mode.noise.keep((*images.shape[:-1], 1), 0.5)
        return images @ params["weight"][0, 0], stats

    def trunk(self, params: Any, stats: Any, images: Any, *, cut: str) -> Any:
        return images

    def tail(self, params: Any, stats: Any, activation: Any, mode: Mode = EVAL, *, cut: str) -> tuple[Any, Any]:
        return self.apply(params, stats, activation, mode)

    def tail_names(self, cut: str) -> tuple[str, ...]:
        return ("weight",)


PARAMS = {"weight": jnp.asarray(np.random.default_rng(0).standard_normal((1, 1, 2, 3)), jnp.float32)}
IMAGE = np.random.default_rng(1).standard_normal((4, 5, 2)).astype(np.float32)
FIT = FitData(
    jnp.asarray(np.random.default_rng(2).standard_normal((2, 2, 4, 5, 2)), jnp.float32),
    jnp.asarray(np.random.default_rng(3).integers(0, 3, (2, 2, 4, 5))),
)


def target(points: list[int], labels: list[int], weights: list[float]) -> Targets:
    return Targets(jnp.asarray([points]), jnp.asarray([[labels]]), jnp.asarray([weights], jnp.float32))


def searched(targets: Targets, layout: Layout = BY_LOOP, **settings: Any) -> Trajectory:
    procedure = Procedure(**{"learning_rate": 0.1, "schedule": Steps(6), **settings})
    return search(Linear(), PARAMS, {}, IMAGE, FIT, targets, key=KEY, procedure=procedure, layout=layout)


def assert_alike(found: Trajectory, expected: Trajectory) -> None:
    for name, a, b in zip(Trajectory._fields[:6], found[:6], expected[:6], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)


def test_weights_at_the_bound_keep_it() -> None:
    """The fit loss of a moved image is the given network's: with no slack it is at the bound, and the image goes on."""
    one = target([3], [1], [1.0])
    found = searched(one, space=InputSpace(0.5), solver=Backtrack(), slack=Slack(0.0))
    np.testing.assert_array_equal(found.fit_loss, found.bound)
    assert (np.diff(np.asarray(found.objective)[0, 0]) < 0).all()


def test_heads_at_the_bound_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every head explains one black fit pixel alike, so that with no slack all are at the bound."""
    labels = np.full((2, 2, 4, 5), -1)
    labels[:, 0, 0, 0] = 1
    monkeypatch.setattr(sys.modules[__name__], "FIT", FitData(jnp.zeros((2, 2, 4, 5, 2)), jnp.asarray(labels)))
    found = searched(target([3], [1], [1.0]), space=TailSpace("head"), solver=Backtrack(), slack=Slack(0.0), fit_points=0)
    np.testing.assert_array_equal(found.fit_loss, found.bound)
    assert (np.diff(np.asarray(found.objective)[0, 0]) < 0).all()


@pytest.mark.parametrize("heads", [False, True], ids=["networks", "heads"])
@pytest.mark.parametrize("stop", [False, True])
def test_padding_of_a_target_takes_no_part(monkeypatch: pytest.MonkeyPatch, heads: bool, stop: bool) -> None:
    """What a padded point wants, here the opposite, is nobody's wish."""
    if not heads:
        monkeypatch.setattr(searching, "is_for_heads", lambda *arguments: False)
    settings: dict[str, Any] = {"space": TailSpace("head"), "stop": stop, "slack": Slack(5.0), "fit_points": 0}
    alone = searched(target([3], [1], [1.0]), **settings)
    padded = searched(target([3, 3], [1, 2], [1.0, 0.0]), **settings)
    assert_alike(padded._replace(probs=padded.probs[..., :1, :]), alone)
    rests = (np.diff(np.asarray(alone.probs)[0, 0, :, 0], axis=0) == 0).all(1)
    assert rests.any() == stop


def test_every_pass_of_a_step_draws_noise_of_its_own() -> None:
    """Fit data equal to the image, asked for its own labels: only the noise tells the passes apart."""
    labels = np.random.default_rng(4).integers(0, 3, 20)
    fit = FitData(jnp.asarray(IMAGE)[None, None], jnp.asarray(labels.reshape(1, 1, 4, 5)))
    targets = target(list(range(20)), labels.tolist(), [0.05] * 20)
    procedure = Procedure(train=True, record_after=True, learning_rate=0.0, schedule=Steps(3))
    found = search_prepared(prepare(Linear(), PARAMS, {}, fit, procedure=procedure), IMAGE, targets, key=KEY)
    of_record = -np.log(np.take_along_axis(np.asarray(found.probs)[0, 0], labels[None, :, None], -1)).mean((1, 2))
    passes = np.stack([found.fit_loss[0, 0], found.objective[0, 0], of_record])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(passes[a] - passes[b]).max() > 1e-2


def test_every_target_member_and_step_draws_noise_of_its_own() -> None:
    pixels = jnp.tile(jnp.arange(20), (2, 1))
    targets = Targets(pixels, jnp.zeros((2, 2, 20), int), jnp.full((2, 20), 0.05))
    found = searched(targets, train=True, record_after=True, learning_rate=0.0)
    drawn = np.asarray(found.probs).reshape(2 * 2 * 6, -1)
    for first in range(len(drawn)):
        assert np.abs(drawn[first + 1 :] - drawn[first]).max(1, initial=0, where=True).all()


def test_noise_keeps_the_share_that_is_not_dropped_and_layers_differ() -> None:
    noise = DrawnNoise(KEY)
    first, second = noise.keep((10000,), 0.2), noise.keep((10000,), 0.2)
    assert float(first.mean()) == pytest.approx(0.8, abs=0.02) and float((first != second).mean()) > 0.2


def test_with_noise_the_fit_loss_is_that_of_the_noisy_pass() -> None:
    """Weights that keep the bound are spared the fit data in eval mode alone."""
    settings: dict[str, Any] = {"train": True, "slack": Slack(5.0), "solver": Penalty()}
    targets = target(list(range(20)), [1] * 20, [0.05] * 20)
    found = searched(targets, BY_LOOP, **settings)
    assert (np.asarray(found.fit_loss) < np.asarray(found.bound)).all()
    assert_alike(found, searched(targets, AT_ONCE, **settings))


def test_the_first_record_has_the_loss_of_its_own_batch() -> None:
    """Recorded after the step, with every second batch used: at the given weights the fit loss is known beforehand."""
    targets = target([3], [1], [1.0])
    found = searched(targets, record_after=True, slack=Slack(5.0), schedule=Steps(epochs=2, stride=2))
    first, second = reference_losses(Linear(), PARAMS, {}, FIT, Procedure().loss)
    assert abs(float(first) - float(second)) > 1e-3
    np.testing.assert_allclose(found.reference_loss[0, 0], [second] * 2, rtol=1e-6)
    assert float(found.fit_loss[0, 0, 0]) == pytest.approx(float(second), rel=1e-5)


@pytest.mark.parametrize("chunk", [2, 3, 4])
def test_a_mapped_chunk_that_is_not_full_keeps_its_order(chunk: int) -> None:
    wanted = jnp.asarray(np.random.default_rng(5).integers(0, 3, (1, 5, 20)))
    targets = Targets(jnp.arange(20)[None], wanted, jnp.full((1, 20), 0.05))
    assert_alike(searched(targets, Layout("vmap", "scan", chunk)), searched(targets, BY_LOOP))


def test_a_pattern_matches_names_from_their_start() -> None:
    params = {"head.weight": jnp.ones(1), "last.head.weight": jnp.ones(1)}
    assert list(SubsetSpace("head").start(Linear(), params, None)) == ["head.weight"]


def test_kernels_of_one_shape_have_bases_of_their_own() -> None:
    params = {name: jnp.ones((3, 4)) for name in ("a", "b")}
    start = LowRankSpace(2).start(Linear(), params, None)
    assert np.abs(start["a"]["v"] - start["b"]["v"]).max() > 0.1
    for moving in start.values():
        np.testing.assert_allclose(moving["v"] @ moving["v"].T, np.eye(2), atol=1e-5)
        assert not np.asarray(moving["u"]).any()
