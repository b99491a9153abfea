"""Pixels that a rater did not rate (-1): they change no figure, wherever they lie, and the others count as they do alone."""

import sys

import numpy as np
import pytest

from quam_jax.case.structures import structure_volumes
from quam_jax.evaluation import evaluate, overlap, surface
from quam_jax.evaluation.calibration import calibration
from quam_jax.evaluation.reference_maps import consensus, fill_unrated, rater_mean
from quam_jax.evaluation.segmentation import SegmentationSettings, segmentation_figures
from quam_jax.models.coding import Coding
from tests.test_evaluation_evaluate import equal, make_case

SURFACES = ("hd", "nsd")  # the edge of an image is a border, what is not rated is none


def without(row: dict, *names: str) -> dict:
    return {key: value for key, value in row.items() if not key.startswith(names)}


def test_by_hand() -> None:
    raters = np.array([[[0, 1, 1, -1, -1]], [[0, 1, -1, 1, -1]], [[0, 0, -1, 0, -1]]])
    np.testing.assert_array_equal(consensus(raters, classes=2, ties="smallest"), [[0, 1, 1, 0, -1]])
    np.testing.assert_array_equal(consensus(raters, classes=2, ties="foreground"), [[0, 1, 1, 1, -1]])
    np.testing.assert_allclose(rater_mean(raters, classes=2)[0, :, 1], [0, 2 / 3, 1, 1 / 2, 0])
    np.testing.assert_allclose(rater_mean(raters, classes=2)[0, :, 0], [1, 1 / 3, 0, 1 / 2, 0])
    np.testing.assert_array_equal(fill_unrated(np.array([[2, -1, -1, 0]])), [[2, 2, 0, 0]])
    assert not fill_unrated(np.full((3, 3), -1)).any()


