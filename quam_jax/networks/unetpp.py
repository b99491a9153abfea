"""UNet++ of the QUAM-SM publication: nested up blocks with dense skips, logits the mean of four 1x1 heads.

Node X_ij stands at depth i after j up-samplings: X_ij = up block of [X_(i+1,j-1), X_i0, ..., X_i(j-1)]. The input of the
last node, [up X_13, X_00, X_01, X_02, X_03], holds everything that the four heads need beside it, so both cuts have one
activation at full resolution.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .architecture import Architecture
from .layers import Conv, per_channel
from .pooling import max_pool
from .published_blocks import TripleBlock, UpBlock, infer_published

DEPTH = 4


class UNetpp(nnx.Module):
    """UNet++; image sides must be multiples of 16."""

    size_multiple = 16
    _heads = tuple(f"final_{j}" for j in range(1, DEPTH + 1))
    cuts = {"head": _heads, "last_block": ("up_concat04.conv", *_heads)}
    conv00: TripleBlock
    up_concat04: UpBlock

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
        for i in range(DEPTH + 1):
            setattr(
                self,
                f"conv{i}0",
                TripleBlock(channels if i else in_channels, channels, batchnorm=is_batchnorm, drop=drop, rngs=rngs),
            )
        for j in range(1, DEPTH + 1):
            for i in range(DEPTH + 1 - j):
                setattr(
                    self, f"up_concat{i}{j}", UpBlock(channels, channels, skips=j, deconv=is_deconv, drop=decoder_drop, rngs=rngs)
                )
            setattr(self, f"final_{j}", Conv(channels, n_classes, 1, rngs=rngs))

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut: [up X_13, X_00, ..., X_03], or the heads' inputs [X_01, ..., X_04]."""
        nodes = {(0, 0): self.conv00(x, mode)}
        for i in range(1, DEPTH + 1):
            nodes[i, 0] = getattr(self, f"conv{i}0")(max_pool(nodes[i - 1, 0], 2), mode)
        for j in range(1, DEPTH):
            for i in range(DEPTH + 1 - j):
                skips = [nodes[i, k] for k in range(j)]
                nodes[i, j] = getattr(self, f"up_concat{i}{j}")(nodes[i + 1, j - 1], skips, mode)
        last = self.up_concat04.join(nodes[1, DEPTH - 1], [nodes[0, k] for k in range(DEPTH)])
        return last if cut == "last_block" else self._features(last, mode)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        features = self._features(activation, mode) if cut == "last_block" else activation
        # the mean of four linear maps is one linear map of the concatenated features
        heads = [getattr(self, name) for name in self._heads]
        weight = jnp.concatenate([head.weight[...][0, 0] for head in heads])
        logits = features @ weight
        return (logits + per_channel(sum(head.bias[...] for head in heads), logits)) / DEPTH

    def _features(self, last: Float[Array, "b h w f"], mode: Mode) -> Float[Array, "b *out g"]:
        channels = last.shape[-1] // (DEPTH + 1)
        return jnp.concatenate([last[..., 2 * channels :], self.up_concat04.conv(last, mode)], -1)


ARCHITECTURES = (
    Architecture(
        "unetpp",
        UNetpp,
        title="U-Net++",
        telling="up_concat04.conv.conv1.0.weight",
        infer=infer_published("conv00", "up_concat01", "final_1"),
    ),
)
