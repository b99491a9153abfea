"""Colours of maps and labels: the conversion at known points, even steps, distinct labels."""

import numpy as np

from quam_jax.data.colours import lab_to_srgb, label_colours, sequential_colours


def to_lab(colours: np.ndarray) -> np.ndarray:
    """sRGB to CIELAB by the forward formulas of the two standards."""
    coded = colours / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    share = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    root = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], -1)


def test_colour_conversion_at_known_points():
    # white, black, and the red primary, whose CIELAB values are (53.24, 80.09, 67.20)
    np.testing.assert_array_equal(
        lab_to_srgb(np.array([[100.0, 0, 0], [0, 0, 0], [53.2408, 80.0925, 67.2032]])),
        [[255, 255, 255], [0, 0, 0], [255, 0, 0]],
    )


def test_the_map_colours_rise_in_even_steps():
    lab = to_lab(sequential_colours().astype(float))
    assert (np.diff(lab[:, 0]) > -0.2).all() and lab[-1, 0] - lab[0, 0] > 85  # up to 8-bit rounding
    steps = np.linalg.norm(lab[16:] - lab[:-16], axis=1)  # over 16 colours, so that rounding is small
    assert steps.max() / steps.min() < 1.25


def test_label_colours_are_distinct_and_not_all_grey():
    for classes in (2, 3, 8, 30, 256):
        table = label_colours(classes)
        assert table.shape == (classes, 3) and len(np.unique(table, axis=0)) == classes
        assert not table[0].any()
        assert classes == 2 or (table != table[:, :1]).any()
