"""The row of a case: what is in it, that its parts are the modules' own figures, that bad input is named."""

import numpy as np
import pytest

from quam_jax.evaluation import (
    agreement,
    calibration,
    distribution,
    evaluate,
    overlap,
    ranking,
    reference_maps,
    summarise,
    surface,
    volume,
)


def make_case(shape=(24, 20), classes=2, raters=4, samples=5, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.indices(shape)
    radius = np.sqrt(sum((axis - size / 2) ** 2 for axis, size in zip(grid, shape, strict=True)))
    cuts = np.linspace(max(shape) / 3, max(shape) / 6, classes - 1)

    def draw():
        return sum((radius + rng.normal(0, 0.5) + rng.normal(0, 0.3, shape) < cut).astype(int) for cut in cuts)

    labels = np.stack([draw() for _ in range(raters)])
    logits = np.stack([-np.abs(sum(radius < cut for cut in cuts) - k) * 2.0 for k in range(classes)], axis=-1)
    probabilities = np.exp(logits + rng.normal(0, 0.2, logits.shape))
    probabilities = (probabilities / probabilities.sum(-1, keepdims=True)).astype(np.float32)
    distance = reference_maps.contour_distance(probabilities.argmax(-1))
    total = reference_maps.entropy_map(probabilities)
    maps = {
        "total": total,
        "epistemic": total * rng.random(shape),
        "boundary": reference_maps.boundary_map(distance, sigma=1.5),
        "softmax": 1 - probabilities.max(-1),
    }
    settings = {
        "probabilities": probabilities,
        "segmentation": probabilities.argmax(-1),
        "samples": np.stack([draw() for _ in range(samples)]),
    }
    return maps, labels, settings


def equal(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert first[key] == pytest.approx(second[key], abs=1e-10, nan_ok=True), key


@pytest.mark.parametrize(("shape", "classes"), [((24, 20), 2), ((24, 20), 3), ((8, 14, 12), 2), ((8, 14, 12), 4)])
def test_every_figure_is_a_number(shape, classes):
    maps, raters, settings = make_case(shape, classes)
    row = evaluate(maps, raters, **settings, spacing=(0.5,) * len(shape), band=1.0)
    assert all(type(value) is float for value in row.values())
    assert not [key for key, value in row.items() if not np.isfinite(value)]
    for name in maps:
        for figure in ("pcc", "spearman_band", "sdice_squared_minmax", "auroc_image", "partial_pcc_distance"):
            assert -1 <= row[f"{name}/{figure}"] <= 1
    assert ("dice_consensus_class1" in row) == (classes > 2)
    assert "boundary/partial_pcc_boundary" not in row and "total/partial_pcc_boundary" in row


def test_parts_are_the_modules_own_figures():
    maps, raters, settings = make_case()
    spacing = (0.8, 1.2)
    row = evaluate(maps, raters, **settings, spacing=spacing, band=2.0, tolerance=1.0, bins=7)
    q, labels, samples = (settings[name] for name in ("probabilities", "segmentation", "samples"))
    q = q.astype(np.float64)
    mean = np.stack([(raters == label).mean(axis=0) for label in range(2)], axis=-1)
    truth = (mean[..., 1] > 0.5).astype(int)
    v = reference_maps.entropy_map(mean)
    distance = reference_maps.contour_distance(truth, spacing=spacing)
    near = distance <= 2.0
    assert row["dice_consensus"] == pytest.approx(overlap.dice(labels, truth))
    assert row["dice_raters"] == pytest.approx(np.mean([overlap.dice(labels, rater) for rater in raters]))
    distances = [surface.surface_distances(labels, rater, spacing=spacing) for rater in raters]
    assert row["hd95_raters"] == pytest.approx(np.mean([surface.hausdorff95(one) for one in distances]))
    assert row["nsd_raters"] == pytest.approx(np.mean([surface.surface_dice(one, tolerance=1.0) for one in distances]))
    assert row["volume_error_consensus"] == pytest.approx((labels.sum() - truth.sum()) * 0.96)
    figures = calibration.calibration(q[near], raters[:, near], bins=7)
    assert row["ece_raters_band"] == pytest.approx(figures["ece"])
    assert row["mce_raters"] == pytest.approx(calibration.calibration(q, raters, bins=7)["mce"])
    assert row["ece_soft_band"] == pytest.approx(calibration.calibration_soft(q[near], mean[near], bins=7)["ece"])
    assert row["nll_soft"] == pytest.approx(calibration.nll_soft(q, mean))
    assert row["ged_v"] == pytest.approx(distribution.distribution_figures(samples, raters, classes=2)["ged_v"])
    assert row["qubiq"] == pytest.approx(distribution.qubiq_score(q[..., 1], mean[..., 1]))
    drawn = raters.sum(axis=(1, 2)) * 0.96
    crps = volume.crps_gaussian(q[..., 1].sum() * 0.96, mean=drawn.mean(), sd=drawn.std())
    assert row["volume_crps_curvas"] == pytest.approx(crps)
    u = maps["epistemic"]
    assert row["epistemic/pcc_band"] == pytest.approx(agreement.pcc(u[near], v[near]))
    assert row["epistemic/spearman"] == pytest.approx(agreement.spearman(u, v))
    assert row["epistemic/partial_spearman_distance"] == pytest.approx(agreement.partial_spearman(u, v, distance[None]))
    assert row["epistemic/partial_pcc_boundary"] == pytest.approx(agreement.partial_pcc(u, v, maps["boundary"][None]))
    by_distance = agreement.partial_pcc(u[near], v[near], distance[None, near])
    assert row["epistemic/partial_pcc_distance_band"] == pytest.approx(by_distance)
    banded = ranking.count_errors(u[near], (labels != truth)[near])
    assert row["epistemic/auroc_image_band"] == pytest.approx(ranking.auroc(banded))
    counts = ranking.count_errors(u, labels != truth)
    assert row["epistemic/auroc_image"] == pytest.approx(ranking.auroc(counts))
    assert row["epistemic/aurc_image"] == pytest.approx(ranking.aurc(counts))
    volumes = samples.sum(axis=(1, 2)) * 0.96
    assert row["volume_low"] == pytest.approx(volumes.min()) and row["volume_high"] == pytest.approx(volumes.max())


def test_every_class_is_filtered_by_itself():
    maps, raters, settings = make_case(classes=3)
    row = evaluate(maps, raters, **settings)
    labels, truth = settings["segmentation"], reference_maps.consensus(raters, classes=3, ties="smallest")
    scaled = reference_maps.scale_to_unit(maps["epistemic"])
    curves = [ranking.filtered_dice(scaled, labels == label, truth == label) for label in (1, 2)]
    assert row["epistemic/qu_brats_image"] == pytest.approx(np.mean([ranking.qu_brats_score(curve) for curve in curves]))


def test_a_volume_at_the_end_of_the_interval_is_covered():
    maps = np.zeros((2, 3, 4), int)
    maps[0, 0, :2] = maps[1, :2] = 1
    assert evaluate({}, maps, samples=maps)["volume_covered"] == 1


def test_order_of_raters_samples_and_axes_changes_nothing():
    maps, raters, settings = make_case()
    row = evaluate(maps, raters, **settings)
    equal(evaluate(maps, raters[::-1], **{**settings, "samples": settings["samples"][::-1]}), row)
    turned = {name: np.swapaxes(value, -1, -2) for name, value in settings.items() if name != "probabilities"}
    turned["probabilities"] = np.swapaxes(settings["probabilities"], 0, 1)
    equal(evaluate({name: value.T for name, value in maps.items()}, np.swapaxes(raters, -1, -2), **turned), row)


def test_sample_weights_are_repetitions():
    maps, raters, settings = make_case()
    samples = settings.pop("samples")
    weighted = evaluate({}, raters, **settings, samples=samples, sample_weights=np.array([2, 1, 0, 1, 1]) / 5)
    repeated = evaluate({}, raters, **settings, samples=samples[[0, 0, 1, 3, 4]])
    for key in (
        "ged_v",
        "d_max_samples",
        "volume_crps_empirical",
        "volume_crps_gaussian",
        "volume_low",
        "volume_high",
    ):
        assert weighted[key] == pytest.approx(repeated[key]), key


def test_one_rater_has_dice_but_no_agreement():
    maps, raters, settings = make_case(raters=1)
    row = evaluate(maps, raters, **settings)
    assert row["dice_consensus"] == row["dice_raters"] > 0.5
    assert "total/auroc_image" in row and "one rater" in row["note"]
    assert not [key for key in row if "pcc" in key or "sdice" in key or "spearman" in key or "r2" in key]
    assert "note" not in summarise([row])


def test_a_case_without_any_foreground():
    nothing = np.zeros((6, 5), int)
    probabilities = np.zeros((6, 5, 2))
    probabilities[..., 0] = 1
    settings = {"probabilities": probabilities, "segmentation": nothing}
    row = evaluate({"total": np.zeros((6, 5))}, np.stack([nothing] * 3), **settings)
    assert np.isnan(row["dice_consensus"]) and np.isnan(row["hd_raters"]) and np.isnan(row["total/pcc"])
    assert np.isnan(row["ece_raters_band"]) and np.isnan(row["total/auroc_image"])
    assert row["brier_raters"] == 0 and row["total/aurc_image"] == 0
    assert evaluate({}, nothing[None], **settings, empty=1.0)["dice_consensus"] == 1.0


@pytest.mark.usefixtures("unchecked")
def test_reference_map_can_be_the_variance():
    maps, raters, settings = make_case()
    mean = reference_maps.rater_mean(raters, classes=2)
    row = evaluate(maps, raters, **settings, reference="variance")
    assert row["total/pcc"] == pytest.approx(agreement.pcc(maps["total"], reference_maps.variance_map(mean)))
    with pytest.raises(ValueError, match="reference: expected one of"):
        evaluate(maps, raters, **settings, reference="range")


def test_a_table_of_cases():
    rows = [evaluate(*make_case(seed=seed)[:2], **make_case(seed=seed)[2]) for seed in range(3)]
    table = summarise(rows)
    assert table["total/pcc"]["n"] == 3
    assert table["total/pcc"]["mean"] == pytest.approx(np.mean([row["total/pcc"] for row in rows]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": np.zeros((24, 19), int)}, "raters: expected pixels of shape"),
        ({"segmentation": np.full((24, 20), 2)}, r"segmentation: expected labels 0\.\.1"),
        ({"samples": np.zeros((3, 24, 21), int)}, "samples: expected pixels"),
        ({"samples": np.full((3, 24, 20), -1)}, r"samples: expected labels 0\.\.1, got -1"),
        ({"probabilities": np.full((24, 20, 2), 0.6)}, "probabilities: expected >= 0 with sum 1"),
        ({"probabilities": np.full((24, 20, 2), np.nan)}, "probabilities: expected finite"),
        ({"probabilities": np.ones((24, 20, 1))}, "at least 2 classes"),
        ({"spacing": (1.0, 1.0, 1.0)}, "spacing: expected 2"),
    ],
)
def test_bad_input_is_named(change, message):
    maps, raters, settings = make_case()
    with pytest.raises(ValueError, match=message):
        evaluate(maps, raters, **{**settings, **change})


def test_masks_may_be_bool():
    maps, raters, settings = make_case()
    masks = {name: settings[name].astype(bool) for name in ("segmentation", "samples")}
    equal(evaluate(maps, raters.astype(bool), **{**settings, **masks}), evaluate(maps, raters, **settings))


@pytest.mark.usefixtures("unchecked")
def test_bad_maps_and_raters_are_named():
    maps, raters, settings = make_case()
    with pytest.raises(ValueError, match="map total: expected pixels"):
        evaluate({"total": np.ones((24, 21))}, raters, **settings)
    with pytest.raises(ValueError, match="map total: expected finite numbers, got 1"):
        broken = maps["total"].copy()
        broken[3, 3] = np.nan
        evaluate({"total": broken}, raters, **settings)
    with pytest.raises(ValueError, match=r"raters: expected labels 0\.\.1"):
        evaluate(maps, raters + 1, **settings)
    with pytest.raises(ValueError, match="raters: expected integer labels, got float64"):
        evaluate(maps, raters / 1, **settings)
