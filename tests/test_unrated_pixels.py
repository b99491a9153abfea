"""Pixels that nobody rated are that wherever masks are read: fit data, cases of a run, training, studies, evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quam_jax.config import Config, FitConfig
from quam_jax.data.mask_settings import MaskSettings
from quam_jax.data.preprocess import Preprocessing
from quam_jax.results.evaluate_files import EvaluateRequest, evaluate_files
from quam_jax.runs.cases import read_case
from quam_jax.runs.quantifier import find_quantifier
from quam_jax.runs.request import RunRequest
from quam_jax.studies.cases import parse_dataset, read_cases
from quam_jax.training import files as training_files
from quam_jax.training.request import TrainRequest
from tests.image_files import save_picture
from tests.small_run import SIZE, disc, little_model, picture
from tests.tiny import NO_VIEWS

CODINGS = {
    "255 by habit": ({0: 0, 1: 1, -1: 255}, MaskSettings()),
    "said": ({0: 0, 1: 1, -1: 7}, MaskSettings("7")),
    "said, beside 0 and 255": ({0: 0, 1: 255, -1: 128}, MaskSettings("128")),
    "values": ({0: 3, 1: 9, -1: 4}, MaskSettings("4", "3,9")),
}
Coded = tuple[Path, MaskSettings]


def unrated(seed: int) -> np.ndarray:
    """A disc, and a part of the picture that nobody rated."""
    labels = disc(seed).astype(int)
    labels[:4, seed % 5 :] = -1
    return labels


def write(folder: Path, names: list[str], coding: dict[int, int]) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for seed, name in enumerate(names):
        save_picture(folder / "images" / f"{name}.png", picture(seed))
        stored = np.vectorize(coding.get)(unrated(seed)).astype(np.uint8)
        save_picture(folder / "masks" / f"{name}_r1.png", stored)
        save_picture(folder / "masks" / f"{name}_r2.png", stored)
    return folder


@pytest.fixture(params=list(CODINGS))
def coded(request: pytest.FixtureRequest, tmp_path: Path) -> Coded:
    coding, settings = CODINGS[request.param]
    return write(tmp_path / "data", ["a", "b"], coding), settings


def request_of(fit: Path, test: Path, tmp_path: Path, settings: MaskSettings) -> RunRequest:
    return RunRequest(
        model=tmp_path,
        images=test / "images",
        masks=test / "masks",
        fit_images=fit / "images",
        fit_masks=fit / "masks",
        out=tmp_path / "run",
        config=Config(fit=FitConfig(fit_crop="0"), samples=NO_VIEWS),
        mask_settings=settings,
    )


def test_in_fit_data_and_cases_of_a_run(coded: Coded, tmp_path: Path) -> None:
    folder, settings = coded
    request = request_of(folder, folder, tmp_path, settings)
    quantifier = find_quantifier([little_model()], request)
    for seed, labels in enumerate(quantifier.known.labels[0]):
        top = [(n - m) // 2 for n, m in zip(labels.shape, SIZE, strict=True)]  # padding stands around
        np.testing.assert_array_equal(labels[top[0] : top[0] + SIZE[0], top[1] : top[1] + SIZE[1]], unrated(seed))
        assert (labels >= 0).sum() == (unrated(seed) >= 0).sum()
    for seed, case in enumerate(quantifier.cases):
        for labels in read_case(case, quantifier, request, "digest").drawn.labels.values():
            np.testing.assert_array_equal(labels, unrated(seed))
    assert any("255 is taken as not rated" in note for note in quantifier.found.notes) == (settings == MaskSettings())


def test_what_fit_masks_show_to_be_unrated_is_that_in_the_others(tmp_path: Path) -> None:
    """The masks of the cases alone could be background and foreground."""
    fit = write(tmp_path / "fit", ["f"], {0: 0, 1: 1, -1: 255})
    test = write(tmp_path / "test", ["a"], {0: 0, 1: 0, -1: 255})
    request = request_of(fit, test, tmp_path, MaskSettings())
    quantifier = find_quantifier([little_model()], request)
    loaded = read_case(quantifier.cases[0], quantifier, request, "digest")
    np.testing.assert_array_equal(loaded.drawn.labels["r1"], np.where(unrated(0) < 0, -1, 0))


def test_in_training(coded: Coded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, settings = coded
    seen: list[Any] = []

    class Enough(Exception):
        pass

    def stop(network: Any, examples: Any, **options: Any) -> None:
        seen.extend(examples)
        raise Enough

    monkeypatch.setattr(training_files, "train", stop)
    request = TrainRequest(
        folder / "images", folder / "masks", tmp_path / "net", arguments={"channels": 2}, mask_settings=settings
    )
    with pytest.raises(Enough):
        training_files.train_from_files(request)
    assert len(seen) == 2
    for seed, (_, targets) in enumerate(seen):
        np.testing.assert_array_equal(targets, (unrated(seed)[..., None] == [0, 1]).astype(np.float32))


def test_in_studies(coded: Coded) -> None:
    folder, settings = coded
    dataset = parse_dataset(f"folders:{folder}")
    cases = read_cases(dataset, preprocessing=Preprocessing(), classes=2, mask_settings=settings, where="folders")
    for seed, case in enumerate(cases):
        np.testing.assert_array_equal(case.raters, [unrated(seed)] * 2)
    assert any("255 is taken as not rated" in note for note in cases[0].notes) == (settings == MaskSettings())


def test_in_evaluation_no_figure_counts_them(coded: Coded, tmp_path: Path) -> None:
    folder, settings = coded
    rows = []
    for what in ("same", "wrong"):  # what a map and a segmentation say there
        for part in ("maps", "seg"):
            (tmp_path / what / part).mkdir(parents=True)
        for seed, name in enumerate("ab"):
            there = unrated(seed) < 0
            found = np.where(there, what == "wrong", disc(seed, radius=5.0))
            values = np.where(there, 9.0 * (what == "wrong"), np.random.default_rng(seed).random(SIZE))
            np.savez(tmp_path / what / "maps" / f"{name}.npz", data=values)
            save_picture(tmp_path / what / "seg" / f"{name}.png", found.astype(np.uint8))
        request = EvaluateRequest(
            maps=(f"own={tmp_path / what / 'maps'}",),
            segmentation=tmp_path / what / "seg",
            masks=folder / "masks",
            mask_settings=settings,
        )
        rows.append(evaluate_files(request).rows)
    names = ("dice_consensus", "own/auroc_image", "own/aurc_image")
    for one, other in zip(*rows, strict=True):
        assert all(np.isfinite(one[name]) and one[name] == pytest.approx(other[name]) for name in names), (one, other)
