"""Plain U-Net of the QUAM-SM publication: five levels of equal width, a 3x3 head, no dropout.

The cut `last_block` lies behind the last up-sampling and concatenation, so that what moves is a few stride-1 convolutions
at full resolution.
"""

from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .architecture import Architecture
from .layers import Conv
from .pooling import max_pool
from .published_blocks import TripleBlock, UpBlock, infer_published


class UNet(nnx.Module):
    """U-Net; image sides must be multiples of 16. `drop` and `decoder_drop` are those of `unet_dropout`."""

    size_multiple = 16
    cuts = {"head": ("outconv1",), "last_block": ("up_concat1.conv", "outconv1")}

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
        rngs: nnx.Rngs,
    ):
        def triple(inputs: int) -> TripleBlock:
            return TripleBlock(inputs, channels, batchnorm=is_batchnorm, drop=drop, rngs=rngs)

        def up() -> UpBlock:
            return UpBlock(channels, channels, skips=1, deconv=is_deconv, drop=decoder_drop, rngs=rngs)

        self.conv1 = triple(in_channels)
        self.conv2, self.conv3, self.conv4, self.center = (triple(channels) for _ in range(4))
        self.up_concat4, self.up_concat3, self.up_concat2, self.up_concat1 = (up() for _ in range(4))
        self.outconv1 = Conv(channels, n_classes, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut: the head's input, or the last triple block's."""
        e1 = self.conv1(x, mode)
        e2 = self.conv2(max_pool(e1, 2), mode)
        e3 = self.conv3(max_pool(e2, 2), mode)
        e4 = self.conv4(max_pool(e3, 2), mode)
        d4 = self.up_concat4(self.center(max_pool(e4, 2), mode), [e4], mode)
        d3 = self.up_concat3(d4, [e3], mode)
        last = self.up_concat1.join(self.up_concat2(d3, [e2], mode), [e1])
        return last if cut == "last_block" else self.up_concat1.conv(last, mode)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        return self.outconv1(self.up_concat1.conv(activation, mode) if cut == "last_block" else activation)


ARCHITECTURES = (
    Architecture(
        "unet",
        UNet,
        title="U-Net",
        telling="up_concat4.conv.conv1.0.weight",
        infer=infer_published("conv1", "up_concat4", "outconv1"),
    ),
)
