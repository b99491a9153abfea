"""nnU-Net folders as people have them: what nnU-Net takes is taken, the rest is refused in one line with the way out."""

import functools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.nnunet import read_nnunet
from converters.nnunet_labels import describe_labels, read_channel_names
from quam_jax.data.plans import Plan
from quam_jax.models.coding import Coding
from quam_jax.models.folder import save_model
from quam_jax.models.loading import load_model, load_models
from tests.nnunet_folder import ARCHITECTURE, DATASET, PLANS, write_folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models") / "nnUNetTrainer__nnUNetPlans__2d"
    write_folder(root, folds=2)
    return root


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


@pytest.mark.parametrize(
    "labels",
    [
        {"background": "0", "organ": "1", "lesion": "2"},
        {"background": 0.0, "organ": [1], "lesion": [2]},
        {"lesion": 2, "background": 0, "organ": 1, "ignore": "3"},
    ],
)
def test_labels_as_text_and_in_lists(labels: dict[str, Any]) -> None:
    record = describe_labels({"labels": labels, "regions_class_order": [7]}, where="d")
    assert record["class_names"] == ["background", "organ", "lesion"] and record["regions"] is None
    assert record["ignore_label"] == (3 if "ignore" in labels else None)
    values = [v for value in record["labels"].values() for v in (value if isinstance(value, list) else [value])]
    assert all(type(value) is int for value in values)


def test_two_names_of_one_label_and_regions_as_text() -> None:
    record = describe_labels({"labels": {"background": 0, "a": 1, "b": 1, "c": 2}}, where="d")
    assert record["class_names"] == ["background", "a or b", "c"]
    labels = {"background": "0", "whole": ["1", "2"], "core": "2", "ignore": 3}
    record = describe_labels({"labels": labels, "regions_class_order": ["1", 2]}, where="d")
    assert record["regions"] == [[1, 2], [2]] and record["regions_class_order"] == [1, 2] and record["ignore_label"] == 3


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"channel_names": {"0": "R", "1": "G", "3": "B"}}, ["R", "G", "B"]),
        ({"channel_names": {"10": "b", "9": "a"}}, ["a", "b"]),
        ({"channel_names": {"CT": "CT", "PET": "PET"}}, ["CT", "PET"]),
        ({"channel_names": ["T1", "T2"]}, ["T1", "T2"]),
        ({"modality": {"0": "MRI"}}, ["MRI"]),
    ],
)
def test_channels_are_counted(given: dict[str, Any], names: list[str]) -> None:
    assert read_channel_names(given, where="d") == names


BAD_LABELS: list[Any] = [
    None, [], {}, {"background": None}, {"background": 0, "a": "one"}, {"background": 0, "a": True}, {"background": 0, "a": -1},
    {"background": 0, "a": 1.5}, {"background": 0, "a": []}, {"background": 0, "a": [1, [2]]}, {"background": 0, "a": 2},
    {"background": 0, "a": float("inf")}, {"background": 0, "a": 1, "ignore": 1}, {"background": 0, "a": 1, "ignore": [2, 3]},
    {"background": 0, "a": [1, 2]}, {"0": "background", "1": "organ"}, {"background": 0, "a": {"b": 1}},
]  # fmt: skip


@pytest.mark.parametrize("labels", BAD_LABELS, ids=repr)
def test_bad_labels_are_one_line(labels: Any) -> None:
    for order in (None, [1, 2], ["x"], 3):
        with pytest.raises(ValueError, match="^dataset.json: expected ") as raised:
            describe_labels({"labels": labels, "regions_class_order": order}, where="dataset.json")
        assert "\n" not in str(raised.value)
    if labels == {"0": "background", "1": "organ"}:
        assert 'write {"background": 0' in str(raised.value)


def test_the_best_checkpoint_is_taken_where_there_is_no_other(folder: Path) -> None:
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_best.pth")
    (model,) = load_models(folder)
    assert model.manifest["nnunet"]["fold"] == "0" and "fold 1 holds checkpoint_best.pth" in model.manifest["notes"][0]
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_best.pth")
    models = load_models(folder)
    assert [m.manifest["nnunet"]["fold"] for m in models] == ["0", "1"]
    assert all(m.manifest["source"]["file"] == "checkpoint_best.pth" for m in models)
    assert "checkpoint_best.pth is taken" in models[0].manifest["notes"][0]
    assert load_model(folder, fold=1).manifest["nnunet"]["fold"] == "1"


def test_a_fold_is_given_as_folder_or_file(folder: Path) -> None:
    for path in (folder / "fold_1", folder / "fold_1" / "checkpoint_final.pth"):
        assert load_model(path).manifest["nnunet"]["fold"] == "1"
        assert [m.manifest["nnunet"]["fold"] for m in load_models(path)] == ["1"]


def nothing(folder: Path) -> None:
    for fold in folder.glob("fold_*"):
        shutil.rmtree(fold)


