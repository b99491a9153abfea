"""Criteria, orders and retention curves, by hand."""

import numpy as np
import pytest

from quam_jax.evaluation.regions import find_regions
from quam_jax.evaluation.review import (
    CASE_CRITERIA,
    REGION_CRITERIA,
    case_criteria,
    order_by,
    region_criteria,
    retention_area,
    retention_curve,
)


def test_criteria_of_a_case() -> None:
    labels = np.array([[0, 1, 1, 0]])
    arrays = {
        "epistemic": np.array([[0.1, 0.2, np.nan, 0.3]]),
        "total": np.full((1, 4), 0.5),
        "segmentation": labels,
        "adversarial": np.array([[[1, 1, 1, 0]], [[0, 0, 1, 0]]]),
        "flipcost": np.array([[np.nan, np.inf, 0.02, 0.4]]),
    }
    found = case_criteria(arrays, voxel=2.0)
    assert set(found) == set(CASE_CRITERIA)
    assert found["epistemic"] == pytest.approx(1.2) and found["total"] == pytest.approx(4.0)
    assert found["size"] == 4 and found["changed"] == 2  # one pixel each, of size 2
    # Dice of {1,2} with {0,1,2} is 4/5, with {2} 2/3
    assert found["relative"] == pytest.approx(1 - (4 / 5 + 2 / 3) / 2)
    assert found["flip_cost"] == pytest.approx(-0.02)
    assert np.isnan([found["aleatoric"], found["softmax"], found["slices"]]).all()


def test_what_differs_from_both_neighbouring_slices_counts_in_a_volume() -> None:
    volume = np.broadcast_to(np.array([1, 0, 1, 1, 2, 1, 0]), (2, 3, 7))
    assert case_criteria({"segmentation": volume})["slices"] == 2 * 2 * 3


def test_criteria_of_regions() -> None:
    epistemic = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.3, 0.0], [0.2, 0.0, 0.0, 0.6]])
    arrays = {"epistemic": epistemic, "total": np.ones((3, 4)), "flipcost": np.where(epistemic == 0.6, 0.1, np.inf)}
    first, second, third = (region_criteria(r, voxel=0.5) for r in find_regions(arrays, threshold=0.3).listed)
    assert set(first) == set(REGION_CRITERIA)
    assert [r["epistemic"] for r in (first, second, third)] == pytest.approx([0.5, 0.15, 0.3])
    assert first["share"] == pytest.approx(0.5) and first["peak"] == 0.5 and first["size"] == 1.0
    assert third["flip_cost"] == pytest.approx(-0.1) and np.isnan(first["flip_cost"])
    (alone,) = find_regions({"epistemic": epistemic}, threshold=0.6).listed
    assert np.isnan([region_criteria(alone)[name] for name in ("share", "flip_cost", "slices")]).all()


def test_order_by_one_and_by_several() -> None:
    items = [{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": np.nan}, {"a": 2.0, "b": 7.0}]
    order, scores = order_by(items, ["a"])
    assert order.tolist() == [1, 2, 0] and scores.tolist() == [0.0, 1.0, 0.5]
    order, scores = order_by(items, ["a", "b"])  # shares of b: 1/2, none, 1
    assert order.tolist() == [2, 1, 0] and scores.tolist() == [0.25, 0.5, 0.75]
    order, scores = order_by([{"a": 1.0}, {"a": 2.0}, {"a": 2.0}], ["a"])  # ties share their rank and keep their order
    assert order.tolist() == [1, 2, 0] and scores.tolist() == [0.0, 0.75, 0.75]
    assert order_by([{"a": 4.0}], ["a"])[0].tolist() == [0]
    for by, message in ((["c"], "unknown criterion 'c'; expected some of a, b"), ([], "at least one")):
        with pytest.raises(ValueError, match=message):
            order_by(items, by)
    with pytest.raises(ValueError, match="no item has the criterion 'a'"):
        order_by([{"a": np.nan}], ["a"])


def test_retention_by_hand() -> None:
    errors = np.array([1.0, 3.0, 0.0, 4.0])
    curve = retention_curve(errors, np.array([3, 1, 0, 2]))
    assert curve.tolist() == [1.0, 0.5, 0.125, 0.0, 0.0]
    # trapezoids of width 1/4: .75, .3125, .0625, 0
    assert retention_area(curve) == pytest.approx((0.75 + 0.3125 + 0.0625) / 4)
    assert retention_area(curve, up_to=0.5) == pytest.approx((0.75 + 0.3125) / 2)
    assert retention_area(curve, up_to=0.2) == pytest.approx((1 + (1 - 0.8 * 0.5)) / 2)  # a straight line from 1 to 0.6
    assert np.isnan(retention_curve(np.zeros(3), np.arange(3))).all()
    with pytest.raises(ValueError, match="up_to"):
        retention_area(curve, up_to=0.0)


def test_no_order_is_better_than_by_the_error_itself() -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(size=30)
    best = retention_area(retention_curve(errors, np.argsort(-errors)))
    areas = [retention_area(retention_curve(errors, rng.permutation(30))) for _ in range(400)]
    assert best < min(areas)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.01)  # a random order
