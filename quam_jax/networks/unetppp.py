"""UNet3+ of the QUAM-SM publication: every decoder level sees all encoder and deeper decoder levels; a 3x3 head.

Each of the four branches of a level is resized to it (max-pool with partial windows kept, or bilinear interpolation
without aligned corners), reduced to `channels` by a 3x3 convolution and ReLU; their concatenation passes one more. The
published `is_deconv` has no effect and BatchNorm and dropout are in the encoder only.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .activations import relu
from .architecture import Architecture
from .layers import Conv
from .pooling import max_pool
from .published_blocks import TripleBlock, infer_published
from .recomputation import recomputable
from .resizing import resize_linear, space_size

LEVELS = 4


def _branch(source: int, level: int) -> str:
    """The published name of the convolution that brings a level to another; decoder levels are hd4 (= h4's) to hd1."""
    if source < level:
        return f"h{source}_PT_hd{level}_conv"
    return f"h{source}_Cat_hd{level}_conv" if source == level else f"hd{source}_UT_hd{level}_conv"


class UNetppp(nnx.Module):
    """UNet3+; image sides must be multiples of 8."""

    size_multiple = 8
    cuts = {"head": ("outconv1",), "last_block": ("conv1d_1", "outconv1")}

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        channels: int = 64,
        *,
        is_batchnorm: bool = True,
        drop: float = 0.3,
        rngs: nnx.Rngs,
    ):
        wide = LEVELS * channels
        for level in range(1, LEVELS + 1):
            inputs = in_channels if level == 1 else channels
            setattr(self, f"conv{level}", TripleBlock(inputs, channels, batchnorm=is_batchnorm, drop=drop, rngs=rngs))
            for source in range(1, LEVELS + 1):
                setattr(self, _branch(source, level), Conv(wide if source > level else channels, channels, 3, rngs=rngs))
            setattr(self, f"conv{level}d_1", Conv(wide, wide, 3, rngs=rngs))
        self.outconv1 = Conv(wide, n_classes, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut: the head's input, or the four branches of the last level."""
        features = {}  # encoder levels, each replaced by its decoder level from the deepest on
        for level in range(1, LEVELS + 1):
            x = getattr(self, f"conv{level}")(x if level == 1 else max_pool(x, 2), mode)
            features[level] = x
        for level in range(LEVELS, 1, -1):
            features[level] = self._merge(level, self._branches(level, features))
        last = self._branches(1, features)
        return last if cut == "last_block" else self._merge(1, last)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        return self.outconv1(self._merge(1, activation) if cut == "last_block" else activation)

    @recomputable
    def _branches(self, level: int, features: dict[int, Array]) -> Float[Array, "b h w f"]:
        size = space_size(features[level])

        def resized(source: int) -> Array:
            value = features[source]
            if source < level:
                return max_pool(value, 2 ** (level - source), ceil_mode=True)
            return resize_linear(value, size, align_corners=False)

        return jnp.concatenate(
            [relu(getattr(self, _branch(source, level))(resized(source))) for source in range(1, LEVELS + 1)], -1
        )

    @recomputable
    def _merge(self, level: int, branches: Float[Array, "b h w f"]) -> Float[Array, "b *out f"]:
        return relu(getattr(self, f"conv{level}d_1")(branches))


ARCHITECTURES = (
    Architecture(
        "unetppp", UNetppp, title="U-Net 3+", telling="hd4_UT_hd1_conv.weight", infer=infer_published("conv1", None, "outconv1")
    ),
)
