"""Many members and steps: every plan gives the same numbers, nothing compiles twice, and memory may run out."""

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
import pytest

from quam_jax.config import ExecutionConfig, SearchConfig
from quam_jax.core.layout import chunk
from quam_jax.core.layout.choose import Layout, choose_group, choose_layout
from quam_jax.core.searching import search_images, search_prepared
from quam_jax.core.types import Trajectory
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.prepare import prepare
from tests.member_searches import EVAL, assert_equal, run
from tests.tiny import TinyNet, search, tiny_fit, tiny_image, tiny_model, tiny_targets

pytestmark = pytest.mark.usefixtures("tiny")
TRAIN = dataclasses.replace(EVAL, mode="train", record="after", penalty="linear")
ALL = list(itertools.product(("vmap", "unroll", "loop"), ("scan", "unroll", "loop"), (1, 2, 3)))
# every way to lay out members and steps, and every chunk size of three members; the rest takes minutes to compile
SHORT = {
    TRAIN: [
        ("vmap", "scan", 3),
        ("vmap", "unroll", 3),
        ("vmap", "loop", 2),
        ("unroll", "scan", 3),
        ("unroll", "unroll", 3),
        ("unroll", "loop", 3),
        ("loop", "scan", 2),
        ("loop", "unroll", 1),
        ("loop", "loop", 1),
        ("loop", "loop", 3),
    ],
    EVAL: [("vmap", "scan", 3), ("unroll", "loop", 2), ("loop", "loop", 1)],
}
PLANS = [
    pytest.param(
        config, *plan, marks=() if plan in SHORT[config] else pytest.mark.long, id=f"{config.mode}-" + "-".join(map(str, plan))
    )
    for config in (TRAIN, EVAL)
    for plan in ALL
]


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return tiny_model(drop=0.3)


# plans


@pytest.mark.parametrize("config, members, steps, chunk", PLANS)
def test_every_plan_gives_the_same_numbers(config: SearchConfig, members: str, steps: str, chunk: int) -> None:
    found, expected = run(config, members, steps, chunk), run(config)
    assert found.probs.shape == (1, 3, config.steps, 96, 2) and found.objective.shape == (1, 3, config.steps)
    assert_equal(found, expected)
    assert np.abs(found.probs[:, :, 0] - found.probs[:, :, -1]).max() > 1e-2  # and the search moved


def test_members_that_keep_the_bound_are_spared_the_gradient_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(EVAL, steps=8, slack=0.02, learning_rate=0.1)
    expected = run(config, "vmap", "scan", 3)
    spared, original = [], chunk.step_group

    def watched(*arguments: Any) -> Any:
        spared.append(arguments[4][0].fit_loss is not None)
        return original(*arguments)

    watched.lower = original.lower  # type: ignore[attr-defined]
    monkeypatch.setattr(chunk, "step_group", watched)
    found = run(config, "loop", "loop", 1)
    assert_equal(found, expected)
    kept = (found.fit_loss <= found.bound)[0, :, :-1]
    kept = np.concatenate([np.ones((3, 1), bool), kept], 1)  # at the weights that a step starts from
    assert not kept.all() and kept.mean() > 0.5  # both ways are taken
    since = np.concatenate([kept[:, :1], kept[:, 1:] & kept[:, :-1]], 1)
    np.testing.assert_array_equal(np.reshape(spared, kept.shape), since)


def test_noise_depends_on_the_member_and_the_step_but_not_on_the_plan() -> None:
    still = dataclasses.replace(TRAIN, learning_rate=0.0)
    probs = run(still).probs[0]
    flat = probs.reshape(-1, *probs.shape[2:])
    differ = [np.abs(a - b).max() > 1e-3 for a, b in itertools.combinations(flat, 2)]
    assert np.mean(differ) > 0.5  # of the masks of four channels some may coincide by chance
    assert_equal(run(still, "vmap", "scan", 3), run(still))
    assert np.abs(run(still, key=1).probs - run(still).probs).max() > 1e-3


