"""Mutants of a case: the audit, maps and evidence of patches, points, samples and volumes, and the choice of fit data."""

from ..mutant import room

KEPT = "case_audit.py::test_the_kept_step_has_the_smallest_objective"
ONE = "case_audit.py::test_rows_of_one_target_by_hand"
MANY = "case_audit.py::test_a_row_of_many_targets_has_sums_and_means"
REGIONS = "volume_by_hand.py::test_regions_on_slices_with_noise_in_two_folds"
UNRATED = "evaluation_unrated.py"
CUBES = "volume_by_hand.py::test_labels_in_overlapping_cubes"
VOXELS = "volume_by_hand.py::test_samples_change_volumes_by_the_voxels_of_the_network"
DRAWS = "case_assembly.py::test_equal_patches_and_folds_have_draws_of_their_own"
SLICES = "case_assembly.py::test_equal_slices_have_draws_of_their_own[noise]"
OVERLAP = "case_assembly.py::test_targets_that_overlap_in_an_image_are_averaged"
IN_VOLUME = "case_assembly.py::test_targets_that_overlap_in_a_volume_are_averaged"
WEIGHTS = "case_samples.py::test_weights_of_volumes_by_hand"
SIZE = "case_samples.py::test_importance_weights_use_the_temperature_and_the_effective_size"
ROWS = "windows.py::test_labels_are_decided_row_by_row"
BOTH = "case_samples.py::test_running_sums_give_what_the_samples_at_hand_give"

FIGURES = "own_fit.py::test_the_figures_are_those_of_the_predictions"
FITTING = "own_fit.py::test_several_images_speak_where_one_shows_little"

