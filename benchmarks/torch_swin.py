"""Swin-Unet in PyTorch, written from its description: shifted windows, patch merging and expanding, no convolutions inside.

Parameter names equal those of the published state_dict; tables that follow from the sizes are not kept in it.
"""

from typing import Any

import torch
from torch import nn

PATCH = 4


def _windows(x: torch.Tensor, size: int) -> torch.Tensor:
    b, h, w, c = x.shape
    return x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


class Attention(nn.Module):
    def __init__(self, channels: int, window: int, heads: int, *, qkv_bias: bool):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offset = (place[:, :, None] - place[:, None, :]) + window - 1
        self.register_buffer("index", offset[0] * (2 * window - 1) + offset[1], persistent=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        scores = scores + self.relative_position_bias_table[self.index.flatten()].view(t, t, self.heads).permute(2, 0, 1)
        if mask is not None:
            count = mask.shape[0]
            scores = (scores.view(-1, count, self.heads, t, t) + mask[:, None]).view(n, self.heads, t, t)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


class Mlp(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, channels: int, grid: int, *, heads: int, window: int, shifted: bool, mlp_ratio: float, qkv_bias: bool):
        super().__init__()
        self.window = min(window, grid)
        self.shift = self.window // 2 if shifted and grid > window else 0
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = Attention(channels, self.window, heads, qkv_bias=qkv_bias)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        mask = None
        if self.shift:
            part = torch.zeros(grid)
            part[grid - self.window : grid - self.shift] = 1
            part[grid - self.shift :] = 2
            region = _windows((3 * part[:, None] + part)[None, :, :, None], self.window)[..., 0]
            mask = torch.where(region[:, :, None] == region[:, None, :], 0.0, -100.0)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, h, w, c = x.shape
        s = self.window
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = self.attn(_windows(y, s), self.mask)
        y = y.view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, PATCH, PATCH)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class PatchExpand(nn.Module):
    def __init__(self, channels: int, factor: int, outputs: int):
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(channels, factor * factor * outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (b, h, w, _), f = x.shape, self.factor
        y = self.expand(x).view(b, h, w, f, f, -1).permute(0, 1, 3, 2, 4, 5)
        return self.norm(y.reshape(b, h * f, w * f, -1))


class Stage(nn.Module):
    def __init__(self, channels: int, grid: int, *, depth: int, down: bool = False, up: bool = False, **block: Any):
        super().__init__()
        self.blocks = nn.ModuleList([Block(channels, grid, shifted=index % 2 == 1, **block) for index in range(depth)])
        self.downsample = PatchMerging(channels) if down else None
        self.upsample = PatchExpand(channels, 2, channels // 2) if up else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        change = self.downsample or self.upsample
        return x if change is None else change(x)


class SwinUNet(nn.Module):
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
    ):
        super().__init__()
        widths = [embed_dim << level for level in range(4)]

        def stage(level: int, *, down: bool = False, up: bool = False) -> Stage:
            return Stage(
                widths[level],
                img_size // (PATCH << level),
                depth=depths[level],
                down=down,
                up=up,
                heads=num_heads[level],
                window=window_size,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
            )

        self.patch_embed = PatchEmbed(in_channels, embed_dim)
        self.layers = nn.ModuleList([stage(level, down=level < 3) for level in range(4)])
        self.norm = nn.LayerNorm(widths[3])
        self.layers_up = nn.ModuleList(
            [PatchExpand(widths[3], 2, widths[2]), *(stage(level, up=level > 0) for level in (2, 1, 0))]
        )
        self.concat_back_dim = nn.ModuleDict({str(3 - level): nn.Linear(2 * widths[level], widths[level]) for level in (2, 1, 0)})
        self.norm_up = nn.LayerNorm(embed_dim)
        self.up = PatchExpand(embed_dim, PATCH, embed_dim)
        self.output = nn.Conv2d(embed_dim, n_classes, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        skips = []
        for layer in self.layers:
            skips.append(x)
            x = layer(x)
        x = self.layers_up[0](self.norm(x))
        for level in (2, 1, 0):
            x = self.concat_back_dim[str(3 - level)](torch.cat([x, skips[level]], -1))
            x = self.layers_up[3 - level](x)
        return self.output(self.up(self.norm_up(x)).permute(0, 3, 1, 2))


class SwinUNetWrapper(nn.Module):
    """The published wrapper: the same network one name deeper, a 1-channel image repeated to 3."""

    def __init__(self, in_channels: int, n_classes: int, img_size: int, **arguments: Any):
        super().__init__()
        self.swin_unet = SwinUNet(3 if in_channels == 1 else in_channels, n_classes, img_size, **arguments)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.swin_unet(x.repeat(1, 3, 1, 1) if x.shape[1] == 1 else x)
