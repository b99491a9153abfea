"""A small nnU-Net model folder as nnU-Net writes it: plans of one configuration, the description of the data, and folds."""

import json
from pathlib import Path

import numpy as np

from converters.mapping import torch_shapes
from converters.writers import write_state_dict
from quam_jax.models.model import Network

ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [2, 4],
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3], [1, 3]],
        "strides": [[1, 1], [1, 2]],
        "n_conv_per_stage": [1, 2],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
}
CONFIGURATION = {
    "patch_size": [8, 8],
    "spacing": [1.0, 0.5],
    "normalization_schemes": ["CTNormalization", "NoNormalization"],
    "use_mask_for_norm": [False, True],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"order": 3},
    "architecture": ARCHITECTURE,
}
PLANS = {
    "dataset_name": "Dataset001_Small",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {"2d": CONFIGURATION},
    "foreground_intensity_properties_per_channel": {"0": {"mean": 4.0, "std": 2.0, "percentile_00_5": -1.0}},
}
DATASET = {
    "channel_names": {"1": "PET", "0": "CT"},
    "labels": {"background": 0, "lesion": 2, "organ": 1, "ignore": 3},
    "file_ending": ".nii.gz",
}


def write_folder(root: Path, *, folds: int) -> None:
    """The folder of the plans with random weights in every fold, without PyTorch."""
    arguments = {
        "in_channels": 2,
        "n_classes": 3,
        "features_per_stage": (2, 4),
        "rank": 2,
        "n_conv_per_stage": (1, 2),
        "n_conv_per_stage_decoder": (1,),
        "kernel_sizes": ((3, 3), (1, 3)),
        "strides": ((1, 1), (1, 2)),
    }
    network = Network.create("nnunet_plain", **arguments)
    for fold in range(folds):
        rng = np.random.default_rng(fold)
        weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in torch_shapes(network).items()}
        (root / f"fold_{fold}").mkdir(parents=True)
        write_state_dict(root / f"fold_{fold}" / "checkpoint_final.pth", weights)
    (root / "dataset.json").write_text(json.dumps(DATASET))
    (root / "plans.json").write_text(json.dumps(PLANS))