def empty(folder: Path) -> None:
    for file in folder.glob("fold_*/*"):
        file.unlink()


def renamed(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in folder.glob("fold_*/*.pth"):
            file.rename(file.parent / name)

    return change


def plans(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = {key: value for key, value in {**PLANS, **changes}.items() if value is not ...}
        (folder / "plans.json").write_text(json.dumps(content))

    return change


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None  # type: ignore[func-returns-value]


def configuration(**changes: Any) -> Callable[[Path], None]:
    own = {**PLANS["configurations"]["2d"], **changes}  # type: ignore[index]
    return plans(configurations={"2d": {key: value for key, value in own.items() if value is not ...}})


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no plans": (lambda f: (f / "plans.json").unlink(), "plans.json: .* nothing at this path; nnU-Net writes"),
    "no description": (lambda f: (f / "dataset.json").unlink(), "dataset.json: .* copy them"),
    "no folds": (nothing, "fold_0, fold_1, .* copy fold_0"),
    "empty folds": (empty, "fold_0, fold_1, .* copy fold_0"),
    "latest alone": (renamed("checkpoint_latest.pth"), "fold_0.checkpoint_latest.pth"),
    "broken plans": (text("plans.json", "{"), "plans.json: expected JSON, .* copy it again"),
    "plans of a list": (text("plans.json", "[1]"), "plans.json: expected a JSON object, got list"),
    "broken description": (text("dataset.json", "\x00"), "dataset.json: expected JSON"),
    "deep plans": (text("plans.json", "[" * 100000), "plans.json: expected JSON"),
    "no configurations": (plans(configurations=...), "lacks 'configurations'; copy it again"),
    "odd configurations": (plans(configurations=[3]), "plans.json: not as nnU-Net writes it"),
    "no configuration of the name": (plans(configurations={"a": {}, "b": {}}), "TRAINER__PLANS__CONFIGURATION"),
    "no spacing": (configuration(spacing=...), "lacks 'spacing'"),
    "no patch": (configuration(patch_size=...), "lacks 'patch_size'"),
    "no schemes": (configuration(normalization_schemes=None), "plans.json: not as nnU-Net writes it"),
    "another network": (configuration(architecture={**ARCHITECTURE, "network_class_name": "x.Mamba"}), "Mamba; .* torch.export"),
    "no network": (configuration(architecture=...), "lacks 'UNet_class_name'"),
    "an odd network": (configuration(architecture=3), "plans.json: not as nnU-Net writes it"),
    "second stage": (configuration(previous_stage="3d_lowres"), "second stage of a cascade"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_way_out(folder: Path, name: str) -> None:
    change, says = REFUSED[name]
    change(folder)
    for load in (load_models, load_model):
        with pytest.raises(ValueError, match=says) as raised:
            load(folder, **({} if load is load_models else {"fold": 0}))
        assert "\n" not in str(raised.value)


def test_a_byte_order_mark_and_files_lists_are_no_fault(folder: Path) -> None:
    content = {**DATASET, "dataset": {"a": {"images": ["a.nii.gz"], "label": "a_seg.nii.gz"}}, "numTraining": "many"}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert len(read_nnunet(folder)) == 2


def test_no_path_of_the_machine_is_written(folder: Path, tmp_path: Path) -> None:
    model = load_models(folder)[0]
    save_model(tmp_path / "net", model)
    written = [file for file in (tmp_path / "net").rglob("*") if file.is_file()]
    assert len(written) > 3
    for file in written:
        assert str(tmp_path).encode() not in file.read_bytes(), file
        assert b"/tmp" not in file.read_bytes(), file


JUNK: list[Any] = [
    None,
    -1,
    0,
    3,
    2.5,
    True,
    "x",
    "1",
    [],
    [None],
    {},
    {"a": 1},
    [[1, 2], [3]],
    float("nan"),
    float("inf"),
    10**400,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a JSON tree."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, own in inside for place in places(own, (*path, key)))]


@pytest.mark.parametrize("seed", range(8))
def test_no_value_of_the_json_files_ends_in_a_traceback(folder: Path, seed: int) -> None:
    """Every value in turn is junk, or missing: the folder is read or refused in one line."""
    rng = random.Random(seed)
    shutil.rmtree(folder / "fold_1")
    for name in ("plans.json", "dataset.json"):
        stated = json.loads((folder / name).read_text())
        for path in places(stated)[1:][seed % 4 :: 4]:
            changed = json.loads(json.dumps(stated))
            holder = functools.reduce(lambda value, key: value[key], path[:-1], changed)
            if rng.random() < 0.3:
                del holder[path[-1]]
            else:
                holder[path[-1]] = rng.choice(JUNK)
            (folder / name).write_text(json.dumps(changed))
            try:
                (model,) = load_models(folder)
                Coding.of(Plan.of(model.manifest, where="m"), where="m")
            except ValueError as error:
                assert str(error) and "\n" not in str(error), path
        (folder / name).write_text(json.dumps(stated))
