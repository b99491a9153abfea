"""SegNet of the QUAM-SM publication: max-pool places are kept and values return to them; logits of a 3x3 head.

Odd sizes work: an incomplete window at the end is dropped by the pooling and comes back as zeros. The published class ends
in a softmax; here the softmax is left to the caller, as for every network.
"""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int

from ..core.network import EVAL, Mode
from .activations import relu
from .architecture import Architecture, Named
from .layers import Conv, conv_norm
from .norms import BatchNorm
from .pooling import max_pool_place, unpool
from .recomputation import recomputable

DEPTH = 5


class ConvStack(nnx.Module):
    """3x3 convolution, BatchNorm and ReLU, once for every pair of neighbours in `widths`."""

    def __init__(self, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [nnx.List([Conv(i, o, 3, rngs=rngs), BatchNorm(o)]) for i, o in zip(widths[:-1], widths[1:], strict=True)]
        )

    @recomputable
    def __call__(self, x: Float[Array, "b h w i"], mode: Mode) -> Float[Array, "b *out o"]:
        for pair in self.layers:
            x = relu(conv_norm(pair, x, mode))
        return x


class SegNet(nnx.Module):
    """SegNet with the widths of its first four levels (the fifth has the fourth's); sides of 32 or more."""

    size_multiple = 1
    cuts = {"head": ("conv",), "last_block": ("decoder0", "conv")}
    decoder0: ConvStack

    def __init__(self, in_channels: int, n_classes: int, widths: tuple[int, ...] = (64, 128, 256, 512), *, rngs: nnx.Rngs):
        a, b, c, d = widths
        encoders = ((in_channels, a, a), (a, b, b), (b, c, c, c), (c, d, d, d), (d, d, d, d))
        decoders = ((a, a), (b, b, a), (c, c, c, b), (d, d, d, c), (d, d, d, d))
        for level in range(DEPTH):
            setattr(self, f"encoder{level}", ConvStack(encoders[level], rngs=rngs))
            setattr(self, f"decoder{level}", ConvStack(decoders[level], rngs=rngs))
        self.conv = Conv(a, n_classes, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b h w f"]:
        """The activation in front of the cut: the head's input, or the last level's un-pooled one."""
        smallest = 2**DEPTH
        if min(x.shape[1:-1]) < smallest:
            raise ValueError(f"segnet: expected image sides of {smallest} or more, got {tuple(x.shape[1:-1])}")
        places: list[tuple[tuple[int, int], Int[Array, "b u v f"]]] = []
        for level in range(DEPTH):
            x = getattr(self, f"encoder{level}")(x, mode)
            size = (x.shape[1], x.shape[2])
            x, place = max_pool_place(x)
            places.append((size, place))
        for level in reversed(range(1, DEPTH)):
            x = getattr(self, f"decoder{level}")(unpool(x, places[level][1], places[level][0]), mode)
        last = unpool(x, places[0][1], places[0][0])
        return last if cut == "last_block" else self.decoder0(last, mode)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b *out c"]:
        """Logits from the activation in front of the cut."""
        return self.conv(self.decoder0(activation, mode) if cut == "last_block" else activation)


def _infer(shapes: Named) -> dict[str, Any]:
    first = [shapes[f"encoder{level}.layers.0.0.weight"] for level in range(4)]
    return {"in_channels": first[0][1], "n_classes": shapes["conv.weight"][0], "widths": tuple(w[0] for w in first)}


ARCHITECTURES = (
    Architecture(
        "segnet",
        SegNet,
        title="SegNet",
        telling="encoder4.layers.2.0.weight",
        infer=_infer,
    ),
)
