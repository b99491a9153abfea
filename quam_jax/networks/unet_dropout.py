"""U-Net with channel dropout of the QUAM-SM publication: `unet` with `drop` in the encoder and 0.3 in the up blocks.

The published class keeps 0.3 in its up blocks whatever its `drop` says; here that rate is the parameter `decoder_drop`.
"""

from flax import nnx

from .architecture import Architecture
from .published_blocks import infer_published
from .unet import UNet


class UNetDropout(UNet):
    """The U-Net with the published dropout rates as defaults; image sides must be multiples of 16."""

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
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            n_classes,
            channels,
            is_deconv=is_deconv,
            is_batchnorm=is_batchnorm,
            drop=drop,
            decoder_drop=decoder_drop,
            rngs=rngs,
        )


# no name tells it: its weights are those of `unet`
ARCHITECTURES = (
    Architecture(
        "unet_dropout", UNetDropout, title="U-Net with dropout", infer=infer_published("conv1", "up_concat4", "outconv1")
    ),
)
