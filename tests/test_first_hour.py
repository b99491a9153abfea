"""What somebody meets first: help in groups, wrong names, nnU-Net's own words, folders of fit pairs, arrays of any kind."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quam_jax
from quam_jax.cli.grouped import GROUPS, HINTS
from quam_jax.cli.nnunet_folders import find_nnunet_folders
from quam_jax.config import Config, SearchConfig, fields_of
from quam_jax.config.effects import EFFECTS
from quam_jax.models.model import SegmentationModel
from quam_jax.runs.quantifier import find_quantifier
from quam_jax.runs.request import RunRequest
from tests.command_line import call
from tests.tiny import NO_VIEWS, SIZE, picture_model, tiny_image, tiny_model

DATA = Path(quam_jax.__file__).parent / "demo_data"


def test_help_shows_the_everyday_options_and_all_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, short, _ = call(monkeypatch, capsys, "run", "--help")
    assert code == 0 and "--fit-images" in short and "--damping" not in short and "--help-all" in short
    code, whole, _ = call(monkeypatch, capsys, "run", "--help-all")
    assert code == 0 and all(f"{title}:" in whole for title in GROUPS)
    assert all(f"--{name.replace('_', '-')}" in whole for name in fields_of(Config()))
    assert len(whole.splitlines()) > 2 * len(short.splitlines())
    code, out, err = call(monkeypatch, capsys, "run")
    assert (code, out) == (2, "") and "quam-jax run -d 4" in err and len(err.splitlines()) < 12


def test_every_number_of_the_settings_says_what_more_of_it_does() -> None:
    fields = {name: field for name, (_, field) in fields_of(Config()).items()}
    assert set(EFFECTS) == {name for name, field in fields.items() if field.type in (int, float)}


@pytest.mark.parametrize("option", ["--input", "--checkpoint", "--lr"])
def test_names_of_other_tools_are_told(option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(monkeypatch, capsys, "run", f"{option}=x")
    assert code == 2 and f"no option {option}; it is called {HINTS[option]} here" in err
    code, _, err = call(monkeypatch, capsys, "run", "--out", "x")
    assert code == 2 and "expected --model (your network), --images (to map)" in err and "-d DATASET" in err


def test_swapped_images_and_masks_and_missing_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    known = ("--fit-images", DATA / "fit_images", "--fit-masks", DATA / "fit_masks")
    model = ("--model", DATA / "model" / "att_unet.pth", "--arch", "att_unet")
    swapped = ("--images", DATA / "masks", "--masks", DATA / "images")
    code, _, err = call(monkeypatch, capsys, "run", *model, *swapped, *known, "--out", tmp_path / "o")
    assert code == 2 and "are images and masks swapped?" in err and not (tmp_path / "o").exists()
    code, _, err = call(monkeypatch, capsys, "export", DATA / "model" / "att_unet.pth", tmp_path / "no" / "net.pth")
    assert code == 2 and "expected a model folder" in err or "make it first" in err


def test_nnunet_names_lead_to_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "results" / "Dataset004_Heart" / "nnUNetTrainer__nnUNetPlans__2d"
    model.mkdir(parents=True)
    (tmp_path / "results" / "Dataset040_Other").mkdir()
    (tmp_path / "raw" / "Dataset004_Heart" / "imagesTr").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    given = {"trainer": "nnUNetTrainer", "plans": "nnUNetPlans"}
    for name in ("4", "004", "Dataset004_Heart"):
        assert find_nnunet_folders(name, "2d", **given) == (model, None, None, None)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert find_nnunet_folders("4", "2d", **given) == (model, None, tmp_path / "raw" / "Dataset004_Heart" / "imagesTr", None)
    with pytest.raises(ValueError, match="holds nnUNetTrainer__nnUNetPlans__2d .-c CONFIGURATION"):
        find_nnunet_folders("4", "3d_fullres", **given)
    with pytest.raises(ValueError, match="-d 5: expected one data set in .*, found Dataset004_Heart, Dataset040_Other"):
        find_nnunet_folders("5", "2d", **given)
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(ValueError, match="environment variable nnUNet_results"):
        find_nnunet_folders("4", "2d", **given)


def test_pairs_of_a_folder_are_those_of_a_run(tiny: None, tmp_path: Path) -> None:
    model = picture_model()
    pairs = quam_jax.read_pairs(model, DATA / "fit_images", str(DATA / "fit_masks"))
    request = RunRequest(model, DATA / "images", tmp_path / "o", DATA / "fit_images", DATA / "fit_masks")
    known = find_quantifier(request.load(), request).known
    np.testing.assert_array_equal(pairs.images, known.images)
    np.testing.assert_array_equal(pairs.labels, known.labels)
    assert repr(pairs).startswith("Pairs(images [1, ")
    with pytest.raises(ValueError, match="none of 40 masks belongs to a case"):
        quam_jax.read_pairs(model, DATA / "fit_images", DATA / "masks")


def test_a_run_from_python_and_its_second_call(tiny: None, tmp_path: Path) -> None:
    model, out = picture_model(), tmp_path / "maps"
    config = Config(search=SearchConfig(space="head", steps=2))
    arguments: dict[str, Any] = dict(fit_images=DATA / "fit_images", fit_masks=DATA / "fit_masks", config=config, only=["B07"])
    first = quam_jax.run(model, DATA / "images", out, **arguments)
    assert [row["case"] for row in first.rows] == ["B07"] and first.report.exists() and not first.failed
    written = (out / "B07.json").stat().st_mtime_ns
    assert quam_jax.run(model, DATA / "images", out, **arguments).rows[0]["case"] == "B07"
    assert (out / "B07.json").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="holds another run"):
        quam_jax.run(
            dataclasses.replace(model, params={**model.params, "head.bias": model.params["head.bias"] + 1}),
            DATA / "images",
            out,
            **arguments,
        )


def labels_of(model: SegmentationModel, images: np.ndarray) -> np.ndarray:
    return np.argmax(np.asarray(model(images)), -1)


def test_fit_data_takes_what_people_have(tiny: None, torch: Any) -> None:
    model = tiny_model()
    images = np.stack([tiny_image(seed=seed) for seed in range(3)])
    labels = labels_of(model, images)
    whole = quam_jax.fit_data(model, images[None], labels[None])
    first = np.moveaxis(images, -1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for some, of in (
            (images, labels),
            (list(images), list(labels)),
            (list(first), [label[None] for label in labels]),
            ([torch.as_tensor(x) for x in first], [torch.as_tensor(y) for y in labels]),
            (list(images), [label.astype(float) for label in labels]),
        ):
            fit = quam_jax.fit_data(model, some, of)
            np.testing.assert_array_equal(fit.images, whole.images)
            np.testing.assert_array_equal(fit.labels, whole.labels)
    assert quam_jax.fit_data(model, images[0], labels[0]).images.shape == (1, 1, *SIZE, 2)
    uneven = quam_jax.fit_data(model, [images[0], images[1][:4, :6]], [labels[0], labels[1][:4, :6]])
    assert uneven.images.shape == (1, 2, *SIZE, 2) and int((uneven.labels == -1).sum()) == 96 - 24
    assert repr(uneven) == "FitData(images [1, 2, 8, 12, 2], labels [1, 2, 8, 12])"


@pytest.mark.usefixtures("unchecked")
def test_arrays_that_do_not_fit_are_told_with_axis_and_remedy(tiny: None) -> None:
    model, image = tiny_model(), tiny_image()
    labels = labels_of(model, image[None])[0]
    for images, of, said in (
        ([image], [labels[:, :-1]], "axis 1 has 11, the image 12"),
        ([image], [labels.T], "its axes are in another order"),
        ([image], [np.stack([labels, 1 - labels], -1)], r"np.argmax\(labels, -1\)"),
        ([image], [image[..., 0]], "are images and labels swapped"),
        ([image], [], "1 images and 0 labels"),
        ([image[..., :1]], [labels], "its last axis has 1 entries, the network takes 2 channels"),
        ([image[..., 0]], [labels], "the axis of the channels is missing"),
        (image[None], labels, "expected .h w 2. .channels last., got shape .1, 8, 12, 2.: the first axis of length 1"),
    ):
        with pytest.raises(ValueError, match=said):
            quam_jax.fit_data(model, images, of)
    fit = quam_jax.fit_data(model, [image], [labels])
    with pytest.raises(ValueError, match=r"image: expected \[h w 2\] \(channels last\), got shape \(8, 12, 5\)"):
        quam_jax.quantify(model, np.zeros((8, 12, 5)), fit)
    with pytest.raises(ValueError, match=r"images: expected \[b h w 2\].*add the axis of the batch: images\[None\]"):
        model(image)


def test_channels_first_are_moved_and_told(tiny: None, torch: Any) -> None:
    model, image = tiny_model(), tiny_image()
    fit = quam_jax.fit_data(model, [image], [labels_of(model, image[None])[0]])
    config = Config(samples=NO_VIEWS, search=SearchConfig(steps=1))
    plain = quam_jax.quantify(model, image, fit, config=config)
    with pytest.warns(UserWarning, match="taken as channels first, since the network takes 2"):
        moved = quam_jax.quantify(model, torch.as_tensor(np.moveaxis(image, -1, 0).copy()), fit, config=config)
    np.testing.assert_array_equal(plain.total, moved.total)
    assert repr(plain).startswith("Quantified(8x12, 2 classes, ") and len(repr(model)) < 90


def test_names_are_listed() -> None:
    assert set(quam_jax.__all__) <= set(dir(quam_jax)) and {"wrap", "from_torch", "read_pairs", "run"} <= set(dir(quam_jax))
