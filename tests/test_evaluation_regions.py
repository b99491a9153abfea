"""Connected regions of the epistemic map, by hand."""

import numpy as np
import pytest

from quam_jax.evaluation.regions import find_regions, slice_disagreement, smallest_cost


def test_regions_by_hand() -> None:
    epistemic = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.3, np.nan], [0.2, 0.0, 0.0, 0.6]])
    arrays = {
        "epistemic": epistemic,
        "total": np.ones((3, 4)),
        "segmentation": np.array([[1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]),
        "flipcost": np.where(epistemic == 0.6, 0.1, np.where(epistemic == 0.5, 4.0 - np.arange(4), np.inf)),
    }
    regions, count, labels = find_regions(arrays, threshold=0.3)
    assert count == 3 and [r.pixels for r in regions] == [2, 1, 1]  # corners do not join
    assert [r.label for r in regions] == [1, 2, 3] and [r.peak for r in regions] == [(0, 0), (1, 2), (2, 3)]
    assert [r.mass for r in regions] == pytest.approx([1.0, 0.3, 0.6])
    assert regions[0].share == pytest.approx(0.5) and regions[0].largest == 0.5 and regions[0].total == 2.0
    assert [r.inside for r in regions] == [0.5, 1.0, 0.0]
    assert [r.flip_cost for r in regions] == [3.0, None, pytest.approx(0.1)]
    assert labels.tolist() == [[1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 3]]


def test_the_regions_of_largest_mass_come_first_where_there_is_a_limit() -> None:
    epistemic = np.array([[0.3, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0], [0.6, 0.0, 0.6, 0.0]])
    regions, count, labels = find_regions({"epistemic": epistemic}, threshold=0.2, limit=2)
    assert count == 4 and [r.label for r in regions] == [1, 2]
    assert [r.peak for r in regions] == [(0, 2), (2, 0)]  # of equal ones the first
    assert labels.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [2, 0, 0, 0]]


def test_small_regions_are_left_out() -> None:
    epistemic = np.array([[0.5, 0.0, 0.5, 0.5]])
    regions, count, labels = find_regions({"epistemic": epistemic}, threshold=0.3, least=2)
    assert count == 1 and regions[0].mass == 1.0 and labels.tolist() == [[0, 0, 1, 1]]
    (one,) = regions
    assert (one.total, one.share, one.inside, one.alone, one.flip_cost) == (None,) * 5
    nothing = find_regions({"epistemic": epistemic}, threshold=0.6)
    assert nothing.listed == [] and nothing.number == 0 and not nothing.labels.any()


def test_regions_without_a_map_or_a_threshold() -> None:
    with pytest.raises(ValueError, match="threshold: expected a number of nats > 0, got 0.0"):
        find_regions({"epistemic": np.ones((2, 2))}, threshold=0.0)
    with pytest.raises(ValueError, match="expected an epistemic map"):
        find_regions({}, threshold=0.1)


def test_the_smallest_finite_cost() -> None:
    assert smallest_cost(np.array([np.inf, 2.0, np.nan, 1.0])) == 1.0
    assert smallest_cost(np.array([np.inf, np.nan])) is None


def test_what_differs_from_both_neighbouring_slices() -> None:
    row = np.array([1, 0, 1, 1, 2, 1, 0])  # along the last axis: 0 between ones, 2 between ones; the ends do not count
    volume = np.broadcast_to(row, (2, 3, 7))
    expected = np.array([0, 1, 0, 0, 1, 0, 0], bool)
    assert (slice_disagreement(volume) == expected).all()
    assert not slice_disagreement(volume[..., :2]).any() and not slice_disagreement(volume[..., :1]).any()


def test_regions_know_their_slices() -> None:
    labels = np.zeros((2, 2, 3), int)
    labels[0, 0, 1] = 1  # alone in its slice
    epistemic = np.zeros((2, 2, 3))
    epistemic[0, :, 1] = 1.0
    (region,) = find_regions({"epistemic": epistemic, "segmentation": labels}, threshold=0.5).listed
    assert region.alone == 0.5 and region.peak == (0, 0, 1)
