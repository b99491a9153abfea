"""MONAI, live: its networks and MetaTensors go in, and maps come back with the affine of the image."""

from typing import Any

import numpy as np
import pytest

import quam_jax

torch = pytest.importorskip("torch")
networks = pytest.importorskip("monai.networks.nets")
pytestmark = pytest.mark.peers


def test_a_pipeline_of_monai() -> None:
    from monai.data import MetaTensor
    from monai.transforms import Compose

    from quam_jax.integrations.monai import Uncertaintyd, UncertaintyInferer

    torch.manual_seed(0)
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))
    images: Any = MetaTensor(torch.randn(2, 1, 32, 32), affine=affine)
    model = quam_jax.from_torch(networks.UNet(2, 1, 2, (4, 8, 16), (2, 2)), images)
    fit = quam_jax.fit_data(model, list(images), list((images > 0).long()))
    config = quam_jax.Config(search=quam_jax.SearchConfig(steps=1))
    maps = UncertaintyInferer(model, fit, config=config)(images)
    assert isinstance(maps, MetaTensor) and maps.shape == (2, 3, 32, 32) and torch.equal(maps.affine, images.affine)
    case = Compose([Uncertaintyd("image", model, fit, config=config)])({"image": images[0], "id": 3})
    assert case["id"] == 3 and torch.equal(case["image_total"].affine, images.affine)
    plain = quam_jax.quantify(model, images[0], fit, config=config)
    np.testing.assert_allclose(plain.total, case["image_total"][0].numpy(), atol=1e-6)
    np.testing.assert_allclose(plain.total, maps[0, 0].numpy(), atol=1e-6)


def test_what_an_inferer_does_not_take_is_told() -> None:
    from quam_jax.integrations.monai import UncertaintyInferer

    images = torch.randn(1, 1, 32, 32)
    model = quam_jax.from_torch(networks.UNet(2, 1, 2, (4, 8), (2,)), images)
    fit = quam_jax.fit_data(model, list(images), list((images > 0).long()))
    with pytest.raises(ValueError, match="maps: expected some of total, aleatoric, epistemic, got entropy"):
        UncertaintyInferer(model, fit, maps=["entropy"])
    with pytest.raises(ValueError, match=r"inputs: expected \[b 1 \*space\] with 2 spatial axes, channels first"):
        UncertaintyInferer(model, fit)(torch.randn(1, 32, 32, 1))
