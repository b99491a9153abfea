"""Two small PyTorch networks with the outputs of real ones, for the tests of imported graphs."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


class Small(nn.Module):
    """A U-Net of one level with an auxiliary head: as much as torchvision's networks return."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.GELU(), nn.Dropout(0.5))
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.last = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU())
        self.head, self.aux = nn.Conv2d(4, 3, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Any) -> Any:
        skip = self.first(x)
        deep = self.deep(skip)
        y = self.last(torch.cat([self.up(deep), skip], 1))
        return {"out": self.head(y), "aux": self.aux(deep)}


class Coarse(nn.Module):
    """Logits at a quarter of the image's sides, in a tuple of two."""

    def __init__(self, resize: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.resize = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 2, 1), resize

    def forward(self, x: Any) -> Any:
        y = self.head(torch.tanh(self.body(x)))
        if self.resize:
            y = nn.functional.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)
        return y, -y


def seeded(module: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            with torch.no_grad():
                value.uniform_(0.5, 1.5, generator=generator) if "var" in name else value.normal_(0, 0.5, generator=generator)
    return module


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def last(x: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(x), 1, -1)
