"""A tiny real run for the tests: a random network, pictures with a bright disc, several raters."""

from pathlib import Path

import jax
import nibabel as nib
import numpy as np
from PIL import Image

from quam_jax.models.folder import save_model
from quam_jax.models.model import Network, SegmentationModel

SIZE = (21, 26)  # no multiple of what the network takes
ARGUMENTS = dict(in_channels=1, n_classes=2, channels=2, is_batchnorm=False, drop=0.0, decoder_drop=0.0)


def small_model(seed: int = 0) -> SegmentationModel:
    """An attention U-Net of two channels with random weights."""
    network = Network.create("att_unet", **ARGUMENTS)
    params, stats = network.initialise(jax.random.key(seed))
    return SegmentationModel(network, params, stats, {"preprocessing": {"normalise": "zscore", "channels": 1}})


def little_model(seed: int = 0, *, in_channels: int = 1) -> SegmentationModel:
    """A plain network of two stages with random weights, which compiles in a fraction of the time."""
    network = Network.create(
        "nnunet_plain",
        in_channels=in_channels,
        n_classes=2,
        features_per_stage=(2, 3),
        rank=2,
        n_conv_per_stage=1,
        n_conv_per_stage_decoder=1,
    )
    params, stats = network.initialise(jax.random.key(seed))
    return SegmentationModel(network, params, stats, {"preprocessing": {"normalise": "zscore", "channels": in_channels}})


def disc(seed: int, radius: float = 6.0, size: tuple[int, ...] = SIZE) -> np.ndarray:
    """A disc at a random place near the middle."""
    rng = np.random.default_rng(seed)
    centre = [n / 2 + rng.uniform(-2, 2) for n in size]
    distance = sum((x - c) ** 2 for x, c in zip(np.indices(size), centre, strict=True))
    return (np.sqrt(distance) < radius).astype(np.uint8)


def picture(seed: int, size: tuple[int, ...] = SIZE) -> np.ndarray:
    """The disc in noise, uint8."""
    rng = np.random.default_rng(seed + 100)
    return np.clip(60 + 90 * disc(seed, size=size) + rng.normal(0, 15, size), 0, 255).astype(np.uint8)


def write_cases(folder: Path, names: list[str], *, raters: int = 2) -> None:
    """PNG images and rater masks in folder/images and folder/masks."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(picture(index)).save(folder / "images" / f"{name}.png")
        for rater in range(raters):
            mask = disc(index, radius=5.5 + rater) * 255
            Image.fromarray(mask).save(folder / "masks" / (f"{name}_r{rater}.png" if raters > 1 else f"{name}.png"))


def write_nifti(path: Path, array: np.ndarray) -> nib.Nifti1Image:
    """A NIfTI file with an oblique affine and different sform and qform codes."""
    angle = 0.3
    affine = np.array(
        [
            [0.8 * np.cos(angle), -1.2 * np.sin(angle), 0, 5.0],
            [0.8 * np.sin(angle), 1.2 * np.cos(angle), 0, -7],
            [0, 0, 2.5, 3],
            [0, 0, 0, 1],
        ]
    )
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return image


def prepare_folders(root: Path, *, model: SegmentationModel | None = None) -> dict[str, Path]:
    """Model (the small one where none is given), test cases and fit cases below `root`."""
    save_model(root / "model", model or small_model())
    write_cases(root / "test", ["a", "b"])
    write_cases(root / "fit", ["f1", "f2", "f3"], raters=1)
    return {
        "model": root / "model",
        "images": root / "test" / "images",
        "masks": root / "test" / "masks",
        "fit_images": root / "fit" / "images",
        "fit_masks": root / "fit" / "masks",
    }
