"""What a bundle of MONAI says of intensities, and what of it is refused; its networks are tested with the peers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quam_jax
from converters.monai_bundle import prepare_of

NET = {"_target_": "UNet", "spatial_dims": 2, "in_channels": "@channels", "out_channels": 2, "channels": [4, 8], "strides": [2]}


def bundle(folder: Path, **config: Any) -> Path:
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text('{"network_data_format": {}}')
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    return folder


def transform(name: str, **given: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": "image", **given}


WINDOW = transform("ScaleIntensityRanged", a_min=-57, a_max=164, b_min=0.0, b_max=1.0, clip=True)
VALUES = np.array([-1000.0, -57, 0, 164, 3000])[:, None, None]


@pytest.mark.parametrize(
    "given, wanted",
    [
        (WINDOW, [0, 0, 57 / 221, 1, 1]),
        (transform("ScaleIntensityRanged", a_min=0, a_max=100, b_min=-1, b_max=1), [-21, -2.14, -1, 2.28, 59]),
        (transform("monai.transforms.NormalizeIntensityd", subtrahend=10, divisor=2.0), [-505, -33.5, -5, 77, 1495]),
        (transform("ScaleIntensityd"), [0, 943 / 4000, 0.25, 1164 / 4000, 1]),
        (transform("NormalizeIntensityd"), ((VALUES - VALUES.mean()) / VALUES.std()).ravel()),
    ],
)
def test_intensities_are_prepared_as_the_bundle_does(given: dict[str, Any], wanted: list[float]) -> None:
    settings, notes = prepare_of([transform("LoadImaged"), transform("EnsureChannelFirstd"), given], channels=1)
    np.testing.assert_allclose(settings.apply(VALUES).ravel(), wanted, rtol=1e-5, atol=1e-6)
    assert notes == []


def test_what_is_not_repeated_is_told() -> None:
    steps = [transform("Orientationd", axcodes="RAS"), transform("Spacingd", pixdim=[1.5, 1.5, 2]), WINDOW]
    settings, (note,) = prepare_of(steps, channels=1)
    assert settings.window == (-57, 164)
    assert "Orientation(axcodes=RAS), Spacing(pixdim=[1.5, 1.5, 2])" in note and "give images that went through it" in note
    for step in (transform("NormalizeIntensityd", nonzero=True), transform("ScaleIntensityRangePercentilesd", lower=1)):
        settings, (note,) = prepare_of([step], channels=1)
        assert settings.normalise == "none" and "give --preprocessing" in note
    _, (note,) = prepare_of([transform("LoadImaged")], channels=1)
    assert "they are taken as they are" in note
    _, (note,) = prepare_of([WINDOW, transform("NormalizeIntensityd")], channels=1)
    assert "NormalizeIntensity(" in note


@pytest.mark.parametrize(
    "name, key",
    [
        ("ScaleIntensityRanged", "a_min"), ("ScaleIntensityRanged", "b_max"), ("NormalizeIntensityd", "divisor"),
        ("NormalizeIntensityd", "subtrahend"), ("ScaleIntensityd", "maxv"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["$-1 * 57", ["$1"], True])
def test_intensities_that_are_computed_are_told_by_their_key(name: str, key: str, value: Any) -> None:
    plain = {
        "ScaleIntensityRanged": dict(a_min=0, a_max=9, b_min=0, b_max=1),
        "NormalizeIntensityd": dict(divisor=2, subtrahend=1),
    }
    settings, (note,) = prepare_of([transform(name, **plain.get(name, {}) | {key: value})], channels=1)
    assert settings.normalise == "none" and f"{key}={value}" in note and "give --preprocessing" in note


@pytest.mark.parametrize("name", ["BorderPad", "BorderPadd", "BorderPadD", "BorderPadDict", "monai.transforms.BorderPadd"])
def test_names_lose_the_d_of_dictionaries_alone(name: str) -> None:
    _, notes = prepare_of([WINDOW, transform(name, spatial_border=2)], channels=1)
    assert "also applies BorderPad(spatial_border=2)" in notes[0]


@pytest.mark.parametrize(
    "config, says",
    [
        ({}, "expected the network under network_def, got none"),
        ({"network_def": NET | {"in_channels": "$1 + 1"}}, r"'\$1 \+ 1' would have to be run; expected plain values"),
        ({"network_def": "@net", "net": "@network_def"}, "its references refer to each other"),
        ({"network_def": NET}, "'@channels' refers to nothing"),
    ],
)
def test_what_would_have_to_be_run_is_refused(tmp_path: Path, torch: Any, config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quam_jax.load_model(bundle(tmp_path, **config))


def test_a_bundle_without_settings_or_with_an_architecture_is_refused(tmp_path: Path) -> None:
    folder = bundle(tmp_path, network_def=NET)
    with pytest.raises(ValueError, match="a bundle describes its network; expected neither arch nor arguments"):
        quam_jax.load_model(folder, "unet")
    (folder / "configs" / "inference.json").write_text("{")
    with pytest.raises(ValueError, match="inference.json: expected JSON or YAML, got what cannot be read"):
        quam_jax.load_model(folder)
    (folder / "configs" / "inference.json").unlink()
    with pytest.raises(ValueError, match="describes its network in configs/inference.json"):
        quam_jax.load_model(folder)
