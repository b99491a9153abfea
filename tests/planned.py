"""Tiny nnU-Net models with a plan, and scans for them."""

from pathlib import Path
from typing import Any

import jax
import nibabel as nib
import numpy as np

from quam_jax.case.fit import Known, read_fit_patches
from quam_jax.case.quantified import Quantified
from quam_jax.case.quantify import quantify_images
from quam_jax.case.shared import CaseModel, planned_model
from quam_jax.config import Config, FitConfig, SearchConfig, change
from quam_jax.data.datasets import find_channel_cases
from quam_jax.data.plans import Plan
from quam_jax.data.volumes import read_image
from quam_jax.models.coding import Coding
from quam_jax.models.model import Network, SegmentationModel
from tests.tiny import NO_VIEWS

AFFINES = {
    "plain": np.diag([1.0, 1, 1, 1]),
    "anisotropic": np.diag([0.8, 1, 4, 1]),
    "flipped": np.array([[-1.0, 0, 0, 30], [0, -1, 0, 20], [0, 0, 1, 5], [0, 0, 0, 1]]),
    "permuted": np.array([[0, 0, 2.0, 1], [1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]]),
    "oblique": np.array([[0.9, -0.3, 0, 4], [0.3, 0.9, 0.1, 5], [0, -0.1, 2.5, 6], [0, 0, 0, 1]]),
}


def record(*, rank: int = 3, channels: int = 1, **changes: Any) -> dict[str, Any]:
    """What converters write into the manifest of an nnU-Net model."""
    plain = {"scheme": "ZScoreNormalization", "use_mask": False, "intensity": None}
    function = "resample_data_or_seg_to_shape"
    return {
        "patch_size": [8] * rank,
        "spacing": [1.0] * rank,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "channel_names": ["MRI"] * channels,
        "normalisation": [plain] * channels,
        "resampling": {
            "data": {"function": function, "order": 3, "order_z": 0},
            "probabilities": {"function": function, "order": 1, "order_z": 0},
        },
        "reader": "SimpleITKIO",
        "labels": {"background": 0, "a": 1, "b": 2},
        "ignore_label": None,
        "class_names": ["background", "a", "b"],
        "regions": None,
        "regions_class_order": None,
        "mirror_axes": [0],
        "fold": "0",
        **changes,
    }


def plan_of(**changes: Any) -> Plan:
    return Plan.of({"nnunet": record(**changes)}, where="model")


def model_of(*, rank: int = 3, seed: int = 0, **changes: Any) -> SegmentationModel:
    """A plain network of two stages with random weights."""
    settings = record(rank=rank, **changes)
    network = Network.create(
        "nnunet_plain",
        in_channels=len(settings["channel_names"]),
        n_classes=len(settings["class_names"]),
        features_per_stage=(2, 3),
        rank=rank,
        n_conv_per_stage=1,
        n_conv_per_stage_decoder=1,
    )
    params, stats = network.initialise(jax.random.key(seed))
    return SegmentationModel(network, params, stats, {"nnunet": settings})


def write(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return path


def scan(size: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball of two labels in noise."""
    distance = sum(((x - n / 2) / n) ** 2 for x, n in zip(np.indices(size), size, strict=True)) ** 0.5
    labels = (distance < 0.3).astype(np.uint8) + (distance < 0.15)
    return (100 + 60 * labels + np.random.default_rng(seed).normal(0, 10, size)).astype(np.float32), labels.astype(np.uint8)


REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "class_names": ["whole", "core"],
    "regions": [[1, 2], [2]],
    "regions_class_order": [1, 2],
}


def folders_of(root: Path, size: tuple[int, ...], affine: np.ndarray) -> dict[str, Path]:
    for index, name in enumerate(["one", "two"]):
        array, labels = scan(size, seed=index)
        write(root / "fit" / "images" / f"{name}.nii.gz", array, affine)
        write(root / "fit" / "masks" / f"{name}.nii.gz", labels, affine)
    array, labels = scan(size, seed=9)
    write(root / "in" / "case_0000.nii.gz", array, affine)
    write(root / "masks" / "case.nii.gz", labels, affine)
    return {
        "images": root / "in",
        "masks": root / "masks",
        "fit_images": root / "fit" / "images",
        "fit_masks": root / "fit" / "masks",
    }


def ready(models: list[SegmentationModel], folders: dict[str, Path], config: Config) -> tuple[CaseModel, Known]:
    """A model with a plan and its fit patches, as a run makes it."""
    plan = Plan.of(models[0].manifest, where="model")
    coding = Coding.of(plan, where="model")
    cases = find_channel_cases(folders["fit_images"], folders["fit_masks"], channels=len(plan.normalisation))
    known = read_fit_patches(cases, folders["fit_masks"], plan=plan, coding=coding, settings=config.fit)
    return planned_model(models, known.images, known.labels, plan=plan, coding=coding, search=config.search), known


def quantify_file(shared: CaseModel, path: Path, config: Config) -> Quantified:
    image = read_image(path)
    return quantify_images(shared, [image.array], geometries=[image.geometry], config=config)[0]


SMALL = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=1e-2), fit=FitConfig(fit_cases=2))
VIEWED = change(SMALL, {"views": "auto"})
