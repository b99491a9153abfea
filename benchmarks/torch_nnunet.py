"""nnU-Net's two networks in PyTorch, in two and three dimensions, written from the facts of its plans file.

Parameter names equal those of nnU-Net's state_dict without its aliases; of the deep-supervision heads the last is here.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn


def _kind(name: str, rank: int) -> Any:
    return getattr(nn, f"{name}{rank}d")


class Unit(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        *,
        stride: Sequence[int] | int = 1,
        bias: bool,
        linear: bool = False,
    ):
        super().__init__()
        rank = len(kernel)
        self.conv = _kind("Conv", rank)(inputs, outputs, tuple(kernel), stride, [k // 2 for k in kernel], bias=bias)
        self.norm = _kind("InstanceNorm", rank)(outputs, eps=1e-5, affine=True)
        self.nonlin = nn.Identity() if linear else nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlin(self.norm(self.conv(x)))


class Stack(nn.Module):
    def __init__(
        self, count: int, inputs: int, outputs: int, kernel: Sequence[int], *, stride: Sequence[int] | int = 1, bias: bool
    ):
        super().__init__()
        self.convs = nn.Sequential(
            *(Unit(outputs if n else inputs, outputs, kernel, stride=1 if n else stride, bias=bias) for n in range(count))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs(x)


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], *, stride: Sequence[int], bias: bool):
        super().__init__()
        rank = len(kernel)
        self.conv1 = Unit(inputs, outputs, kernel, stride=stride, bias=bias)
        self.conv2 = Unit(outputs, outputs, kernel, bias=bias, linear=True)
        pool = [_kind("AvgPool", rank)(tuple(stride), tuple(stride))] if math.prod(stride) > 1 else []
        project = [Unit(inputs, outputs, (1,) * rank, bias=False, linear=True)] if inputs != outputs else []
        self.skip = nn.Sequential(*pool, *project)
        self.nonlin = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlin(self.conv2(self.conv1(x)) + self.skip(x))


class ResidualStage(nn.Module):
    def __init__(self, count: int, inputs: int, outputs: int, kernel: Sequence[int], *, stride: Sequence[int], bias: bool):
        super().__init__()
        ones = (1,) * len(kernel)
        self.blocks = nn.Sequential(
            *(Residual(outputs if n else inputs, outputs, kernel, stride=ones if n else stride, bias=bias) for n in range(count))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class Encoder(nn.Module):
    def __init__(
        self,
        in_channels: int,
        features: Sequence[int],
        counts: Sequence[int],
        *,
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        bias: bool,
        residual: bool,
    ):
        super().__init__()
        self.stem = Stack(1, in_channels, features[0], kernels[0], bias=bias) if residual else nn.Identity()
        pairs = pairwise((features[0] if residual else in_channels, *features))
        stages: list[nn.Module] = []
        for (inputs, outputs), count, kernel, stride in zip(pairs, counts, kernels, strides, strict=True):
            stages.append(
                ResidualStage(count, inputs, outputs, kernel, stride=stride, bias=bias)
                if residual
                else nn.Sequential(Stack(count, inputs, outputs, kernel, stride=stride, bias=bias))
            )
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    def __init__(
        self,
        n_classes: int,
        features: Sequence[int],
        counts: Sequence[int],
        *,
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        bias: bool,
    ):
        super().__init__()
        rank, last = len(kernels[0]), len(features) - 2
        levels = range(last, -1, -1)
        self.transpconvs = nn.ModuleList(
            [
                _kind("ConvTranspose", rank)(
                    features[s + 1], features[s], tuple(strides[s + 1]), tuple(strides[s + 1]), bias=bias
                )
                for s in levels
            ]
        )
        self.stages = nn.ModuleList(
            [Stack(count, 2 * features[s], features[s], kernels[s], bias=bias) for count, s in zip(counts, levels, strict=True)]
        )
        self.seg_layers = nn.ModuleDict({str(last): _kind("Conv", rank)(features[0], n_classes, 1)})

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = skips
        for up, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat([up(x), skips.pop()], 1))
        return self.seg_layers[str(len(self.stages) - 1)](x)


class NNUNet(nn.Module):
    """Either network; the arguments are those of `quam_jax.networks.nnunet`, spelled out for every stage."""

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        features_per_stage: Sequence[int],
        *,
        rank: int,
        residual: bool,
        counts: Sequence[int],
        decoder_counts: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        conv_bias: bool = True,
    ):
        super().__init__()
        shared = {"kernels": kernel_sizes, "strides": strides, "bias": conv_bias}
        self.encoder = Encoder(in_channels, features_per_stage, counts, residual=residual, **shared)
        self.decoder = Decoder(n_classes, features_per_stage, decoder_counts, **shared)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))
