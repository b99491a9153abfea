"""nnU-Net's own network classes with random weights: their state_dicts, aliases included, and their logits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.convert import convert
from converters.parity import live_parity

torch = pytest.importorskip("torch")
unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
pytestmark = pytest.mark.peers


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_its_own_classes(tmp_path: Path, rank: int, residual: bool) -> None:
    nn: Any = torch.nn
    torch.manual_seed(rank)
    strides = [(1,) * rank, (2,) * rank, (1, *(2,) * (rank - 1))]
    counts = {"n_blocks_per_stage" if residual else "n_conv_per_stage": [1, 2, 1]}
    cls = unet.ResidualEncoderUNet if residual else unet.PlainConvUNet
    module = cls(
        input_channels=2,
        n_stages=3,
        features_per_stage=[4, 6, 8],
        conv_op=[nn.Conv2d, nn.Conv3d][rank - 2],
        kernel_sizes=[(3,) * rank] * 3,
        strides=strides,
        **counts,
        num_classes=3,
        n_conv_per_stage_decoder=[1, 2],
        conv_bias=True,
        norm_op=[nn.InstanceNorm2d, nn.InstanceNorm3d][rank - 2],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    ).eval()
    with torch.no_grad():
        for value in module.parameters():
            if value.ndim == 1:
                value.uniform_(0.5, 1.5)
    torch.save({"network_weights": module.state_dict()}, tmp_path / "net.pth")
    model = convert(tmp_path / "net.pth")
    assert model.network.architecture == ("nnunet_residual" if residual else "nnunet_plain")
    parity = live_parity(model, module, np.random.default_rng(0).standard_normal((2, 2, *(8, 8, 12)[:rank])).astype(np.float32))
    assert parity["verdict"] == "equal" and parity["relative"] < 1e-5 and parity["layers"] > 10
