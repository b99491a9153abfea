"""nnU-Net folders: plans, labels and regions, configurations, folds, and the real models with nnU-Net's own logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.nnunet import list_folds, read_nnunet
from converters.parity import check_parity
from quam_jax.models.folder import restore_model, save_model
from quam_jax.models.loading import load_model
from tests.nnunet_folder import CONFIGURATION, DATASET, PLANS, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model folder of two folds, without PyTorch."""
    root = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    write_folder(root, folds=2)
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
    with pytest.raises(ValueError, match="expected the folds 5 to hold checkpoint_final.pth, got 0, 1"):
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
    with pytest.raises(ValueError, match="expected the labels 0 to 1, .* got 0, 4"):
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
