"""Linear interpolation, one small matrix product an axis."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def interpolation_matrix(size: int, out: int, *, align_corners: bool) -> Float[np.ndarray, "out size"]:
    """Rows of linear-interpolation weights from `size` to `out` samples, in PyTorch's two conventions."""
    if align_corners:
        position = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        position = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, None)
    low = np.minimum(np.floor(position).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((out, size))
    np.add.at(matrix, (np.arange(out), low), 1.0 - (position - low))
    np.add.at(matrix, (np.arange(out), high), position - low)
    return matrix


def resize_linear(x: Float[Array, "b *space c"], size: Sequence[int], *, align_corners: bool) -> Float[Array, "b *size c"]:
    """Linear, bilinear or trilinear interpolation to `size`, as torch.nn.functional.interpolate computes it."""
    for axis, out in enumerate(size, start=1):
        if x.shape[axis] != out:
            matrix = jnp.asarray(interpolation_matrix(x.shape[axis], out, align_corners=align_corners), x.dtype)
            x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


def space_size(x: Float[Array, "b *space c"]) -> tuple[int, ...]:
    """The spatial shape of a batch."""
    return x.shape[1:-1]
