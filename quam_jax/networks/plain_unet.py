"""Plain U-Net of orobix/retina-unet: two poolings, nearest up-sampling, no normalisation, a ReLU after the 1x1 head.

Its softmax acts on the ReLU of the head's output, so the logits here are never negative. Dropout drops single values (not
channels) between the two convolutions of a block. Sources: github.com/orobix/retina-unet (architecture file, Keras 1).
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .activations import relu
from .architecture import Architecture, Named
from .dropout import ValueDropout
from .layers import Conv
from .pooling import max_pool
from .recomputation import recomputable


class PlainUNet(nnx.Module):
    """Three-level U-Net with widths w, 2w, 4w; image sides must be multiples of 4."""

    size_multiple = 4
    cuts = {"head": ("conv11",), "last_block": ("conv9", "conv10", "conv11")}

    def __init__(self, in_channels: int, n_classes: int, channels: int = 32, *, drop: float = 0.2, rngs: nnx.Rngs):
        a, b, c = channels, 2 * channels, 4 * channels
        self.conv1, self.conv2 = Conv(in_channels, a, 3, rngs=rngs), Conv(a, a, 3, rngs=rngs)
        self.conv3, self.conv4 = Conv(a, b, 3, rngs=rngs), Conv(b, b, 3, rngs=rngs)
        self.conv5, self.conv6 = Conv(b, c, 3, rngs=rngs), Conv(c, c, 3, rngs=rngs)
        self.conv7, self.conv8 = Conv(b + c, b, 3, rngs=rngs), Conv(b, b, 3, rngs=rngs)
        self.conv9, self.conv10 = Conv(a + b, a, 3, rngs=rngs), Conv(a, a, 3, rngs=rngs)
        self.conv11 = Conv(a, n_classes, 1, rngs=rngs)
        self.dropout = ValueDropout(drop)

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut: the head's input, or the last block's."""
        e1 = self._block("conv1", "conv2", x, mode)
        e2 = self._block("conv3", "conv4", max_pool(e1, 2), mode)
        e3 = self._block("conv5", "conv6", max_pool(e2, 2), mode)
        d2 = self._block("conv7", "conv8", jnp.concatenate([_doubled(e3), e2], -1), mode)
        last = jnp.concatenate([_doubled(d2), e1], -1)
        return last if cut == "last_block" else self._block("conv9", "conv10", last, mode)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        if cut == "last_block":
            activation = self._block("conv9", "conv10", activation, mode)
        return relu(self.conv11(activation))

    @recomputable
    def _block(self, first: str, second: str, x: Float[Array, "b h w i"], mode: Mode) -> Float[Array, "b *out o"]:
        return relu(getattr(self, second)(self.dropout(relu(getattr(self, first)(x)), mode)))


def _doubled(x: Float[Array, "b h w c"]) -> Float[Array, "b u v c"]:
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def _infer(shapes: Named) -> dict[str, Any]:
    channels, in_channels = shapes["conv1.weight"][:2]
    return {"in_channels": in_channels, "n_classes": shapes["conv11.weight"][0], "channels": channels}


ARCHITECTURES = (
    Architecture("plain_unet", PlainUNet, title="plain U-Net (orobix/retina-unet)", telling="conv11.weight", infer=_infer),
)
