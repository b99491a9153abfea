"""nnU-Net itself, live: the same model folder and the same image give the same probabilities and labels.

Needs the package nnunetv2 beside this one in an environment (`pip install nnunetv2==2.8.1`). It adds its patches up in half
precision; here it is told to add in single precision, because what is compared is the method and not its rounding.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from converters.nnunet import read_nnunet
from quam_jax.case.prediction import predict_logits
from quam_jax.data.patches import lay_patches
from quam_jax.data.plans import Plan, from_grid, to_grid
from quam_jax.data.volumes import read_image
from quam_jax.models.coding import Coding

torch = pytest.importorskip("torch")
live = pytest.importorskip("nnunetv2.inference.predict_from_raw_data", exc_type=(ImportError, RuntimeError))
pytestmark = pytest.mark.peers

CASES = {
    "2d": ("Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlansSag__2d", "thick", (0,)),
    "regions": ("Dataset005_HippoRegions/nnUNetTrainer__nnUNetPlansSmall__2d", "hippocampus_049", (0,)),
    "3d, two folds": ("Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlansSmall__3d_fullres", "oblique", (0, 1)),
    "residual": ("Dataset004_Hippocampus/nnUNetTrainer_onlyMirror01__nnUNetResEncUNetSmallPlans__3d_fullres", "thick", (0,)),
}
WITHIN, LABELS = 1e-3, 0.9999
# folders and files as people have them: region orders, an ignored label, one slice, two voxel sizes, text, pictures
FIELD = ("kits", "peds", "label3", "oneslice", "spacing", "strlab", "png", "best")


@pytest.fixture
def single_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accumulators, weights and the Gaussian of nnU-Net in float32."""
    monkeypatch.setattr(torch, "half", torch.float32)
    gaussian = functools.partial(live.compute_gaussian.__wrapped__, dtype=torch.float32)
    gaussian.cache_clear = lambda: None  # type: ignore[attr-defined]  # it clears its cache when it is done
    monkeypatch.setattr(live, "compute_gaussian", gaussian)
    yield


@pytest.mark.parametrize("name", CASES)
def test_the_same_folder_and_image(shared: Path, single_precision: None, name: str) -> None:
    path, image, folds = CASES[name]
    root = shared / "golden" / "N_nnunet"
    assert_same(root / "models" / path, root / "inputs" / f"{image}_0000.nii.gz", folds)


@pytest.mark.parametrize("name", FIELD)
def test_folders_and_files_of_other_kinds(shared: Path, single_precision: None, name: str) -> None:
    case = shared / "field" / "cases" / f"nnunet_{name}"
    if not case.is_dir():
        pytest.skip(f"no case {case}")
    (model,) = case.glob("nnUNet*")
    (file,) = (case / "img").glob("a_0000.*")
    assert_same(model, file, (0,), checkpoint="checkpoint_best.pth" if name == "best" else "checkpoint_final.pth")


@pytest.mark.parametrize("axes", [2, 3])
def test_a_slice_of_two_axes_and_of_three(shared: Path, single_precision: None, tmp_path: Path, axes: int) -> None:
    root = shared / "golden" / "N_nnunet"
    volume = nib.load(root / "inputs" / "thick_0000.nii.gz")
    values = np.asarray(volume.dataobj)[:, :, volume.shape[2] // 2 :][:, :, :1]
    nib.save(nib.Nifti1Image(values if axes == 3 else values[..., 0], volume.affine), tmp_path / "a_0000.nii.gz")
    assert_same(root / "models" / CASES["regions"][0], tmp_path / "a_0000.nii.gz", (0,))


def assert_same(model: Path, file: Path, folds: tuple[int, ...], *, checkpoint: str = "checkpoint_final.pth") -> None:
    predictor = live.nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), folds, checkpoint)
    reader: Any = predictor.plans_manager.image_reader_writer_class()
    array, properties = reader.read_images([str(file)])
    labels, probs = predictor.predict_single_npy_array(array, properties, None, None, True)
    ours_probs, ours_labels = predict(model, file, folds)
    theirs_probs, theirs_labels = np.asarray(probs, np.float32).transpose(3, 2, 1, 0), np.asarray(labels).transpose(2, 1, 0)
    if file.suffix == ".png":  # rows come first
        theirs_probs, theirs_labels = theirs_probs.swapaxes(0, 1), theirs_labels.swapaxes(0, 1)
    gap = np.abs(theirs_probs.reshape(ours_probs.shape) - ours_probs)
    assert gap.max() <= WITHIN, f"probabilities differ by {gap.max():.2g}"
    assert float((theirs_labels.reshape(ours_labels.shape) == ours_labels).mean()) >= LABELS


def predict(folder: Path, file: Path, folds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the channels and labels of one image, on its own grid."""
    models = read_nnunet(folder, folds=folds)
    plan = Plan.of(models[0].manifest, where=str(folder))
    coding = Coding.of(plan, where=str(folder))
    image = read_image(file)
    volume, grid = to_grid(image.array, image.geometry, plan)
    logits = predict_logits(models, volume, lay_patches(grid.shape, plan.patch), mirror_axes=plan.mirror_axes)
    outside = [1.0] + [0.0] * (logits.shape[-1] - 1) if coding.channel_regions is None else 0.0
    return (
        from_grid(logits, grid, coding.channel_probs, outside=outside),
        from_grid(logits, grid, coding.segment, outside=0, dtype=np.int32),
    )
