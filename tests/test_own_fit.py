"""The given network on its own fit data: figures two ways, what looks wrong is told, and the preparation that fits is named."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quam_jax
from quam_jax.case.likeness import looks_of
from quam_jax.case.own_fit import OwnFit, compare_preparations, look_at_fit
from quam_jax.case.preparations import common_preparations, other_sizes
from quam_jax.core.progress import SAID, Event, listening
from quam_jax.data.preprocess import Preprocessing
from quam_jax.evaluation.overlap import dice
from quam_jax.models.coding import Coding
from quam_jax.models.model import SegmentationModel
from quam_jax.runs.request import RunRequest
from quam_jax.runs.run import run
from tests.tiny import tiny_model, tiny_network

DATA = Path(quam_jax.__file__).parent / "demo_data"
CODING = Coding.exclusive(2, ("background", "cell"))
TRAINED = Preprocessing("zscore")


@pytest.fixture(scope="module")
def network() -> SegmentationModel:
    return quam_jax.load_model(DATA / "model" / "att_unet.pth", arch="att_unet")


def picture(name: str = "B04") -> tuple[np.ndarray, np.ndarray]:
    read = [np.asarray(Image.open(DATA / kind / f"{name}.png")) for kind in ("fit_images", "fit_masks")]
    return read[0][..., None].astype(np.float32), (read[1] > 0).astype(np.int32)


def own_fit(model: SegmentationModel, image: np.ndarray, labels: np.ndarray, preprocessing: Preprocessing) -> OwnFit:
    own = look_at_fit(model, preprocessing.apply(image)[None, None], labels[None, None], coding=CODING)
    return compare_preparations(model, own, [(image, labels)], coding=CODING, preprocessing=preprocessing)


def test_the_figures_are_those_of_the_predictions() -> None:
    with tiny_network():
        model = tiny_model(classes=3)
        rng = np.random.default_rng(0)
        images = rng.standard_normal((2, 3, 8, 12, 2)).astype(np.float32)
        labels = rng.integers(-1, 3, (2, 3, 8, 12))
        found = look_at_fit(model, images, labels, coding=Coding.exclusive(3, ("a", "b", "c")))
        logits = np.stack([np.asarray(model(batch), np.float64) for batch in images])
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rated, own = labels >= 0, probs.argmax(-1)
    true = np.take_along_axis(probs, np.maximum(labels, 0)[..., None], -1)[..., 0]
    assert found.loss == pytest.approx(-np.log(true[rated]).mean(), rel=1e-5) and found.guess == pytest.approx(math.log(3))
    assert found.dice == {name: pytest.approx(dice(own[rated] == k, labels[rated] == k)) for k, name in enumerate("abc") if k > 0}
    assert found.drawn == pytest.approx([(labels[rated] == k).mean() for k in range(3)])
    assert found.predicted == pytest.approx([(own[rated] == k).mean() for k in range(3)])
    confidence, right = probs.max(-1)[rated], own[rated] == labels[rated]
    surer = confidence > np.median(confidence)
    assert found.surer == pytest.approx(right[surer].mean(), abs=0.02)
    assert found.others == pytest.approx(right[~surer].mean(), abs=0.02)


def test_a_slack_that_is_less_than_the_error_of_the_loss_and_a_single_image_are_told() -> None:
    own = OwnFit(0.1, 0.693, {}, (1.0, 0.0), (1.0, 0.0), 0.9, 0.8, error=0.05, images=4)
    assert own.doubts(1.0, "relative") == own.doubts(0.06, "nats") == own.doubts(0.0, "relative") == []
    for slack, unit in ((0.4, "relative"), (0.04, "nats")):
        (told,) = own.doubts(slack, unit)
        assert told.startswith("4 fit images are few for this slack: it allows 0.04 nats, and their loss is known to 0.05")
    (told,) = OwnFit(0.1, 0.693, {}, (1.0, 0.0), (1.0, 0.0), 0.9, 0.8, images=1).doubts(1.0, "relative")
    assert told.startswith("one fit image")


def test_images_unlike_the_fit_images_are_told() -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.standard_normal((5, 32, 32, 1)), 1).astype(np.float32)
    smooth = (smooth - smooth.mean((1, 2), keepdims=True)) / smooth.std((1, 2), keepdims=True)
    labels = np.zeros(smooth.shape[:-1], int)
    padded = np.pad(smooth[:4], ((0, 0), (0, 4), (0, 0), (0, 0)), constant_values=99.0)
    looks = looks_of(padded[None], np.pad(labels[:4], ((0, 0), (0, 4), (0, 0)), constant_values=-1)[None])
    assert looks is not None and looks.unlike(smooth[4]) == []
    assert looks.unlike(smooth[4] + 3) == ["darkest values", "middle", "brightest values"]
    assert looks.unlike(rng.standard_normal((32, 32, 1)).astype(np.float32)) == ["fineness"]
    assert "contrast" in looks.unlike(6 * smooth[4])
    assert looks_of(smooth[None, :2], labels[None, :2]) is None


def test_sizes_of_pixels_are_tried_too(network: SegmentationModel) -> None:
    """Pictures of larger and of smaller pixels than those that the demo network was trained on."""
    image, labels = picture()
    large, marks = np.repeat(np.repeat(image, 2, 0), 2, 1), np.repeat(np.repeat(labels, 2, 0), 2, 1)
    assert "with images shrunk 2 by 2," in own_fit(network, large, marks, TRAINED).better
    shapes = {words: values.shape for words, values, _ in other_sizes(image, labels)}
    assert set(shapes) == {"with images shrunk 2 by 2,", "with images shrunk 4 by 4,", "with images enlarged 2 by 2,"}
    assert shapes["with images enlarged 2 by 2,"] == (2 * image.shape[0], 2 * image.shape[1], 1)
    volume = np.zeros((64, 64, 40, 1)), np.zeros((64, 64, 40), int)
    flat = np.zeros((64, 64, 8, 1)), np.zeros((64, 64, 8), int)
    assert {values.shape[:3] for _, values, _ in other_sizes(*volume)} >= {(32, 32, 20), (128, 128, 80)}
    assert {values.shape[:3] for _, values, _ in other_sizes(*flat)} == {(32, 32, 8), (16, 16, 8), (128, 128, 8)}


def test_regions_are_structures_of_their_own() -> None:
    with tiny_network():
        model = tiny_model(classes=4)
        images = np.random.default_rng(1).standard_normal((1, 2, 8, 8, 2)).astype(np.float32)
        labels = np.random.default_rng(2).integers(0, 4, (1, 2, 8, 8))
        coding = Coding(3, ((1, 2), (2,)), (1, 2), ("whole", "core"), overlapping=True)
        found = look_at_fit(model, images, labels, coding=coding)
        own = np.asarray(model(images[0])).argmax(-1)
    for name, region in (("whole", 0), ("core", 1)):
        expected = dice((own >> region) & 1 == 1, (labels[0] >> region) & 1 == 1)
        assert found.dice[name] == pytest.approx(expected)


def looked(**changes: object) -> OwnFit:
    plain = dict(loss=0.05, guess=math.log(2), dice={"cell": 0.9}, drawn=(0.9, 0.1), predicted=(0.9, 0.1), surer=1.0, others=0.9)
    return OwnFit(**{**plain, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"loss": 0.36}, "its loss is 0.36 nats a pixel, 52% of that of a guess"),
        ({"loss": math.nan}, "its loss is nan"),
        ({"dice": {"cell": 0.05, "other": math.nan}}, "hardly anything of what the masks show"),
        ({"predicted": (1.0, 0.0)}, "it predicts one class everywhere"),
        ({"surer": 0.8, "others": 0.85}, "the surer it is, the more often it is wrong"),
    ],
)
def test_what_looks_wrong_is_told(changes: dict[str, object], told: str) -> None:
    assert not looked().findings and looked().warning == ""
    (finding,) = looked(**changes).findings
    assert told in finding and "those of its training?" in looked(**changes).warning
    json.dumps(looked(**changes).to_dict())


def test_a_rightly_prepared_network_is_believed(network: SegmentationModel) -> None:
    found = own_fit(network, *picture(), TRAINED)
    assert not found.findings and found.dice["cell"] > 0.8
    assert str(found).startswith("the given network on its fit data: 0.") and "Dice cell 0.8" in str(found)


@pytest.mark.parametrize(
    "wrong",
    [
        Preprocessing("none"),
        Preprocessing("none", scale=255.0),
        Preprocessing("minmax"),
        Preprocessing("fixed", scale=255.0, mean=(0.5,), std=(0.5,)),
    ],
)
def test_the_preparation_that_fits_is_named(network: SegmentationModel, wrong: Preprocessing) -> None:
    found = own_fit(network, *picture(), wrong)
    assert """--preprocessing '{"normalise": "zscore"}'""" in found.findings[-1]
    named = Preprocessing.from_dict(json.loads(found.better.split("'")[1]))
    assert named == TRAINED and "those of its training?" not in found.warning


def test_several_images_speak_where_one_shows_little(network: SegmentationModel) -> None:
    """Of the picture with a small cell alone another preparation would win by chance."""
    wrong, pairs = Preprocessing("none"), [picture(name) for name in ("B22", "B04", "B33")]
    prepared = np.stack([wrong.apply(image) for image, _ in pairs])[None]
    own = look_at_fit(network, prepared, np.stack([labels for _, labels in pairs])[None], coding=CODING)
    found = compare_preparations(network, own, pairs, coding=CODING, preprocessing=wrong)
    assert "zscore" in found.better and "3 fit images have" in found.better
    empty = [(image, np.zeros_like(labels)) for image, labels in pairs]
    assert compare_preparations(network, own, empty, coding=CODING, preprocessing=wrong) == own


def test_places_and_labels_are_tried_too(network: SegmentationModel) -> None:
    image, labels = picture()
    for axis in (0, 1):
        assert f"flipped along axis {axis} beside its mask" in own_fit(network, np.flip(image, axis), labels, TRAINED).better
    assert "with labels 0 and 1 exchanged" in own_fit(network, image, 1 - labels, TRAINED).better
    prepared = TRAINED.apply(image)
    own = look_at_fit(network, prepared[None, None], 1 - labels[None, None], coding=CODING)
    assert "exchanged" in compare_preparations(network, own, [(prepared, 1 - labels)], coding=CODING, preprocessing=None).better


def test_of_a_volume_the_slice_that_shows_most_is_tried(network: SegmentationModel) -> None:
    image, labels = picture()
    volume = np.stack([image, image], 2)
    marks = np.stack([np.zeros_like(labels), 1 - labels], -1)
    own = looked(loss=0.6)
    assert "exchanged" in compare_preparations(network, own, [(volume, marks)], coding=CODING, preprocessing=TRAINED).better


def test_preparations_that_people_use_are_tried_by_the_range_of_values() -> None:
    assert {p.scale for p in common_preparations(255, 1)} == {1.0, 255.0}
    assert {p.scale for p in common_preparations(4000, 1)} == {1.0, 65535.0}
    assert any(p.scale == pytest.approx(1 / 255) for p in common_preparations(1.0, 1))
    assert any(p.mean == (0.485, 0.456, 0.406) for p in common_preparations(255, 3))


def test_a_run_says_it_first_and_a_strict_one_is_refused(tmp_path: Path) -> None:
    request = RunRequest(
        model=DATA / "model" / "att_unet.pth",
        images=DATA / "images",
        out=tmp_path / "run",
        fit_images=DATA / "fit_images",
        fit_masks=DATA / "fit_masks",
        arch="att_unet",
        preprocessing=Preprocessing("minmax"),
        strict=True,
    )
    heard: list[Event] = []
    with listening(heard.append), pytest.raises(ValueError, match=r"does not explain its own fit data.*zscore.*--strict"):
        run(request)
    assert not (tmp_path / "run").exists() and not any(event.phase == SAID for event in heard)
