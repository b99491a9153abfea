"""What the audit says of a search, against rows worked out by hand: kept steps, counts, and losses on the right fit batch."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.case.audit import MemberAudit, SearchFacts, audit_members, kept_probs, models_held, models_moved, uninformative
from quam_jax.case.quantify import quantify
from quam_jax.config import Config, SearchConfig
from quam_jax.core.searching import search_prepared
from quam_jax.core.types import Trajectory
from quam_jax.models.predict import predict
from quam_jax.models.prepare import prepare
from quam_jax.targets.pixels import pixel_targets
from tests.tiny import NO_VIEWS, tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets

NAN = np.nan


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def trajectory(objective: Any, fit_loss: Any, *, bound: Any = 1.0, reference_loss: Any = 0.5) -> Trajectory:
    """Two points of two classes whose probability is the number of the target, member and step."""
    objective, fit_loss = np.asarray(objective, np.float32), np.asarray(fit_loss, np.float32)
    first = np.arange(objective.size).reshape(objective.shape) / 100
    probs = np.repeat(np.stack([first, 1 - first], -1)[..., None, :], 2, -2).astype(np.float32)
    bound, reference_loss = (np.broadcast_to(np.asarray(x, np.float32), objective.shape) for x in (bound, reference_loss))
    return Trajectory(*map(jnp.asarray, (probs, objective, fit_loss, bound, np.maximum(fit_loss - bound, 0), reference_loss)))


def kept(objective: Sequence[float], fit_loss: Sequence[float]) -> int:
    """The kept step of one member whose bound is 1."""
    return int(SearchFacts.of(trajectory([[objective]], [[fit_loss]])).kept[0, 0])


# the kept step


@pytest.mark.parametrize(
    ("objective", "fit_loss", "expected"),
    [
        ([3.0, 1.0, 2.0], [0.5, 0.5, 0.5], 1),
        ([3.0, 1.0, 2.0], [0.5, 1.5, 0.5], 2),
        ([1.0, 2.0, 3.0], [1.5, 0.5, 0.5], 1),
        ([3.0, 2.0, 1.0], [0.5, 1.5, 1.5], 0),
        ([2.0, 1.0, 1.0], [0.5, 0.5, 0.5], 1),
        ([2.0, 1.0, 1.0], [0.5, 1.5, 0.5], 2),
        ([1.0, 3.0, 2.0], [1.5, 1.5, 1.5], 2),
        ([2.0, NAN, 3.0], [0.5, 0.5, 0.5], 0),
        ([NAN, 5.0, 4.0], [0.5, 0.5, 1.5], 1),
        ([1.0, 2.0, 3.0], [NAN, 0.5, 0.5], 1),
        ([NAN, NAN, NAN], [NAN, NAN, NAN], 2),
        ([-1.0, -3.0, 0.0], [0.5, 0.5, 0.5], 1),
        ([1.0, 2.0, 3.0], [1.5, 1.0, 0.5], 1),
    ],
    ids=[
        "smallest",
        "smallest is infeasible",
        "first is infeasible",
        "only the first",
        "tie",
        "tie with an infeasible one",
        "none feasible",
        "NaN objective",
        "NaN and infeasible",
        "NaN fit loss",
        "all NaN",
        "below zero",
        "at the bound",
    ],
)
def test_the_kept_step_has_the_smallest_objective(objective: list[float], fit_loss: list[float], expected: int) -> None:
    assert kept(objective, fit_loss) == expected


def test_every_member_of_every_target_keeps_its_own_step() -> None:
    rng = np.random.default_rng(0)
    objective, counts = rng.uniform(0, 1, (4, 3, 6)), rng.uniform(0, 1, (4, 3, 6)) < 0.5
    counts[2, 1] = False
    searched = trajectory(objective, np.where(counts, 0.5, 1.5))
    steps = SearchFacts.of(searched).kept
    for t, m in np.ndindex(4, 3):
        own = [(objective[t, m, s], s) for s in range(6) if counts[t, m, s]]
        assert steps[t, m] == (min(own)[1] if own else 5)
        np.testing.assert_array_equal(kept_probs(searched, steps)[t, m], searched.probs[t, m, steps[t, m]])


def test_a_prediction_that_is_not_finite_is_not_kept() -> None:
    one = trajectory([[[1.0, 2.0, 3.0]]], [[[0.5, 0.5, 0.5]]])
    one = one._replace(probs=one.probs.at[0, 0, 0, 1].set(NAN))
    facts = SearchFacts.of(one)
    assert facts.kept.tolist() == [[1]] and facts.usable.tolist() == [[[False, True, True]]]


# one target


def test_rows_of_one_target_by_hand() -> None:
    objective = [[[3.0, 1.0, 2.0], [1.0, 2.0, 4.0], [2.0, NAN, 1.0]]]
    fit_loss = [[[0.5, 1.5, 0.75], [2.5, 3.5, 4.5], [0.25, 0.5, NAN]]]
    bound = [1.0, 1.25, 0.9]
    facts = SearchFacts.of(trajectory(objective, fit_loss, bound=bound, reference_loss=[0.1, 0.2, 0.3]))
    place: dict[str, Any] = {"patch": 3, "start": (0, -2), "fold": "4"}
    rows = audit_members(facts, names=["a", "b", "c"], changed=np.array([7, 8, 9]), target=0, **place)
    assert [row.member for row in rows] == [0, 1, 2] and [row.wanted for row in rows] == ["a", "b", "c"]
    assert [row.held for row in rows] == [True, False, True] and [row.kept for row in rows] == [1, 0, 1]
    assert [row.nan for row in rows] == [False, False, True]
    # the first keeps step 2, since step 1 exceeds the bound; the second its last step; the third its only finite one
    assert [row.objective_last for row in rows] == [2.0, 4.0, 2.0]
    assert [row.fit_loss for row in rows] == [0.75, 4.5, 0.25]
    assert [row.bound for row in rows] == pytest.approx([0.9, 0.9, 1.0])
    assert [row.reference_loss for row in rows] == pytest.approx([0.3, 0.3, 0.1])
    assert [row.objective_first for row in rows] == [3.0, 1.0, 2.0]
    assert [row.feasible_steps for row in rows] == [2, 0, 1] and [row.steps for row in rows] == [3, 3, 3]
    assert [row.changed_pixels for row in rows] == [7, 8, 9]
    assert all(
        (row.target, row.searched, row.slice, row.patch, row.start, row.fold) == (0, 1, None, 3, (0, -2), "4") for row in rows
    )
    assert models_held(rows) == (2, 3)


# many targets


def facts_of_three() -> SearchFacts:
    """Three targets of two members and two steps; the bound is 1."""
    objective = [[[4.0, 2.0], [1.0, 5.0]], [[6.0, 8.0], [3.0, 2.0]], [[5.0, 3.0], [NAN, 7.0]]]
    fit_loss = [[[0.5, 0.25], [0.5, 0.75]], [[1.5, 2.5], [0.5, 1.5]], [[0.75, 1.5], [NAN, 3.0]]]
    reference_loss = np.arange(12.0).reshape(3, 2, 2)
    return SearchFacts.of(trajectory(objective, fit_loss, reference_loss=reference_loss))


def test_a_row_of_many_targets_has_sums_and_means() -> None:
    facts = facts_of_three()
    # kept steps: of member 0 the last, the last for want of a feasible one, the first; of member 1 the first, the first, the last
    assert facts.kept.tolist() == [[1, 0], [1, 0], [0, 1]]
    first, second = audit_members(facts, names=["x", "y"], changed=np.array([5, 6]), target=-1, slice=7)
    assert (first.target, first.member, first.wanted, first.slice, first.patch) == (-1, 0, "x", 7, None)
    assert (first.searched, first.kept, first.held, first.nan) == (3, 2, True, False)
    assert (first.steps, first.feasible_steps, first.changed_pixels) == (6, 3, 5)
    assert first.fit_loss == pytest.approx((0.25 + 2.5 + 0.75) / 3)
    assert first.bound == 1.0
    assert first.reference_loss == pytest.approx((1 + 5 + 8) / 3)
    assert first.objective_first == pytest.approx((4 + 6 + 5) / 3)
    assert first.objective_last == pytest.approx((2 + 8 + 5) / 3)
    assert (second.member, second.searched, second.kept, second.held, second.nan) == (1, 3, 2, True, True)
    assert (second.steps, second.feasible_steps, second.changed_pixels) == (6, 3, 6)
    assert second.fit_loss == pytest.approx((0.5 + 0.5 + 3.0) / 3)
    assert second.objective_first == pytest.approx((1 + 3) / 2)  # what is not a number has no part in the mean
    assert second.reference_loss == pytest.approx((2 + 6 + 11) / 3)
    assert models_held([first, second]) == (4, 6)


def test_a_member_that_never_held_says_so() -> None:
    facts = SearchFacts.of(trajectory([[[1.0, 2.0]], [[3.0, 5.0]]], [[[2.0, 3.0]], [[4.0, 6.0]]]))
    (row,) = audit_members(facts, names=["x"], changed=np.array([0]), target=-1)
    assert (row.held, row.kept, row.searched, row.feasible_steps) == (False, 0, 2, 0)
    assert (row.fit_loss, row.objective_last) == (4.5, 3.5)  # of the last steps
    assert models_held([row]) == (0, 2)


def test_means_over_targets_leave_out_what_is_not_a_number() -> None:
    means = facts_of_three().means()
    np.testing.assert_allclose(means["objective"], [[5, 13 / 3], [2, 14 / 3]])
    np.testing.assert_allclose(means["fit_loss"], [[2.75 / 3, 4.25 / 3], [0.5, 5.25 / 3]])
    np.testing.assert_allclose(means["bound"], np.ones((2, 2)))
    np.testing.assert_allclose(means["penalty"], [[0.5 / 3, 2 / 3], [0, 2.5 / 3]])
    assert {values.dtype for values in means.values()} == {np.dtype(np.float32)}


def test_models_held_adds_up_targets_and_members() -> None:
    row = MemberAudit(
        target=0,
        member=0,
        wanted="x",
        held=True,
        nan=False,
        fit_loss=0.0,
        bound=0.0,
        reference_loss=0.0,
        steps=1,
        feasible_steps=1,
        objective_first=0.0,
        objective_last=0.0,
        changed_pixels=0,
        searched=5,
        kept=3,
    )
    assert models_held([row, dataclasses.replace(row, searched=2, kept=0)]) == (3, 7) and models_held([]) == (0, 0)


def test_facts_of_several_searches_are_those_of_one() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.uniform(0.5, 1.5, (3, 5, 2, 3))
    parts = [trajectory(*(n[rows] for n in numbers[:2]), reference_loss=numbers[2, rows]) for rows in (slice(2), slice(2, 5))]
    whole = SearchFacts.of(trajectory(*numbers[:2], reference_loss=numbers[2]))
    for own, told in zip(SearchFacts.joined([SearchFacts.of(part) for part in parts]), whole, strict=True):
        np.testing.assert_array_equal(own, told)


@pytest.mark.filterwarnings("error")
def test_nan_counts_only_where_there_is_nothing_else() -> None:
    facts = SearchFacts.of(trajectory([[[1, NAN]], [[NAN, NAN]]], [[[0.5, NAN]], [[NAN, NAN]]]))
    (row,) = audit_members(facts, names=("pixel 0",), changed=np.array([0]), target=-1)
    assert row.nan and row.held and (row.fit_loss, row.objective_first) == (0.5, 1)
    np.testing.assert_array_equal(facts.means()["objective"], [[1, NAN]])
    broken = SearchFacts.of(trajectory([[[NAN]]], [[[NAN]]]))
    (alone,) = audit_members(broken, names=("dilate",), changed=np.array([0]), target=0)
    assert alone.nan and not alone.held and np.isnan(alone.fit_loss)


# the given network's loss beside a record


@pytest.mark.parametrize("record", ["same", "after"])
@pytest.mark.parametrize("settings", [{"steps": 4}, {"steps": 6}, {"epochs": 2, "batch_stride": 2}], ids=["4", "6", "epochs"])
def test_the_recorded_loss_is_that_of_the_records_own_fit_batch(record: str, settings: dict[str, int]) -> None:
    """Without a slack the bound of a record is the given network's loss; without learning so is its fit loss."""
    model = tiny_model()
    config = SearchConfig(members=1, learning_rate=0.0, slack=0.0, record=record, **settings)  # type: ignore[arg-type]
    prepared = prepare(model, tiny_fit(model, batches=5), config)
    losses = np.asarray(prepared.reference_loss)
    assert np.diff(np.sort(losses)).min() > 1e-4
    found = search_prepared(prepared, tiny_image(), tiny_targets(members=1), key=jax.random.key(0))
    told = np.asarray(found.reference_loss)[0, 0]
    np.testing.assert_allclose(told, found.bound[0, 0], rtol=1e-6)
    np.testing.assert_allclose(told, found.fit_loss[0, 0], rtol=1e-4)
    steps = prepared.steps.batch
    own = [*steps[1:], (steps[-1] + 1) % 5] if record == "same" else steps
    np.testing.assert_array_equal(told, losses[np.array(own)])


