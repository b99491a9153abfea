"""Attention U-Net of the QUAM-SM publication: four levels of equal width, gated skips, a 1x1 head.

The published class keeps a dropout of 0.3 in its three up-sampling blocks whatever its `drop` says; here that rate is the
parameter `decoder_drop`. The attention gates always have BatchNorm, and the inner width of the last gate is always 32.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .activations import relu
from .architecture import Architecture
from .layers import Conv, conv_norm
from .norms import BatchNorm
from .pooling import max_pool
from .published_blocks import TripleBlock, UpBlock, infer_published
from .recomputation import recomputable


class AttentionGate(nnx.Module):
    """x * sigmoid(BN(1x1(relu(BN(1x1 gate) + BN(1x1 x))))), the gate broadcast over channels (Oktay et al. 2018)."""

    def __init__(self, gate: int, inputs: int, inner: int, *, rngs: nnx.Rngs):
        self.W_g = nnx.List([Conv(gate, inner, 1, rngs=rngs), BatchNorm(inner)])
        self.W_x = nnx.List([Conv(inputs, inner, 1, rngs=rngs), BatchNorm(inner)])
        self.psi = nnx.List([Conv(inner, 1, 1, rngs=rngs), BatchNorm(1)])

    @recomputable
    def __call__(self, gate: Float[Array, "b h w g"], x: Float[Array, "b h w c"], mode: Mode) -> Float[Array, "b h w c"]:
        inner = relu(conv_norm(self.W_g, gate, mode) + conv_norm(self.W_x, x, mode))
        return x * jax.nn.sigmoid(conv_norm(self.psi, inner, mode))


class AttUNet(nnx.Module):
    """Attention U-Net; image sides must be multiples of 8."""

    size_multiple = 8
    cuts = {"head": ("Conv",), "last_block": ("Up_conv2", "Conv")}

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
        def triple(inputs: int) -> TripleBlock:
            return TripleBlock(inputs, channels, batchnorm=is_batchnorm, drop=drop, rngs=rngs)

        def up() -> UpBlock:
            return UpBlock(channels, channels, skips=0, deconv=is_deconv, drop=decoder_drop, rngs=rngs)

        self.Conv1, self.Conv2, self.Conv3, self.Conv4 = triple(in_channels), *(triple(channels) for _ in range(3))
        self.Up4, self.Att4 = up(), AttentionGate(channels, channels, channels, rngs=rngs)
        self.Up_conv4 = triple(2 * channels)
        self.Up3, self.Att3 = up(), AttentionGate(channels, channels, channels, rngs=rngs)
        self.Up_conv3 = triple(2 * channels)
        self.Up2, self.Att2 = up(), AttentionGate(channels, channels, 32, rngs=rngs)
        self.Up_conv2 = triple(2 * channels)
        self.Conv = Conv(channels, n_classes, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut: the head's input, or the last block's."""
        e1 = self.Conv1(x, mode)
        e2 = self.Conv2(max_pool(e1, 2), mode)
        e3 = self.Conv3(max_pool(e2, 2), mode)
        e4 = self.Conv4(max_pool(e3, 2), mode)

        def gated(upsampled: Array, skip: Array, gate: AttentionGate) -> Array:
            return jnp.concatenate([gate(upsampled, skip, mode), upsampled], -1)

        d4 = self.Up_conv4(gated(self.Up4(e4, [], mode), e3, self.Att4), mode)
        d3 = self.Up_conv3(gated(self.Up3(d4, [], mode), e2, self.Att3), mode)
        last = gated(self.Up2(d3, [], mode), e1, self.Att2)
        return last if cut == "last_block" else self.Up_conv2(last, mode)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        return self.Conv(self.Up_conv2(activation, mode) if cut == "last_block" else activation)


ARCHITECTURES = (
    Architecture(
        "att_unet", AttUNet, title="Attention U-Net", telling="Att4.psi.0.weight", infer=infer_published("Conv1", "Up4", "Conv")
    ),
)
