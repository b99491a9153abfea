"""The attention U-Net in PyTorch, for the tests that hold conversions against it; imports no torch by itself."""

from typing import Any


def attention_unet(torch: Any, channels: int, *, in_channels: int, n_classes: int) -> Any:
    """A PyTorch twin of the attention U-Net with BatchNorm and transposed convolutions, from its
    specification.
    """
    nn = torch.nn

    class Triple(nn.Module):
        def __init__(self, inputs: int, *, batchnorm: bool = True) -> None:
            super().__init__()
            for index, width in enumerate((inputs, channels, channels), start=1):
                norm = [nn.BatchNorm2d(channels)] if batchnorm else []
                stage = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1), *norm, nn.ReLU(inplace=True), nn.Dropout2d(0.3))
                setattr(self, f"conv{index}", stage)

        def forward(self, x: Any) -> Any:
            return self.conv3(self.conv2(self.conv1(x)))

    class Up(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Triple(channels, batchnorm=False)
            self.up = nn.ConvTranspose2d(channels, channels, 4, 2, 1)

        def forward(self, x: Any) -> Any:
            return self.conv(self.up(x))

    class Gate(nn.Module):
        def __init__(self, inner: int) -> None:
            super().__init__()
            self.W_g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
            self.W_x = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
            self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

        def forward(self, gate: Any, x: Any) -> Any:
            return x * self.psi(torch.relu(self.W_g(gate) + self.W_x(x)))

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for level in range(1, 5):
                setattr(self, f"Conv{level}", Triple(in_channels if level == 1 else channels))
            for level in (4, 3, 2):
                setattr(self, f"Up{level}", Up())
                setattr(self, f"Att{level}", Gate(32 if level == 2 else channels))
                setattr(self, f"Up_conv{level}", Triple(2 * channels))
            self.Conv = nn.Conv2d(channels, n_classes, 1)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Any) -> Any:
            skips = [self.Conv1(x)]
            for level in (2, 3, 4):
                skips.append(getattr(self, f"Conv{level}")(self.pool(skips[-1])))
            x = skips[3]
            for level in (4, 3, 2):
                up = getattr(self, f"Up{level}")(x)
                gated = getattr(self, f"Att{level}")(up, skips[level - 2])
                x = getattr(self, f"Up_conv{level}")(torch.cat([gated, up], 1))
            return self.Conv(x)

    twin = Twin()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.1)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
    return twin
