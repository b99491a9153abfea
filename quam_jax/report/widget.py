"""The maps of a volume in a notebook, in the viewer of the report: a widget of ipyniivue (extra `notebook`).

Layers are NIfTI files in memory, maps in 255 steps of their scale, and all of them reduced where a browser would wait for them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Num

from . import figures
from .notebook import map_scale
from .plots import member_class
from .viewer import FADE, OTHER_OUTLINE, OUTLINES, STEPS, nifti_bytes

MOST = 2**24  # voxels of a layer that go into a notebook
HEIGHT = 480  # CSS pixels
LABELS = (255, 255, 255)  # of a single structure


def is_installed() -> bool:
    """Whether the viewer's package is there."""
    from importlib.util import find_spec

    return find_spec("ipyniivue") is not None


def volume_widget(
    maps: Mapping[str, Float[np.ndarray, "x y z"]],
    segmentation: Integer[np.ndarray, "x y z"],
    *,
    classes: int,
    image: Num[np.ndarray, "x y z"] | None = None,
    affine: Float[np.ndarray, "4 4"] | None = None,
    adversarial: Integer[np.ndarray, "n x y z"] | None = None,
    names: Sequence[str] = (),
) -> Any:
    """A widget with the image, the maps in nats, the prediction and the adversarial models; the epistemic map is on at first.

    `affine` takes voxel indices to millimetres (without it a voxel has a length of 1). Entropies have the scale 0 to ln C, the
    epistemic map 0 to its largest value, rounded up. ValueError without ipyniivue, or for arrays of another shape.
    """
    try:
        from ipyniivue import NiiVue
    except ImportError as error:
        raise ValueError("viewer: expected ipyniivue, got none installed; pip install 'quam_jax[notebook]'") from error
    space = segmentation.shape
    if image is not None and image.shape != space:
        raise ValueError(f"image: expected the shape {space} of the maps, got {image.shape}")
    factor = max(1, math.ceil((segmentation.size / MOST) ** (1 / 3)))
    grid = np.eye(4) if affine is None else np.array(affine, np.float64)
    grid[:3, 3] += grid[:3, :3] @ np.full(3, float(factor // 2))  # the voxels that are kept
    grid[:3, :3] *= factor
    cut = (slice(factor // 2, None, factor),) * 3

    def layer(name: str, values: np.ndarray, *, high: float | None = None, **how: Any) -> dict[str, Any]:
        scaled = None if high is None else (high / STEPS, 0.0)
        return {"name": f"{name}.nii", "data": nifti_bytes(values, grid, scaled=scaled), **how}

    layers = []
    if image is not None:
        low, high = figures.display_range(image, colour=False)
        plain = np.nan_to_num(image[cut]).astype(np.float32)
        layers.append(layer("image", plain, colormap="gray", cal_min=low, cal_max=high))
    for name, values in maps.items():
        scale = map_scale(name, values, classes=classes)
        share = np.nan_to_num(figures.map_share(values[cut].astype(np.float32), scale))
        shown = {"colormap": scale.colours, "cal_min": FADE * 0.1 * scale.high, "cal_max": scale.high}
        levels = np.rint(STEPS * share).astype(np.uint8)
        layers.append(layer(name, levels, high=scale.high, **shown, opacity=0.7 if name == "epistemic" else 0.0))
    layers.append(layer("prediction", _labels(segmentation[cut]), colormap_label=_table([LABELS]), opacity=0.4))
    models = () if adversarial is None else adversarial
    for number, (labels, name) in enumerate(zip(models, names, strict=False)):
        colour = OUTLINES.get(member_class(name, number), OTHER_OUTLINE)
        layers.append(layer(f"adversarial {name}", _labels(labels[cut]), colormap_label=_table([colour]), opacity=0.0))
    widget = NiiVue(height=HEIGHT)
    widget.load_volumes(layers)
    return widget


def _labels(labels: np.ndarray) -> np.ndarray:
    return np.clip(labels, 0, 255).astype(np.uint8)


def _table(colours: Sequence[tuple[int, int, int]]) -> Any:
    """A colour table of labels: the ground clear, all others in the last colour where there are more of them."""
    from ipyniivue import LUT

    every = [(0, 0, 0), *colours]
    lut = np.array([(*colour, 0 if n == 0 else 255) for n, colour in enumerate(every)], np.uint8)
    return LUT(lut=lut.ravel().tolist(), min=0, max=len(every) - 1)
