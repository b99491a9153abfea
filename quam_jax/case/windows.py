"""How an image of a network without a plan is cut: whole, or in patches that overlap, as the settings say.

Numbers depend on how an image is cut, so that `auto` asks the image and the network alone, never how much memory there is.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..config import Config, PatchConfig
from ..data.patches import Patches, lay_patches
from ..models.description import trained_size
from ..models.model import Network, SegmentationModel

WHOLE = 2**21  # pixels up to which an image is taken whole, where the settings leave it open
WINDOW = {2: 512, 3: 128}  # sides of patches by the network's axes, where nobody knows on which size it was trained
RIGID = 64  # a network whose sides are multiples of this many pixels may take one size alone


def lay_windows(model: SegmentationModel, space: Sequence[int], settings: PatchConfig) -> Patches:
    """The patches of an image of such sides; one of the image's own sides where it is taken whole."""
    sides = window_sides(model, space, settings)
    return lay_patches(space, tuple(min(n, side) for n, side in zip(space, sides, strict=True)), step=settings.patch_step)


def window_sides(model: SegmentationModel, space: Sequence[int], settings: PatchConfig) -> tuple[int, ...]:
    """The sides of a patch, those of the image where it is taken whole; ValueError where the network cannot take the size."""
    asked = asked_sides(model, settings)
    if asked == (0,) or (asked is None and math.prod(space) <= WHOLE and _takes(model.network, tuple(space))):
        return tuple(space)
    return asked or trained_sides(model)


def asked_sides(model: SegmentationModel, settings: PatchConfig) -> tuple[int, ...] | None:
    """The sides that the settings ask for, one an axis; (0,) for whole images, None where they leave it open.

    ValueError for sides that the network cannot take.
    """
    sides, network = settings.sides, model.network
    if sides is None or sides == (0,):
        return sides
    if len(sides) not in (1, network.rank):
        raise ValueError(f"patch_size: expected one side, or {network.rank} as the network has axes, got {settings.patch_size!r}")
    sides = sides * network.rank if len(sides) == 1 else sides
    steps = side_multiples(model.network)
    if any(side % step for side, step in zip(sides, steps, strict=True)):
        nearest = "x".join(str(-(-side // step) * step) for side, step in zip(sides, steps, strict=True))
        raise ValueError(
            f"patch_size: expected sides that are multiples of {_times(steps)}, which is what the network takes, got "
            f"{settings.patch_size!r}; the next larger is {nearest}"
        )
    return sides


def trained_sides(model: SegmentationModel) -> tuple[int, ...]:
    """The sides of the patches of a large image: the size that the network was trained on where it is known."""
    steps = side_multiples(model.network)
    if not _takes(model.network, tuple(2 * step for step in steps)):
        return steps  # the one size there is
    sides = trained_size(model) or (WINDOW[len(steps)],) * len(steps)
    return tuple(-(-int(side) // step) * step for side, step in zip(sides, steps, strict=True))


def describe_windows(model: SegmentationModel, settings: PatchConfig) -> dict[str, Any]:
    """How images are cut, for a person: the sides of patches, up to how many pixels an image stays whole, and the step."""
    asked = asked_sides(model, settings)
    if asked == (0,):
        return {"size": "whole images"}
    rule = {"whole_up_to_pixels": WHOLE} if asked is None else {}
    return {"size": list(asked or trained_sides(model)), **rule, "step": settings.patch_step, "weights": "gaussian"}


def require_plan_patches(config: Config, patch: Sequence[int]) -> None:
    """ValueError where the settings say how to cut the images of a model whose plan says it."""
    if config.patches != PatchConfig():
        asked = f"patch_size {config.patches.patch_size}, patch_step {config.patches.patch_step:g}"
        raise ValueError(
            f"patch_size: the model's nnU-Net plan cuts images into patches of {_times(patch)}; expected no patch_size and no "
            f"patch_step, got {asked}"
        )


def _takes(network: Network, sides: tuple[int, ...]) -> bool:
    """Whether the network takes images of such sides, as padded; tried only where it may take one size alone."""
    steps = side_multiples(network)
    padded = tuple(-(-side // step) * step for side, step in zip(sides, steps, strict=True))
    return max(steps) < RIGID or padded == steps or _runs(network, padded)


@functools.lru_cache(maxsize=64)
def _runs(network: Network, sides: tuple[int, ...]) -> bool:
    params, stats = ({n: jax.ShapeDtypeStruct(s, np.float32) for n, s in kind.items()} for kind in network.shapes())
    image = jax.ShapeDtypeStruct((1, *sides, network.in_channels), np.float32)
    try:
        jax.eval_shape(network.apply, params, stats, image)
    except (TypeError, ValueError):
        return False
    return True


def side_multiples(network: Network) -> tuple[int, ...]:
    """What the sides of an image must be multiples of, one number an axis."""
    multiple = network.size_multiple
    return (multiple,) * network.rank if isinstance(multiple, int) else tuple(multiple)


def _times(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
