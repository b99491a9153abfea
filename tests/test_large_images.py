"""Large pictures through a whole run: cut, prepared in parts, kept in files, shown reduced. Small ones stand for them."""

import errno
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from quam_jax.config import Config, PatchConfig, change
from quam_jax.data.large import row_blocks, zeros
from quam_jax.data.maps import read_map
from quam_jax.data.preprocess import PreparedInParts, Preprocessing
from quam_jax.data.volumes import read_image
from quam_jax.evaluation.evaluate import evaluate
from quam_jax.evaluation.reference_maps import consensus, contour_distance
from quam_jax.report.folder import read_run
from quam_jax.report.layers import read_layers
from quam_jax.results.review import rank_run
from quam_jax.runs.drawn import reduction
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.command_line import call
from tests.report_pages import read_page
from tests.small_run import SIZE, little_model, prepare_folders

MAPS = ("seg", "desc-reference_probseg", *(f"desc-{name}_uncertainty" for name in ("total", "aleatoric", "epistemic")))
SEARCH = {"steps": 2, "learning_rate": 0.05, "views": "none"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_folders(tmp_path_factory.mktemp("large"), model=little_model(5))  # it predicts both labels


def small_thresholds(patch: pytest.MonkeyPatch) -> None:
    """Everything that is done for large pictures is done for small ones."""
    patch.setattr("quam_jax.case.windows.WHOLE", 200)
    patch.setattr("quam_jax.case.windows.WINDOW", {2: 16})
    patch.setattr("quam_jax.data.large.IN_MEMORY", 100)
    patch.setattr("quam_jax.data.large.BLOCK", 150)
    patch.setattr("quam_jax.data.preprocess.LARGE", 100)
    patch.setattr("quam_jax.data.volumes.LARGE", 100)
    patch.setattr("quam_jax.runs.drawn.EXACT", 300)
    patch.setattr("quam_jax.runs.drawn.REDUCED", 150)


@pytest.fixture(scope="module")
def runs(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same pictures in patches of 16: as large ones are taken, and as they are told to be cut."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        small_thresholds(patch)
        run(RunRequest(**folders, out=root / "large", config=change(Config(), SEARCH)))
    run(RunRequest(**folders, out=root / "told", config=change(Config(), {**SEARCH, "patch_size": "16"})))
    return {name: root / name for name in ("large", "told")}


def test_what_keeps_memory_flat_changes_no_number(runs: dict[str, Path]) -> None:
    for case in ("a", "b"):
        for name in MAPS:
            found, expected = (read_map(runs[which] / f"{case}_{name}") for which in ("large", "told"))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        large, told = (json.loads((runs[which] / f"{case}.json").read_text()) for which in ("large", "told"))
        assert large["patches"] == told["patches"] == 2 * 3 and large["patches_searched"] == told["patches_searched"] > 0
        assert {tuple(row["start"]) for row in large["audit"]} <= {(y, x) for y in (0, 5) for x in (0, 5, 10)}
        for name, value in told["metrics"].items():
            assert large["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), name


def test_a_run_says_how_images_are_cut(runs: dict[str, Path]) -> None:
    large, told = (json.loads((runs[which] / "run.json").read_text()) for which in ("large", "told"))
    assert large["patches"] == {"size": [16, 16], "whole_up_to_pixels": 200, "step": 0.5, "weights": "gaussian"}
    assert told["patches"] == {"size": [16, 16], "step": 0.5, "weights": "gaussian"}
    assert told["config"]["patches"] == {"patch_size": "16", "patch_step": 0.5} and told["setting"] == "custom"


def test_the_report_shows_a_large_picture_reduced_and_says_so(runs: dict[str, Path]) -> None:
    case = read_run(runs["large"]).cases[0]
    layers = read_layers(case)
    assert layers.factor == 2 and layers.space == (11, 13) and layers.full == SIZE
    total = read_map(runs["large"] / "a_desc-total_uncertainty")
    np.testing.assert_allclose(layers.arrays["total"][0, 0], total[:2, :2].mean(), rtol=1e-5)
    np.testing.assert_allclose(layers.arrays["total"][-1, -1], total[20:, 24:].mean(), rtol=1e-5)
    labels = read_map(runs["large"] / "a_seg")[1::2, 1::2]
    np.testing.assert_array_equal(layers.arrays["segmentation"][:10], labels)
    assert len(np.unique(labels)) == 2
    page, _, cases = read_page(runs["large"] / "report.html")
    shown = json.dumps(cases)
    assert "Shown at 1/2 of the image&#39;s 21 x 26 pixels; the files keep every pixel." in shown
    assert "images cut: whole_up_to_pixels" in page and re.search(r"6, [1-6] searched", page + shown)
    assert "Shown at" not in json.dumps(read_page(runs["told"] / "report.html")[2])


def test_figures_beside_a_reduced_picture_are_those_of_all_pixels(runs: dict[str, Path]) -> None:
    record = json.loads((runs["large"] / "a.json").read_text())["reduced"]
    total, labels = read_map(runs["large"] / "a_desc-total_uncertainty"), read_map(runs["large"] / "a_seg")
    assert record["maps"]["total"] == pytest.approx([total.mean(), total[labels > 0].mean(), total.max()], rel=1e-5)
    pixels = json.loads((runs["large"] / "a.json").read_text())["structures"]["pixels"]
    assert pixels["prediction"] == np.bincount(labels.reshape(-1).astype(int))[1:].tolist()
    assert len(pixels["adversarial"]) == 2 and set(pixels["raters"]) == {"r0", "r1"}


def test_the_review_list_counts_pixels_of_the_picture(runs: dict[str, Path], tmp_path: Path) -> None:
    found = {which: rank_run(runs[which], tmp_path / which, threshold=0.004) for which in ("large", "told")}
    large, told = ({row["case"]: row["epistemic"] for row in found[which].cases} for which in ("large", "told"))
    assert large == pytest.approx(told, rel=0.1)
    for row in found["large"].regions:
        labels = read_map(tmp_path / "large" / f"{row['case']}_desc-review_dseg")
        assert labels.shape == SIZE
        place = tuple(int(n) for n in row["at"].split(","))
        assert labels[place] == row["label"]
        assert 0 <= row["pixels"] - (labels == row["label"]).sum() < 4 * sum(SIZE) // 2  # blocks at the far edges hold less


@pytest.mark.parametrize("settings", [{"patch_size": "0"}, {"patch_size": "64"}])
def test_a_patch_as_large_as_the_picture_leaves_it_as_it_is(settings, folders, tmp_path, runs) -> None:
    run(RunRequest(**folders, out=tmp_path / "whole", config=change(Config(), SEARCH)))
    run(RunRequest(**folders, out=tmp_path / "asked", config=change(Config(), {**SEARCH, **settings})))
    for name in MAPS:
        np.testing.assert_array_equal(read_map(tmp_path / "asked" / f"a_{name}"), read_map(tmp_path / "whole" / f"a_{name}"))


def test_figures_of_large_pictures_come_from_every_nth_row_and_column(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 2, (4, 5)), np.ones((10, 9), int))
    raters = np.stack([np.roll(labels, shift, axis=0) for shift in (0, 2, 3)])
    probabilities = rng.dirichlet((1, 1), labels.shape)
    maps = {name: rng.random(labels.shape) for name in ("total", "boundary")}
    given = {"probabilities": probabilities, "segmentation": labels, "samples": raters}
    full = evaluate(maps, raters, **given)
    monkeypatch.setattr(importlib.import_module("quam_jax.evaluation.evaluate"), "MOST", labels.size // 4)
    found = evaluate(maps, raters, **given)
    assert found.pop("pixels") == "figures of maps and probabilities from every 2nd row and column" and "pixels" not in full
    of_segmentation = [name for name in full if name.startswith(("dice", "iou", "hd", "nsd", "volume_error", "relative"))]
    assert len(of_segmentation) == 16 and all(found[name] == full[name] for name in of_segmentation)
    monkeypatch.undo()
    some = {"probabilities": probabilities[::2, ::2], "segmentation": labels[::2, ::2], "samples": raters[:, ::2, ::2]}
    few = evaluate({n: v[::2, ::2] for n, v in maps.items()}, raters[:, ::2, ::2], **some, spacing=(2.0, 2.0))
    for name, value in few.items():
        if name not in of_segmentation:
            assert found[name] == pytest.approx(value, nan_ok=True), name
    assert found["volume_crps_curvas"] == pytest.approx(full["volume_crps_curvas"], rel=1.0)  # pixels of the picture


@pytest.mark.parametrize("spacing", [None, (0.7, 2.0)])
def test_distances_by_rows_are_those_of_the_whole(spacing, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.kron(np.random.default_rng(1).integers(0, 3, (4, 5)), np.ones((7, 6), int)).astype(np.int8)
    whole = contour_distance(labels, spacing=spacing)
    size = (1.0, 1.0) if spacing is None else spacing
    other = [ndimage.distance_transform_edt(labels == k, sampling=size) for k in range(3)]
    np.testing.assert_array_equal(whole, sum(other))
    monkeypatch.setattr("quam_jax.evaluation.reference_maps.BLOCK", 50)
    np.testing.assert_array_equal(contour_distance(labels, spacing=spacing), whole)
    raters = np.stack([labels, np.roll(labels, 3, 0), np.roll(labels, 2, 1), labels * 0])
    by_rows = consensus(raters, classes=3, ties="smallest")
    monkeypatch.undo()
    np.testing.assert_array_equal(by_rows, consensus(raters, classes=3, ties="smallest"))


# the command line


def options(folders: dict[str, Path], **changes: object) -> list[object]:
    paths = {**folders, "steps": 1, "views": "none", **changes}
    return [part for name, value in paths.items() for part in (f"--{name.replace('_', '-')}", value)]


def test_patches_on_the_command_line(folders, tmp_path, monkeypatch, capsys) -> None:
    given = options(folders, out=tmp_path / "o", patch_size="16x20", patch_step="1")
    assert call(monkeypatch, capsys, "-q", "run", *given)[0] == 0
    assert json.loads((tmp_path / "o" / "run.json").read_text())["patches"]["size"] == [16, 20]
    assert json.loads((tmp_path / "o" / "a.json").read_text())["patches"] == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch_size": "large"}, "patch_size: expected auto, 0, or pixels such as 512 or 512x640, got 'large'"),
        ({"patch_size": "1"}, "patch_size: expected sides that are multiples of 2x2, which is what the network takes"),
        ({"patch_size": "16x16x16"}, "patch_size: expected one side, or 2"),
        ({"patch_step": "0"}, "patch_step: expected a number above 0, up to 1, got 0.0"),
    ],
)
def test_patches_that_cannot_be(changes, said, folders, tmp_path, monkeypatch, capsys) -> None:
    code, _, error = call(monkeypatch, capsys, "run", *options(folders, out=tmp_path / "o", **changes))
    assert code == 2 and said in error and error.count("\n") == 1 and not (tmp_path / "o").exists()


def test_pictures_of_odd_sizes_and_a_bomb(folders, tmp_path, monkeypatch, capsys) -> None:
    """What fits is done, what does not is named, and nothing is lost."""
    monkeypatch.setattr("quam_jax.case.windows.WHOLE", 200)
    rng = np.random.default_rng(0)
    for name, shape in {"dot": (1, 1), "line": (3, 700), "column": (500, 1)}.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    Image.new("1", (40000, 40000)).save(tmp_path / "in" / "bomb.png")
    given = options({k: v for k, v in folders.items() if k != "masks"}, images=tmp_path / "in", out=tmp_path / "o")
    code, _, error = call(monkeypatch, capsys, "-q", "run", *given)
    assert code == 1 and error.count("failed:") == 1
    assert "40000 x 40000 pixels, 1,600,000,000 values, are more than the 536,870,912 allowed; cut it into parts" in error
    for name, shape in {"dot": (1, 1), "line": (3, 700), "column": (500, 1)}.items():
        assert np.isfinite(read_map(tmp_path / "o" / f"{name}_desc-total_uncertainty")).all()
        assert read_map(tmp_path / "o" / f"{name}_seg").shape == shape
    assert json.loads((tmp_path / "o" / "line.json").read_text())["patches"] == 2


# parts


@pytest.mark.parametrize(
    "settings",
    [
        Preprocessing("zscore", channels=3),
        Preprocessing("zscore", channels=1, scale=255.0),
        Preprocessing("minmax", channels=3, clip=(2.0, 97.5)),
        Preprocessing("fixed", channels=3, scale=255.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        Preprocessing("none", channels=3, clip=(1.0, 99.0), scale=2.0),
        Preprocessing("zscore", channels=3, window=(40, 200)),
    ],
)
def test_parts_of_a_prepared_picture_are_those_of_the_whole(settings: Preprocessing, monkeypatch) -> None:
    monkeypatch.setattr("quam_jax.data.large.BLOCK", 40)
    monkeypatch.setattr("quam_jax.data.preprocess.LARGE", 10)
    image = np.random.default_rng(0).integers(0, 256, (13, 9, 3)).astype(np.uint8)
    parts, whole = settings.prepare(image), settings.apply(image)
    assert isinstance(parts, PreparedInParts) and parts.shape == whole.shape and parts[2:5].dtype == np.float32
    np.testing.assert_allclose(parts[4:9, 2:7], whole[4:9, 2:7], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(parts), whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="the network takes 2 channels, got 3"):
        Preprocessing("zscore", channels=2).prepare(image)


def test_small_pictures_are_prepared_whole() -> None:
    image = np.ones((13, 9, 3), np.uint8)
    assert isinstance(Preprocessing("none", channels=3).prepare(image), np.ndarray)


def test_large_pictures_stay_integers_only_where_that_is_wanted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("quam_jax.data.volumes.LARGE", 10)
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").array.dtype == np.float32
    kept = read_image(tmp_path / "a.png", small_types=True).array
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept[..., 0], image)


def test_large_arrays_lie_in_files(monkeypatch) -> None:
    monkeypatch.setattr("quam_jax.data.large.IN_MEMORY", 100)
    assert not isinstance(zeros((5, 5)), np.memmap)
    array = zeros((7, 5), np.int8), zeros((7, 5))
    assert not isinstance(array[0], np.memmap) and isinstance(array[1], np.memmap) and not array[1].any()
    monkeypatch.setattr("quam_jax.data.large.BLOCK", 11)
    assert list(row_blocks((7, 5))) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert list(row_blocks((2, 50))) == [slice(0, 1), slice(1, 2)]


def test_a_full_disk_is_named_before_anything_is_written_to_it(monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("quam_jax.data.large.IN_MEMORY", 100)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="no room for 140 bytes of maps; set TMPDIR"):
        zeros((7, 5))


def test_the_report_takes_pictures_as_they_are_up_to_two_megapixels() -> None:
    assert [reduction(space) for space in ((1024, 811), (1280, 960), (2048, 1024))] == [1, 1, 1]
    assert [reduction(space) for space in ((2048, 2048), (4096, 4096), (8192, 8192))] == [2, 4, 8]
    assert reduction((3, 10**6)) == 2 and reduction((512, 512, 300)) == 1 and reduction((1, 10**7)) == 1
    assert PatchConfig() == Config().patches
