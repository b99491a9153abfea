"""W-Net of lwnet (Galdran et al. 2020, "The Little W-Net That Could"): two small residual U-Nets in a row.

The second U-Net sees the image and the logits of the first; its logits are the output. With one class they are those of a
sigmoid, as published. Normalisation comes after the ReLU in this architecture.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .activations import relu
from .architecture import Architecture, Named
from .layers import Conv, ConvTranspose, conv_norm
from .norms import BatchNorm
from .pooling import max_pool
from .recomputation import recomputable


class ConvBlock(nnx.Module):
    """Twice [3x3 convolution, ReLU, BatchNorm], plus a 1x1 convolution and BatchNorm of the input."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        # the keys are the places in the published sequence; the ReLUs at 1 and 4 have no parameters
        self.block = nnx.Dict(
            {
                "0": Conv(inputs, outputs, 3, rngs=rngs),
                "2": BatchNorm(outputs),
                "3": Conv(outputs, outputs, 3, rngs=rngs),
                "5": BatchNorm(outputs),
            }
        )
        self.shortcut = nnx.List([Conv(inputs, outputs, 1, bias=False, rngs=rngs), BatchNorm(outputs)])

    @recomputable
    def __call__(self, x: Float[Array, "b h w i"], mode: Mode) -> Float[Array, "b h w o"]:
        y = self.block["2"](relu(self.block["0"](x)), mode)
        y = self.block["5"](relu(self.block["3"](y)), mode)
        return y + conv_norm(self.shortcut, x, mode)


class BridgeBlock(nnx.Module):
    """3x3 convolution, ReLU, BatchNorm: what a skip passes through."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.block = nnx.Dict({"0": Conv(channels, channels, 3, rngs=rngs), "2": BatchNorm(channels)})

    def __call__(self, x: Float[Array, "b h w c"], mode: Mode) -> Float[Array, "b h w c"]:
        return self.block["2"](relu(self.block["0"](x)), mode)


class UpSample(nnx.Module):
    """2x2 transposed convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.block = nnx.List([ConvTranspose(inputs, outputs, 2, stride=2, rngs=rngs)])

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b u v o"]:
        return self.block[0](x)


class UpConvBlock(nnx.Module):
    """[up-sampled, bridged skip] on channels, then a residual block."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.up_layer = UpSample(inputs, outputs, rngs=rngs)
        self.conv_bridge_layer = BridgeBlock(outputs, rngs=rngs)
        self.conv_layer = ConvBlock(2 * outputs, outputs, rngs=rngs)

    @recomputable
    def join(self, x: Float[Array, "b h w i"], skip: Float[Array, "b u v o"], mode: Mode) -> Float[Array, "b u v j"]:
        """The input of the residual block."""
        return jnp.concatenate([self.up_layer(x), self.conv_bridge_layer(skip, mode)], -1)


class LittleUNet(nnx.Module):
    """One residual U-Net with a 1x1 head."""

    def __init__(self, in_channels: int, n_classes: int, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        self.first = ConvBlock(in_channels, widths[0], rngs=rngs)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down_path = nnx.List([ConvBlock(i, o, rngs=rngs) for i, o in pairs])
        self.up_path = nnx.List([UpConvBlock(o, i, rngs=rngs) for i, o in reversed(pairs)])
        self.final = Conv(widths[0], n_classes, 1, rngs=rngs)

    def last_input(self, x: Float[Array, "b h w i"], mode: Mode) -> Float[Array, "b h w f"]:
        """The input of the last residual block."""
        x = self.first(x, mode)
        skips = []
        for down in self.down_path:
            skips.append(x)
            x = down(max_pool(x, 2), mode)
        *inner, last = self.up_path
        for up in inner:
            x = up.conv_layer(up.join(x, skips.pop(), mode), mode)
        return last.join(x, skips.pop(), mode)

    def last_block(self, x: Float[Array, "b h w f"], mode: Mode) -> Float[Array, "b h w g"]:
        """The head's input."""
        return self.up_path[-1].conv_layer(x, mode)


class WNet(nnx.Module):
    """Two little U-Nets with the widths of their levels; image sides must be multiples of 2^(levels - 1)."""

    def __init__(self, in_channels: int, n_classes: int, widths: tuple[int, ...] = (8, 16, 32), *, rngs: nnx.Rngs):
        if len(widths) < 2:
            raise ValueError(f"wnet widths: expected two levels or more, got {tuple(widths)}")
        self.size_multiple = 2 ** (len(widths) - 1)
        self.unet1 = LittleUNet(in_channels, n_classes, widths, rngs=rngs)
        self.unet2 = LittleUNet(in_channels + n_classes, n_classes, widths, rngs=rngs)

    @property
    def cuts(self) -> dict[str, tuple[str, ...]]:
        """What stands behind each cut, in the second net."""
        last = f"unet2.up_path.{len(self.unet2.up_path) - 1}.conv_layer"
        return {"head": ("unet2.final",), "last_block": (last, "unet2.final")}

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut: the input of the second net's head, or of its last residual block."""
        first = self.unet1.final(self.unet1.last_block(self.unet1.last_input(x, mode), mode))
        last = self.unet2.last_input(jnp.concatenate([x, first], -1), mode)
        return last if cut == "last_block" else self.unet2.last_block(last, mode)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b h w c"]:
        """Logits from the activation in front of the cut."""
        return self.unet2.final(self.unet2.last_block(activation, mode) if cut == "last_block" else activation)


def _infer(shapes: Named) -> dict[str, Any]:
    first = shapes["unet1.first.block.0.weight"]
    down = [shapes[f"unet1.down_path.{n}.block.0.weight"][0] for n in range(shapes.count("unet1.down_path.{}.block.0.weight"))]
    return {"in_channels": first[1], "n_classes": shapes["unet2.final.weight"][0], "widths": (first[0], *down)}


ARCHITECTURES = (
    Architecture("wnet", WNet, title="W-Net, little U-Net (lwnet)", telling="unet2.first.block.0.weight", infer=_infer),
)
