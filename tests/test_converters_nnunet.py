"""nnU-Net folders: plans of both formats, labels and regions, folds, and the real models with nnU-Net's own
logits.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.mapping import torch_shapes
from converters.nnunet import list_folds, network_arguments, read_nnunet
from converters.parity import check_parity
from converters.writers import write_state_dict
from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.loading import load_model
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model folder of two folds, without PyTorch."""
    root = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
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
    for fold in (0, 1):
        rng = np.random.default_rng(fold)
        weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in torch_shapes(network).items()}
        (root / f"fold_{fold}").mkdir(parents=True)
        write_state_dict(root / f"fold_{fold}" / "checkpoint_final.pth", weights)
    (root / "dataset.json").write_text(json.dumps(DATASET))
    (root / "plans.json").write_text(json.dumps(PLANS))
    return root


def rewrite(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_everything_of_the_plans_is_in_the_manifest(folder: Path) -> None:
    first, second = read_nnunet(folder)
    network = first.network
    assert (network.architecture, network.rank, network.in_channels, network.classes) == (
        "nnunet_plain",
        2,
        2,
        3,
    )
    assert network.size_multiple == (1, 2)
    assert first.manifest["nnunet"] == {
        "dataset": "Dataset001_Small",
        "plans": "nnUNetPlans",
        "configuration": "2d",
        "fold": "0",
        "trainer": None,
        "patch_size": [8, 8],
        "spacing": [1.0, 0.5],
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "channel_names": ["CT", "PET"],
        "normalisation": [
            {
                "scheme": "CTNormalization",
                "use_mask": False,
                "intensity": {"mean": 4.0, "std": 2.0, "percentile_00_5": -1.0},
            },
            {"scheme": "NoNormalization", "use_mask": True, "intensity": None},
        ],
        "resampling": {
            "data": {"function": "resample_data_or_seg_to_shape", "order": 3},
            "probabilities": {"function": None},
        },
        "file_ending": ".nii.gz",
        "reader": "SimpleITKIO",
        "labels": DATASET["labels"],
        "ignore_label": 3,
        "class_names": ["background", "organ", "lesion"],
        "regions": None,
        "regions_class_order": None,
        "mirror_axes": [],
    }
    assert first.manifest["class_names"] == ["background", "organ", "lesion"]
    assert first.manifest["preprocessing"] == {"normalise": "nnunet", "channels": 2}
    assert second.manifest["nnunet"]["fold"] == "1"
    assert not np.array_equal(
        first.params["encoder.stages.0.0.convs.0.conv.weight"],
        second.params["encoder.stages.0.0.convs.0.conv.weight"],
    )


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


def test_regions_leave_out_background_and_keep_their_order(folder: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    rewrite(folder, "dataset.json", labels=labels, regions_class_order=[1, 2, 3])
    record = read_nnunet(folder, folds=[0])[0].manifest["nnunet"]
    assert record["class_names"] == ["whole", "core", "enhancing"]
    assert record["regions"] == [[1, 2, 3], [2, 3], [3]] and record["regions_class_order"] == [1, 2, 3]
    rewrite(folder, "dataset.json", regions_class_order=[1, 2])
    with pytest.raises(ValueError, match="regions_class_order with a label for each of the 3 regions"):
        read_nnunet(folder)


def test_configurations_inherit_and_are_chosen(folder: Path) -> None:
    plans = {
        "2d": CONFIGURATION,
        "2d_wide": {"inherits_from": "2d", "patch_size": [16, 8]},
        "lost": {"inherits_from": "3d"},
        "loop": {"inherits_from": "loop"},
        "2d_cascade": {"inherits_from": "2d", "previous_stage": "2d"},
    }
    rewrite(folder, "plans.json", configurations=plans)
    assert read_nnunet(folder, folds=[0])[0].manifest["nnunet"]["patch_size"] == [
        8,
        8,
    ]  # by the folder's name
    chosen = read_nnunet(folder, configuration="2d_wide", folds=[0])[0].manifest["nnunet"]
    assert (chosen["configuration"], chosen["patch_size"], chosen["spacing"]) == (
        "2d_wide",
        [16, 8],
        [1.0, 0.5],
    )
    for name, message in (
        ("lost", "do not inherit"),
        ("loop", "do not inherit"),
        ("2d_cascade", "second stage of a cascade"),
        ("3d_fullres", "expected a configuration among 2d, 2d_wide, .* got 3d_fullres"),
    ):
        with pytest.raises(ValueError, match=message):
            read_nnunet(folder, configuration=name)
    moved = folder.rename(folder.parent / "renamed")
    with pytest.raises(ValueError, match="expected a configuration among .* got none"):
        read_nnunet(moved)


def test_folds_are_listed_and_chosen(folder: Path) -> None:
    for name in ("fold_10", "fold_all", "fold_2"):
        (folder / name).mkdir()
        (folder / name / "checkpoint_best.pth").write_bytes((folder / "fold_0" / "checkpoint_final.pth").read_bytes())
    assert list_folds(folder) == ["0", "1"]
    assert list_folds(folder, checkpoint="checkpoint_best.pth") == ["2", "10", "all"]
    assert len(read_nnunet(folder, checkpoint="checkpoint_best.pth")) == 3
    assert [m.manifest["nnunet"]["fold"] for m in read_nnunet(folder, folds=["1", 0])] == ["1", "0"]
    with pytest.raises(ValueError, match="expected the folds 5 checkpoint_final.pth, got 0, 1"):
        read_nnunet(folder, folds=[5])


def test_load_model_chooses_a_fold(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds the folds 0, 1; expected a choice of one"):
        load_model(folder)
    chosen = load_model(folder, fold=1)
    assert chosen.manifest["nnunet"]["fold"] == "1"
    checkpoint = folder / "fold_1" / "checkpoint_final.pth"
    by_file = load_model(checkpoint)
    assert by_file.manifest == chosen.manifest and by_file.network == chosen.network
    with pytest.raises(ValueError, match="expected fold 1, to which the file belongs, got fold=0"):
        load_model(checkpoint, fold=0)
    with pytest.raises(ValueError, match="expected neither arch nor arguments, got arch, rank"):
        load_model(folder, "nnunet_plain", fold=0, rank=2)
    with pytest.raises(ValueError, match="holds the nnU-Net folders nnUNetTrainer__nnUNetPlans__2d"):
        load_model(tmp_path)
    save_model(tmp_path / "kept", chosen)
    assert restore_model(tmp_path / "kept").manifest == chosen.manifest


def test_damaged_folders(folder: Path) -> None:
    rewrite(folder, "dataset.json", channel_names={"0": "CT"})
    with pytest.raises(ValueError, match="one normalisation .* for each of the 1 channels"):
        read_nnunet(folder)
    rewrite(folder, "dataset.json", channel_names=DATASET["channel_names"], labels={"background": 0, "organ": 4})
    with pytest.raises(ValueError, match="expected the labels 0 to 1, got 0, 4"):
        read_nnunet(folder)
    rewrite(folder, "dataset.json", labels={"background": 0, "organ": 1})
    with pytest.raises(ValueError, match=r"fold_0.checkpoint_final.pth: .*n_classes=2 \(the weights say 3\)"):
        read_nnunet(folder)
    rewrite(folder, "dataset.json", labels=DATASET["labels"])
    rewrite(folder, "plans.json", transpose_forward=None)
    with pytest.raises(ValueError, match="not as nnU-Net writes it"):
        read_nnunet(folder)
    (folder / "plans.json").write_text("{")
    with pytest.raises(ValueError, match="plans.json: expected JSON, got"):
        read_nnunet(folder)
    (folder / "dataset.json").unlink()
    (folder / "plans.json").write_text(json.dumps(PLANS))
    with pytest.raises(ValueError, match="dataset.json: expected the file of an nnU-Net folder, got nothing"):
        read_nnunet(folder)


REAL = {
    "2d": "Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlansSag__2d",
    "2d_regions": "Dataset005_HippoRegions/nnUNetTrainer__nnUNetPlansSmall__2d",
    "3d_fullres": "Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlansSmall__3d_fullres",
    "resenc_3d_fullres": "Dataset004_Hippocampus/nnUNetTrainer_onlyMirror01__nnUNetResEncUNetSmallPlans__3d_fullres",
}


@pytest.mark.parametrize(
    ("case", "folds", "axes", "classes"),
    [
        ("2d", 1, [0, 1], ["background", "Anterior", "Posterior"]),
        ("2d_regions", 1, [0, 1], ["whole", "posterior"]),
        ("3d_fullres", 2, [0, 1, 2], ["background", "Anterior", "Posterior"]),
        ("resenc_3d_fullres", 1, [0, 1], ["background", "Anterior", "Posterior"]),
    ],
)
def test_real_models_give_the_logits_of_nnunet(shared: Path, case: str, folds: int, axes: list[int], classes: list[str]) -> None:
    data = shared / "golden" / "N_nnunet"
    models = read_nnunet(data / "models" / REAL[case])
    assert len(models) == folds
    assert models[0].manifest["nnunet"]["mirror_axes"] == axes and models[0].manifest["class_names"] == classes
    assert models[0].manifest["preprocessing"] == {"normalise": "zscore", "channels": 1}
    with np.load(data / "stages" / case / "thick.npz") as stage:
        images, logits = stage["tile_input"], stage["tile_logits_plain"]
    rank = models[0].network.rank
    reference = {
        "input": images.reshape(-1, 1, *images.shape[-rank:]),
        "logits": logits.reshape(-1, len(classes), *logits.shape[-rank:]),
    }
    parity = check_parity(models[0], reference=reference)
    assert parity["verdict"] == "equal" and parity["relative"] < 1e-5
