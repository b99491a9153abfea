"""Section E, wanted masks: published dilation and erosion of every mask, and ours wherever the mask is binary.

A square window of side k applied i times is (k-1)/2 * i steps of the 3x3 window.
"""

from pathlib import Path

import numpy as np

from quam_jax.published.combination import dilate_published, erode_published
from quam_jax.targets.wanted.dilate import dilate
from quam_jax.targets.wanted.erode import erode

FOLDER = "E_metrics"
INDEX = f"{FOLDER}/morph.npz"
COVERED = (INDEX,)
CHANGES = ("dilate", "erode")


def cases(golden: Path) -> list[str]:
    """Names of the masks."""
    return [name.removeprefix("mask/") for name in _read(golden) if name.startswith("mask/")]


def not_covered(golden: Path) -> list[str]:
    """Outputs of another change than dilation and erosion."""
    return [name for name in _read(golden) if name.startswith("out/") and name.split("/")[2] not in CHANGES]


def check(golden: Path, case: str) -> None:
    """Assert every output of one mask."""
    arrays = _read(golden)
    mask = arrays[f"mask/{case}"][0].astype(np.int32)
    binary = mask.max() <= 1
    compared = 0
    for key, expected in arrays.items():
        if not key.startswith(f"out/{case}/"):
            continue
        change, kernel, iterations = key.split("/")[2], int(key.split("/")[3][1:]), int(key.split("/")[4][1:])
        published = {"dilate": dilate_published, "erode": erode_published}[change]
        found = published(mask, kernel=kernel, iterations=iterations)
        np.testing.assert_array_equal(found, expected[0], err_msg=f"published {key}")
        if binary:
            radius = kernel // 2 * iterations
            ours = dilate(mask, radius=radius) if change == "dilate" else erode(mask, radius=radius, outside="background")
            np.testing.assert_array_equal(ours, expected[0], err_msg=key)
        compared += 1
    assert compared, f"{case}: no outputs"


def _read(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / INDEX) as arrays:
        return {name: arrays[name] for name in arrays.files}
