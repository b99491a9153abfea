"""Swin-Unet (Cao et al. 2021) as in the QUAM-SM publication: a U-shaped transformer of shifted windows on 4x4 patches.

Where a stage's grid is not larger than the window, the window is the whole grid and is not shifted. The published wrapper
differs in the names of its weights, which start with `swin_unet.`, and in taking a 1-channel image for three equal channels.
Attention dropout, which the published wrapper never sets, is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ..core.network import EVAL, Mode
from .layers import Conv, LayerNorm, Linear
from .value_dropout import BranchDropout, ValueDropout

PATCH = 4
DEEPEST, LARGEST_WINDOW, LARGEST_IMAGE = 100, 64, 8192  # a file may say anything
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
        scores = jnp.einsum("bnqhw,bnkhw->bnhqk", q * width**-0.5, k) + bias.transpose(2, 0, 1)
        if allowed is not None:
            scores = scores + jnp.where(allowed, 0.0, MASKED)[:, None]
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


class SwinUNet(nnx.Module):
    """The transformer for square images of side `img_size`; the decoder has the depths and heads of the encoder's level."""

    cuts = {"head": ("output",), "last_block": ("layers_up.3", "norm_up", "up", "output")}

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        img_size: int,
        *,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        ape: bool = False,
        patch_norm: bool = True,
        drop: float = 0.0,
        drop_path: float = 0.1,
        rngs: nnx.Rngs,
    ):
        if len(depths) != 4 or len(num_heads) != 4:
            raise ValueError(f"swin_unet: expected depths and num_heads of 4 stages, got {depths} and {num_heads}")
        for name, value, most in (
            ("depths", max(depths), DEEPEST),
            ("window_size", window_size, LARGEST_WINDOW),
            ("img_size", img_size, LARGEST_IMAGE),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"swin_unet {name}: expected numbers from 1 to {most}, got {value}")
        grids, widths = [img_size // (PATCH << i) for i in range(4)], [embed_dim << i for i in range(4)]
        wrong = [g for g in grids if g > window_size and g % window_size]
        if img_size % (PATCH << 3) or wrong:
            raise ValueError(
                f"swin_unet img_size: expected a multiple of 32 whose grids (1/4 to 1/32) are multiples of "
                f"window_size {window_size} or not larger, got {img_size} with grids {grids}"
            )
        self.size_multiple, self.img_size = img_size, img_size
        rates = np.linspace(0, drop_path, sum(depths)).tolist()

        def stage(level: int, *, down: bool = False, up: bool = False) -> Stage:
            first = sum(depths[:level])
            return Stage(
                widths[level],
                grids[level],
                depth=depths[level],
                down=down,
                up=up,
                heads=num_heads[level],
                drop_path=tuple(rates[first : first + depths[level]]),
                window=window_size,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop=drop,
                rngs=rngs,
            )

        self.patch_embed = PatchEmbed(in_channels, embed_dim, normed=patch_norm, rngs=rngs)
        self.absolute_pos_embed = nnx.Param(jnp.zeros((1, grids[0] ** 2, embed_dim))) if ape else None
        self.pos_drop = ValueDropout(drop)
        self.layers = nnx.List([stage(level, down=level < 3) for level in range(4)])
        self.norm = LayerNorm(widths[3])
        self.layers_up = nnx.List(
            [PatchExpand(widths[3], 2, widths[2], rngs=rngs), *(stage(level, up=level > 0) for level in (2, 1, 0))]
        )
        self.concat_back_dim = nnx.Dict(
            {str(3 - level): Linear(2 * widths[level], widths[level], rngs=rngs) for level in (2, 1, 0)}
        )
        self.norm_up = LayerNorm(embed_dim)
        self.up = PatchExpand(embed_dim, PATCH, embed_dim, rngs=rngs)
        self.output = Conv(embed_dim, n_classes, 1, bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b u v f"]:
        """The activation in front of the cut: the head's input, or the last stage's on the 4x4 patch grid."""
        if x.shape[1:3] != (self.img_size, self.img_size):
            raise ValueError(f"swin_unet: expected images of {self.img_size} x {self.img_size}, got {tuple(x.shape[1:3])}")
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed[...].reshape(1, *x.shape[1:])
        x = self.pos_drop(x, mode)
        skips = []
        for encode in self.layers:
            skips.append(x)
            x = encode(x, mode)
        x = self.layers_up[0](self.norm(x))
        for level in (2, 1):
            x = self.concat_back_dim[str(3 - level)](jnp.concatenate([x, skips[level]], -1))
            x = self.layers_up[3 - level](x, mode)
        last = self.concat_back_dim["3"](jnp.concatenate([x, skips[0]], -1))
        return last if cut == "last_block" else self._last_block(last, mode)

    def tail(self, activation: Float[Array, "b u v f"], mode: Mode, *, cut: str) -> Float[Array, "b h w c"]:
        """Logits from the activation in front of the cut."""
        return self.output(self._last_block(activation, mode) if cut == "last_block" else activation)

    def _last_block(self, x: Float[Array, "b u v f"], mode: Mode) -> Float[Array, "b h w f"]:
        return self.up(self.norm_up(self.layers_up[3](x, mode)))


class SwinUNetWrapper(nnx.Module):
    """The published wrapper: the same network one name deeper; with `in_channels` 1 the image is repeated to 3 channels."""

    cuts = {cut: tuple(f"swin_unet.{name}" for name in names) for cut, names in SwinUNet.cuts.items()}

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        img_size: int,
        *,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        ape: bool = False,
        patch_norm: bool = True,
        drop: float = 0.0,
        drop_path: float = 0.1,
        rngs: nnx.Rngs,
    ):
        self.channels = 3 if in_channels == 1 else in_channels
        self.swin_unet = SwinUNet(
            self.channels,
            n_classes,
            img_size,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            ape=ape,
            patch_norm=patch_norm,
            drop=drop,
            drop_path=drop_path,
            rngs=rngs,
        )
        self.size_multiple = self.swin_unet.size_multiple

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b u v f"]:
        """The activation in front of the cut, as in SwinUNet."""
        return self.swin_unet.trunk(jnp.broadcast_to(x, (*x.shape[:-1], self.channels)), mode, cut=cut)

    def tail(self, activation: Float[Array, "b u v f"], mode: Mode, *, cut: str) -> Float[Array, "b h w c"]:
        """Logits from the activation in front of the cut."""
        return self.swin_unet.tail(activation, mode, cut=cut)
