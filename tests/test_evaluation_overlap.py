"""Overlap: 2x2 masks by hand, confusion matrices against masks one class at a time."""

import numpy as np
import pytest

from quam_jax.evaluation import overlap
from quam_jax.evaluation.segmentation import SegmentationSettings, mean_of_known, segmentation_figures

A = np.array([[1, 1], [0, 0]])
B = np.array([[1, 0], [1, 0]])
NOTHING = np.zeros((2, 2), int)


def iou_of(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def class_iou(counts: np.ndarray, *, empty: float = float("nan")) -> np.ndarray:
    both, first, second = overlap.structure_counts(counts, np.eye(len(counts), dtype=bool))
    return overlap.ratio(both, first + second - both, empty=empty)


def test_two_by_two():
    assert overlap.dice(A, B) == 0.5  # 2*1 / (2+2)
    assert class_iou(overlap.confusion(A, B, classes=2))[1] == pytest.approx(1 / 3)


def test_empty_masks_get_what_the_caller_says():
    assert np.isnan(overlap.dice(NOTHING, NOTHING))
    assert overlap.dice(NOTHING, NOTHING, empty=1.0) == 1.0
    assert overlap.dice(NOTHING, A) == overlap.dice(A, NOTHING) == 0.0


@pytest.mark.parametrize("shape", [(7, 8), (3, 4, 5)])
def test_confusion_agrees_with_masks(shape):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, shape), rng.integers(0, 3, shape)
    counts = overlap.confusion(first, second, classes=4)
    assert counts.sum() == first.size
    for label in range(3):
        pair = first == label, second == label
        assert overlap.class_dice(counts)[label] == pytest.approx(overlap.dice(*pair))
        assert class_iou(counts)[label] == pytest.approx(iou_of(*pair))
        assert counts[label, label] == np.count_nonzero(pair[0] & pair[1])
    assert np.isnan(overlap.class_dice(counts)[3]) and np.isnan(class_iou(counts)[3])
    assert overlap.class_dice(counts, empty=1.0)[3] == class_iou(counts, empty=1.0)[3] == 1.0


def test_laws():
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.random((2, 6, 6)) < 0.5
        dice, iou = overlap.dice(a, b), class_iou(overlap.confusion(a.astype(int), b.astype(int), classes=2))[1]
        assert 0 <= iou <= dice <= 1
        assert dice == pytest.approx(2 * iou / (1 + iou))
        assert dice == overlap.dice(b, a)
    assert overlap.dice(a, a) == 1


def test_figures_of_three_classes():
    labels = np.array([[0, 1, 1], [0, 2, 2]])
    other = np.array([[0, 1, 0], [0, 2, 2]])
    row = segmentation_figures(labels, other[None], settings=SegmentationSettings(3), suffix="x")
    assert row["dice_x_class1"] == pytest.approx(2 / 3)
    assert row["dice_x_class2"] == 1.0
    assert row["dice_x"] == pytest.approx(5 / 6)
    assert row["volume_error_x"] == 0.5  # one pixel too many in class 1, none in class 2
    assert row["relative_volume_error_x"] == 0.5  # one pixel for one in class 1
    assert row["hd_x"] == 0.5  # class 1: one pixel; class 2: 0


def test_figures_leave_out_what_does_not_exist():
    labels, nothing = np.array([[0, 1]]), np.array([[0, 0]])
    row = segmentation_figures(labels, np.stack([labels, nothing]), settings=SegmentationSettings(2), suffix="x")
    assert row["dice_x"] == 0.5  # 1 and 0
    assert row["hd_x"] == 0.0  # the distance to an empty mask is left out
    row = segmentation_figures(labels, nothing[None], settings=SegmentationSettings(2), suffix="x")
    assert np.isnan(row["hd_x"]) and np.isnan(row["relative_volume_error_x"]) and row["nsd_x"] == 0.0
    assert np.isnan(mean_of_known([float("nan")])) and mean_of_known([1.0, float("nan"), 2.0]) == 1.5


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one shape"):
        overlap.dice(A, np.ones(4))
    with pytest.raises(ValueError, match="one shape"):
        overlap.confusion(A, np.ones((2, 3), int), classes=2)
    with pytest.raises(ValueError, match=r"expected 0\.\.1, got 0\.\.3"):
        overlap.confusion(A * 3, A, classes=2)
