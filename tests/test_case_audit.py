"""The audit of a search by hand: one target, many targets, and what NaN does to it."""

import jax.numpy as jnp
import numpy as np
import pytest

from quam_jax.case.audit import SearchFacts, audit_members, models_held
from quam_jax.core.types import Trajectory


def facts_of(objective: list, fit_loss: list) -> SearchFacts:
    """`[t m s]` losses under a bound of 1, the given network's loss 0.5."""
    loss = np.array(fit_loss, np.float32)
    probs, aims = jnp.full((*loss.shape, 1, 2), 0.5), jnp.array(objective, jnp.float32)
    trajectory = Trajectory(
        probs, aims, jnp.asarray(loss), jnp.ones(loss.shape), jnp.zeros(loss.shape), jnp.full(loss.shape, 0.5)
    )
    return SearchFacts.of(trajectory)


def test_the_kept_step_is_the_best_feasible_one() -> None:
    facts = facts_of([[[3, 1, 2], [3, 2, 1]]], [[[0.5, 1.5, 0.75], [2, 2, 2]]])
    first, second = audit_members(facts, names=("dilate", "erode"), changed=np.array([4, 0]), target=0, slice=7)
    assert (first.held, first.fit_loss, first.objective_first, first.objective_last) == (True, 0.75, 3, 2)
    assert (first.steps, first.feasible_steps, first.searched, first.kept, first.changed_pixels) == (3, 2, 1, 1, 4)
    assert (second.held, second.fit_loss, second.kept, second.member, second.wanted) == (False, 2, 0, 1, "erode")
    assert first.slice == 7 and first.patch is None and first.target == 0 and first.reference_loss == 0.5
    assert models_held([first, second]) == (1, 2)


def test_a_row_of_many_targets_sums_and_averages() -> None:
    facts = SearchFacts.joined([facts_of([[[3, 1]]], [[[0.5, 0.75]]]), facts_of([[[5, 4]]], [[[2, 2]]])])
    (row,) = audit_members(facts, names=("pixel 0",), changed=np.array([3]), target=-1, patch=2, start=(0, 4), fold="1")
    assert (row.searched, row.kept, row.steps, row.feasible_steps) == (2, 1, 4, 2)
    assert row.fit_loss == pytest.approx((0.75 + 2) / 2) and row.objective_first == 4 and row.objective_last == 2.5
    np.testing.assert_allclose(facts.means()["fit_loss"], [[1.25, 1.375]])


@pytest.mark.filterwarnings("error")
def test_nan_counts_only_where_there_is_nothing_else() -> None:
    nan = float("nan")
    facts = facts_of([[[1, nan]], [[nan, nan]]], [[[0.5, nan]], [[nan, nan]]])
    (row,) = audit_members(facts, names=("pixel 0",), changed=np.array([0]), target=-1)
    assert row.nan and row.held and (row.fit_loss, row.objective_first) == (0.5, 1)
    np.testing.assert_array_equal(facts.means()["objective"], [[1, nan]])
    (alone,) = audit_members(facts_of([[[nan]]], [[[nan]]]), names=("dilate",), changed=np.array([0]), target=0)
    assert alone.nan and not alone.held and np.isnan(alone.fit_loss)
