"""Networks of independent channels and of one logit from an image to the files of a run."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.special import entr, expit

from quam_jax.case.fit import read_fit_images
from quam_jax.case.quantified import Quantified
from quam_jax.case.quantify import quantify_images
from quam_jax.case.shared import whole_image_model
from quam_jax.config import Config, SearchConfig, TargetConfig, change
from quam_jax.data.datasets import find_cases
from quam_jax.models.description import preprocessing_of
from quam_jax.models.folder import save_model
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.models.outputs import coding_of, declare_outputs
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.small_run import picture, prepare_folders
from tests.tiny import NO_VIEWS, tiny_fit, tiny_image, tiny_model, tiny_network

REGIONS = {"core": [2], "whole": [1, 2]}
MASK = Config(samples=NO_VIEWS, search=SearchConfig(steps=2, learning_rate=0.02))
HEADS = SearchConfig(space="head", members=2, steps=2, learning_rate=0.2, slack=0.2, fit_points=0)
ASKED = {
    "mask": MASK,
    "pixel": Config(targets=TargetConfig(target="pixel", pixels="uncertain", pixel_count=9), search=HEADS),
    "region": Config(targets=TargetConfig(target="region", regions="tiles", region_size=5), search=HEADS),
}


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with tiny_network():
        yield


def nested() -> SegmentationModel:
    """A core inside of a whole, in the other order than they are written in."""
    return declare_outputs(tiny_model(classes=2), regions=REGIONS)


def with_background() -> SegmentationModel:
    return declare_outputs(tiny_model(classes=2), "sigmoid", names=["background", "lesion"])


def channels_of(model: SegmentationModel, image: np.ndarray) -> np.ndarray:
    """The sigmoids of the network's own channels, as the manifest orders their regions."""
    own = dataclasses.replace(model, network=dataclasses.replace(model.network, sums=None))
    return expit(np.asarray(own(image[None]), np.float64))[0][..., model.manifest["outputs"]["channels"]]


def find(model: SegmentationModel, image: np.ndarray, config: Config) -> Quantified:
    return quantify_images(whole_image_model(model, tiny_fit(model), config.search), [image], config=config)[0]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", [nested, with_background])
def test_what_is_said_of_independent_channels(kind: Any, asked: str) -> None:
    model, image = kind(), tiny_image(size=(9, 12))
    found = find(model, image, ASKED[asked])
    assert found.channels is not None and found.adversarial_classes is not None
    channels = channels_of(model, image)
    np.testing.assert_allclose(found.channels, channels, atol=1e-5)
    np.testing.assert_allclose(found.softmax, (entr(channels) + entr(1 - channels)).sum(-1), atol=1e-5)
    record = model.manifest["outputs"]
    labels = np.zeros(image.shape[:-1], int)
    for r, label in enumerate(record["writes"]):  # later ones over earlier ones
        labels[channels[..., r] > 0.5] = label
    np.testing.assert_array_equal(found.segmentation, labels)
    np.testing.assert_allclose(found.reference.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.total, found.aleatoric + found.epistemic, atol=1e-5)
    coding = coding_of(model)
    np.testing.assert_array_equal(found.adversarial, coding.label_of_class[found.adversarial_classes])
    said = found.in_classes(coding)
    np.testing.assert_array_equal(coding.subsets[said.segmentation], channels > 0.5)
    assert np.abs(found.epistemic).max() > 1e-5
    named = [r for r, labels_ in enumerate(record["regions"].values()) if labels_ != [0]]
    np.testing.assert_allclose(said.structures, channels[..., named], atol=1e-5)
    assert list(coding.structure_names) == [list(record["regions"])[r] for r in named]


def test_a_picture_in_patches_is_said_the_same_of() -> None:
    model, image = nested(), tiny_image(size=(20, 24))
    whole, parts = find(model, image, change(MASK, {"patch_size": "0"})), find(model, image, change(MASK, {"patch_size": "12"}))
    assert parts.patches is not None and parts.channels is not None and whole.channels is not None
    np.testing.assert_allclose(parts.channels[8:12, 8:16], whole.channels[8:12, 8:16], atol=0.2)
    coding = coding_of(model)
    assert parts.adversarial_classes is not None and parts.adversarial_classes.max() < coding.classes
    np.testing.assert_array_equal(parts.adversarial, coding.label_of_class[parts.adversarial_classes])


def test_slices_of_a_volume_keep_their_channels() -> None:
    model, volume = nested(), np.stack([tiny_image(size=(8, 12), seed=n) for n in range(3)], 2)
    found = find(model, volume, MASK)
    assert found.channels is not None and found.adversarial_classes is not None
    assert found.channels.shape == (8, 12, 3, 2) and found.adversarial_classes.shape == found.adversarial.shape
    for z in range(3):
        np.testing.assert_allclose(found.channels[:, :, z], channels_of(model, volume[:, :, z]), atol=1e-5)


