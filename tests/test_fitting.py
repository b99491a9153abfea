"""What runs at once: ways to run give the same numbers, and the fastest one that fits the memory is taken."""

import dataclasses
import functools
import itertools
import re
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from quam_jax.config import SearchConfig
from quam_jax.core.fit import largest_divisor
from quam_jax.core.layout import fitting, members
from quam_jax.core.layout.choose import Budget, Layout
from quam_jax.core.layout.fitting import plan_search, setups_for, thriftier
from quam_jax.core.layout.programs import add_fit_part, fit_loss_of_member, measure_group, run_steps, step_group
from quam_jax.core.layout.work import pass_operations, pixel_operations
from quam_jax.core.loss import Loss
from quam_jax.core.progress import CHOSEN, Event, listening
from quam_jax.core.searching import loss_under, prepare, search_images, search_prepared
from quam_jax.core.setup import Frozen, Procedure, Setup
from quam_jax.core.types import FitData, Trajectory
from quam_jax.models.model import SegmentationModel
from quam_jax.models.predict import fit_data
from quam_jax.models.prepare import prepare as prepare_model
from tests.member_searches import EVAL, assert_equal
from tests.tiny import tiny_image, tiny_model, tiny_targets

pytestmark = pytest.mark.usefixtures("tiny")
LAYOUTS = [Layout("loop", "loop"), Layout("vmap", "scan")]
UNROLLED = [Layout("unroll", "scan", 3), Layout("loop", "unroll")]  # both at once take a quarter of a minute to compile
MOVING = dataclasses.replace(EVAL, steps=5, slack=0.02, learning_rate=0.1)  # crosses the bound in both directions
KINDS = [
    MOVING,
    dataclasses.replace(MOVING, penalty="linear"),
    dataclasses.replace(MOVING, solver="backtrack"),
    dataclasses.replace(MOVING, space="last_block"),
    dataclasses.replace(MOVING, record="after"),
]


def six_fit_cases(model: SegmentationModel, *, unlabelled: int = 30) -> FitData:
    """Two batches of six, of which each case has another number of labelled pixels."""
    rng = np.random.default_rng(3)
    images = rng.standard_normal((2, 6, 8, 12, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (2, 6, 8, 12))
    for batch, case in np.ndindex(2, 6):
        labels[batch, case].reshape(-1)[: unlabelled * case // 2] = -1
    return fit_data(model, images, labels)


@functools.cache
def searched(config: SearchConfig, layout: Layout) -> Trajectory:
    model = tiny_model()
    prepared = prepare_model(model, six_fit_cases(model), config)
    found = search_prepared(prepared, tiny_image(), tiny_targets(), key=jax.random.key(0), layout=layout)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
    "config, layout, micro",
    [
        *((config, LAYOUTS[0], micro) for config, micro in zip(KINDS, (1, 3, 2, 2, 6), strict=True)),
        *((KINDS[0], layout, 2) for layout in (LAYOUTS[1], *UNROLLED)),
        pytest.param(KINDS[0], Layout("unroll", "unroll", 3), 2, marks=pytest.mark.long),
        pytest.param(KINDS[3], LAYOUTS[1], 3, marks=pytest.mark.long),
    ],
)
def test_a_fit_batch_in_parts_gives_the_same_numbers(config: SearchConfig, layout: Layout, micro: int) -> None:
    expected = searched(config, Layout("loop", "loop"))
    crossed = np.asarray(expected.fit_loss > expected.bound)
    assert config.penalty == "linear" or (crossed.any() and not crossed.all())
    assert_equal(searched(config, replace(layout, micro=micro)), expected, rtol=1e-4)


def test_what_does_not_add_up_is_never_split() -> None:
    squares = Loss(
        optax.softmax_cross_entropy_with_integer_labels, lambda losses, weights: jnp.sqrt(jnp.sum(weights * losses**2))
    )
    model = tiny_model()
    fit = six_fit_cases(model)
    found = []
    for layout in (Layout("loop", "loop"), Layout("loop", "loop", micro=2)):
        prepared = prepare(model.network, model.params, model.stats, fit, procedure=Procedure(loss=squares, learning_rate=0.05))
        found.append(search_prepared(prepared, tiny_image(), tiny_targets(), key=jax.random.key(0), layout=layout))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "layout, record", [(LAYOUTS[0], "same"), (LAYOUTS[0], "after"), (LAYOUTS[1], "same"), (LAYOUTS[1], "after")]
)
def test_what_is_kept_gives_the_record_that_the_audit_names(layout: Layout, record: str) -> None:
    model, config = tiny_model(), dataclasses.replace(MOVING, steps=7, record=record)
    prepared = prepare_model(model, six_fit_cases(model), config)
    kept: dict[tuple[int, int, int], Any] = {}
    (found,) = search_images(
        prepared,
        [tiny_image()],
        [tiny_targets()],
        keys=[jax.random.key(0)],
        layout=layout,
        on_kept=lambda *place: kept.__setitem__(place[:3], place[3]),
    )
    assert sorted(kept) == [(0, 0, m) for m in range(3)]
    for m in range(3):
        holds = np.asarray(found.fit_loss[0, m] <= found.bound[0, m])
        objective = np.where(holds, np.asarray(found.objective[0, m]), np.inf)
        step = int(np.argmin(objective)) if holds.any() else len(holds) - 1
        logits, _ = model.network.apply(kept[0, 0, m], model.stats, jnp.asarray(tiny_image())[None])
        probs = np.asarray(jax.nn.softmax(logits)).reshape(-1, 2)
        np.testing.assert_allclose(probs, np.asarray(found.probs[0, m, step]), rtol=1e-4, atol=1e-5)


