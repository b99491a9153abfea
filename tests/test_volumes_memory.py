"""Volumes in bounded memory: temporary files, blocks and boxes change no number, and what is held grows little with a volume."""

import gzip
import itertools
import logging
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import ndimage

from quam_jax.config import Config
from quam_jax.data.large import by_blocks, release, zeros
from quam_jax.data.maps import write_map
from quam_jax.data.resampling import Scheme, resample_image
from quam_jax.data.volumes import read_image
from quam_jax.evaluation.reference_maps import contour_band, contour_distance
from quam_jax.targets.wanted.dilate import dilate_mm
from quam_jax.targets.wanted.erode import erode_mm
from tests.planned import AFFINES, REGIONS, VIEWED, folders_of, model_of, quantify_file, ready, write
from tests.test_volumes_points import setting


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Two labels of a few smooth structures."""
    values = ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    values /= values.std()
    return ((values > 1).astype(np.int32) + (values > 1.7)).astype(np.int32)


@pytest.mark.parametrize(
    ("config", "record", "models"),
    [
        (VIEWED, {}, 1),
        (setting(pixels="band", band_width=1), {}, 2),
        pytest.param(setting(target="region", regions="pyramid", region_size=4, pyramid_levels=2), {}, 1, marks=pytest.mark.long),
        (setting(pixels="uncertain", pixel_count=40), REGIONS, 1),
    ],
    ids=["mask", "band of two folds", "pyramid", "regions of labels"],
)
def test_temporary_files_blocks_and_groups_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, record: dict[str, object], models: int
) -> None:
    folders = folders_of(tmp_path, (11, 13, 9), AFFINES["oblique"])
    shared, _ = ready([model_of(seed=seed, spacing=[1.5, 0.9, 1.1], **record) for seed in range(models)], folders, config)
    path = tmp_path / "in" / "case_0000.nii.gz"
    plain = quantify_file(shared, path, config)
    monkeypatch.setattr("quam_jax.data.large.IN_MEMORY", 0)
    monkeypatch.setattr("quam_jax.data.large.BLOCK", 100)
    monkeypatch.setattr("quam_jax.data.plans.SLAB", 100)
    monkeypatch.setattr("quam_jax.evaluation.reference_maps.BLOCK", 200)
    filed = quantify_file(shared, path, config)
    assert isinstance(filed.reference, np.memmap) and not isinstance(plain.reference, np.memmap)
    for name in ("reference", "segmentation", "total", "aleatoric", "epistemic", "softmax", "adversarial"):
        np.testing.assert_array_equal(getattr(filed, name), getattr(plain, name), err_msg=name)
    assert plain.volumes is not None and filed.volumes is not None
    np.testing.assert_allclose(filed.volumes.ml, plain.volumes.ml, rtol=1e-12)
    for name, values in plain.fragility.items():
        np.testing.assert_array_equal(filed.fragility[name], values)


def test_pixels_in_several_groups_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = setting(pixels="band", band_width=1)
    shared, _ = ready([model_of()], folders_of(tmp_path, (11, 13, 9), AFFINES["plain"]), config)
    path = tmp_path / "in" / "case_0000.nii.gz"
    together = quantify_file(shared, path, config)
    monkeypatch.setattr("quam_jax.case.points.NUMBERS", 8 * shared.records(config.search) * 3)
    apart = quantify_file(shared, path, config)
    np.testing.assert_allclose(apart.epistemic, together.epistemic, atol=1e-6)
    np.testing.assert_array_equal(apart.adversarial, together.adversarial)
    assert [(a.patch, a.searched, a.kept) for a in apart.audit] == [(a.patch, a.searched, a.kept) for a in together.audit]


def test_another_number_of_voxels_compiles_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = [f"{x},{y},{z}" for x, y, z in itertools.product((2, 3), (3, 4), (1, 2))]

    def config(count: int) -> Config:
        return setting(pixels="list", pixel_list=";".join(points[:count]))

    shared, _ = ready([model_of()], folders_of(tmp_path, (8, 8, 8), AFFINES["plain"]), config(5))
    path = tmp_path / "in" / "case_0000.nii.gz"
    for count in (5, 6):
        quantify_file(shared, path, config(count))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        quantify_file(shared, path, config(7))
    assert [r.message for r in caplog.records if "Compiling" in r.message] == []


def test_splines_of_float32_are_those_of_float64_rounded() -> None:
    rng = np.random.default_rng(0)
    for shape, out in itertools.product([(7, 9, 11), (12, 10, 5), (2, 8, 6)], [(9, 9, 6), (24, 20, 10), (2, 5, 6)]):
        image = (rng.standard_normal((*shape, 1)) * 100).astype(np.float32)
        values = image[..., 0].astype(np.float64)
        factors = [m / n for n, m in zip(shape, out, strict=True)]
        whole = ndimage.zoom(values, factors, output=np.empty(out), order=3, mode="nearest", grid_mode=True)
        expected = np.clip(whole, values.min(), values.max()).astype(np.float32)
        np.testing.assert_array_equal(resample_image(image, out, Scheme(3, None, 0))[..., 0], expected)
        slices = []
        for values in image[..., 0].astype(np.float64):
            whole = ndimage.zoom(values, factors[1:], output=np.empty(out[1:]), order=3, mode="nearest", grid_mode=True)
            slices.append(values if values.shape == out[1:] else np.clip(whole, values.min(), values.max()))
        nearest = np.minimum(((np.arange(out[0]) + 0.5) * shape[0] / out[0]).astype(int), shape[0] - 1)
        expected = np.stack(slices)[nearest].astype(np.float32)
        np.testing.assert_array_equal(resample_image(image, out, Scheme(3, 0, 0))[..., 0], expected)


@pytest.mark.parametrize("seed", range(8))
def test_distances_in_blocks_and_boxes_are_those_of_the_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    spacing = rng.choice([0.5, 0.8, 1.0, 3.0], 3).tolist()
    labels = blobs(rng, tuple(rng.integers(5, 24, 3)))
    labels[:, 0], labels[0, 0, 0] = 0, 1
    monkeypatch.setattr("quam_jax.evaluation.reference_maps.BLOCK", 100)
    parts = [ndimage.distance_transform_edt(labels == label, sampling=spacing) for label in np.unique(labels)]
    distance = sum(parts[1:], parts[0])
    np.testing.assert_array_equal(contour_distance(labels, spacing=spacing), distance)
    for width in (0.5, float(np.median(spacing)) + 1e-6, 2.3, 9.0):
        np.testing.assert_array_equal(contour_band(labels, width, spacing=spacing), np.flatnonzero(distance <= width))
        away, nearest = ndimage.distance_transform_edt(labels == 0, sampling=spacing, return_indices=True)
        grown = np.where(away <= width + 1e-6, labels[tuple(nearest)], 0)
        np.testing.assert_array_equal(dilate_mm(labels, radius=width, spacing=spacing), grown)
        for outside in ("edge", "background"):
            kept = np.zeros_like(labels)
            for label in (1, 2):
                inside = np.pad(labels == label, 1) if outside == "background" else labels == label
                own = ndimage.distance_transform_edt(inside, sampling=spacing)
                own = own[1:-1, 1:-1, 1:-1] if outside == "background" else own
                kept[(labels == label) & (own > width + 1e-6)] = label
            np.testing.assert_array_equal(erode_mm(labels, radius=width, spacing=spacing, outside=outside), kept)


def test_a_map_packed_slab_by_slab_is_packed_as_one(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((9, 8, 7)).astype(np.float32)
    image = read_image(write(tmp_path / "a.nii.gz", array, AFFINES["oblique"]))
    for values in (array, np.stack([array, -array], -1)):
        kind = "uncertainty" if values.ndim == 3 else "probability"
        (path,) = write_map(tmp_path / "map", values, image.geometry, kind=kind)
        packed = path.read_bytes()
        content = gzip.decompress(packed)
        assert gzip.compress(content, 1, mtime=0) == packed
        assert content[352:] == values.tobytes(order="F")


def test_what_is_released_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quam_jax.data.large.IN_MEMORY", 0)
    monkeypatch.setattr("quam_jax.data.large.BLOCK", 10)
    array = zeros((6, 5, 4))
    array[...] = np.arange(120).reshape(6, 5, 4)
    release(np.asarray(array[..., 0]))
    np.testing.assert_array_equal(by_blocks(lambda rows: rows.sum(-1), array), np.arange(120).reshape(6, 5, 4).sum(-1))


PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
import quam_jax.data.large as large
large.IN_MEMORY = 2**22
from quam_jax.process import keep_freed_memory
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from quam_jax.models.folder import save_model
from tests.planned import folders_of, model_of
from tests.test_volumes_points import setting
keep_freed_memory()
root, sides = Path(sys.argv[1]), tuple(map(int, sys.argv[2:]))
folders = folders_of(root, (32, 32, 32), np.eye(4))
from tests.planned import scan, write
write(root / "in" / "case_0000.nii.gz", scan(sides)[0], np.eye(4))
folders.pop("masks")
save_model(root / "model", model_of(patch_size=[32, 32, 32], mirror_axes=[], spacing=[1.0, 1.0, 1.0]))
target = setting(pixels="uncertain", pixel_count=500)
assert not run(RunRequest(model=root / "model", out=root / "out", config=target, **folders)).failed
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is given back to files on Linux alone")
def test_what_a_whole_run_holds_grows_little_with_the_volume(tmp_path: Path) -> None:
    peaks = []
    for sides in ((64, 64, 64), (128, 128, 128)):
        command = [sys.executable, "-c", PEAK, str(tmp_path / str(sides[0])), *map(str, sides)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        peaks.append(int(done.stdout.split()[-1]))
    assert (peaks[1] - peaks[0]) / (128**3 - 64**3) < 60  # bytes a voxel; an array of its probabilities takes 12
