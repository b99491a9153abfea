"""Every network of `quam_jax.networks` with its PyTorch twin and the images on which the two are timed."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .torch_att_unet import AttUNet
from .torch_nnunet import NNUNet
from .torch_swin import SwinUNet, SwinUNetWrapper
from .torch_unets import PlainUNet, SegNet, UNet, UNetpp, UNetppp, WNet


class Case(NamedTuple):
    """An architecture with its arguments, its twin with its own, and a shape of images `[b i *space]`."""

    architecture: str
    arguments: dict[str, Any]
    twin: Callable[..., Any]
    twin_arguments: dict[str, Any]
    shape: tuple[int, ...]
    dynamic: bool | str = True


def _same(
    architecture: str, twin: Callable[..., Any], shape: tuple[int, ...], *, dynamic: bool | str = True, **arguments: Any
) -> Case:
    arguments = {"in_channels": shape[1], "n_classes": 2, **arguments}
    return Case(architecture, arguments, twin, arguments, shape, dynamic)


def _nnunet(*, residual: bool, features: tuple[int, ...], shape: tuple[int, ...]) -> Case:
    rank, stages = len(shape) - 2, len(features)
    sizes = {"rank": rank, "kernel_sizes": ((3,) * rank,) * stages, "strides": ((1,) * rank, *((2,) * rank,) * (stages - 1))}
    shared = {"in_channels": shape[1], "n_classes": 2, "features_per_stage": features, **sizes}
    counts, decoder = (2,) * stages, (1 if residual else 2,) * (stages - 1)
    name = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return Case(
        "nnunet_residual" if residual else "nnunet_plain",
        {**shared, name: counts, "n_conv_per_stage_decoder": decoder},
        NNUNet,
        {**shared, "residual": residual, "counts": counts, "decoder_counts": decoder},
        shape,
    )


_SQUARE = (4, 3, 128, 128)
_SWIN = {"img_size": 224, "embed_dim": 48}

CASES: dict[str, Case] = {
    "att_unet": _same("att_unet", AttUNet, _SQUARE, channels=32, is_batchnorm=False),
    "unet": _same("unet", UNet, _SQUARE, channels=32),
    "unet_dropout": _same(
        "unet_dropout", UNet, _SQUARE, channels=32, is_deconv=False, is_batchnorm=False, drop=0.3, decoder_drop=0.3
    ),
    "unetpp": _same("unetpp", UNetpp, _SQUARE, channels=16),
    "unetppp": _same("unetppp", UNetppp, _SQUARE, channels=16),
    "segnet": _same("segnet", SegNet, _SQUARE, widths=(32, 64, 128, 256)),
    "swin_unet": _same("swin_unet", SwinUNet, (2, 3, 224, 224), dynamic="batch", **_SWIN),
    "swin_unet_wrapper": _same("swin_unet_wrapper", SwinUNetWrapper, (2, 1, 224, 224), dynamic="batch", **_SWIN),
    "plain_unet": _same("plain_unet", PlainUNet, (4, 1, 128, 128)),
    "wnet": _same("wnet", WNet, (4, 3, 256, 256), widths=(8, 16, 32)),
    "nnunet_plain": _nnunet(residual=False, features=(32, 64, 128, 256), shape=(2, 1, 128, 128)),
    "nnunet_plain_3d": _nnunet(residual=False, features=(16, 32, 64), shape=(1, 1, 48, 48, 48)),
    "nnunet_residual": _nnunet(residual=True, features=(32, 64, 128, 256), shape=(2, 1, 128, 128)),
    "nnunet_residual_3d": _nnunet(residual=True, features=(16, 32, 64), shape=(1, 1, 48, 48, 48)),
}
