"""Arrays as people have them (NumPy, JAX, PyTorch, MONAI; channels first or last) as a network takes them: channels last."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

AXES = {2: ("h", "w"), 3: ("x", "y", "z")}


def as_numpy(values: Any, *, what: str = "array") -> np.ndarray:
    """An array of NumPy, JAX or PyTorch (a MetaTensor too) as one of NumPy; ValueError for what holds no numbers."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = getattr(values, "as_tensor", lambda: values)()  # a MetaTensor without its affine
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{what}: expected an array of numbers, got {type(values).__name__} ({error})") from None
    if array.dtype.kind not in "fiub" and array.dtype != jnp.bfloat16:
        raise ValueError(f"{what}: expected an array of numbers, got {type(values).__name__} of {array.dtype}")
    return array


def as_images(values: Any, network: Any, *, what: str, leading: int = 0, rank: int | None = None) -> Any:
    """Images `[... *space i]` with `leading` axes in front of the spatial ones, channels last.

    Channels first are moved, with a warning, where the last axis cannot be the channels and the first can. A missing axis of one
    channel is added. What JAX holds stays there. ValueError that names the axis, what it has and what to do.
    """
    rank, channels = rank or network.rank, network.in_channels
    array = values if isinstance(values, jax.Array) else as_numpy(values, what=what)
    space = AXES[rank]
    expected = f"[{' '.join([*('b',) * leading, *space, str(channels)])}] (channels last)"
    if array.ndim == leading + rank and channels == 1:
        return array[..., None]
    if array.ndim != leading + rank + 1:
        raise ValueError(
            f"{what}: expected {expected}, got shape {tuple(array.shape)}: {_remedy(array, leading, rank, channels)}"
        )
    if array.shape[-1] == channels:
        return array
    if array.shape[leading] == channels:
        warnings.warn(
            f"{what}: shape {tuple(array.shape)} was taken as channels first, since the network takes {channels} of them",
            stacklevel=3,
        )
        return np.moveaxis(array, leading, -1) if isinstance(array, np.ndarray) else jnp.moveaxis(array, leading, -1)
    raise ValueError(
        f"{what}: expected {expected}, got shape {tuple(array.shape)}: its last axis has {array.shape[-1]} entries, the network "
        f"takes {channels} channels; {_channel_remedy(array.shape[-1], channels)}"
    )


def _channel_remedy(got: int, channels: int) -> str:
    if (got, channels) in ((1, 3), (3, 1)):
        return "quam_jax.preprocessing_of(model).apply(image) repeats a grey channel, or makes colour grey"
    return "move the channels to the end (np.moveaxis), or choose those that the network was trained on"


def _remedy(array: Any, leading: int, rank: int, channels: int) -> str:
    missing = leading + rank + 1 - array.ndim
    if missing == 1 and leading and array.shape[-1] == channels:
        return "add the axis of the batch: images[None]"
    if missing == 1:
        return "the axis of the channels is missing: image[..., None], or as many channels as the network takes"
    if missing < 0 and array.shape[0] == 1:
        return "the first axis of length 1 is too many: image[0]"
    if missing < 0:
        return f"{-missing} axis too many for a network of {rank} spatial axes; of a batch give one image at a time"
    return f"{missing} axes are missing"
