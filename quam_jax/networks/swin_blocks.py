"""What Swin-Unet is built of: attention in shifted windows, and stages that change the grid.

A value is a grid of vectors `[b h w c]`. Where a grid is not larger than the window, the window is the whole grid and is not
shifted. `relative_position` and `shifted_windows_allow` are tables that PyTorch checkpoints hold as buffers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ..core.network import Mode
from .dropout import BranchDropout, ValueDropout
from .layers import Conv, Linear
from .norms import LayerNorm
from .recomputation import recomputable

PATCH = 4
MASKED = -100.0


class WindowAttention(nnx.Module):
    """Multi-head self-attention inside windows with a learnt bias for every relative position."""

    def __init__(self, channels: int, window: int, heads: int, *, qkv_bias: bool, drop: float, rngs: nnx.Rngs):
        self.window, self.heads = window, heads
        table = 0.02 * jax.random.truncated_normal(rngs.params(), -2, 2, ((2 * window - 1) ** 2, heads))
        self.relative_position_bias_table = nnx.Param(table)
        self.qkv = Linear(channels, 3 * channels, bias=qkv_bias, rngs=rngs)
        self.proj = Linear(channels, channels, rngs=rngs)
        self.dropout = ValueDropout(drop)

    def __call__(
        self, x: Float[Array, "b n t c"], allowed: Bool[np.ndarray, "n t t"] | None, mode: Mode
    ) -> Float[Array, "b n t c"]:
        *batch, tokens, channels = x.shape
        width = channels // self.heads
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(*batch, tokens, 3, self.heads, width), -3, 0)
        bias = self.relative_position_bias_table[...][relative_position(self.window)]
        scores = jnp.einsum("bnqhw,bnkhw->bnhqk", q * width**-0.5, k) + bias.transpose(2, 0, 1)[None, None]
        if allowed is not None:
            scores = scores + jnp.where(allowed, 0.0, MASKED)[None, :, None]
        y = jnp.einsum("bnhqk,bnkhw->bnqhw", jax.nn.softmax(scores, -1), v).reshape(x.shape)
        return self.dropout(self.proj(y), mode)


def relative_position(window: int) -> Int[np.ndarray, "t t"]:
    """Row of the bias table for every pair of positions in a window: (dy + w - 1)(2w - 1) + (dx + w - 1)."""
    y, x = np.divmod(np.arange(window * window), window)
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def shifted_windows_allow(grid: int, window: int, shift: int) -> Bool[np.ndarray, "n t t"]:
    """Which positions of a window may see each other after the cyclic shift: those that were neighbours before it."""
    part = np.searchsorted([grid - window, grid - shift], np.arange(grid), side="right")
    region = 3 * part[:, None] + part[None]
    windows = region.reshape(grid // window, window, grid // window, window).transpose(0, 2, 1, 3)
    tokens = windows.reshape(-1, window * window)
    return tokens[:, :, None] == tokens[:, None]


class Mlp(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, channels: int, hidden: int, *, drop: float, rngs: nnx.Rngs):
        self.fc1, self.fc2 = Linear(channels, hidden, rngs=rngs), Linear(hidden, channels, rngs=rngs)
        self.dropout = ValueDropout(drop)

    def __call__(self, x: Float[Array, "b h w c"], mode: Mode) -> Float[Array, "b h w c"]:
        y = self.dropout(jax.nn.gelu(self.fc1(x), approximate=False), mode)
        return self.dropout(self.fc2(y), mode)


class Block(nnx.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    def __init__(
        self,
        channels: int,
        grid: int,
        *,
        heads: int,
        window: int,
        shifted: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        drop: float,
        drop_path: float,
        rngs: nnx.Rngs,
    ):
        self.window = min(window, grid)
        self.shift = self.window // 2 if shifted and grid > window else 0
        self.norm1, self.norm2 = LayerNorm(channels), LayerNorm(channels)
        self.attn = WindowAttention(channels, self.window, heads, qkv_bias=qkv_bias, drop=drop, rngs=rngs)
        self.mlp = Mlp(channels, int(channels * mlp_ratio), drop=drop, rngs=rngs)
        self.drop_path = BranchDropout(drop_path)

    @recomputable
    def __call__(self, x: Float[Array, "b h w c"], mode: Mode) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        n, m, s = h // self.window, w // self.window, self.window
        y = jnp.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = y.reshape(b, n, s, m, s, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, n * m, s * s, c)
        allowed = shifted_windows_allow(h, s, self.shift) if self.shift else None
        y = self.attn(y, allowed, mode).reshape(b, n, m, s, s, c).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)
        x = x + self.drop_path(jnp.roll(y, (self.shift, self.shift), (1, 2)), mode)
        return x + self.drop_path(self.mlp(self.norm2(x), mode), mode)


class PatchEmbed(nnx.Module):
    """4x4 patches to vectors."""

    def __init__(self, inputs: int, outputs: int, *, normed: bool, rngs: nnx.Rngs):
        self.proj = Conv(inputs, outputs, PATCH, stride=PATCH, padding=0, rngs=rngs)
        self.norm = LayerNorm(outputs) if normed else None

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b u v c"]:
        y = self.proj(x)
        return y if self.norm is None else self.norm(y)


class PatchMerging(nnx.Module):
    """The four 2x2 sub-grids on channels, normalised, to twice the channels."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * channels)
        self.reduction = Linear(4 * channels, 2 * channels, bias=False, rngs=rngs)

    @recomputable
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b u v d"]:
        b, h, w, c = x.shape
        # channels in the order (0,0), (1,0), (0,1), (1,1) of [row, column] offsets
        y = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5).reshape(b, h // 2, w // 2, 4 * c)
        return self.reduction(self.norm(y))


class PatchExpand(nnx.Module):
    """Each position to factor x factor positions of fewer channels, normalised."""

    def __init__(self, channels: int, factor: int, outputs: int, *, rngs: nnx.Rngs):
        self.factor = factor
        self.expand = Linear(channels, factor * factor * outputs, bias=False, rngs=rngs)
        self.norm = LayerNorm(outputs)

    @recomputable
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b u v d"]:
        (b, h, w, _), f = x.shape, self.factor
        y = self.expand(x).reshape(b, h, w, f, f, -1).transpose(0, 1, 3, 2, 4, 5)
        return self.norm(y.reshape(b, h * f, w * f, -1))


class Stage(nnx.Module):
    """Blocks of one grid size, every second one shifted, then a change of grid: `downsample`, `upsample` or none."""

    def __init__(
        self,
        channels: int,
        grid: int,
        *,
        depth: int,
        drop_path: tuple[float, ...],
        down: bool = False,
        up: bool = False,
        heads: int,
        window: int,
        mlp_ratio: float,
        qkv_bias: bool,
        drop: float,
        rngs: nnx.Rngs,
    ):
        self.blocks = nnx.List(
            [
                Block(
                    channels,
                    grid,
                    heads=heads,
                    window=window,
                    shifted=index % 2 == 1,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop=drop,
                    drop_path=drop_path[index],
                    rngs=rngs,
                )
                for index in range(depth)
            ]
        )
        self.downsample = PatchMerging(channels, rngs=rngs) if down else None
        self.upsample = PatchExpand(channels, 2, channels // 2, rngs=rngs) if up else None

    def __call__(self, x: Float[Array, "b h w c"], mode: Mode) -> Float[Array, "b u v d"]:
        for block in self.blocks:
            x = block(x, mode)
        change = self.downsample or self.upsample
        return x if change is None else change(x)
