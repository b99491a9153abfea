"""Criteria, orders and retention curves, by hand."""

import numpy as np
import pytest

from quam_jax.results.ranking import (
    CASE_CRITERIA,
    REGION_CRITERIA,
    case_criteria,
    find_regions,
    order_by,
    retention_area,
    retention_curve,
    slice_disagreement,
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


def test_what_differs_from_both_neighbouring_slices() -> None:
    row = np.array([1, 0, 1, 1, 2, 1, 0])  # along the last axis: 0 between ones, 2 between ones; the ends do not count
    volume = np.broadcast_to(row, (2, 3, 7))
    expected = np.array([0, 1, 0, 0, 1, 0, 0], bool)
    assert (slice_disagreement(volume) == expected).all()
    assert case_criteria({"segmentation": volume})["slices"] == 2 * 2 * 3
    assert not slice_disagreement(volume[..., :2]).any() and not slice_disagreement(volume[..., :1]).any()


def test_regions_by_hand() -> None:
    epistemic = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.3, 0.0], [0.2, 0.0, 0.0, 0.6]])
    arrays = {"epistemic": epistemic, "total": np.ones((3, 4)), "flipcost": np.where(epistemic == 0.6, 0.1, np.inf)}
    regions, labels = find_regions(arrays, threshold=0.3)
    assert [r.pixels for r in regions] == [2, 1, 1]  # corners do not join
    assert [r.peak for r in regions] == [(0, 0), (1, 2), (2, 3)]
    assert [r.criteria["epistemic"] for r in regions] == pytest.approx([1.0, 0.3, 0.6])
    assert regions[0].criteria["share"] == pytest.approx(0.5) and regions[0].criteria["peak"] == 0.5
    assert regions[2].criteria["flip_cost"] == pytest.approx(-0.1) and np.isnan(regions[0].criteria["flip_cost"])
    assert set(regions[0].criteria) == set(REGION_CRITERIA)
    assert labels.tolist() == [[1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 3]]
    only, labels = find_regions(arrays, threshold=0.3, least=2, voxel=0.5)
    assert [r.criteria["epistemic"] for r in only] == [0.5] and labels.max() == 1
    with pytest.raises(ValueError, match="threshold: expected a number of nats > 0"):
        find_regions(arrays, threshold=0.0)
    with pytest.raises(ValueError, match="expected an epistemic map"):
        find_regions({}, threshold=0.1)


def test_regions_know_their_slices() -> None:
    labels = np.zeros((2, 2, 3), int)
    labels[0, 0, 1] = 1  # alone in its slice
    epistemic = np.zeros((2, 2, 3))
    epistemic[0, :, 1] = 1.0
    (region,), _ = find_regions({"epistemic": epistemic, "segmentation": labels}, threshold=0.5)
    assert region.criteria["slices"] == 0.5 and region.peak == (0, 0, 1)


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
