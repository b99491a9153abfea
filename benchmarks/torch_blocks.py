"""The two blocks of the published U-Net family in PyTorch, with the published names of their weights."""

import torch
from torch import nn


def _stage(inputs: int, outputs: int, *, batchnorm: bool, drop: float) -> nn.Sequential:
    norm = [nn.BatchNorm2d(outputs)] if batchnorm else []
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), *norm, nn.ReLU(inplace=True), nn.Dropout2d(drop))


class TripleBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, batchnorm: bool, drop: float):
        super().__init__()
        self.conv1 = _stage(inputs, outputs, batchnorm=batchnorm, drop=drop)
        self.conv2 = _stage(outputs, outputs, batchnorm=batchnorm, drop=drop)
        self.conv3 = _stage(outputs, outputs, batchnorm=batchnorm, drop=drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(self.conv2(self.conv1(x)))


class UpBlock(nn.Module):
    def __init__(self, channels: int, *, skips: int, deconv: bool, drop: float):
        super().__init__()
        self.conv = TripleBlock((1 + skips) * channels, channels, batchnorm=False, drop=drop)
        self.up = nn.ConvTranspose2d(channels, channels, 4, 2, 1) if deconv else nn.UpsamplingBilinear2d(scale_factor=2)

    def forward(self, x: torch.Tensor, *skips: torch.Tensor) -> torch.Tensor:
        up = self.up(x)
        return self.conv(torch.cat([up, *skips], 1) if skips else up)
