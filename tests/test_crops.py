"""Fit images as crops: which sides, where they lie, what they cost a run, and what kept models lose on the whole images."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from quam_jax.case import masks
from quam_jax.case.audit import models_broken_on_whole
from quam_jax.case.crops import WholeFit, crop_side, crops_of, is_cropped
from quam_jax.case.fit import fit_of_cases, read_fit_images
from quam_jax.case.quantify import quantify_images
from quam_jax.case.shared import whole_image_model
from quam_jax.config import Config, FitConfig, SearchConfig
from quam_jax.core.searching import search_images
from quam_jax.data.datasets import find_cases
from quam_jax.data.preprocess import Preprocessing
from quam_jax.models.model import SegmentationModel
from quam_jax.models.predict import fit_data
from quam_jax.studies.cases import StudyCase
from quam_jax.studies.splits import Identity
from tests.small_run import write_cases
from tests.tiny import NO_VIEWS, picture_model, tiny_image, tiny_model

pytestmark = pytest.mark.usefixtures("tiny")


def trained_on(*size: int) -> SegmentationModel:
    return dataclasses.replace(tiny_model(), manifest={"training": {"size": list(size)}})


def test_sides_come_from_the_training_the_settings_or_a_constant() -> None:
    auto = FitConfig()
    assert crop_side(auto, tiny_model()) == (256, 256)
    assert crop_side(auto, trained_on(96, 128)) == (96, 128)
    assert crop_side(auto, trained_on(2048, 2048)) == (256, 256)  # whole images: no size to go by
    assert crop_side(auto, trained_on(64)) == (256, 256)
    assert crop_side(auto, dataclasses.replace(tiny_model(), manifest={"training": "by hand"})) == (256, 256)
    assert crop_side(FitConfig(fit_crop="33"), trained_on(96, 96)) == (34, 34)  # what the network can take
    assert crop_side(FitConfig(fit_crop="0"), trained_on(96, 96)) == ()
    for wrong in ("-1", "x", "1.5", ""):
        with pytest.raises(ValueError, match="fit_crop: expected auto or a number of pixels"):
            FitConfig(fit_crop=wrong)


def test_only_large_images_are_cropped() -> None:
    auto, asked = FitConfig(), FitConfig(fit_crop="32")
    assert not is_cropped((40, 50), (32, 32), auto) and is_cropped((40, 52), (32, 32), auto)
    assert is_cropped((40, 30), (32, 32), asked) and not is_cropped((32, 30), (32, 32), asked)
    assert not is_cropped((4000, 3000), (), FitConfig(fit_crop="0"))


def test_crops_show_every_class_in_turn_and_lie_inside() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((50, 60), np.int32)
    labels[0, 59], labels[30, 7] = 1, 2
    image = np.stack([*np.indices(labels.shape).astype(np.float32), labels.astype(np.float32)], -1)
    shown = []
    for n in range(30):
        ((values, own),) = crops_of((image, labels), (16, 20), count=1, first=n, rng=rng)
        assert own.shape == (16, 20) and values.shape == (16, 20, 3)
        np.testing.assert_array_equal(values[..., 2], own)  # image and labels of one place
        assert np.ptp(values[..., 0]) == 15 and np.ptp(values[..., 1]) == 19
        shown.append(values[..., :2].reshape(-1, 2).min(0).tolist())
        if n % 3 < 2:
            assert (own == n % 3 + 1).any()
        else:
            assert (own == 0).any()
    assert shown[0] == [0, 40] and shown[1] == [22, 0]  # moved inside the image
    assert len({tuple(place) for place in shown[2::3]}) > 5
    (small,) = crops_of((image[:10, :30], labels[:10, :30]), (16, 20), count=1, first=0, rng=rng)
    assert small[1].shape == (10, 20)
    empty = crops_of((image, np.full_like(labels, -1)), (16, 20), count=2, first=0, rng=rng)
    assert len(empty) == 2


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crops")
    write_cases(root, ["a", "b", "c"])
    return root


def known_of(cases: Path, model: SegmentationModel, *, seed: int = 0, **settings: Any) -> Any:
    preprocessing = Preprocessing(normalise="zscore", channels=model.network.in_channels)
    found = find_cases(cases / "images", cases / "masks")
    return read_fit_images(found, cases, model=model, preprocessing=preprocessing, settings=FitConfig(**settings), seed=seed)


def test_a_run_draws_its_crops_once_from_its_seed(cases: Path) -> None:
    model = picture_model()
    one, same, other = (known_of(cases, model, seed=seed, fit_crop="8") for seed in (0, 0, 1))
    assert one.images.shape == (1, 8, 8, 8, 1)  # three of each of three cases, and of these as many as are asked for
    np.testing.assert_array_equal(one.images, same.images)
    assert np.abs(one.images - other.images).max() > 0.1
    whole = known_of(cases, model, fit_crop="0")
    assert whole.images.shape[1] == 3 and not whole.whole and len(one.whole) == 3
    assert not known_of(cases, model, fit_crop="8", fit_check=False).whole
    ((image, labels),) = one.whole[1]()
    np.testing.assert_array_equal(image, whole.images[0, 1][tuple(slice(n) for n in image.shape)])
    assert labels.any()
    few = known_of(cases, model, fit_crop="8", fit_cases=2)
    assert few.images.shape[1] == 2 and len(few.whole) == 2


def test_crops_of_different_cases_show_different_classes(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for n, name in enumerate("abc"):
        picture = np.random.default_rng(n).integers(0, 255, (40, 40)).astype(np.uint8)
        mask = np.zeros((40, 40), np.uint8)
        mask[:2, :2] = 255
        Image.fromarray(picture).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    known = known_of(tmp_path, picture_model(), fit_crop="8", fit_cases=3)
    assert (known.labels[0] > 0).any((1, 2)).tolist() == [True, False, True]


def test_the_audit_tells_of_crops_and_of_whole_images(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, search = picture_model(), SearchConfig(steps=4, learning_rate=0.1, slack=0.3)
    known = known_of(cases, model, fit_crop="8")
    shared = whole_image_model(model, fit_data(model, known.images, known.labels), search, whole=known.whole)
    assert shared.whole_fit is not None
    everything = known_of(cases, model, fit_crop="0")
    fit = fit_data(model, everything.images, everything.labels)
    expected = whole_image_model(model, fit, search).folds[0].prepared.reference_loss
    everything = shared.whole_fit.chosen(None)
    assert everything == [0, 1, 2] and [shared.whole_fit.chosen(n) for n in (0, 2, 4)] == [[0], [2], [1]]
    assert shared.whole_fit.reference_loss(everything) == pytest.approx(float(expected[0]), rel=1e-4)
    assert shared.whole_fit.bound(everything) == pytest.approx(1.3 * float(expected[0]), rel=1e-4)
    image = tiny_image(size=(20, 24))[..., :1]
    kept: dict[int, Any] = {}

    def watched(*arguments: Any, on_kept: Any, **named: Any) -> Any:
        def both(*place: Any) -> None:
            kept[place[2]] = place[3]
            on_kept(*place)

        return search_images(*arguments, on_kept=both, **named)

    monkeypatch.setattr(masks, "search_images", watched)
    (found,) = quantify_images(shared, [image], config=Config(samples=NO_VIEWS, search=search))
    for row in found.audit:
        assert [row.whole_fit_loss] == shared.whole_fit.losses(shared.folds[0].prepared, [kept[row.member]], [0, 1, 2])
        assert row.whole_fit_loss is not None and row.whole_bound == shared.whole_fit.bound(everything)
        assert row.whole_held == (row.whole_fit_loss <= row.whole_bound)
        assert row.whole_fit_loss != pytest.approx(row.fit_loss, rel=1e-3)  # other pixels
    assert len({row.whole_fit_loss for row in found.audit}) == len(found.audit)
    monkeypatch.undo()
    broken = [row for row in found.audit if row.held and not row.whole_held]
    assert models_broken_on_whole(found.audit) == (len(broken), sum(row.held for row in found.audit))
    one = dataclasses.replace(found.audit[0], held=True, whole_held=False)
    assert models_broken_on_whole([one, dataclasses.replace(one, whole_held=True), dataclasses.replace(one, held=False)]) == (
        1,
        2,
    )
    assert models_broken_on_whole([dataclasses.replace(one, whole_held=None)]) == (0, 0)
    (plain,) = quantify_images(whole_image_model(model, fit, search), [image], config=Config(samples=NO_VIEWS, search=search))
    assert all(row.whole_held is None for row in plain.audit)


def test_losses_on_whole_images_are_means_over_all_their_pixels() -> None:
    model = tiny_model()
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((1, 2, 8, 12, 2)).astype(np.float32), rng.integers(0, 2, (1, 2, 8, 12))
    fit = fit_data(model, images, labels)
    prepared = whole_image_model(model, fit, SearchConfig()).folds[0].prepared
    pairs = []
    for sides in ((6, 8), (30, 4)):
        pairs.append((rng.standard_normal((*sides, 2)).astype(np.float32), rng.integers(-1, 2, sides).astype(np.int32)))
    reads = []

    def read(n: int) -> Any:
        return lambda: reads.append(n) or [pairs[n]]

    whole = WholeFit.of([read(0), read(1)], prepared)
    moved = {name: value * 1.5 for name, value in model.params.items()}
    losses = whole.losses(prepared, [model.params, moved], [0, 1])
    assert reads == [0, 1, 0, 1]  # each image once for all models
    for params, loss in ((model.params, losses[0]), (moved, losses[1])):
        sums, count = 0.0, 0
        for image, labels in pairs:
            logits = model.network.apply(params, model.stats, jnp.asarray(image)[None])[0][0]
            log_probs = np.asarray(jax.nn.log_softmax(logits))
            own = np.take_along_axis(log_probs, np.maximum(labels, 0)[..., None], -1)[..., 0]
            sums, count = sums - own[labels >= 0].sum(), count + (labels >= 0).sum()
        assert loss == pytest.approx(sums / count, rel=1e-5)
    assert whole.reference_loss([0, 1]) == pytest.approx(losses[0], rel=1e-6)
    (one,) = whole.losses(prepared, [moved], [1])
    assert one != pytest.approx(losses[1], rel=1e-3) and whole.reference_loss([1]) == whole.reference_losses[1]


def test_of_cases_in_memory_as_many_crops_are_taken_as_of_files() -> None:
    rng = np.random.default_rng(0)
    cases = [
        StudyCase(Identity(str(n), "", str(n)), image, rng.integers(0, 2, (1, 40, 40)), (1.0, 1.0), image, str(n))
        for n, image in enumerate(rng.standard_normal((3, 40, 40, 2)).astype(np.float32))
    ]
    fit = fit_of_cases(tiny_model(), cases, FitConfig(fit_cases=4, fit_crop="16"))
    assert fit.labels.shape == (1, 4, 16, 16)
