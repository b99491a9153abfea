"""Colour tables for maps and labels: a sequential map of even perceptual steps, and distinct label colours.

The sequential table is a path through CIELAB from dark violet over blue-green to light yellow, cut into 256
steps of equal CIE 1976 colour difference. Conversion: CIE 15 (CIELAB, D65) and IEC 61966-2-1 (sRGB).
"""

from functools import cache

import numpy as np
from jaxtyping import Float, UInt8
from scipy.interpolate import PchipInterpolator

# lightness, chroma, hue in degrees: the corners of the path, chosen to stay inside sRGB
_PATH = np.array([(4, 8, 300), (22, 38, 302), (40, 34, 270), (57, 30, 215), (76, 46, 145), (95, 60, 104)], np.float64)

# Okabe and Ito, "Color universal design" (2008): told apart with any common colour vision
_DISTINCT = np.array(
    [230, 159, 0, 86, 180, 233, 0, 158, 115, 240, 228, 66, 0, 114, 178, 213, 94, 0, 204, 121, 167], np.uint8
).reshape(-1, 3)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_XYZ_TO_RGB = np.linalg.inv(
    np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
)


@cache
def sequential_colours() -> UInt8[np.ndarray, "256 3"]:
    """The 256 sRGB colours of a map, dark for the low end of its range, in even perceptual steps."""
    smooth = PchipInterpolator(np.arange(len(_PATH)), _PATH)  # monotone, so lightness only rises
    light, chroma, hue = smooth(np.linspace(0, len(_PATH) - 1, 4001)).T
    lab = np.stack([light, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=-1)
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=-1))])
    even = np.linspace(0, walked[-1], 256)
    table = lab_to_srgb(np.stack([np.interp(even, walked, lab[:, axis]) for axis in range(3)], axis=-1))
    table.setflags(write=False)
    return table


def label_colours(classes: int) -> UInt8[np.ndarray, "classes 3"]:
    """One colour a label: black for 0, white for the other of two, else distinct hues (never all grey)."""
    if classes <= 2:
        return np.array([(0, 0, 0), (255, 255, 255)], np.uint8)[:classes]
    count = classes - 1 - len(_DISTINCT)
    turn = np.radians(137.508 * np.arange(max(count, 0)))  # the golden angle keeps neighbours apart
    light = 45.0 + 8.0 * (np.arange(max(count, 0)) % 5)
    more = lab_to_srgb(np.stack([light, 30 * np.cos(turn), 30 * np.sin(turn)], axis=-1))
    return np.concatenate([np.zeros((1, 3), np.uint8), _DISTINCT, more])[:classes]


def lab_to_srgb(lab: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """CIELAB (D65) to 8-bit sRGB; colours outside sRGB are clipped."""
    middle = (lab[:, 0] + 16) / 116
    scaled = np.stack([middle + lab[:, 1] / 500, middle, middle - lab[:, 2] / 200], axis=-1)
    xyz = _WHITE * np.where(scaled > 6 / 29, scaled**3, 3 * (6 / 29) ** 2 * (scaled - 4 / 29))
    linear = np.clip(xyz @ _XYZ_TO_RGB.T, 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * coded).astype(np.uint8)
