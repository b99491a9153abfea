"""Mutants of how files are understood: grids side by side, what masks mean, stored values, channels, what is left out."""

from ..mutant import room

TURNED = "alignment.py::test_every_order_and_direction_of_axes_is_undone"
CUT = "alignment.py::test_what_lies_inside_a_larger_array_is_cut_out"
ROUNDED = "alignment.py::test_headers_round_and_voxels_that_do_not_meet_are_refused"
SLICE = "alignment.py::test_one_slice_keeps_its_place_its_thickness_and_its_axes"
TABLE = "mask_codings.py::test_one_table_for_all_masks"
LAYER = "mask_codings.py::test_what_is_drawn_on_a_transparent_layer_is_label_1"
COLOURS = "mask_codings.py::test_colours_are_labels_where_somebody_says_which"
SLICER = "mask_codings.py::test_segmentations_of_slicer"
STORED = "stored_values.py"
UNRATED = "unrated_pixels.py"

FILES = room(
    "data",
    ("alignment.py", "slice(None, None, -1 if back else 1)", "slice(None, None, 1)", TURNED),
    ("alignment.py", "array.transpose(*placed.axes, *rest)", "array.transpose(*np.argsort(placed.axes), *rest)", TURNED),
    ("alignment.py", "own.size[axis] - 1 - placed.start[axis] if back", "placed.start[axis] if back", CUT),
    ("alignment.py", "reaches = reaches and low == 0", "reaches = low == 0", CUT),
    ("alignment.py", "gap <= TOLERANCE * min(own.spacing)", "gap <= min(own.spacing)", ROUNDED),
    ("alignment.py", "exact[axes, range(rank)] = signs", "exact[axes, range(rank)] = 1", TURNED),
    ("geometry.py", "self.rank == 2 and len(self.shape) > 2", "self.rank == 2", SLICE),
    ("masks.py", "habitual and by_habit", "habitual", TABLE),
    ("masks.py", "if classes > 2 or by_label:", "if classes > 2:", TABLE),
    ("masks.py", "habit and HABIT not in labels", "habit", TABLE),
    ("masks.py", "for value in mask.values} - set(ignored)) for", "for value in mask.values}) for", TABLE),
    ("masks.py", "labels[mask.alpha == 0] = 0", "pass", "mask_codings.py::test_labels_on_a_transparent_layer"),
    ("masks.py", "(alpha > (threshold or 0))", "(alpha >= (threshold or 0))", LAYER),
    ("masks.py", "if len(np.unique(values[alpha > 0])) > 1:", "if False:", "mask_codings.py::test_labels_on_a_transparent_layer"),
    ("masks.py", "on.argmax(-1) + (channels < classes)", "on.argmax(-1)", "mask_codings.py"),
    ("masks.py", "set_.max() > 1", "set_.max() > 2", "mask_codings.py"),
    ("mask_values.py", "(red << 16) | (green << 8) | blue", "(red << 16) | (blue << 8) | green", COLOURS),
    ("mask_values.py", "values[rows][mask.alpha[rows] > 0]", "values[rows]", LAYER),
    ("segments.py", "layers[..., segment.layer] == segment.value", "layers[..., 0] == segment.value", SLICER),
    ("segments.py", "segment.value if own else number", "number", "mask_codings.py"),
    ("rasters.py", "values // stored.scale if", "values if", STORED),
    ("rasters.py", "else 255 - values", "else values", STORED),
    ("rasters.py", '(8, 2): "i1"', '(8, 3): "i1"', STORED),
    ("rasters.py", "table = np.full(256, 255, np.uint8)", "table = np.full(256, 0, np.uint8)", STORED),
    ("channels.py", "(got, channels) == (3, 1) and image.is_colour", "(got, channels) == (3, 1)", "left_out.py"),
    ("decoding.py", "digest.update(other)", "pass", "left_out.py"),
    ("left_out.py", "if child not in used]", "if child in used]", "left_out.py"),
    ("notes.py", "if len(of) > SEPARATE:", "if len(of) < SEPARATE:", "left_out.py"),
    ("mask_settings.py", "self.ignore_label != AUTO else replace", "self.ignore_label == AUTO else replace", UNRATED),
)
