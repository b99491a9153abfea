"""Mutants of what a search is given: wanted masks, regions, coding of channels, grids, patches, and what files are told by."""

from ..mutant import room

MOVED = "targets.py::test_binary_morphology_is_scipys"
MM = "data_plans.py::test_masks_move_by_millimetres"
REGION = "regions.py::test_region_targets_against_a_loop"
STRATA = "pixels.py::test_strata_share_alike_by_hand"
CODED = "volumes_planned.py::test_regions_are_classes_with_the_same_probabilities"
TABLES = "coding.py"
LISTED = "volumes_points.py::test_listed_voxels_are_those_of_the_image"
SPLINES = "volumes_memory.py::test_splines_of_float32_are_those_of_float64_rounded"
THERE = "data_plans.py::test_there_and_back_keeps_every_voxel"

TARGETS = room(
    "targets",
    # masks moved by pixels and by millimetres
    ("wanted/dilate.py", "for _ in range(radius):", "for _ in range(radius + 1):", MOVED),
    (
        "wanted/dilate.py",
        "<= radius * radius, jnp.argmin",
        "< radius * radius, jnp.argmin",
        "targets.py::test_a_disk_keeps_the_euclidean_radius",
    ),
    (
        "wanted/dilate.py",
        "jnp.argmax(votes, 0) + 1",
        "jnp.argmin(votes, 0) + 1",
        "targets.py::test_growing_takes_the_most_frequent_neighbour_and_keeps_labels",
    ),
    ("wanted/dilate.py", "near == 0, sampling=spacing", "near == 0, sampling=spacing[::-1]", MM),
    ("wanted/dilate.py", "distance <= radius + ROUNDING", "distance < radius - ROUNDING", MM),
    ("wanted/erode.py", "(count == full)", "(count >= full - 1)", MOVED),
    (
        "wanted/erode.py",
        'pad="edge" if outside == "edge" else "constant"',
        'pad="constant" if outside == "edge" else "edge"',
        "targets.py::test_the_border_eats_a_mask_only_with_background_outside",
    ),
    ("wanted/erode.py", "distance > radius + ROUNDING", "distance >= radius - ROUNDING", MM),
    ("wanted/erode.py", "distance_transform_edt(inside, sampling=spacing)", "distance_transform_edt(inside)", MM),
    (
        "wanted/erode.py",
        "distance_transform_edt(np.pad(inside, 1), sampling",
        "distance_transform_edt(np.pad(inside, 1, mode='edge'), sampling",
        MM,
    ),
    ("wanted/other_class.py", "stable=True)[..., 1]", "stable=True)[..., -1]", "targets.py::test_wanted_masks_by_name"),
    (
        "wanted/random.py",
        "labels.shape, 0, wish.classes)",
        "labels.shape, 0, wish.classes - 1)",
        "targets.py::test_wanted_masks_by_name",
    ),
    ("morphology.py", 'rank if element == "square" else 1', '1 if element == "square" else rank', MOVED),
    (
        "morphology.py",
        "constant_values=0 if outside else far",
        "constant_values=far if outside else 0",
        "targets.py::test_a_disk_keeps_the_euclidean_radius",
    ),
    (
        "millimetres.py",
        "float(np.median(spacing))",
        "float(np.mean(spacing))",
        "targets.py::test_a_step_in_a_volume_is_the_middle_voxel_side",
    ),
    ("masks.py", "wanted[k % len(wanted)]", "wanted[min(k, len(wanted) - 1)]", "targets.py::test_members_want_the_masks_in_turn"),
    (
        "masks.py",
        "np.argsort(-np.asarray(probs)",
        "np.argsort(np.asarray(probs)",
        "targets.py::test_classes_in_order_of_probability",
    ),
    # pixels
    ("pixels.py", "contour_distance(labels) <= width)", "contour_distance(labels) < width)", "pixels.py::test_the_band_by_hand"),
    (
        "pixels.py",
        'np.argsort(-_entropy(probs), kind="stable")',
        'np.argsort(_entropy(probs), kind="stable")',
        "pixels.py::test_most_uncertain_first",
    ),
    ("pixels.py", "np.lexsort((stratum, place))", "np.lexsort((place, stratum))", STRATA),
    (
        "pixels.py",
        "(np.arange(members) + 1) % classes",
        "np.arange(members) % classes",
        "pixels.py::test_members_want_the_other_classes_in_order",
    ),
    # regions
    ("partition.py", "np.where(first == present[points], second, first)", "second", REGION),
    (
        "partition.py",
        "np.all(asked == present[points][:, None], -1, keepdims=True)",
        "np.any(asked == present[points][:, None], -1, keepdims=True)",
        REGION,
    ),
    ("partition.py", "inside / np.maximum(sizes, 1)[:, None]", "inside / inside.shape[1]", REGION),
    ("partition.py", "if number >= 0]", "if number >= -1]", "regions.py::test_region_points_list_every_region"),
    (
        "regions/pyramid.py",
        "settings.region_size * 2**level",
        "settings.region_size * (level + 1)",
        "regions.py::test_partitions_by_name",
    ),
    ("regions/components.py", "connectivity=1) - 1)", "connectivity=2) - 1)", "regions.py::test_components_by_hand"),
    (
        "regions/superpixels.py",
        "settings.region_size**labels.ndim",
        "settings.region_size**2",
        "regions.py::test_super_pixels_of_a_volume_are_as_many_as_its_cubes",
    ),
    (
        "regions/segments.py",
        "(distance[inside] <= 1)",
        "(distance[inside] <= 2)",
        "regions.py::test_pieces_are_counted_by_the_contour_and_not_by_the_band",
    ),
)

