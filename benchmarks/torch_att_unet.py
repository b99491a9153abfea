"""The attention U-Net in PyTorch, written from its description: the other side of speed and parity comparisons.

Parameter names equal those of the published state_dict, so one file of weights serves both sides.
"""

import torch
from torch import nn

from .torch_blocks import TripleBlock, UpBlock


class Gate(nn.Module):
    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.W_x = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, gate: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x * self.psi(torch.relu(self.W_g(gate) + self.W_x(x)))


class AttUNet(nn.Module):
    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        channels: int = 64,
        *,
        is_deconv: bool = True,
        is_batchnorm: bool = True,
        drop: float = 0.3,
        decoder_drop: float = 0.3,
    ):
        super().__init__()

        def triple(inputs: int) -> TripleBlock:
            return TripleBlock(inputs, channels, batchnorm=is_batchnorm, drop=drop)

        self.Conv1, self.Conv2, self.Conv3, self.Conv4 = triple(in_channels), *(triple(channels) for _ in range(3))
        for level, inner in ((4, channels), (3, channels), (2, 32)):
            setattr(self, f"Up{level}", UpBlock(channels, skips=0, deconv=is_deconv, drop=decoder_drop))
            setattr(self, f"Att{level}", Gate(channels, inner))
            setattr(self, f"Up_conv{level}", triple(2 * channels))
        self.Conv = nn.Conv2d(channels, n_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pool = nn.functional.max_pool2d
        e1 = self.Conv1(x)
        e2 = self.Conv2(pool(e1, 2))
        e3 = self.Conv3(pool(e2, 2))
        d = self.Conv4(pool(e3, 2))
        for level, skip in ((4, e3), (3, e2), (2, e1)):
            up = getattr(self, f"Up{level}")(d)
            d = getattr(self, f"Up_conv{level}")(torch.cat([getattr(self, f"Att{level}")(up, skip), up], 1))
        return self.Conv(d)
