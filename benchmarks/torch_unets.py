"""U-Net, UNet++, UNet3+, SegNet, the plain U-Net and W-Net in PyTorch, written from their descriptions.

Parameter names equal those of the published state_dicts; what the networks are is described in `quam_jax.networks`.
"""

import torch
from torch import nn
from torch.nn import functional

from .torch_blocks import TripleBlock, UpBlock


class UNet(nn.Module):
    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        channels: int = 64,
        *,
        is_deconv: bool = True,
        is_batchnorm: bool = True,
        drop: float = 0.0,
        decoder_drop: float = 0.0,
    ):
        super().__init__()
        for name in ("conv1", "conv2", "conv3", "conv4", "center"):
            inputs = in_channels if name == "conv1" else channels
            setattr(self, name, TripleBlock(inputs, channels, batchnorm=is_batchnorm, drop=drop))
        for level in (4, 3, 2, 1):
            setattr(self, f"up_concat{level}", UpBlock(channels, skips=1, deconv=is_deconv, drop=decoder_drop))
        self.outconv1 = nn.Conv2d(channels, n_classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in (1, 2, 3, 4):
            x = getattr(self, f"conv{level}")(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.center(x)
        for level in (4, 3, 2, 1):
            x = getattr(self, f"up_concat{level}")(x, skips.pop())
        return self.outconv1(x)


class UNetpp(nn.Module):
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
        for i in range(5):
            setattr(self, f"conv{i}0", TripleBlock(channels if i else in_channels, channels, batchnorm=is_batchnorm, drop=drop))
        for j in range(1, 5):
            for i in range(5 - j):
                setattr(self, f"up_concat{i}{j}", UpBlock(channels, skips=j, deconv=is_deconv, drop=decoder_drop))
            setattr(self, f"final_{j}", nn.Conv2d(channels, n_classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nodes = {}
        for i in range(5):
            x = nodes[i, 0] = getattr(self, f"conv{i}0")(functional.max_pool2d(x, 2) if i else x)
        for j in range(1, 5):
            for i in range(5 - j):
                nodes[i, j] = getattr(self, f"up_concat{i}{j}")(nodes[i + 1, j - 1], *(nodes[i, k] for k in range(j)))
        return (self.final_1(nodes[0, 1]) + self.final_2(nodes[0, 2]) + self.final_3(nodes[0, 3]) + self.final_4(nodes[0, 4])) / 4


class UNetppp(nn.Module):
    def __init__(self, in_channels: int, n_classes: int, channels: int = 64, *, is_batchnorm: bool = True, drop: float = 0.3):
        super().__init__()
        wide = 4 * channels
        for level in (1, 2, 3, 4):
            inputs = in_channels if level == 1 else channels
            setattr(self, f"conv{level}", TripleBlock(inputs, channels, batchnorm=is_batchnorm, drop=drop))
            for source in (1, 2, 3, 4):
                width = wide if source > level else channels
                setattr(self, self.branch(source, level), nn.Conv2d(width, channels, 3, padding=1))
            setattr(self, f"conv{level}d_1", nn.Conv2d(wide, wide, 3, padding=1))
        self.outconv1 = nn.Conv2d(wide, n_classes, 3, padding=1)

    @staticmethod
    def branch(source: int, level: int) -> str:
        if source < level:
            return f"h{source}_PT_hd{level}_conv"
        return f"h{source}_Cat_hd{level}_conv" if source == level else f"hd{source}_UT_hd{level}_conv"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = {}
        for level in (1, 2, 3, 4):
            x = features[level] = getattr(self, f"conv{level}")(functional.max_pool2d(x, 2) if level > 1 else x)
        for level in (4, 3, 2, 1):
            parts = []
            for source in (1, 2, 3, 4):
                value = features[source]
                if source < level:
                    value = functional.max_pool2d(value, 2 ** (level - source), ceil_mode=True)
                elif source > level:
                    value = functional.interpolate(value, scale_factor=2 ** (source - level), mode="bilinear")
                parts.append(torch.relu(getattr(self, self.branch(source, level))(value)))
            features[level] = torch.relu(getattr(self, f"conv{level}d_1")(torch.cat(parts, 1)))
        return self.outconv1(features[1])


class ConvStack(nn.Module):
    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
                for i, o in zip(widths[:-1], widths[1:], strict=True)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class SegNet(nn.Module):
    def __init__(self, in_channels: int, n_classes: int, widths: tuple[int, ...] = (64, 128, 256, 512)):
        super().__init__()
        a, b, c, d = widths
        encoders = ((in_channels, a, a), (a, b, b), (b, c, c, c), (c, d, d, d), (d, d, d, d))
        decoders = ((a, a), (b, b, a), (c, c, c, b), (d, d, d, c), (d, d, d, d))
        for level in range(5):
            setattr(self, f"encoder{level}", ConvStack(encoders[level]))
            setattr(self, f"decoder{level}", ConvStack(decoders[level]))
        self.conv = nn.Conv2d(a, n_classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = []
        for level in range(5):
            x = getattr(self, f"encoder{level}")(x)
            size = x.shape[2:]
            x, place = functional.max_pool2d(x, 2, return_indices=True)
            places.append((place, size))
        for level in reversed(range(5)):
            place, size = places[level]
            x = getattr(self, f"decoder{level}")(functional.max_unpool2d(x, place, 2, output_size=size))
        return self.conv(x)


class PlainUNet(nn.Module):
    def __init__(self, in_channels: int, n_classes: int, channels: int = 32, *, drop: float = 0.2):
        super().__init__()
        a, b, c = channels, 2 * channels, 4 * channels
        widths = ((in_channels, a), (a, a), (a, b), (b, b), (b, c), (c, c), (b + c, b), (b, b), (a + b, a), (a, a))
        for number, (inputs, outputs) in enumerate(widths, start=1):
            setattr(self, f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv11 = nn.Conv2d(a, n_classes, 1)
        self.drop = nn.Dropout(drop)

    def block(self, first: int, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(torch.relu(getattr(self, f"conv{first}")(x)))
        return torch.relu(getattr(self, f"conv{first + 1}")(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e1 = self.block(1, x)
        e2 = self.block(3, functional.max_pool2d(e1, 2))
        x = self.block(5, functional.max_pool2d(e2, 2))
        x = self.block(7, torch.cat([functional.interpolate(x, scale_factor=2), e2], 1))
        x = self.block(9, torch.cat([functional.interpolate(x, scale_factor=2), e1], 1))
        return torch.relu(self.conv11(x))


class ResidualConv(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x) + self.shortcut(x)


class Bridge(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class UpSample(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.block = nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class UpConv(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up_layer = UpSample(inputs, outputs)
        self.conv_bridge_layer = Bridge(outputs)
        self.conv_layer = ResidualConv(2 * outputs, outputs)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.conv_layer(torch.cat([self.up_layer(x), self.conv_bridge_layer(skip)], 1))


class LittleUNet(nn.Module):
    def __init__(self, in_channels: int, n_classes: int, widths: tuple[int, ...]):
        super().__init__()
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.first = ResidualConv(in_channels, widths[0])
        self.down_path = nn.ModuleList([ResidualConv(i, o) for i, o in pairs])
        self.up_path = nn.ModuleList([UpConv(o, i) for i, o in reversed(pairs)])
        self.final = nn.Conv2d(widths[0], n_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        skips = []
        for down in self.down_path:
            skips.append(x)
            x = down(functional.max_pool2d(x, 2))
        for up in self.up_path:
            x = up(x, skips.pop())
        return self.final(x)


class WNet(nn.Module):
    def __init__(self, in_channels: int, n_classes: int, widths: tuple[int, ...] = (8, 16, 32)):
        super().__init__()
        self.unet1 = LittleUNet(in_channels, n_classes, widths)
        self.unet2 = LittleUNet(in_channels + n_classes, n_classes, widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unet2(torch.cat([x, self.unet1(x)], 1))
