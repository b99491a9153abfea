"""Dropout of whole channels, of single values and of whole residual branches; each scales what is kept by 1/(1-rate)."""

from flax import nnx
from jaxtyping import Array, Float

from ..core.network import EVAL, Mode


class ChannelDropout(nnx.Module):
    """Drops whole channels of an image and scales the rest by 1/(1-rate), as Dropout2d and Dropout3d do."""

    def __init__(self, rate: float):
        self.rate = _checked(rate)

    def __call__(self, x: Float[Array, "b *space c"], mode: Mode = EVAL) -> Float[Array, "b *space c"]:
        if mode.noise is None or self.rate == 0.0:
            return x
        keep = mode.noise.keep((x.shape[0], x.shape[-1]), self.rate)
        return x * (keep / (1.0 - self.rate)).reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])


class ValueDropout(nnx.Module):
    """Drops single values and scales the rest by 1/(1-rate), as torch.nn.Dropout does."""

    def __init__(self, rate: float):
        self.rate = _checked(rate)

    def __call__(self, x: Float[Array, "..."], mode: Mode = EVAL) -> Float[Array, "..."]:
        if mode.noise is None or self.rate == 0.0:
            return x
        return x * (mode.noise.keep(x.shape, self.rate) / (1.0 - self.rate))


class BranchDropout(nnx.Module):
    """Drops the residual branch of whole images and scales the rest by 1/(1-rate) (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate: float):
        self.rate = _checked(rate)

    def __call__(self, x: Float[Array, "b ..."], mode: Mode = EVAL) -> Float[Array, "b ..."]:
        if mode.noise is None or self.rate == 0.0:
            return x
        keep = mode.noise.keep((x.shape[0], *(1,) * (x.ndim - 1)), self.rate)
        return x * (keep / (1.0 - self.rate))


def _checked(rate: float) -> float:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout rate: expected 0 <= rate < 1, got {rate}")
    return rate
