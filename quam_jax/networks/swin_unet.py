"""Swin-Unet (Cao et al. 2021) as in the QUAM-SM publication: a U-shaped transformer of shifted windows on 4x4 patches.

Where a stage's grid is not larger than the window, the window is the whole grid and is not shifted. The published wrapper
differs in the names of its weights, which start with `swin_unet.`, and in taking a 1-channel image for three equal channels.
Attention dropout, which the published wrapper never sets, is left out.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from ..core.network import EVAL, Mode
from .architecture import Architecture, Named
from .dropout import ValueDropout
from .layers import Conv, Linear
from .norms import LayerNorm
from .swin_blocks import MASKED, PATCH, PatchEmbed, PatchExpand, Stage, relative_position, shifted_windows_allow

DEEPEST, LARGEST_WINDOW, LARGEST_IMAGE = 100, 64, 8192  # a file may say anything


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


def _inferring(prefix: str) -> Callable[[Named], dict[str, Any]]:
    def infer(shapes: Named) -> dict[str, Any]:
        embed_dim, in_channels, *patch = shapes[f"{prefix}patch_embed.proj.weight"]
        if patch != [PATCH, PATCH]:
            raise ValueError(f"{shapes.architecture}: expected patches of 4x4, got {patch}")
        block = prefix + "layers.{}.blocks.{}."
        depths = tuple(shapes.count(block.replace("{}", str(level), 1) + "norm1.weight") for level in range(4))
        tables = [shapes[block.format(level, 0) + "attn.relative_position_bias_table"] for level in range(4)]
        windows = [(math.isqrt(rows) + 1) // 2 for rows, _ in tables]
        found = {
            "in_channels": in_channels,
            "n_classes": shapes[f"{prefix}output.weight"][0],
            "embed_dim": embed_dim,
            "depths": depths,
            "num_heads": tuple(heads for _, heads in tables),
            "window_size": max(windows),
            "mlp_ratio": shapes[block.format(0, 0) + "mlp.fc1.weight"][0] / embed_dim,
            "qkv_bias": block.format(0, 0) + "attn.qkv.bias" in shapes,
            "ape": f"{prefix}absolute_pos_embed" in shapes,
            "patch_norm": f"{prefix}patch_embed.norm.weight" in shapes,
        }
        size = _image_side(shapes, prefix, windows)
        return found if size is None else {**found, "img_size": size}

    return infer


def _image_side(shapes: Named, prefix: str, windows: list[int]) -> int | None:
    if f"{prefix}absolute_pos_embed" in shapes:
        return PATCH * math.isqrt(shapes[f"{prefix}absolute_pos_embed"][1])
    for level, window in enumerate(windows):
        mask = f"{prefix}layers.{level}.blocks.1.attn_mask"
        if mask in shapes:  # one row a window
            return (PATCH << level) * window * math.isqrt(shapes[mask][0])
        if window < max(windows):  # a window shrinks to its grid
            return (PATCH << level) * window
    return None


def _wrong_positions(table: Int[np.ndarray, "t t"]) -> str | None:
    window = math.isqrt(table.shape[-1]) if table.ndim else 0
    same = np.array_equal(relative_position(window), table)
    return None if same else f"the table that {window}x{window} windows have"


def _wrong_mask(mask: Float[np.ndarray, "n t t"]) -> str | None:
    window = math.isqrt(mask.shape[-1]) if mask.ndim else 0
    allowed = shifted_windows_allow(math.isqrt(len(mask)) * window, window, window // 2) if window else np.empty(0)
    same = allowed.shape == mask.shape and bool(np.where(allowed, mask == 0, mask <= MASKED).all())
    return None if same else f"the table that {window}x{window} windows have"


BUFFERS = {"relative_position_index": _wrong_positions, "attn_mask": _wrong_mask}
ARCHITECTURES = (
    Architecture(
        "swin_unet",
        SwinUNet,
        title="Swin-Unet",
        telling="layers_up.0.expand.weight",
        infer=_inferring(""),
        buffers=BUFFERS,
    ),
    Architecture(
        "swin_unet_wrapper",
        SwinUNetWrapper,
        title="Swin-Unet (wrapper)",
        telling="swin_unet.layers_up.0.expand.weight",
        infer=_inferring("swin_unet."),
        buffers=BUFFERS,
    ),
)