def test_plans_that_are_chosen() -> None:
    auto = Layout()
    assert choose_layout(auto, members=8, backend="cpu") == Layout("loop", "loop", 2, devices=1)
    assert choose_layout(auto, members=8, backend="gpu") == Layout("vmap", "scan", 0, devices=1)
    assert choose_layout(auto, members=8, operations=2**34 - 1, backend="cpu").chunk == 2
    assert choose_layout(auto, members=8, operations=2**34, backend="cpu").chunk == 1
    assert choose_layout(Layout(chunk=3), members=8, operations=2**34, backend="cpu").chunk == 3
    assert choose_layout(auto, members=40, backend="gpu") == Layout("vmap", "scan", 0, devices=1)
    assert choose_layout(Layout("unroll", "scan", 5), members=3, backend="gpu") == Layout("unroll", "scan", 3, devices=1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "config, plan",
    [
        (TRAIN, Layout("vmap", "scan")),
        (EVAL, Layout("vmap", "scan", 4)),
        (EVAL, Layout("loop", "loop")),
        (dataclasses.replace(EVAL, space="input:0.5"), Layout("vmap", "scan")),
    ],
)
def test_images_that_are_searched_together_equal_those_alone(
    model: SegmentationModel, config: SearchConfig, plan: Layout
) -> None:
    images = [tiny_image(seed=seed) for seed in (1, 5, 6)]
    targets = [tiny_targets(), tiny_targets()._replace(labels=1 - tiny_targets().labels), tiny_targets()]
    keys = [jax.random.key(number) for number in range(3)]
    prepared = prepare(model, tiny_fit(model), config)
    found = search_images(prepared, images, targets, keys=keys, layout=plan)
    for trajectory, image, asked, key in zip(found, images, targets, keys, strict=True):
        assert_equal(trajectory, search_prepared(prepared, image, asked, key=key))
    assert np.abs(found[0].probs - found[2].probs).max() > 1e-3
    with pytest.raises(ValueError, match="one shape"):
        search_images(prepared, [images[0], images[1][:4]], targets[:2], keys=keys[:2])


def test_how_many_images_are_searched_together() -> None:
    auto = Layout()
    assert choose_group(auto, members=2, pixels=96 * 96, backend="cpu") == 1
    assert choose_group(auto, members=2, pixels=32 * 32, backend="gpu") == 64
    assert choose_group(auto, members=2, pixels=256 * 256, backend="gpu") == 32
    assert choose_group(auto, members=2, pixels=4096 * 4096, backend="gpu") == 1
    assert choose_group(Layout(together=5), members=2, pixels=10**9, backend="cpu") == 5


@pytest.mark.long
def test_every_plan_gives_the_same_numbers_for_the_attention_unet() -> None:
    """As above for the published network, whose ReLUs decide: all plans of this size still agree."""
    network = Network.create("att_unet", in_channels=2, n_classes=2, channels=2, drop=0.0, decoder_drop=0.0)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0)))
    fit, image, targets = tiny_fit(model, size=(16, 16)), tiny_image(size=(16, 16)), tiny_targets(size=(16, 16))
    config = dataclasses.replace(EVAL, steps=2, learning_rate=1e-3)
    plans = [plan for plan in ALL if plan[2] == 2]
    found = {
        plan: search(model, image, fit, targets=targets, config=config, key=jax.random.key(0), execution=ExecutionConfig(*plan))
        for plan in plans
    }  # type: ignore[arg-type]
    for plan in plans:
        assert_equal(found[plan], found["loop", "loop", 2])


# compilation and memory


@pytest.mark.parametrize("members, steps", [("loop", "loop"), ("vmap", "scan")])
def test_a_second_case_and_other_numbers_compile_nothing(model: SegmentationModel, members: str, steps: str) -> None:
    plan = Layout(members, steps)  # type: ignore[arg-type]
    fit = tiny_fit(model)

    def case(seed: int, **changes: Any) -> Trajectory:
        prepared = prepare(model, fit, dataclasses.replace(EVAL, **changes))
        return search_prepared(prepared, tiny_image(seed=seed), tiny_targets(seed=seed), key=jax.random.key(seed), layout=plan)

    first = case(1)
    calls = TinyNet.calls
    second = case(2)
    # the learning rate, the slack and the schedule are data, too
    third = case(2, learning_rate=0.01, slack=0.3, coefficient=5.0, schedule="linear")
    assert TinyNet.calls == calls
    assert not np.allclose(first.probs, second.probs) and not np.allclose(second.probs, third.probs)


def test_when_memory_runs_out_the_chunk_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    config, whole = dataclasses.replace(EVAL, members=4), chunk.Chunk.run
    tried = []

    def small(some: chunk.Chunk, *room: Any) -> Any:
        tried.append(len(some.jobs))
        if len(some.jobs) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.")
        return whole(some, *room)

    model = tiny_model(drop=0.3)
    targets = tiny_targets(members=4)
    arguments = dict(targets=targets, config=config, key=jax.random.key(0), execution=ExecutionConfig("loop", "loop", 4))
    expected = search(model, tiny_image(), tiny_fit(model), **arguments)
    monkeypatch.setattr(chunk.Chunk, "run", small)
    with pytest.warns(RuntimeWarning, match="memory ran out in spite of the plan .*going on with 2 of 4 members"):
        found = search(model, tiny_image(), tiny_fit(model), **arguments)
    assert tried == [4, 2, 1, 1, 1, 1]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:memory ran out")
@pytest.mark.parametrize("size, message", [(1, "RESOURCE_EXHAUSTED: Out of memory"), (3, "INTERNAL: something else")])
def test_other_failures_are_not_hidden(monkeypatch: pytest.MonkeyPatch, size: int, message: str) -> None:
    def failing(some: chunk.Chunk, *room: Any) -> Any:
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(chunk.Chunk, "run", failing)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        run.__wrapped__(EVAL, "loop", "loop", size)