def test_the_audit_of_a_case_names_the_loss_of_the_kept_step() -> None:
    model = tiny_model()
    config = Config(samples=NO_VIEWS, search=SearchConfig(members=2, steps=4, learning_rate=0.02, slack=0.5))
    found = quantify(model, tiny_image(), tiny_fit(model, batches=5), config=config)
    for m, row in enumerate(found.audit):
        step = np.where(found.feasible[m], found.objective[m], np.inf).argmin()
        assert row.held and row.objective_last == found.objective[m, step]
        assert row.reference_loss == pytest.approx(found.bound[m, step] / 1.5, rel=1e-6)
        assert row.fit_loss == found.fit_loss[m, step] and row.feasible_steps == found.feasible[m].sum()


@pytest.mark.parametrize(("unit", "slack"), [("relative", 0.5), ("nats", 0.2), ("nats", -0.1)])
@pytest.mark.parametrize("space", ["full", "head"])
def test_the_bound_is_the_reference_loss_and_the_slack(space: str, unit: str, slack: float) -> None:
    model = tiny_model()
    config = SearchConfig(members=1, steps=2, slack=slack, slack_unit=unit, space=space)  # type: ignore[arg-type]
    points = np.array([0, 30]) if space == "head" else None
    targets = (
        tiny_targets(members=1) if points is None else pixel_targets(points, np.asarray(predict(model, tiny_image())), members=1)
    )
    found = search_prepared(prepare(model, tiny_fit(model), config), tiny_image(), targets, key=jax.random.key(0))
    loss = np.asarray(found.reference_loss)
    np.testing.assert_allclose(found.bound, loss * (1 + slack) if unit == "relative" else loss + slack, rtol=1e-6)


def test_a_search_in_which_nothing_moved_is_told_from_one_that_held() -> None:
    plain = dict(
        target=0, member=0, wanted="dilate", nan=False, fit_loss=0.1, bound=0.2, reference_loss=0.1, steps=3, feasible_steps=2
    )
    rows = [
        MemberAudit(**plain, held=held, objective_first=0.6, objective_last=last, changed_pixels=0)  # type: ignore[arg-type]
        for held, last in ((True, 0.6), (False, 0.3), (True, 0.5))
    ]
    rows = [dataclasses.replace(row, kept=int(row.held)) for row in rows]
    assert [row.moved for row in rows] == [False, True, True] and models_moved(rows) == 1
    assert "came nearer to its target" in uninformative(rows[:2], pixels=100)
    assert uninformative(rows, pixels=100) == "" and uninformative([], pixels=100) == ""
    flipped = [dataclasses.replace(row, changed_pixels=91) for row in rows[2:]]
    assert "nearly every pixel otherwise" in uninformative(flipped, pixels=100)
    assert uninformative(flipped, pixels=102) == ""
    granted = [dataclasses.replace(row, objective_last=0.005) for row in rows[2:]]
    assert "got all that it was asked for" in uninformative(granted, pixels=100)
