"""Operations of imported graphs that reshape, join, cut, pad and rearrange arrays."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .convolution import Sizes, each
from .values import Last, last, operation, physical, plain, rank, register, shape


@operation("view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias")
def reshape(x: Array, size: Sequence[int], *_: Any) -> Array:
    """The entries in another shape."""
    return x.reshape(size)


@operation("flatten")
def flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Join neighbouring axes."""
    start, end = start_dim % max(x.ndim, 1), end_dim % max(x.ndim, 1)
    return x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])


@operation("unflatten")
def unflatten(x: Array, dim: int, sizes: Sequence[int]) -> Array:
    """Split an axis."""
    dim = dim % x.ndim
    known = -math.prod(sizes)
    sizes = [x.shape[dim] // known if n == -1 else n for n in sizes]
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


@register("permute", "permute_copy")
def permute(x: Any, dims: Sequence[int]) -> Any:
    """The axes in another order."""
    count = rank(x)
    dims = [d % count for d in dims]
    if isinstance(x, Last):
        return x.array.transpose([physical(d, count) for d in dims])
    if count > 3 and dims == [0, count - 1, *range(1, count - 1)]:
        return Last(plain(x))  # the channels are already where a convolution wants them
    return plain(x).transpose(dims)


@register("transpose", "swapaxes", "transpose_copy")
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """Two axes exchanged."""
    dims = list(range(rank(x)))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return permute(x, dims)


@register("t", "t_copy")
def transpose_matrix(x: Any) -> Any:
    """A matrix with its axes exchanged."""
    return permute(x, list(range(rank(x)))[::-1])


@operation("movedim")
def move_axis(x: Array, source: Any, destination: Any) -> Array:
    """Axes moved to other places."""
    return jnp.moveaxis(x, source, destination)


@operation("squeeze")
def squeeze(x: Array, dim: Any = None) -> Array:
    """Without axes of length one."""
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return jnp.squeeze(x, tuple(d for d in dims if x.shape[d] == 1))


@operation("unsqueeze", "unsqueeze_copy")
def unsqueeze(x: Array, dim: int) -> Array:
    """One more axis of length one."""
    return jnp.expand_dims(x, dim)


@operation("expand", "expand_copy", "broadcast_to")
def expand(x: Array, size: Sequence[int], **_: Any) -> Array:
    """Repeated along axes of length one; -1 keeps an axis."""
    own = (1,) * (len(size) - x.ndim) + x.shape
    return jnp.broadcast_to(x, [o if n == -1 else n for n, o in zip(size, own, strict=True)])


@operation("expand_as")
def expand_as(x: Array, other: Array) -> Array:
    """Repeated to the shape of another."""
    return jnp.broadcast_to(x, other.shape)


@operation("repeat", "tile")
def repeat(x: Array, repeats: Sequence[int]) -> Array:
    """The whole array repeated along axes."""
    return jnp.tile(x, repeats)


@operation("repeat_interleave")
def repeat_entries(x: Array, repeats: int, dim: int | None = None, **_: Any) -> Array:
    """Every entry repeated along an axis."""
    return jnp.repeat(x, repeats, dim)


@register("cat", "concat", "concatenate")
def concatenate(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Arrays one after the other; with channels last where any has them so."""
    tensors = [t for t in tensors if shape(t) != (0,)]
    if any(isinstance(t, Last) for t in tensors):
        return Last(jnp.concatenate([last(t) for t in tensors], physical(dim, rank(tensors[0]))))
    return jnp.concatenate(plain(tensors), dim)


@operation("stack")
def stack(tensors: Sequence[Array], dim: int = 0) -> Array:
    """Arrays along a new axis."""
    return jnp.stack(tensors, dim)


@register("slice", "slice_copy")
def cut(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """A range of an axis."""
    axis = physical(dim, rank(x)) if isinstance(x, Last) else dim % rank(x)
    array = x.array if isinstance(x, Last) else plain(x)
    part = array[(slice(None),) * axis + (slice(start, end, step),)]
    return Last(part) if isinstance(x, Last) else part


@register("narrow")
def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    """A range of an axis by its length."""
    return cut(x, dim, start, start + length)


@register("split", "split_with_sizes", "split_copy", "split_with_sizes_copy")
def split(x: Any, sizes: Sizes, dim: int = 0) -> list[Any]:
    """Ranges of an axis: of one length, the last maybe shorter, or of given lengths."""
    total = shape(x)[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, total - i) for i in range(0, total, sizes)]
    ends = np.cumsum(sizes).tolist()
    return [cut(x, dim, end - n, end) for end, n in zip(ends, sizes, strict=True)]


@register("chunk", "unsafe_chunk")
def chunk(x: Any, chunks: int, dim: int = 0) -> list[Any]:
    """An axis in nearly equal ranges."""
    return split(x, -(-shape(x)[dim] // chunks), dim)


@operation("tensor_split")
def split_tensor(x: Array, sections: Any, dim: int = 0) -> list[Array]:
    """An axis in parts whose lengths differ by at most one, or cut at places."""
    return jnp.array_split(x, sections, dim)


@operation("select", "select_copy")
def select(x: Array, dim: int, index: int) -> Array:
    """One entry of an axis."""
    return lax.index_in_dim(x, index, dim % x.ndim, keepdims=False)


@register("unbind", "unbind_copy")
def unbind(x: Any, dim: int = 0) -> list[Any]:
    """The entries of an axis."""
    return [select(plain(x), dim, i) for i in range(shape(x)[dim])]


@register("constant_pad_nd")
def pad_constant(x: Any, pad: Sequence[int], value: float = 0.0) -> Any:
    """Padding of the last axes, the last first; negative padding cuts."""
    count = rank(x)
    pairs = [(0, 0)] * count
    for i in range(len(pad) // 2):
        pairs[count - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    array = x.array if isinstance(x, Last) else plain(x)
    if isinstance(x, Last):
        pairs = [pairs[0], *pairs[2:], pairs[1]]
    if min(map(min, pairs)) < 0:
        array = array[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(pairs, array.shape, strict=True))]
    y = jnp.pad(array, [(max(a, 0), max(b, 0)) for a, b in pairs], constant_values=value or 0)
    return Last(y) if isinstance(x, Last) else y


@register("pad")
def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Padding by a constant, or in a mode."""
    if mode == "constant":
        return pad_constant(x, pad, value or 0.0)
    modes = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    count = rank(x)
    pairs = [(0, 0)] * count
    for i in range(len(pad) // 2):
        pairs[count - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    return jnp.pad(plain(x), pairs, mode=modes[mode])


@register("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def pad_reflect(x: Any, padding: Sequence[int]) -> Any:
    """Padding by mirror images without the edge itself."""
    return pad(x, padding, "reflect")


@register("replication_pad1d", "replication_pad2d", "replication_pad3d")
def pad_edge(x: Any, padding: Sequence[int]) -> Any:
    """Padding by the edge."""
    return pad(x, padding, "replicate")


@operation("roll")
def roll(x: Array, shifts: Sizes, dims: Sizes = ()) -> Array:
    """Cyclic shifts."""
    if isinstance(dims, Sequence) and not dims:
        return jnp.roll(x, shifts)
    return jnp.roll(x, shifts, dims)


@operation("flip")
def flip(x: Array, dims: Sequence[int]) -> Array:
    """Axes reversed."""
    return jnp.flip(x, tuple(dims))


@operation("unfold")
def windows(x: Array, dimension: int, size: int, step: int) -> Array:
    """Windows of an axis, their entries on a new last axis."""
    axis = dimension % x.ndim
    place = np.arange(0, x.shape[axis] - size + 1, step)[:, None] + np.arange(size)
    return jnp.moveaxis(jnp.take(x, place, axis), axis + 1, -1)


@operation("im2col")
def columns(x: Array, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Array:
    """Sliding windows as columns `[b c*kernel windows]`."""
    taps, dilation, stride = each(kernel_size, 2), each(dilation, 2), each(stride, 2)
    x = jnp.pad(x, [(0, 0), (0, 0), *((p, p) for p in each(padding, 2, 0))])
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], taps, stride, dilation, strict=True)]
    rows, cols = (np.arange(k)[:, None] * d + np.arange(n) * s for k, d, n, s in zip(taps, dilation, sizes, stride, strict=True))
    y = x[:, :, rows[:, None, :, None], cols[None, :, None, :]]
    return y.reshape(x.shape[0], x.shape[1] * math.prod(taps), math.prod(sizes))


@operation("pixel_shuffle")
def channels_to_space(x: Array, factor: int) -> Array:
    """Groups of factor^2 channels to factor x factor pixels."""
    *batch, channels, height, width = x.shape
    y = x.reshape(*batch, channels // factor**2, factor, factor, height, width)
    n = len(batch)
    y = y.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return y.reshape(*batch, channels // factor**2, height * factor, width * factor)


@operation("pixel_unshuffle")
def space_to_channels(x: Array, factor: int) -> Array:
    """factor x factor pixels to groups of factor^2 channels."""
    *batch, channels, height, width = x.shape
    y = x.reshape(*batch, channels, height // factor, factor, width // factor, factor)
    n = len(batch)
    y = y.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return y.reshape(*batch, channels * factor**2, height // factor, width // factor)


@register("channel_shuffle")
def shuffle_channels(x: Any, groups: int) -> Last:
    """Channels of groups interleaved."""
    x = last(x)
    y = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return Last(jnp.swapaxes(y, -1, -2).reshape(x.shape))


@operation("meshgrid")
def mesh(tensors: Sequence[Array], indexing: str = "ij") -> list[Array]:
    """Coordinates of a grid."""
    return jnp.meshgrid(*tensors, indexing=indexing)


@operation("triu")
def upper(x: Array, diagonal: int = 0) -> Array:
    """The upper triangle."""
    return jnp.triu(x, diagonal)


@operation("tril")
def lower(x: Array, diagonal: int = 0) -> Array:
    """The lower triangle."""
    return jnp.tril(x, diagonal)


@operation("diagonal")
def diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """A diagonal of two axes."""
    return jnp.diagonal(x, offset, dim1, dim2)


@operation("grid_sampler_2d", "grid_sampler")
def sample(x: Array, grid: Array, mode: int = 0, padding: int = 0, align_corners: bool = False) -> Array:
    """Bilinear or nearest samples at places given in [-1, 1], zeros or the edge outside."""
    if mode not in (0, 1) or padding not in (0, 1):
        raise ValueError("expected bilinear or nearest sampling with zeros or the border outside")
    height, width = x.shape[2:]

    def position(value: Array, size: int) -> Array:
        value = (value + 1) / 2 * (size - 1) if align_corners else ((value + 1) * size - 1) / 2
        return jnp.clip(value, 0, size - 1) if padding == 1 else value

    def one(image: Array, columns: Array, rows: Array) -> Array:
        return jax.vmap(lambda plane: jax.scipy.ndimage.map_coordinates(plane, [rows, columns], order=1 - mode, mode="constant"))(
            image
        )

    return jax.vmap(one)(x, position(grid[..., 0], width), position(grid[..., 1], height))