@pytest.mark.parametrize(("shape", "classes"), [((24, 20), 2), ((24, 20), 3), ((9, 14, 12), 3)])
def test_what_nobody_rated_is_as_if_cut_off(shape: tuple[int, ...], classes: int) -> None:
    maps, raters, settings = make_case(shape, classes)
    cut = (..., slice(0, shape[-1] // 2 + 3))
    few = {"segmentation": settings["segmentation"][cut], "samples": settings["samples"][cut]}
    few["probabilities"] = np.moveaxis(np.moveaxis(settings["probabilities"], -1, 0)[cut], 0, -1)
    cropped = evaluate({name: values[cut] for name, values in maps.items()}, raters[cut], **few)
    unrated = raters.copy()
    unrated[..., shape[-1] // 2 + 3 :] = -1
    equal(without(evaluate(maps, unrated, **settings), *SURFACES), without(cropped, *SURFACES))


def test_what_stands_where_nobody_rated_changes_nothing() -> None:
    maps, raters, settings = make_case((40, 40), 3)
    raters[:, :4, :4] = -1
    row = evaluate(maps, raters, **settings)
    rng = np.random.default_rng(3)
    for values in (*maps.values(), settings["probabilities"][..., 0]):
        values[:4, :4] = rng.random((4, 4))
    settings["probabilities"][:4, :4] /= settings["probabilities"][:4, :4].sum(-1, keepdims=True)
    settings["segmentation"][:4, :4] = rng.integers(0, 3, (4, 4))
    settings["samples"][:, :4, :4] = rng.integers(0, 3, (5, 4, 4))
    again = evaluate(maps, raters, **settings)
    equal(row, again)


def test_each_rater_counts_where_that_rater_rated() -> None:
    maps, raters, settings = make_case((20, 24), 3, raters=3)
    raters[0, :5] = raters[1, :, 15:] = raters[2, 8:12, 8:12] = -1
    row = evaluate(maps, raters, **settings)
    segmentation, probs = settings["segmentation"], settings["probabilities"].astype(np.float64)
    scores = [np.mean([overlap.dice((segmentation == k)[one >= 0], (one == k)[one >= 0]) for k in (1, 2)]) for one in raters]
    assert row["dice_raters"] == pytest.approx(np.mean(scores))
    alone = [calibration(probs[one >= 0], one[None, one >= 0]) for one in raters]
    for name in alone[0]:
        assert row[f"{name}_raters"] == pytest.approx(np.mean([table[name] for table in alone])), name
    pixels = (raters >= 0).all(0)
    assert row["ged_v"] == pytest.approx(
        evaluate({}, raters[:, pixels][:, None], classes=3, samples=settings["samples"][:, pixels][:, None])["ged_v"]
    )


def test_agreement_takes_two_raters_of_a_pixel() -> None:
    maps, raters, settings = make_case((20, 24), 2, raters=2)
    raters[0, :, :14] = -1
    row = evaluate(maps, raters, **settings)
    whole = make_case((20, 24), 2, raters=2)[1]
    right = {name: values[:, 14:] for name, values in maps.items()}
    assert row["total/pcc"] == pytest.approx(evaluate(right, whole[:, :, 14:], classes=2)["total/pcc"])
    raters[1, :, 14:] = -1
    row = evaluate(maps, raters, **settings)
    assert "total/pcc" not in row and "note" in row and row["total/auroc_image"] > 0


def test_borders_that_are_not_rated_are_not_measured() -> None:
    labels, reference = np.zeros((8, 12), int), np.zeros((8, 12), int)
    labels[2:6, 2:10], reference[2:6, 2:7] = 1, 1
    settings = SegmentationSettings(2)
    assert segmentation_figures(labels, reference[None], settings=settings, suffix="x")["hd_x"] == 3
    reference[:, 7:] = -1
    row = segmentation_figures(labels, reference[None], settings=settings, suffix="x")
    assert row["hd_x"] == 0 and row["nsd_x"] == row["dice_x"] == 1 and row["volume_error_x"] == 0
    labels[2, 2:5] = 0  # a difference that is rated
    there = surface.surface_distances(labels == 1, np.where(reference < 0, labels, reference) == 1, counted=reference >= 0)
    row = segmentation_figures(labels, reference[None], settings=settings, suffix="x")
    assert row["hd_x"] == surface.hausdorff(there) == 1 and row["dice_x"] == pytest.approx(2 * 17 / (17 + 20))


def test_structures_of_several_classes() -> None:
    coding = Coding(4, ((1, 2, 3), (2, 3), (2,)), (1, 3, 2), ("kidney", "masses", "tumor"))
    rng = np.random.default_rng(0)
    labels, drawn = rng.integers(0, 4, (6, 7, 8)), rng.integers(-1, 4, (2, 6, 7, 8))
    channels = rng.random((6, 7, 8, 3))
    row = evaluate(
        {"total": rng.random((6, 7, 8))},
        coding.classes_of(drawn),
        probabilities=coding.class_probs(channels),
        segmentation=coding.classes_of(labels),
        structures=coding.structures,
    )
    volumes = structure_volumes(
        coding.classes_of(labels),
        channels,
        coding.classes_of(labels)[None],
        structures=coding.structures,
        names=coding.structure_names,
        voxel=0.5,
        raters={"a": coding.classes_of(drawn[0])},
    )
    for number, (name, region) in enumerate(zip(coding.structure_names, coding.channel_regions or (), strict=True), 1):
        scores = [overlap.dice(np.isin(labels, region)[one >= 0], np.isin(one, region)[one >= 0]) for one in drawn]
        assert row[f"dice_raters_class{number}"] == pytest.approx(np.mean(scores))
        assert volumes[name]["volume_ml"] == np.isin(labels, region).sum() * 0.5
        assert volumes[name]["raters_ml"]["a"] == np.isin(drawn[0], region).sum() * 0.5
        assert volumes[name]["rated_ml"]["a"] == np.isin(labels, region)[drawn[0] >= 0].sum() * 0.5
        gap = volumes[name]["rated_ml"]["a"] - volumes[name]["raters_ml"]["a"]
        assert volumes[name]["crps"] == pytest.approx(abs(gap))  # the only model says what the segmentation says
        assert volumes[name]["expected_ml"] == pytest.approx(channels[..., number - 1].sum() * 0.5)


def test_figures_of_a_part_of_a_large_picture_leave_out_what_is_not_rated(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, raters, settings = make_case((40, 44), 3, raters=3)
    raters[:, :, 26:] = raters[0, :12] = -1
    some = (slice(None, None, 2),) * 2
    few = {name: settings[name][some] for name in ("segmentation", "probabilities")}
    part = evaluate(
        {name: values[some] for name, values in maps.items()},
        raters[:, *some],
        samples=settings["samples"][:, *some],
        spacing=(2, 2),
        **few,
    )
    whole = evaluate(maps, raters, **settings)
    monkeypatch.setattr(sys.modules["quam_jax.evaluation.evaluate"], "MOST", 20 * 22)
    row = evaluate(maps, raters, **settings)
    assert "pixels" in row and row["total/pcc"] != pytest.approx(whole["total/pcc"])
    of_segmentation = ("dice", "iou", "volume_error", "relative", "hd", "nsd", "pixels")
    equal(without(row, *of_segmentation), without(part, *of_segmentation))
    assert row["dice_raters"] == whole["dice_raters"] and row["hd95_consensus"] == whole["hd95_consensus"]


def test_nobody_rated_anything() -> None:
    maps, raters, settings = make_case((12, 10), 2, raters=2)
    row = evaluate(maps, np.full_like(raters, -1), **settings)
    assert [key for key, value in row.items() if not isinstance(value, str) and np.isfinite(value)] == ["n_raters"]
    assert "no pixel that two raters rated" in str(row["note"])
