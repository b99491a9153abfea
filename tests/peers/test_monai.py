"""MONAI, live: its networks and MetaTensors go in, and maps come back with the affine of the image."""

import json
from pathlib import Path
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


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_bundle_is_its_network_with_what_it_says_of_images(tmp_path: Path, ending: str) -> None:
    """As those of the model zoo: references, a window of Hounsfield units, softmax, names of channels."""
    import yaml

    torch.manual_seed(0)
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2], "norm": "batch"}
    network = networks.UNet(**arguments).eval()
    config = {
        "imports": ["$import glob"],
        "organs": 2,
        "network_def": {"_target_": "UNet", **arguments, "out_channels": "@organs"},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -57,
                    "a_max": 164,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]},
    }
    image = {"num_channels": 1, "spatial_shape": ["8*n", "8*n", 16], "channel_def": {"0": "image"}}
    prediction = {"num_channels": 2, "channel_def": {"0": "background", "1": "spleen"}}
    metadata = {"name": "Spleen", "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": prediction}}}
    for folder in ("configs", "models"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (tmp_path / "configs" / f"inference.{ending}").write_text(json.dumps(config) if ending == "json" else yaml.safe_dump(config))
    weights = network.state_dict()
    parallel = {"epoch": 3, "network": {f"module.{name}": tensor for name, tensor in weights.items()}}
    torch.save({"model": weights} if ending == "json" else parallel, tmp_path / "models" / "model.pt")

    model = quam_jax.load_model(tmp_path)
    images = np.random.default_rng(0).standard_normal((2, 24, 16, 16, 1)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.as_tensor(np.moveaxis(images, -1, 1))).numpy()
    np.testing.assert_allclose(model(images), np.moveaxis(wanted, 1, -1), atol=1e-4)
    assert model.manifest["source"]["bundle"] == "Spleen" and model.manifest["class_names"] == ["background", "spleen"]
    np.testing.assert_allclose(quam_jax.preprocessing_of(model).apply(np.full((1, 1, 1, 1), 300)), 1)
    assert any("Orientation(axcodes=RAS)" in note for note in model.manifest["notes"])

    torch.save(networks.UNet(**{**arguments, "channels": [4, 16]}).state_dict(), tmp_path / "models" / "model.pt")
    with pytest.raises(ValueError, match="its weights are not those of network_def"):
        quam_jax.load_model(tmp_path)
    config["network_def"] = {"_target_": "scripts.net.Own"}
    (tmp_path / "configs" / f"inference.{ending}").write_text(json.dumps(config) if ending == "json" else yaml.safe_dump(config))
    with pytest.raises(ValueError, match="expected a network of monai.networks.nets, got 'scripts.net.Own'"):
        quam_jax.load_model(tmp_path)