def test_the_loss_under_kept_weights_is_that_of_the_network() -> None:
    model = tiny_model()
    prepared = prepare_model(model, six_fit_cases(model), EVAL)
    rng = np.random.default_rng(0)
    image, labels = rng.standard_normal((7, 9, 2)).astype(np.float32), rng.integers(-1, 2, (7, 9))  # odd sides: padded
    moved = {name: value + 0.1 for name, value in model.params.items()}
    for z, params in ((None, model.params), (moved, moved)):
        padded = np.pad(image, [(0, 1), (0, 1), (0, 0)], mode="edge")[None]
        logits = np.asarray(model.network.apply(params, model.stats, jnp.asarray(padded))[0][0, :7, :9], np.float64)
        negative = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)[..., 0]
        loss, count = loss_under(prepared, z, image, labels)
        assert count == (labels >= 0).sum()
        assert loss == pytest.approx(negative[labels >= 0].mean(), rel=1e-5)


# the choice


@dataclass(frozen=True)
class Plain:
    """Nothing is computed here."""

    def apply(self, *arguments: Any) -> Any:
        raise NotImplementedError


def problem(*, side: int = 64, cases: int = 8, image: int = 1024, **changes: Any) -> tuple[Setup, Frozen]:
    shapes = jax.ShapeDtypeStruct((1, cases, side, side, 1), jnp.float32), jax.ShapeDtypeStruct((1, cases, side, side), jnp.int32)
    frozen = Frozen({}, {}, jax.ShapeDtypeStruct((1, image, image, 1), jnp.float32), *shapes, None, None)  # type: ignore[arg-type]
    return Setup.of(Plain(), Procedure(**changes), (image, image)), frozen


