"""Flax networks, one architecture a file; NETWORKS maps the name used in files and on the command line to its class.

A network is an `nnx.Module` called as `net(x, mode)` on `[b *space i]` that returns logits `[b *space c]`. It has
`size_multiple` (image sides must be multiples of it; a number, or one for every axis), `cuts` (cut name -> the dotted names
of the modules behind the cut) and, for every cut, `trunk(x, mode, cut=...)` and `tail(activation, mode, cut=...)` whose
composition is the whole network.
"""

from typing import Any

from .att_unet import AttUNet
from .graph import GraphNetwork
from .nnunet import PlainConvUNet, ResidualEncoderUNet
from .plain_unet import PlainUNet
from .prob_unet import ProbUNet
from .segnet import SegNet
from .swin_unet import SwinUNet, SwinUNetWrapper
from .unet import UNet
from .unet_dropout import UNetDropout
from .unetpp import UNetpp
from .unetppp import UNetppp
from .wnet import WNet

NETWORKS: dict[str, Any] = {
    "att_unet": AttUNet,
    "graph": GraphNetwork,
    "nnunet_plain": PlainConvUNet,
    "nnunet_residual": ResidualEncoderUNet,
    "plain_unet": PlainUNet,
    "prob_unet": ProbUNet,
    "segnet": SegNet,
    "swin_unet": SwinUNet,
    "swin_unet_wrapper": SwinUNetWrapper,
    "unet": UNet,
    "unet_dropout": UNetDropout,
    "unetpp": UNetpp,
    "unetppp": UNetppp,
    "wnet": WNet,
}

__all__ = [
    "NETWORKS",
    "AttUNet",
    "GraphNetwork",
    "PlainConvUNet",
    "PlainUNet",
    "ProbUNet",
    "ResidualEncoderUNet",
    "SegNet",
    "SwinUNet",
    "SwinUNetWrapper",
    "UNet",
    "UNetDropout",
    "UNetpp",
    "UNetppp",
    "WNet",
]
