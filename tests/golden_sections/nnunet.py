"""Section N: nnU-Net models from folder to probabilities and labels in the image's grid, against nnU-Net's own predictor.

The folder's README lists the configurations with their models and folds. Predictions with float32 accumulators are held to
1e-3 on every voxel and to 99.99 % equal labels; where only nnU-Net's float16 accumulators were recorded, to their own spread.
"""

import functools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from converters.nnunet import read_nnunet
from quam_jax.case.prediction import predict_logits
from quam_jax.data.patches import importance, lay_patches
from quam_jax.data.plans import Plan, from_grid, to_grid
from quam_jax.data.volumes import read_channels
from quam_jax.models.coding import Coding
from quam_jax.models.model import SegmentationModel

FOLDER = "N_nnunet"
INDEX = f"{FOLDER}/README.md"
EXACT, LABELS = 1e-3, 0.9999
NEAR, MOST = 0.01, 0.995  # nnU-Net's float16 sums: this share of voxels is near, single ones at corners are far
PREPARED = 1e-5  # of normalised intensities, float32


class _Configuration(NamedTuple):
    folder: str
    folds: tuple[int, ...]


def cases(golden: Path) -> list[str]:
    """One case for each configuration, with and without mirroring, and input."""
    return [
        f"{name}-{mirror}-{path.name.removesuffix('.npz')}"
        for name in _configurations(golden)
        for mirror in ("tta", "notta")
        for path in sorted(_expected(golden, name, mirror).glob("*.npz"))
    ]


def not_covered(golden: Path) -> list[str]:
    """Configurations with outputs that the README does not list."""
    found = {path.name for part in ("expected", "expected_f32acc") for path in (golden / FOLDER / part).iterdir()}
    return sorted(found - set(_configurations(golden)))


def check(golden: Path, case: str) -> None:
    """Assert that probabilities and labels of one input are nnU-Net's."""
    name, mirror, image_name = case.split("-", 2)
    models, plan, coding = _load(golden, name)
    image = read_channels(sorted((golden / FOLDER / "inputs").glob(f"{image_name}_[0-9][0-9][0-9][0-9].nii.gz")))
    volume, grid = to_grid(image.array, image.geometry, plan)
    patches = lay_patches(grid.shape, plan.patch)
    stage = golden / FOLDER / "stages" / name / f"{image_name}.npz"
    if stage.is_file():
        with np.load(stage) as stored:
            np.testing.assert_allclose(volume, np.moveaxis(stored["preprocessed"], 0, -1), rtol=0, atol=PREPARED)
            assert [[s.start, s.stop] for s in grid.box] == stored["bbox"].tolist()
            assert len(patches.starts) == stored["n_tiles"]
            weights = stored["gaussian"].astype(np.float32)
            np.testing.assert_allclose(importance(patches.patch).reshape(weights.shape), weights, rtol=1e-3, atol=1e-6)
    logits = predict_logits(models, volume, patches, mirror_axes=plan.mirror_axes if mirror == "tta" else ())
    first = [1.0] + [0.0] * (logits.shape[-1] - 1) if coding.channel_regions is None else 0.0
    probs = from_grid(logits, grid, coding.channel_probs, outside=first)
    labels = from_grid(logits, grid, coding.segment, outside=0, dtype=np.int32)
    folder = _expected(golden, name, mirror)
    with np.load(folder / f"{image_name}.npz") as stored:
        wanted = stored["probabilities"].astype(np.float32).transpose(3, 2, 1, 0)
        segmentation = stored["segmentation"].transpose(2, 1, 0) if "segmentation" in stored else None
    exact = segmentation is not None
    if segmentation is None:
        segmentation = read_channels([folder / f"{image_name}.nii.gz"]).array[..., 0]
    assert probs.shape == wanted.shape
    gap = np.abs(probs - wanted)
    if exact:
        assert gap.max() <= EXACT, f"probabilities differ by {gap.max():.2g}"
    assert (near := float((gap <= NEAR).mean())) >= MOST, f"{near:.3%} of probabilities are near"
    equal = float((labels == segmentation).mean())
    assert equal >= LABELS, f"{equal:.5%} of labels are equal"


def _configurations(golden: Path) -> dict[str, _Configuration]:
    """The table of the README: | `name` | `folder`, or "the same" | folds | ..."""
    found: dict[str, _Configuration] = {}
    folder = ""
    for line in (golden / FOLDER / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) >= 3 and re.fullmatch(r"`\w+`", cells[0]) and re.search(r"\d", cells[2]):
            folder = cells[1].strip("`") if cells[1].startswith("`") else folder
            found[cells[0].strip("`")] = _Configuration(folder, tuple(map(int, re.findall(r"\d+", cells[2]))))
    return found


def _expected(golden: Path, name: str, mirror: str) -> Path:
    exact = golden / FOLDER / "expected_f32acc" / name / mirror
    return exact if exact.is_dir() else golden / FOLDER / "expected" / name / mirror


@functools.lru_cache(maxsize=1)
def _load(golden: Path, name: str) -> tuple[list[SegmentationModel], Plan, Coding]:
    configuration = _configurations(golden)[name]
    folder = golden / FOLDER / "models" / configuration.folder
    models = read_nnunet(folder, folds=configuration.folds)
    plan = Plan.of(models[0].manifest, where=str(folder))
    return models, plan, Coding.of(plan, where=str(folder))
