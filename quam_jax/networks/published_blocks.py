"""The two blocks that the published U-Net family is built of: three convolutions in a row, and up-sample-concatenate."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..core.network import Mode
from .activations import relu
from .architecture import Named
from .dropout import ChannelDropout
from .layers import Conv, ConvTranspose, conv_norm
from .norms import BatchNorm
from .recomputation import recomputable
from .resizing import resize_linear, space_size


class TripleBlock(nnx.Module):
    """Three times [3x3 convolution, BatchNorm if asked, ReLU, channel dropout]; sides stay as they are but on patches."""

    def __init__(self, inputs: int, outputs: int, *, batchnorm: bool, drop: float, rngs: nnx.Rngs):
        def stage(width: int) -> nnx.List:
            conv = Conv(width, outputs, 3, rngs=rngs)
            return nnx.List([conv, BatchNorm(outputs)] if batchnorm else [conv])

        self.conv1, self.conv2, self.conv3 = stage(inputs), stage(outputs), stage(outputs)
        self.dropout = ChannelDropout(drop)

    @recomputable
    def __call__(self, x: Float[Array, "b h w i"], mode: Mode) -> Float[Array, "b *out o"]:
        for stage in (self.conv1, self.conv2, self.conv3):
            x = conv_norm(stage, x, mode) if len(stage) == 2 else stage[0](x)
            x = self.dropout(relu(x), mode)
        return x


class UpBlock(nnx.Module):
    """Doubles the size of its first input, concatenates [up-sampled, *skips], then a triple block without BatchNorm.

    Up-sampling is a 4x4 transposed convolution of stride 2, or bilinear with aligned corners.
    """

    def __init__(self, inputs: int, outputs: int, *, skips: int, deconv: bool, drop: float, rngs: nnx.Rngs):
        self.up = ConvTranspose(inputs, inputs, 4, stride=2, padding=1, rngs=rngs) if deconv else None
        self.conv = TripleBlock(inputs + skips * outputs, outputs, batchnorm=False, drop=drop, rngs=rngs)

    @recomputable
    def __call__(
        self, x: Float[Array, "b h w i"], skips: Sequence[Float[Array, "b u v o"]], mode: Mode
    ) -> Float[Array, "b u v o"]:
        return self.conv(self.join(x, skips), mode)

    @recomputable
    def join(self, x: Float[Array, "b h w i"], skips: Sequence[Float[Array, "b u v o"]]) -> Float[Array, "b u v j"]:
        """The input of the triple block: [doubled input, *skips] on channels."""
        up = resize_linear(x, [2 * n for n in space_size(x)], align_corners=True) if self.up is None else self.up(x)
        return jnp.concatenate([up, *skips], -1) if skips else up


def infer_published(first: str, up: str | None, head: str) -> Callable[[Named], dict[str, Any]]:
    """The U-Net family: channels from the first block, flags from the presence of tensors."""

    def infer(shapes: Named) -> dict[str, Any]:
        channels, in_channels = shapes[f"{first}.conv1.0.weight"][:2]
        found = {
            "in_channels": in_channels,
            "n_classes": shapes[f"{head}.weight"][0],
            "channels": channels,
            "is_batchnorm": f"{first}.conv1.1.weight" in shapes,
        }
        return found if up is None else {**found, "is_deconv": f"{up}.up.weight" in shapes}

    return infer