MEANT = "outputs.py::test_the_logits_of_subsets_are_those_of_the_named_channels"
WRAPPED = "wrap.py::test_a_network_with_a_skip_around_the_block_and_halved_sides_is_cut"
MODELS = room(
    "models",
    ("coding.py", "(label in region) << r for", "(label in region) for", CODED),
    ("coding.py", "(regions[..., r] > 0.5)", "(regions[..., r] > 0)", TABLES),
    ("coding.py", "written[self.subsets[:, r] == 1] = label", "written[self.subsets[:, r] == 0] = label", TABLES),
    ("coding.py", "own[written[label]] != own[label]", "own[written[label]] == own[label]", TABLES),
    ("coding.py", "np.append(self.class_of_label, NOT_RATED)", "np.append(self.class_of_label, 0)", TABLES),
    ("coding.py", "return self.class_of_label[self.label_of_class]", "return np.arange(self.classes)", TABLES),
    ("coding.py", "np.where(classes == 0, own, classes)", "classes", TABLES),
    ("coding.py", "probs[..., r : r + 1], 1 - probs[..., r : r + 1]", "1 - probs[..., r : r + 1], probs[..., r : r + 1]", CODED),
    ("coding.py", "tuple(map(int, row)) for row in self.subsets", "tuple(map(int, row)) for row in self.subsets[::-1]", CODED),
    ("coding.py", "self.overlapping and region == (0,)", "False", "outputs_run.py::test_what_is_said_of_independent_channels"),
    (
        "outputs.py",
        '[record["channels"].index(k) for k in range(count)]',
        'record["channels"]',
        MEANT,
    ),
    ("outputs.py", "-len(table[names[k]])", "len(table[names[k]])", "outputs.py::test_regions_are_written_from_the_largest_on"),
    ("outputs.py", "(covering.count(label), label)", "label", "outputs.py::test_regions_are_written_from_the_largest_on"),
    ("outputs.py", "own[0].lower() == BACKGROUND", "False", "outputs.py::test_labels_of_channels_without_a_word_about_them"),
    ("model.py", "self._classes(net.tail(", "(net.tail(", "outputs.py::test_heads_of_sums_equal_whole_networks"),
    ("description.py", "{**model.params, **model.stats}", "{**model.params}", "data_records.py"),
    ("description.py", "digest(description, digest_arrays", "digest(digest_arrays", "data_records.py"),
    ("split.py", "v in seen and v not in moved", "v in seen", WRAPPED),
    ("split.py", "order[kernels[-1] :]", "order[kernels[0] :]", "wrap.py::test_notes_say_what_was_decided"),
    ("wrapped.py", "tuple(n * s for n, s in zip(leaves", "tuple(n for n, s in zip(leaves", WRAPPED),
    (
        "wrap_checks.py",
        "np.allclose(both[:1], alone,",
        "np.allclose(both[:1], both[:1],",
        "wrap.py::test_what_is_no_network_is_told_with_a_remedy",
    ),
    (
        "arrays.py",
        "return np.moveaxis(array, leading, -1)",
        "return np.swapaxes(array, leading, -1)",
        "first_hour.py::test_channels_first_are_moved_and_told",
    ),
)

