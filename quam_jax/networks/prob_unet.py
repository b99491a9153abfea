"""Probabilistic U-Net (Kohl et al. 2018): a U-Net whose last layers also read a latent vector, drawn anew for every sample.

The prior (a Gaussian with diagonal covariance) is read from the image, the posterior from the image and one rater's mask; the
posterior exists for training alone. Called as a network, it answers at the prior's mean. The body is nnU-Net's plain network;
the two Gaussian encoders have no normalisation, since their output is a mean over the image.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode
from .activations import leaky_relu, relu
from .architecture import Architecture
from .layers import Conv
from .nnunet import PlainConvUNet
from .pooling import max_pool
from .recomputation import recomputable


class GaussianEncoder(nnx.Module):
    """Convolution, ReLU and max pooling a width, the mean over the image, and mean and log standard deviation of a Gaussian."""

    def __init__(self, inputs: int, widths: tuple[int, ...], latent: int, *, rngs: nnx.Rngs):
        self.convs = nnx.List([Conv(a, b, 3, rngs=rngs) for a, b in zip((inputs, *widths[:-1]), widths, strict=True)])
        self.last = Conv(widths[-1], 2 * latent, 1, rngs=rngs)

    @recomputable
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 1 1 l"]:
        for place, conv in enumerate(self.convs):
            x = relu(conv(max_pool(x, 2) if place else x))
        return self.last(x.mean((1, 2), keepdims=True))


class ProbUNet(nnx.Module):
    """`features` are the widths of the body and of the encoders, `latent` the length of the latent vector.

    In front of the cut `last_block` lie the body's features, and mean and log standard deviation of the prior at every pixel.
    `trunk(..., cut="posterior")` takes the image with the classes of a mask as further channels, and gives the posterior's.
    """

    cuts = {"head": ("combine.2",), "last_block": ("combine.0", "combine.1", "combine.2")}

    def __init__(
        self, in_channels: int, n_classes: int, features: tuple[int, ...] = (8, 16, 32), *, latent: int = 6, rngs: nnx.Rngs
    ):
        width = features[0]
        self.body = PlainConvUNet(in_channels, width, features, rank=2, n_conv_per_stage=1, n_conv_per_stage_decoder=1, rngs=rngs)
        self.size_multiple = self.body.size_multiple
        self.prior = GaussianEncoder(in_channels, features, latent, rngs=rngs)
        self.posterior = GaussianEncoder(in_channels + n_classes, features, latent, rngs=rngs)
        self.combine = nnx.List(
            [Conv(width + latent, width, 1, rngs=rngs), Conv(width, width, 1, rngs=rngs), Conv(width, n_classes, 1, rngs=rngs)]
        )
        self.latent = latent

    def __call__(self, x: Float[Array, "b h w i"], mode: Mode = EVAL) -> Float[Array, "b h w c"]:
        return self.tail(self.trunk(x, mode, cut="last_block"), mode, cut="last_block")

    def trunk(self, x: Float[Array, "b h w i"], mode: Mode, *, cut: str) -> Float[Array, "b *space f"]:
        """The activation in front of the cut, or the posterior's mean and log standard deviation."""
        if cut == "posterior":
            return self.posterior(x)
        features = leaky_relu(self.body(x, mode), 0.01)
        gaussian = self.prior(x)
        both = jnp.concatenate([features, jnp.broadcast_to(gaussian, (*features.shape[:-1], 2 * self.latent))], -1)
        return both if cut == "last_block" else self._combined(both)

    def tail(self, activation: Float[Array, "b h w f"], mode: Mode, *, cut: str) -> Float[Array, "b h w c"]:
        """Logits from the activation in front of the cut; of a Gaussian only the mean is read."""
        return self.combine[2](self._combined(activation) if cut == "last_block" else activation)

    @recomputable
    def _combined(self, both: Float[Array, "b h w f"]) -> Float[Array, "b h w g"]:
        x = both[..., : both.shape[-1] - self.latent]
        for conv in self.combine[:2]:
            x = relu(conv(x))
        return x


ARCHITECTURES = (
    Architecture(
        "prob_unet",
        ProbUNet,
        title="Probabilistic U-Net",
    ),
)
