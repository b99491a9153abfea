"""Mutants of the views: which there are, what models say through them, and that each looks at its own."""

from ..mutant import room

INVERSE = "views.py::test_every_view_has_an_exact_inverse"
TAKEN = "views.py::test_an_image_takes_the_views_that_keep_its_shape_and_spacing"
LIGHT = "views.py::test_intensities_change_by_standard_deviations_of_the_image"
GIVEN = "views.py::test_what_the_given_network_says_through_views_by_hand"
PARTS = "views.py::test_views_in_parts_are_views_at_once"
TURNS = "views.py::test_models_look_through_the_views_in_turn"
SAME = "views.py::test_every_layout_sees_the_same"
IMAGES = "views.py::test_images_that_are_searched_together_look_at_their_own_views"

VIEWS = room(
    "core",
    ("views.py", "-self.turns, self.plane), self.flips)", "self.turns, self.plane), self.flips)", INVERSE),
    ("views.py", "-self.turns, self.plane), self.flips)", "-self.turns, self.plane), ())", INVERSE),
    ("views.py", "jnp.std(image, tuple(range(image.ndim - 1)), keepdims=True)", "jnp.std(image)", LIGHT),
    ("views.py", "if space[a] == space[b]]", "]", TAKEN),
    ("views.py", "abs(spacing[a] / spacing[b] - 1) < 0.01]", "True]", TAKEN),
    ("views.py", "if axis in symmetry.mirrored else None", "", TAKEN),
    ("viewing.py", "sums.probs + own, sums", "own, sums", GIVEN),
    ("viewing.py", "from_anchor - jnp.sum(", "from_anchor + jnp.sum(", GIVEN),
    ("viewing.py", "invert_view(setup.views, number,", "invert_view(setup.views, i,", PARTS),
    ("viewing.py", "record * setup.looked %", "record * 0 %", TURNS),
    ("viewing.py", "(start + i) % total", "start + i", TURNS),
    ("viewing.py", "(value / setup.looked for", "(value / len(setup.views) for", TURNS),
    (
        "given.py",
        "setup.views, jnp.asarray(image, jnp.float32), key)",
        "setup.views, jnp.asarray(image, jnp.float32) * 0, key)",
        GIVEN,
    ),
    ("layout/records.py", "~(record.fit_loss <= record.bound)", "~(record.fit_loss > -1)", SAME),
    (
        "whole.py",
        "targets[i].weights[t], activations[i], viewed[i])",
        "targets[i].weights[t], activations[i], viewed[0])",
        IMAGES,
    ),
)