DATA = room(
    "data",
    # patches
    ("patches.py", "n / 8 for n in patch", "n / 4 for n in patch", "volume_by_hand.py::test_labels_in_overlapping_cubes"),
    (
        "patches.py",
        "(m - n) // 2 for n, m",
        "(m - n) for n, m",
        "sliding_window.py::test_a_small_grid_is_padded_around_its_centre",
    ),
    (
        "patches.py",
        "math.ceil((size - patch) / (patch * step)) + 1",
        "math.floor((size - patch) / (patch * step)) + 1",
        "sliding_window.py::test_evenly_spread_starts",
    ),
    (
        "patches.py",
        "int(np.round(apart * i))",
        "int(apart * i)",
        "volume_by_hand.py::test_regions_on_slices_with_noise_in_two_folds",
    ),
    (
        "patches.py",
        "tuple(n // 2 for n in patch)",
        "tuple((n - 1) // 2 for n in patch)",
        "volume_by_hand.py::test_labels_in_overlapping_cubes",
    ),
    # grids
    (
        "plans.py",
        "(*spacing[: 3 - len(self.spacing)], *self.spacing)",
        "(*self.spacing, *spacing[len(self.spacing) :])",
        "data_plans.py::test_a_slice_is_a_volume_of_one",
    ),
    (
        "plans.py",
        "apart = coarse_axis(self.spacing, self.native_spacing)",
        "apart = coarse_axis(self.native_spacing, self.spacing)",
        "data_grids.py",
    ),
    (
        "intensities.py",
        "values[inside] if use_mask and inside.any() else values",
        "values",
        "data_plans.py::test_z_score_inside_the_mask_keeps_the_rest",
    ),
    ("intensities.py", '(clipped - intensity["mean"])', '(values - intensity["mean"])', "data_plans.py::test_normalisations"),
    ("plans.py", "view[start + rows.start : start + rows.stop, grid.box[1]", "view[rows, grid.box[1]", THERE),
    ("plans.py", "if places[0, 0, 0, 0] == 0 else n - 1 - points[:, axis]", "", LISTED),
    ("resampling.py", "np.clip(result, values.min(), values.max(), out=result)", "", SPLINES),
    (
        "plans.py",
        "(found + 0.5) * np.array(grid.shape)",
        "found * np.array(grid.shape)",
        "data_grids.py::test_a_voxel_is_where_its_centre_lies",
    ),
    ("plans.py", "max(*known, *(record", "max(*(record", "data_grids.py"),
    ("spacing.py", "np.abs(geometry.header", "(geometry.header", "data_grids.py"),
    ("spacing.py", "(factor if units else 1.0)", "1.0", "data_grids.py"),
    ("plans.py", "spacing = spacing[::-1]", "spacing = spacing[:]", "data_grids.py"),
    ("resampling.py", "round(s / t * n)", "round(t / s * n)", "resampling.py::test_half_voxels_round_to_even"),
    ("resampling.py", "n / m * (np.arange(m) + 0.5) - 0.5", "n / m * np.arange(m)", "resampling.py"),
    (
        "resampling.py",
        "np.where(share > most, np.int32(label), best)",
        "np.where(share >= most, np.int32(label), best)",
        "data_grids.py::test_a_tie_between_labels_goes_to_the_smaller",
    ),
    (
        "resampling.py",
        "first + share * (np.take(out, high, axis) - first)",
        "first + (1 - share) * (np.take(out, high, axis) - first)",
        "resampling.py",
    ),
    # what things are told by
    ("records.py", "{name} {value.dtype} {value.shape}", "{name} {value.dtype}", "data_records.py"),
    ("records.py", "{name} {value.dtype} {value.shape}", "{value.dtype} {value.shape}", "data_records.py"),
    ("records.py", "{name} {value.dtype} {value.shape}", "{name} {value.shape}", "data_records.py"),
    ("records.py", "sort_keys=True", "sort_keys=False", "data_records.py"),
    ("records.py", "for name in sorted(arrays):", "for name in arrays:", "data_records.py"),
    ("records.py", "not math.isfinite(value)", "math.isnan(value)", "data_records.py"),
)
