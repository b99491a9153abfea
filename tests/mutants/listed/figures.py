"""Mutants of the evaluation: agreement, calibration, overlap, surfaces, volumes, rankings and statistics."""

from ..mutant import room

DISTANCES = "volumes_memory.py::test_distances_in_blocks_and_boxes_are_those_of_the_whole"
ROW = "evaluation_evaluate.py"
UNRATED = "evaluation_unrated.py"
PARTS = f"{ROW}::test_parts_are_the_modules_own_figures"

EVALUATION = room(
    "evaluation",
    # conformal statements
    (
        "conformal.py",
        "alpha * (len(cases) + 1) - 1)",
        "alpha * len(cases))",
        "conformal.py::test_risk_is_controlled_by_the_largest_threshold_that_is_allowed",
    ),
    (
        "conformal.py",
        "below = np.cumsum(weights) - weights",
        "below = np.cumsum(weights)",
        "conformal.py::test_a_threshold_by_hand",
    ),
    ("conformal.py", "self.values < threshold", "self.values <= threshold", "conformal.py::test_a_threshold_by_hand"),
    (
        "conformal.py",
        "(ordered.size + 1) * (1 - alpha)",
        "ordered.size * (1 - alpha)",
        "conformal.py::test_how_many_cases_it_takes",
    ),
    (
        "conformal.py",
        "math.ceil(1 / alpha - ROUNDING) - 1",
        "math.ceil(1 / alpha - ROUNDING)",
        "conformal.py::test_how_many_cases_it_takes",
    ),
    (
        "expected_dice.py",
        "shared[first, second][total > 0]",
        "shared[first, first][total > 0]",
        "conformal.py::test_dice_of_samples_by_hand",
    ),
    # agreement of maps
    (
        "agreement.py",
        "return _ratio(2 * (u * v).sum(), u.sum() + v.sum())",
        "return _ratio((u * v).sum(), u.sum() + v.sum())",
        "evaluation_agreement.py::test_figures_of_a_doubled_map",
    ),
    (
        "agreement.py",
        "np.square(v - u).sum() / np.square(v - v.mean())",
        "np.square(v - u).sum() / np.square(u - u.mean())",
        "evaluation_agreement.py::test_figures_of_a_doubled_map",
    ),
    (
        "agreement.py",
        "in_u, in_v = u >= threshold, v >= threshold",
        "in_u, in_v = u > threshold, v > threshold",
        "evaluation_agreement.py::test_sdice_threshold_by_hand",
    ),
    ("agreement.py", "(u.size - 1) / u.size if", "u.size / (u.size - 1) if", "evaluation_agreement.py"),
    (
        "agreement.py",
        "for direction in basis * 2:",
        "for direction in basis[:1] * 2:",
        "evaluation_agreement.py::test_partial_with_several_covariates_equals_least_squares",
    ),
    # calibration
    (
        "calibration.py",
        'np.searchsorted(inner, confidence, side="left")',
        'np.searchsorted(inner, confidence, side="right")',
        "evaluation_calibration.py::test_bins_are_closed_on_the_right",
    ),
    (
        "calibration.py",
        "table.pixels / total * _gaps(table)",
        "_gaps(table) / len(table.pixels)",
        "evaluation_calibration.py::test_figures_by_hand",
    ),
    (
        "calibration.py",
        "[:, filled].max(axis=1) if",
        "[:, filled].min(axis=1) if",
        "evaluation_calibration.py::test_mce_and_ace_take_non_empty_bins",
    ),
    (
        "calibration.py",
        "square - 2 * _of_label(q, labels) + 1",
        "square - _of_label(q, labels) + 1",
        "evaluation_calibration.py::test_brier_and_nll_equal_scikit_learn",
    ),
    (
        "calibration.py",
        "count[: confidence.size % bins] += 1",
        "count[-(confidence.size % bins) :] += 1",
        "evaluation_calibration.py",
    ),
    # sets of samples against sets of raters
    (
        "distribution.py",
        "2 * share @ distance[:count, count:] @ alike",
        "share @ distance[:count, count:] @ alike",
        "evaluation_distribution.py::test_ged_by_hand",
    ),
    (
        "distribution.py",
        "np.fill_diagonal(pairs, 0.0)",
        "np.fill_diagonal(pairs, 1.0)",
        "evaluation_distribution.py::test_ged_by_hand",
    ),
    ("distribution.py", "dice.max(axis=0).mean()", "dice.max(axis=1).mean()", "evaluation_distribution.py::test_d_max_by_hand"),
    (
        "distribution.py",
        "share @ dice.max(axis=1)",
        "dice.max(axis=1).mean()",
        "evaluation_distribution.py::test_weights_are_repetitions",
    ),
    (
        "distribution.py",
        "linear_sum_assignment(1 - tiled)",
        "linear_sum_assignment(tiled)",
        "evaluation_distribution.py::test_hm_iou_by_hand",
    ),
    (
        "distribution.py",
        "np.eye(classes, dtype=bool)[1:]",
        "np.eye(classes, dtype=bool)",
        "evaluation_distribution.py::test_pairwise_by_hand",
    ),
    (
        "distribution.py",
        "(q >= threshold, p >= threshold)",
        "(q >= threshold, p > threshold)",
        "evaluation_distribution.py::test_qubiq_by_hand",
    ),
    # overlap, distances, volumes
    (
        "overlap.py",
        "one * classes + two, minlength",
        "two * classes + one, minlength",
        "evaluation_overlap.py",
    ),
    ("overlap.py", "one[two >= 0], two[two >= 0]", "one[two >= 0], 0 * two[two >= 0]", UNRATED),
    ("overlap.py", "((member @ counts) * member).sum(1)", "(member @ counts).sum(1)", UNRATED),
    (
        "surface.py",
        "generate_binary_structure(mask.ndim, 1)",
        "generate_binary_structure(mask.ndim, 2)",
        "evaluation_surface.py::test_border_of_a_mask_at_the_image_edge",
    ),
    (
        "surface.py",
        "from_first * size, second * size",
        "from_first * size[::-1], second * size[::-1]",
        "evaluation_surface.py::test_distances_equal_brute_force",
    ),
    (
        "surface.py",
        "float(max(np.percentile(forward, percent)",
        "float(min(np.percentile(forward, percent)",
        "evaluation_surface.py",
    ),
    (
        "surface.py",
        "_nearest(from_second * size, first * size)",
        "_nearest(from_first * size, second * size)",
        "evaluation_surface.py",
    ),
    (
        "volume.py",
        "tails = [(1 - level) / 2, (1 + level) / 2]",
        "tails = [(1 - level), level]",
        "evaluation_volume.py::test_interval_by_hand",
    ),
    ("volume.py", "below * (1 - below)", "below", "evaluation_volume.py::test_empirical_score_by_hand"),
    (
        "volume.py",
        "2 * density - 1 / math.sqrt(math.pi)",
        "density - 1 / math.sqrt(math.pi)",
        "evaluation_volume.py::test_gaussian_score_is_the_integral",
    ),
    (
        "volume.py",
        "return values[order], shares[order] / shares.sum()",
        "return values[order], shares / shares.sum()",
        "evaluation_volume.py::test_weights_are_repetitions_and_order_is_free",
    ),
    ("segmentation.py", "excess = (first - size)", "excess = (size - first)", PARTS),
    (
        "segmentation.py",
        "np.where(size > 0, excess / np.maximum(size, 1)",
        "np.where(size > 0, excess / np.maximum(first, 1)",
        "evaluation_overlap.py",
    ),
    ("segmentation.py", "spacing=spacing, counted=rated", "counted=rated", PARTS),
    ("segmentation.py", "spacing=spacing, counted=rated", "spacing=spacing", UNRATED),
    ("segmentation.py", "np.where(rated, reference, labels)", "np.where(rated, reference, 0)", UNRATED),
    # errors ranked by uncertainty
    (
        "ranking.py",
        "(below + counts.right / 2) / right",
        "(below + counts.right) / right",
        "evaluation_ranking.py::test_auroc_and_average_precision_equal_scikit_learn",
    ),
    (
        "ranking.py",
        "np.cumsum(counts.wrong[::-1])",
        "np.cumsum(counts.wrong)[::-1]",
        "evaluation_ranking.py::test_auroc_and_average_precision_equal_scikit_learn",
    ),
    ("ranking.py", "errors - counts.wrong / 2", "errors", "evaluation_ranking.py::test_curves_and_identities"),
    (
        "ranking.py",
        "special.digamma(last + 1) - special.digamma(first + 1)",
        "special.digamma(last) - special.digamma(first + 1)",
        "evaluation_ranking.py::test_ties_are_the_mean_over_all_orders",
    ),
    (
        "ranking.py",
        'dtype=np.float64), side="right")',
        'dtype=np.float64), side="left")',
        "evaluation_ranking.py::test_figures_by_hand",
    ),
    ("ranking.py", "sums[1] / sums[2] >= 0.5", "sums[1] / sums[2] > 0.5", "evaluation_ranking.py::test_patches"),
    (
        "ranking.py",
        "(areas[0] + (1 - areas[1]) + (1 - areas[2])) / 3",
        "(areas[0] + areas[1] + (1 - areas[2])) / 3",
        "evaluation_ranking.py::test_qu_brats_score_by_hand",
    ),
    # what raters say
    (
        "reference_maps.py",
        'votes >= most if ties == "foreground" else votes > most',
        "votes >= most",
        "evaluation_reference_maps.py::test_consensus_by_hand",
    ),
    (
        "reference_maps.py",
        "return mean[..., 0] * mean[..., 1]",
        "return mean[..., 0] + mean[..., 1]",
        "evaluation_reference_maps.py::test_mean_consensus_entropy_and_variance_by_hand",
    ),
    ("reference_maps.py", "[int(width / length) + 1 for", "[1 for", DISTANCES),
    ("reference_maps.py", "places[0] += start", "pass", DISTANCES),
    (
        "reference_maps.py",
        "sampling=size, return",
        "sampling=size[::-1], return",
        "evaluation_reference_maps.py::test_contour_distance_equals_brute_force",
    ),
    ("reference_maps.py", "/ sigma) / 2)", "/ sigma))", "evaluation_reference_maps.py::test_band_and_boundary_map"),
    ("regions.py", "values >= threshold)", "values > threshold)", "evaluation_regions.py"),
    (
        "regions.py",
        "chosen[np.argsort(-ndimage.sum_labels",
        "chosen[np.argsort(ndimage.sum_labels",
        "evaluation_regions.py::test_the_regions_of_largest_mass_come_first_where_there_is_a_limit",
    ),
    (
        "regions.py",
        "(before == after) & (here != before)",
        "(here != after) & (here != before)",
        "evaluation_regions.py::test_what_differs_from_both_neighbouring_slices",
    ),
    # the row of a case, and tables
    (
        "evaluate.py",
        "mean=float(np.mean(drawn)), sd=float(np.std(drawn))",
        "mean=float(np.mean(drawn)), sd=float(np.std(drawn, ddof=1))",
        "evaluation_evaluate.py",
    ),
    (
        "evaluate.py",
        "np.square(volumes - centre), weights=weights",
        "np.square(volumes - centre)",
        "evaluation_evaluate.py::test_sample_weights_are_repetitions",
    ),
    ("evaluate.py", "contour_distance(fill_unrated(truth), spacing=spacing)", "contour_distance(fill_unrated(truth))", PARTS),
    ("evaluate.py", "contour_distance(fill_unrated(truth), spacing", "contour_distance(truth, spacing", UNRATED),
    ("evaluate.py", "for least in (1, 2, len(raters))", "for least in (1, 1, len(raters))", UNRATED),
    ("evaluate.py", "for least in (1, 2, len(raters))", "for least in (1, 2, 1)", UNRATED),
    ("evaluate.py", "wrong = classes != truth", "wrong = classes == truth", PARTS),
    (
        "evaluate.py",
        "_volumes(samples, member, voxel), _volumes(raters, member, voxel)",
        "_volumes(samples, member, 1.0), _volumes(raters, member, 1.0)",
        PARTS,
    ),
    ("evaluate.py", "low <= one <= high", "low < one < high", f"{ROW}::test_a_volume_at_the_end_of_the_interval_is_covered"),
    ("evaluate.py", "mean[near], bins=bins)", "mean[near])", PARTS),
    ("evaluate.py", "calibration(probabilities, raters, bins=bins)", "calibration(probabilities, raters)", PARTS),
    ("evaluate.py", "np.asarray(values)[near], wrong[near])", "np.asarray(values), wrong)", PARTS),
    (
        "evaluate.py",
        "in_structure(truth, member)) for",
        "truth > 0) for",
        f"{ROW}::test_every_class_is_filtered_by_itself",
    ),
    ("statistics.py", "used.std(ddof=1)", "used.std()", "evaluation_statistics.py::test_summary_by_hand"),
    (
        "statistics.py",
        "np.arange(order.size, 0, -1)",
        "np.arange(1, order.size + 1)",
        "evaluation_statistics.py::test_holm_by_hand",
    ),
    ("statistics.py", "values - reference\n", "reference - values\n", "evaluation_statistics.py::test_paired_comparison"),
    (
        "statistics.py",
        "np.quantile(means, [(1 - level) / 2, (1 + level) / 2])",
        "np.quantile(means, [1 - level, level])",
        "evaluation_statistics.py::test_bootstrap_interval_equals_scipy",
    ),
)
