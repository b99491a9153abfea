"""The network that nnU-Net plans of both formats describe, and the plans that are refused."""

import copy
from typing import Any

import pytest

from converters.nnunet import network_arguments
from tests.nnunet_folder import ARCHITECTURE, CONFIGURATION

# as plans before nnU-Net 2.4 say the same
OLD = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 2,
    "unet_max_num_features": 320,
    "n_conv_per_stage_encoder": [1, 2],
    "n_conv_per_stage_decoder": [1],
    "num_pool_per_axis": [0, 1],
    "pool_op_kernel_sizes": [[1, 1], [1, 2]],
    "conv_kernel_sizes": [[3, 3], [1, 3]],
}


def test_plans_of_both_formats_say_the_same() -> None:
    new = network_arguments(CONFIGURATION, where="plans")
    old = network_arguments({"patch_size": [8, 8], **OLD}, where="plans")
    assert (
        new
        == old
        == (
            "nnunet_plain",
            {
                "features_per_stage": [2, 4],
                "kernel_sizes": [[3, 3], [1, 3]],
                "strides": [[1, 1], [1, 2]],
                "n_conv_per_stage": [1, 2],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "rank": 2,
            },
        )
    )


def test_old_features_double_up_to_the_maximum() -> None:
    stages = 4
    old = {
        **OLD,
        "UNet_class_name": "ResidualEncoderUNet",
        "patch_size": [8, 8, 8],
        "UNet_base_num_features": 32,
        "unet_max_num_features": 100,
        "n_conv_per_stage_encoder": [1, 3, 4, 6],
        "n_conv_per_stage_decoder": [1] * 3,
        "conv_kernel_sizes": [[3, 3, 3]] * stages,
        "pool_op_kernel_sizes": [[1, 1, 1]] + [[2, 2, 2]] * 3,
    }
    arch, arguments = network_arguments(old, where="plans")
    assert arch == "nnunet_residual" and arguments["features_per_stage"] == [32, 64, 100, 100]
    assert arguments["n_blocks_per_stage"] == [1, 3, 4, 6] and "n_conv_per_stage" not in arguments


def test_one_number_stands_for_every_stage_and_axis() -> None:
    settings = copy.deepcopy(CONFIGURATION)
    settings["architecture"]["arch_kwargs"] |= {"kernel_sizes": 3, "strides": [1, 2], "n_conv_per_stage": 2}
    _, arguments = network_arguments(settings, where="plans")
    assert arguments["kernel_sizes"] == [[3, 3], [3, 3]] and arguments["strides"] == [[1, 1], [2, 2]]
    assert arguments["n_conv_per_stage"] == [2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_op": "torch.nn.BatchNorm2d"}, "expected norm_op InstanceNorm2d, got BatchNorm2d"),
        ({"nonlin": "torch.nn.ReLU"}, "expected nonlin LeakyReLU, got ReLU"),
        ({"conv_op": "torch.nn.modules.conv.Conv3d"}, "expected conv_op Conv2d, got Conv3d"),
        ({"norm_op_kwargs": None}, "expected affine True, got False"),
        ({"norm_op_kwargs": {"eps": 1e-3, "affine": True}}, "expected eps 1e-05, got 0.001"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "expected negative_slope 0.01, got 0.2"),
        ({"nonlin_first": True}, "expected nonlin_first False, got True"),
    ],
)
def test_layers_that_our_networks_do_not_have(change: dict[str, Any], message: str) -> None:
    settings = copy.deepcopy(CONFIGURATION)
    settings["architecture"]["arch_kwargs"] |= change
    with pytest.raises(ValueError, match=f"plans.json: {message}"):
        network_arguments(settings, where="plans.json")


def test_other_networks_are_refused() -> None:
    settings = {**CONFIGURATION, "architecture": {**ARCHITECTURE, "network_class_name": "a.b.PrimusM"}}
    with pytest.raises(ValueError, match="expected a network among PlainConvUNet, ResidualEncoderUNet, got PrimusM"):
        network_arguments(settings, where="plans")