STANDS = "case_views.py::test_a_sample_that_does_not_count_is_the_given_network_through_views"
LEFT = "case_views.py::test_patches_that_are_left_move_every_sample_as_the_given_network_does"
THROUGH = "case_views.py::test_views_move_the_volumes_of_a_planned_model"
CASE = room(
    "case",
    # the given network on its own fit data
    ("own_fit.py", "labels * classes + own", "own * classes + labels", FIGURES),
    (
        "own_fit.py",
        "classes, rated = len(self.confusion), labels >= 0",
        "classes, rated = len(self.confusion), labels > 0",
        FIGURES,
    ),
    ("own_fit.py", "bins[(own == labels) == bool(right)]", "bins[(own == labels) != bool(right)]", FIGURES),
    ("own_fit.py", "if one.loss < BETTER * now.loss and", "if one.loss > BETTER * now.loss and", FITTING),
    ("own_fit.py", "key=lambda item: item[1].loss)", "key=lambda item: -item[1].loss)", FITTING),
    ("own_fit.py", "if (pair[1] > 0).any()]", "]", FITTING),
    # the kept step and its row
    (
        "audit.py",
        'np.argmin(np.where(counts, losses["objective"], np.inf), -1)',
        'np.argmax(np.where(counts, losses["objective"], -np.inf), -1)',
        KEPT,
    ),
    ("audit.py", 'np.where(counts, losses["objective"], np.inf)', 'losses["objective"]', KEPT),
    ("audit.py", 'losses["objective"], np.inf)', 'losses["fit_loss"], np.inf)', KEPT),
    ("audit.py", "best, counts.shape[-1] - 1)", "best, 0)", KEPT),
    ("audit.py", "facts.reference_loss[:, m][rows, kept].mean()", "facts.reference_loss[:, m][rows, 0].mean()", ONE),
    ("audit.py", "facts.bound[:, m][rows, kept].mean()", "facts.bound[:, m][rows, 0].mean()", ONE),
    ("audit.py", "_mean(objective[rows, kept])", "_mean(objective[:, -1])", ONE),
    ("audit.py", "int(counts.any(1).sum())", "int(counts.sum())", MANY),
    ("audit.py", "held=held > 0", "held=held == len(rows)", MANY),
    (
        "audit.py",
        "total / np.maximum(count, 1)",
        "total / len(known)",
        "case_audit.py::test_means_over_targets_leave_out_what_is_not_a_number",
    ),
    (
        "audit.py",
        "sum(row.searched for row in audit)",
        "len(audit)",
        "case_audit.py::test_models_held_adds_up_targets_and_members",
    ),
    # patches joined
    ("patches.py", "(slice(None), *inner)], 0, -1) * job.share", "(slice(None), *inner)], 0, -1)", CUBES),
    ("patches.py", "reshape(*patches.patch, -1)[inner]) * job.share", "reshape(*patches.patch, -1)[inner])", CUBES),
    ("patches.py", "np.log(np.maximum(probs, LEAST))", "np.maximum(probs, LEAST)", CUBES),
    ("patches.py", "self.maps[outer] += ", "self.maps[outer] = ", CUBES),
    ("patches.py", "(weights[inner] / weight_sum(patches, outer))", "(weights[inner] / weights[inner].sum())", CUBES),
    ("patches.py", "self.moved.plus(moved)", "moved", CUBES),
    # large images
    (
        "windows.py",
        "math.prod(space) <= WHOLE",
        "math.prod(space) < WHOLE",
        "windows.py::test_an_image_stays_whole_up_to_two_megapixels",
    ),
    ("masks.py", "rows.start - settings.radius)", "rows.start)", "windows.py::test_wanted_masks_by_rows_are_those_of_the_whole"),
    (
        "patches.py",
        "self._band[:count].argmax(-1)",
        "self._band[:count].argmin(-1)",
        "windows.py::test_labels_are_decided_row_by_row",
    ),
    ("patches.py", "row - self._top\n", "row - self._top + 1\n", "windows.py::test_labels_are_decided_row_by_row"),
    # masks
    ("masks.py", "_fold_in(job.scene.key, job.number, fold, 0)", "_fold_in(job.scene.key, 0, fold, 0)", DRAWS),
    ("masks.py", "_fold_in(job.scene.key, job.number, fold, 0)", "_fold_in(job.scene.key, job.number, 0, 0)", DRAWS),
    (
        "patches.py",
        "((after - before) * job.share)",
        "(after - before)",
        CUBES,
    ),
    ("patches.py", "((after - before)", "((before - after)", CUBES),
    (
        "masks.py",
        "if counts[m, s] else own)",
        "if counts[m, s] else 0 * own)",
        STANDS,
    ),
    (
        "patches.py",
        "[means[-1]] * shared.records",
        "[0 * means[-1]] * shared.records",
        LEFT,
    ),
    (
        "on_image.py",
        "own = expected + given * scale",
        "own = expected + 0 * given * scale",
        THROUGH,
    ),
    ("masks.py", "(inside & (probs.argmax(-1) != labels))", "(probs.argmax(-1) != labels)", REGIONS),
    ("masks.py", "(inside / inside.sum())", "(np.ones_like(inside) / inside.size)", REGIONS),
    ("masks.py", "spacing=scene.grid.spacing", "spacing=scene.grid.spacing[::-1]", CUBES),
    ("masks.py", "feasible_only=samples.feasible_only", "feasible_only=False", CUBES),
    ("masks.py", "jax.random.fold_in(key, index)", "jax.random.fold_in(key, 0)", "case_assembly.py::test_random_masks_differ"),
    (
        "masks.py",
        "jax.random.fold_in(scene.key, index)",
        "jax.random.fold_in(scene.key, 0)",
        "case_assembly.py::test_random_masks_differ",
    ),
    # pixels and regions
    (
        "points.py",
        "np.minimum.reduce(leaves)",
        "np.maximum.reduce(leaves)",
        "case_points.py::test_the_cheapest_fold_says_what_a_flip_costs",
    ),
    ("points.py", "np.bincount(place, values) / counts", "np.bincount(place, values)", OVERLAP),
    (
        "points.py",
        "weights[inner] > best[outer]",
        "weights[inner] >= best[outer]",
        "volumes_points.py::test_a_voxel_belongs_to_the_patch_where_it_is_most_central",
    ),
    (
        "points.py",
        "int(np.argmax(means))",
        "int(np.argmin(means))",
        "case_points.py::test_a_region_goes_to_the_patch_that_holds_it_nearest_to_its_middle",
    ),
    (
        "points.py",
        "(starts <= low)",
        "(starts < low)",
        "case_points.py::test_a_region_goes_to_the_patch_that_holds_it_nearest_to_its_middle",
    ),
    (
        "points.py",
        "settings.band_width * float(np.median",
        "settings.band_width * float(np.max",
        "case_points.py::test_the_band_counts_steps_of_the_middle_voxel_side",
    ),
    (
        "points.py",
        "else jax.random.fold_in(job.scene.key, fold)",
        "else jax.random.fold_in(job.scene.key, 0)",
        "case_assembly.py::test_folds_draw_fit_points_of_their_own",
    ),
    # samples and their weights
    ("samples.py", '"effective_size": samples.effective_size', '"effective_size": 1.0', SIZE),
    ("samples.py", "weights=joined.weights / len(parts)", "weights=joined.weights", BOTH),
    ("samples.py", "weights.sum(0).reshape(-1) / len(trajectories)", "weights.sum(0).reshape(-1)", WEIGHTS),
    ("samples.py", "given_share(counts, samples.given)", 'given_share(counts, "sample")', WEIGHTS),
    ("samples.py", "(1.0 - reference)[:, None, None], reference", "(1.0 + 0 * reference)[:, None, None], reference", WEIGHTS),
    ("samples.py", "sums = np.where(counts > 0, weights.sum((1, 2)), 1.0)", "sums = np.where(counts > 0, counts, 1.0)", WEIGHTS),
    (
        "samples.py",
        "given=samples.given, viewed=own, others=others))",
        'given="sample", viewed=own, others=others))',
        BOTH,
    ),
    (
        "samples.py",
        "min(start, count - block) for",
        "start for",
        "case_samples.py::test_what_is_decomposed_in_blocks_is_what_it_is_as_one",
    ),
    (
        "samples.py",
        '"others": 2}',
        '"others": 1}',
        "case_samples.py::test_what_is_decomposed_in_blocks_is_what_it_is_as_one",
    ),
    # volumes
    (
        "on_image.py",
        "math.prod(grid.native_shape) / math.prod(grid.shape)",
        "math.prod(grid.shape) / math.prod(grid.native_shape)",
        VOXELS,
    ),
    ("on_image.py", "ml = expected + (change", "ml = expected - (change", VOXELS),
    (
        "on_image.py",
        "(change / max(levels, 1))",
        "change",
        "case_assembly.py::test_a_sample_of_a_pyramid_moves_volumes_by_the_mean_of_its_levels",
    ),
    ("on_image.py", "weights / searches)", "weights)", CUBES),
    (
        "on_image.py",
        "entr(p).sum(-1) + entr(1 - p).sum(-1)",
        "entr(p).sum(-1)",
        REGIONS,
    ),
    (
        "structures.py",
        "reshape(-1, len(structures)) * voxel",
        "reshape(-1, len(structures))",
        "volumes_planned.py::test_volumes_of_structures_in_millilitres",
    ),
    (
        "structures.py",
        "ends = [own[s], *kept[:, s]]",
        "ends = [*kept[:, s]]",
        "volumes_planned.py::test_volumes_of_structures_in_millilitres",
    ),
    (
        "structures.py",
        "weights=weights, level=LEVEL)",
        "level=LEVEL)",
        "case_samples.py::test_the_interval_of_a_structure_leaves_out_samples_without_weight",
    ),
    # the given network's prediction
    ("prediction.py", "np.float32(len(models) * len(flips))", "np.float32(len(models))", REGIONS),
    ("prediction.py", "np.flip(value, flip)", "value", REGIONS),
    ("prediction.py", "total[rows] /= weight_sum(patches, box)[..., None] *", "total[rows] /= 10.0 *", CUBES),
    # slices and fit data
    ("quantify.py", "jax.random.fold_in(key, z)", "jax.random.fold_in(key, 0)", SLICES),
    (
        "fit.py",
        "!= FOREGROUND_SHARE - 1",
        "== FOREGROUND_SHARE - 1",
        "case_assembly.py::test_two_fit_patches_in_three_show_foreground",
    ),
    ("fit.py", "present[number % len(present)]", "present[0]", "case_assembly.py::test_two_fit_patches_in_three_show_foreground"),
    (
        "structures.py",
        "(some >= 0) & (rated[rows] >= 0)",
        "some >= 0",
        UNRATED,
    ),
    (
        "fit.py",
        "_around(classes, centre, size, IGNORED)",
        "_around(classes, centre, size, 0)",
        "case_assembly.py::test_what_a_small_volume_lacks_and_what_is_not_rated_are_no_classes",
    ),
    (
        "fit.py",
        "int(c) - p // 2, 0)",
        "int(c) - p, 0)",
        "case_assembly.py::test_a_fit_patch_lies_around_its_voxel_and_inside",
    ),
    ("fit.py", "some if some.any() else ~some", "np.ones_like(some)", "case_fit.py::test_slices_of_fit_volumes_show_foreground"),
    (
        "fit.py",
        "shown[evenly_spread(len(shown), settings.fit_cases)]",
        "shown[: settings.fit_cases or None]",
        "case_fit.py::test_slices_of_fit_volumes_show_foreground",
    ),
    # crops of fit images
    ("crops.py", "math.prod(shape) > WORTH *", "math.prod(shape) >= WORTH *", "crops.py::test_only_large_images_are_cropped"),
    ("crops.py", "classes[n % len(classes)]", "classes[0]", "crops.py::test_crops_show_every_class_in_turn_and_lie_inside"),
    ("crops.py", "int(c) - s // 2, 0)", "int(c) - s // 2, 1)", "crops.py::test_crops_show_every_class_in_turn_and_lie_inside"),
    (
        "crops.py",
        "sums += [loss * labelled for",
        "sums += [loss for",
        "crops.py::test_losses_on_whole_images_are_means_over_all_their_pixels",
    ),
    (
        "fit.py",
        "first=number * each + n",
        "first=0",
        "crops.py::test_crops_of_different_cases_show_different_classes",
    ),
    (
        "fit.py",
        "default_rng([seed, number]), count",
        "default_rng([0, number]), count",
        "crops.py::test_a_run_draws_its_crops_once_from_its_seed",
    ),
    (
        "masks.py",
        "kept[image].append(z)",
        "kept[image].insert(0, z)",
        "crops.py::test_the_audit_tells_of_crops_and_of_whole_images",
    ),
)