def test_wanted_masks_move_the_foreground_where_the_background_has_a_channel() -> None:
    """Background is class 1 of the search there: what is wanted of a dilation must grow the lesion."""
    model = with_background()
    params = {**model.params, "head.bias": jnp.asarray([2.0, -0.5], jnp.float32)}
    model = dataclasses.replace(model, params=params)
    image, config = tiny_image(size=(10, 12)), change(MASK, {"shapes": "dilate", "learning_rate": 0.0})
    found = find(model, image, config)
    lesion = found.channels is not None and found.channels[..., 1] > 0.5
    np.testing.assert_array_equal(found.segmentation == 1, lesion)


def grey(channels: int, **said: Any) -> SegmentationModel:
    network = Network.create("tiny", in_channels=1, n_classes=channels)
    rng = np.random.default_rng(5)
    params, stats = network.shapes()
    weights = {n: jnp.asarray(rng.standard_normal(s) * 0.3, jnp.float32) for n, s in params.items()}
    manifest = {"preprocessing": {"normalise": "zscore", "channels": 1}}
    return declare_outputs(SegmentationModel(network, weights, {n: jnp.ones(s) for n, s in stats.items()}, manifest), **said)


def test_fit_masks_become_classes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = np.random.default_rng(0).integers(0, 3, (21, 26)).astype(np.uint8)
    Image.fromarray(picture(0)).save(tmp_path / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    model = grey(2, regions=REGIONS)
    cases = find_cases(tmp_path / "images", tmp_path / "masks")
    known = read_fit_images(cases, tmp_path, model=model, preprocessing=preprocessing_of(model), settings=MASK.fit)
    # the regions are written whole first: label 1 is {whole}, label 2 both
    np.testing.assert_array_equal(known.labels[0, 0, :21, :26], np.array([0, 1, 3])[mask])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with tiny_network():
        yield prepare_folders(tmp_path_factory.mktemp("run"), model=grey(2, regions={"core": [2], "whole": [1, 2]}))


def test_a_run_of_independent_channels(folders: dict[str, Path], tmp_path: Path) -> None:
    for part in ("masks", "fit_masks"):
        (tmp_path / part).mkdir()
        for file in sorted(folders[part].iterdir()):
            whole = np.asarray(Image.open(file)) > 0
            core = whole & (np.arange(whole.shape[1]) > whole.shape[1] // 2)
            Image.fromarray(whole.astype(np.uint8) + core.astype(np.uint8)).save(tmp_path / part / file.name)
    places = {**folders, "masks": tmp_path / "masks", "fit_masks": tmp_path / "fit_masks"}
    result = run(RunRequest(**places, out=tmp_path / "out", config=MASK))
    assert not result.failed and result.report.is_file()
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["structures"]["names"] == ["whole", "core"]
    for drawn in record["structures"]["pixels"]["raters"].values():
        assert drawn[0] > drawn[1] > 0  # the core is a part of the whole
    assert np.load(tmp_path / "out" / "a_desc-regions_probseg.npz")["data"].shape == (21, 26, 2)
    row = next(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert {"dice_consensus_class1", "dice_consensus_class2"} <= set(row)


def test_a_run_of_one_logit(folders: dict[str, Path], tmp_path: Path) -> None:
    save_model(tmp_path / "one", grey(1))
    result = run(RunRequest(**{**folders, "model": tmp_path / "one"}, out=tmp_path / "out", config=MASK))
    assert not result.failed and "dice" in result.rows[0]
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert info["model"]["classes"] == 2
    assert not (tmp_path / "out" / "a_desc-regions_probseg.npz").exists()  # two classes like any others


def test_a_network_that_does_not_explain_the_fit_masks_is_told_of(folders: dict[str, Path], tmp_path: Path) -> None:
    model = grey(1)
    upside_down = {**model.params, "head.bias": jnp.asarray([4.0])}  # foreground everywhere
    save_model(tmp_path / "bad", dataclasses.replace(model, params=upside_down))
    result = run(RunRequest(**{**folders, "model": tmp_path / "bad"}, out=tmp_path / "out", config=MASK))
    (note,) = (note for note in result.notes if "does not explain its own fit data" in note)
    assert "of that of a guess" in note


def test_studies_are_of_exclusive_classes(folders: dict[str, Path]) -> None:
    from quam_jax.studies.preparation import prepare_study
    from quam_jax.studies.request import StudyRequest

    request = StudyRequest(models=(str(folders["model"]),), fit="folder:x", validation="folder:x")
    with pytest.raises(
        ValueError, match="expected a network of classes of which a pixel has one, got one of independent channels"
    ):
        prepare_study(request)
