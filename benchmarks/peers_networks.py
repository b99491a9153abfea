"""Tiny randomly initialised networks of other packages, and how large an image each is tried on."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Peer(NamedTuple):
    """A network of another package: its maker, an image shape, another that it takes too, and which sizes are left free."""

    make: Callable[[], Any]
    shape: tuple[int, ...]
    other: tuple[int, ...]
    dynamic: bool | str = True


def monai(name: str, **arguments: Any) -> Callable[[], Any]:
    """A network of MONAI."""

    def make() -> Any:
        import monai.networks.nets as nets

        return getattr(nets, name)(**arguments)

    return make


def smp(name: str, **arguments: Any) -> Callable[[], Any]:
    """A network of segmentation_models_pytorch with a small ResNet encoder."""

    def make() -> Any:
        import segmentation_models_pytorch

        return getattr(segmentation_models_pytorch, name)("resnet18", encoder_weights=None, in_channels=3, classes=3, **arguments)

    return make


def torchvision(name: str) -> Callable[[], Any]:
    """A segmentation network of torchvision without weights."""

    def make() -> Any:
        from torchvision.models import segmentation

        return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=3)

    return make


def segformer() -> Any:
    """A small SegFormer."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(
        SegformerConfig(
            num_labels=3,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 16, 24, 32],
            num_attention_heads=[1, 2, 3, 4],
            decoder_hidden_size=16,
        )
    )


def _unet(dims: int, **more: Any) -> dict[str, Any]:
    return {"spatial_dims": dims, "in_channels": 2, "out_channels": 3, **more}


def _dynunet(dims: int) -> dict[str, Any]:
    return _unet(
        dims,
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[4, 6, 8],
        deep_supervision=True,
        res_block=True,
    )


# with free sides PyTorch does not get through window attention in minutes
_SWIN = {"feature_size": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 2)}

PEERS: dict[str, Peer] = {
    "monai UNet 2d": Peer(
        monai("UNet", **_unet(2, channels=(4, 8, 12), strides=(2, 2), num_res_units=2)), (1, 2, 32, 24), (2, 2, 40, 48)
    ),
    "monai UNet 3d": Peer(
        monai("UNet", **_unet(3, channels=(4, 8, 12), strides=(2, 2), num_res_units=1, norm="batch")),
        (1, 2, 16, 8, 16),
        (2, 2, 24, 16, 16),
    ),
    "monai BasicUNet 2d": Peer(monai("BasicUNet", **_unet(2, features=(4, 4, 8, 8, 12, 4))), (1, 2, 32, 48), (2, 2, 64, 48)),
    "monai BasicUNet 3d": Peer(
        monai("BasicUNet", **_unet(3, features=(4, 4, 8, 8, 12, 4), upsample="nontrainable")),
        (1, 2, 32, 32, 32),
        (2, 2, 48, 32, 32),
    ),
    "monai AttentionUnet 2d": Peer(
        monai("AttentionUnet", **_unet(2, channels=(4, 8, 12), strides=(2, 2))), (1, 2, 32, 24), (2, 2, 40, 32)
    ),
    "monai AttentionUnet 3d": Peer(
        monai("AttentionUnet", **_unet(3, channels=(4, 8, 12), strides=(2, 2))), (1, 2, 16, 16, 8), (2, 2, 24, 16, 16)
    ),
    "monai SegResNet 2d": Peer(monai("SegResNet", **_unet(2, init_filters=8)), (1, 2, 32, 24), (2, 2, 40, 32)),
    "monai SegResNet 3d": Peer(
        monai("SegResNet", **_unet(3, init_filters=8, upsample_mode="deconv")), (1, 2, 16, 16, 24), (2, 2, 24, 16, 24)
    ),
    "monai DynUNet 2d": Peer(monai("DynUNet", **_dynunet(2)), (1, 2, 32, 24), (2, 2, 40, 48)),
    "monai DynUNet 3d": Peer(monai("DynUNet", **_dynunet(3)), (1, 2, 16, 16, 8), (2, 2, 24, 16, 8)),
    "monai SwinUNETR 2d": Peer(monai("SwinUNETR", **_unet(2, **_SWIN)), (1, 2, 64, 64), (3, 2, 64, 64), "batch"),
    "monai SwinUNETR 3d": Peer(
        monai("SwinUNETR", **_unet(3, **_SWIN, use_v2=True)), (1, 2, 64, 64, 32), (2, 2, 64, 64, 32), "batch"
    ),
    "smp Unet": Peer(smp("Unet", decoder_channels=(16, 12, 8, 8, 4)), (1, 3, 64, 64), (2, 3, 64, 96)),
    "smp UnetPlusPlus": Peer(smp("UnetPlusPlus", decoder_channels=(16, 12, 8, 8, 4)), (1, 3, 64, 64), (2, 3, 64, 96)),
    "smp FPN": Peer(smp("FPN", decoder_pyramid_channels=32, decoder_segmentation_channels=32), (1, 3, 64, 64), (2, 3, 64, 96)),
    "smp DeepLabV3Plus": Peer(smp("DeepLabV3Plus", decoder_channels=16), (1, 3, 64, 64), (2, 3, 64, 96)),
    "torchvision deeplabv3": Peer(torchvision("deeplabv3_mobilenet_v3_large"), (1, 3, 64, 64), (2, 3, 96, 80)),
    "torchvision fcn": Peer(torchvision("fcn_resnet50"), (1, 3, 40, 64), (2, 3, 48, 56)),
    "torchvision lraspp": Peer(torchvision("lraspp_mobilenet_v3_large"), (1, 3, 64, 64), (2, 3, 96, 80)),
    "transformers SegFormer": Peer(segformer, (1, 3, 64, 64), (2, 3, 64, 96)),
}