@dataclass(frozen=True)
class OneConvolution:
    """A 3x3 convolution from 2 to 5 channels; sides must be even."""

    classes: int = 5
    size_multiple: int = 2

    def apply(self, params: Any, stats: Any, images: Any, *_: Any) -> Any:
        return jax.lax.conv_general_dilated(
            images, params["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ), stats


def test_the_work_of_a_pass_is_counted() -> None:
    params = {"w": jnp.zeros((3, 3, 2, 5))}
    expected = 2 * 3 * 3 * 2 * 5  # a multiplication and an addition a tap, less what lies outside
    counted = pixel_operations(OneConvolution(), params, {}, jax.ShapeDtypeStruct((3, 128, 160, 2), jnp.float32))
    assert expected * 0.95 < counted <= expected * 1.01
    assert pixel_operations(OneConvolution(), params, {}, jax.ShapeDtypeStruct((1, 127, 127, 2), jnp.float32)) > 0
    setup = Setup.of(OneConvolution(), Procedure(), (128, 160))
    frozen = Frozen(params, {}, jax.ShapeDtypeStruct((1, 128, 160, 2), jnp.float32), *(None,) * 4)  # type: ignore[arg-type]
    assert pass_operations(setup, frozen) == pytest.approx(counted * 128 * 160)
    small = frozen._replace(image=jax.ShapeDtypeStruct((1, 16, 16, 2), jnp.float32))
    assert pass_operations(setup._replace(shape=(16, 16)), small) == 0


def test_ways_come_from_the_fastest_to_the_thriftiest() -> None:
    small = setups_for(*problem(image=96), Layout(), mapped=False)
    assert [(s.micro, s.recompute) for s in small] == [(0, False), (2, False), (0, True), (2, True)]
    large = setups_for(*problem(side=256, image=1024), Layout(), operations=2**36, mapped=False)
    assert [(s.micro, s.recompute) for s in large] == [(8, False), (8, True)]
    whole = setups_for(*problem(side=1024, image=1024), Layout(), operations=2**36, mapped=False)
    assert [(s.micro, s.recompute) for s in whole] == [(1, False), (1, True)]
    wide = setups_for(*problem(side=256, image=256), Layout(), operations=2**36, mapped=False)
    assert [(s.micro, s.recompute) for s in wide] == [(1, False), (1, True)]  # many channels fill the cores as many pixels do
    device = setups_for(*problem(side=1024, image=1024), Layout(), mapped=True)
    assert [(s.micro, s.recompute) for s in device] == [(0, False), (1, False), (0, True), (1, True)]
    asked = setups_for(*problem(), Layout(micro=4, recompute="always"), mapped=False)
    assert [(s.micro, s.recompute) for s in asked] == [(4, True)]
    train = setups_for(*problem(train=True), Layout(micro=4), mapped=False)
    assert [(s.micro, s.recompute) for s in train] == [(0, False), (0, True)]


def test_parts_are_of_one_size() -> None:
    assert [largest_divisor(8, most) for most in (0, 1, 3, 5, 8, 100)] == [1, 1, 2, 4, 8, 8]
    assert largest_divisor(7, 6) == 1


def taken(setup: Setup, count: int) -> int:
    """Bytes of members in flight: 100 each, 60 where recomputed, 40 less with fit cases one by one."""
    return count * (60 if setup.recompute else 100)


@pytest.mark.parametrize(
    "room, recompute, chunk",
    [(1000, False, 2), (200, False, 2), (199, False, 1), (100, False, 1), (99, True, 1), (60, True, 1)],
)
def test_the_fastest_way_that_fits(room: int, recompute: bool, chunk: int) -> None:
    layout = Layout("loop", "loop", 2, memory=Budget(5000 + room + 10, 5000))
    plan = plan_search(*problem(side=256), layout, members=6, records=10, measure=taken)
    assert (plan.way.setup.recompute, plan.way.chunk) == (recompute, chunk)
    assert plan.predicted == 5000 + 10 + chunk * (60 if recompute else 100)
    total = 6000 + room + 10
    held = replace(layout, memory=Budget(total, 5000, True, lambda: (6000 - fitting.LATER, total)))  # what is held now counts
    assert plan_search(*problem(side=256), held, members=6, records=10, measure=taken).way == plan.way


def test_records_that_are_decomposed_need_room_too() -> None:
    layout = Layout("loop", "loop", 2, memory=Budget(5000 + 400, 5000))
    assert plan_search(*problem(side=256), layout, members=6, records=200, measure=taken).predicted == 5400
    with pytest.raises(ValueError, match="takes about 5.4 kB"):
        plan_search(*problem(side=256), replace(layout, memory=Budget(5399, 5000)), members=6, records=200, measure=taken)


def test_what_cannot_fit_is_refused_with_what_to_do() -> None:
    layout = Layout("loop", "loop", 2, memory=Budget(5_000_000_059, 5_000_000_000))
    with pytest.raises(
        ValueError, match=r"1024 x 1024 takes about 5 GB.*expected at most 5 GB; raise --memory, search in patches"
    ):
        plan_search(*problem(side=256), layout, members=2, records=0, measure=taken)
    share = replace(layout, memory=Budget(59, 0, asked=False))
    with pytest.raises(ValueError, match=r"takes about 60 B.*expected at most 59 B \(a share of what is free\)"):
        plan_search(*problem(side=256), share, members=2, records=0, measure=taken)
    assert plan_search(*problem(side=256), replace(layout, memory=None), members=2, records=0, measure=taken).way.chunk == 2


def test_mapped_members_fill_the_room_in_even_chunks() -> None:
    def plan(room: int, devices: int = 1) -> Any:
        layout = Layout("vmap", "scan", 0, devices=devices, memory=Budget(room, 0))
        return plan_search(*problem(), layout, members=20, records=0, measure=taken)

    assert plan(10_000).way.chunk == 20
    assert plan(1_100).way.chunk == 10  # two chunks of ten rather than eleven and nine
    assert plan(300).way.chunk == 3
    assert plan(300, devices=2).way.chunk == 5
    assert plan(70).way == fitting.Way(plan(70).way.setup, 1) and plan(70).way.setup.recompute


def test_where_memory_runs_out_every_thriftier_way_is_tried_in_turn() -> None:
    setup, frozen = problem(image=96)
    layout = Layout("loop", "loop", 4, memory=Budget(10_000, 0))
    plan = plan_search(setup, frozen, layout, members=4, records=0, measure=taken)
    ways = setups_for(setup, frozen, layout, mapped=False)
    tried = [(plan.way.chunk, plan.way.setup.micro, plan.way.setup.recompute)]
    error = RuntimeError("RESOURCE_EXHAUSTED")
    with pytest.warns(RuntimeWarning, match="memory ran out"):
        for _ in itertools.count():
            try:
                plan = thriftier(plan, ways, error)
            except RuntimeError as last:
                assert last is error
                break
            tried.append((plan.way.chunk, plan.way.setup.micro, plan.way.setup.recompute))
    assert tried == [(4, 0, False), (2, 0, False), (1, 0, False), (1, 2, False), (1, 0, True), (1, 2, True)]


def test_a_plan_says_what_it_chose() -> None:
    layout = Layout("loop", "loop", 2, memory=Budget(8 * 10**9, 10**9))
    plan = plan_search(
        *problem(side=256), layout, members=2, records=0, operations=2**36, measure=lambda setup, count: count * 10**9
    )
    expected = "2 of 2 members side by side, 8 of 8 fit cases at once, nothing recomputed: about 3 GB of 8 GB"
    assert str(plan) == expected


@pytest.mark.parametrize("layout", [Layout("loop", "loop", 1), Layout("loop", "loop", 2, micro=2), Layout("vmap", "scan")])
def test_what_runs_was_compiled_for_the_plan(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    """What is compiled behind the plan comes on top of the memory that was planned."""
    model = tiny_model()
    prepared = prepare_model(model, six_fit_cases(model), MOVING)
    for program in (step_group, add_fit_part, fit_loss_of_member, measure_group, run_steps):
        program.clear_cache()
    members._PLANS.clear()
    held = Budget(10**12, 0, True, lambda: (0, 10**12))
    chosen: list[int] = []

    def heard(event: Event) -> None:
        if event.phase == CHOSEN:
            chosen.append(len(caplog.messages))

    with jax.log_compiles(), listening(heard):
        search_images(
            prepared,
            [tiny_image()],
            [tiny_targets()],
            keys=[jax.random.key(0)],
            layout=replace(layout, memory=held),
            on_kept=lambda *_: None,
        )
    compiled = [re.findall(r"^Compiling jit\((\w+)\)", message) for message in caplog.messages]
    programs = {"step_group", "add_fit_part", "fit_loss_of_member", "measure_group", "run_steps"}
    before = {name for names in compiled[: chosen[0]] for name in names} & programs
    after = {name for names in compiled[chosen[0] :] for name in names} & programs
    assert len(chosen) == 1 and before and not after
