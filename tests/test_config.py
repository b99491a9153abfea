"""Settings: what is refused, what YAML gives back, presets."""

import dataclasses
from pathlib import Path

import pytest

from quam_jax.config import (
    Config,
    ExecutionConfig,
    FitConfig,
    OutputConfig,
    PatchConfig,
    SampleConfig,
    SearchConfig,
    TargetConfig,
    change,
    dump_config,
    fields_of,
    from_dict,
    load_config,
    to_dict,
)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config.published(),
        Config.published(seed=7),
        Config(
            targets=TargetConfig(shapes=("all_one", "random")),
            search=SearchConfig(space="subset:Up.*", learning_rate=1e-5, precision="high"),
            samples=SampleConfig(weighting="softmax", temperature=0.3),
            fit=FitConfig(3, 2),
            execution=ExecutionConfig("vmap", "scan", 4),
            seed=3,
        ),
    ],
)
def test_yaml_gives_the_same_settings_back(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config
    assert from_dict(to_dict(config)) == config


def test_an_empty_file_is_the_default_or_the_given_base(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_config(path) == Config()
    assert load_config(path, base=Config.published()) == Config.published()


def test_numbers_that_yaml_reads_as_text(tmp_path: Path) -> None:
    # YAML 1.1 wants a dot in 1.0e-4
    path = tmp_path / "settings.yaml"
    path.write_text("search: {learning_rate: 1e-4}\n")
    assert load_config(path).search.learning_rate == 1e-4


def test_flat_and_nested_names_mean_the_same() -> None:
    assert from_dict({"learning_rate": 0.5}) == from_dict({"search": {"learning_rate": 0.5}})
    assert from_dict({"shapes": "dilate, all_zero"}).targets.shapes == ("dilate", "all_zero")
    assert from_dict({"feasible_only": False}).samples == SampleConfig(feasible_only=False)


def test_presets() -> None:
    published = from_dict({"preset": "published", "steps": 9})
    assert published == dataclasses.replace(Config.published(), search=SearchConfig.published(steps=9))
    # the numbers of the publication (its evaluation_pipeline.py, lines 57-76)
    search = Config.published().search
    assert (search.members, search.epochs, search.batch_stride, search.learning_rate) == (2, 3, 50, 5e-4)
    assert (search.coefficient, search.schedule_start, search.schedule_rate, search.schedule_every) == (1, 1, 2, 3)
    assert (search.slack, search.slack_unit, search.penalty, search.mode) == (0.05, "nats", "linear", "train")
    with pytest.raises(ValueError, match="preset: expected one of default, fast, thorough, published, got 'best'"):
        from_dict({"preset": "best"})


def test_name_of_the_setting() -> None:
    assert Config().setting == "default"
    assert Config.published().setting == "published"
    # neither the seed nor the layout on the hardware makes another procedure; the arithmetic does
    assert Config.published(seed=5, execution=ExecutionConfig(chunk=3)).setting == "published"
    assert change(Config.published(), {"compute": "bfloat16"}).setting == "custom"
    assert change(Config(), {"precision": "default"}).setting == "custom"
    assert change(Config(), {"learning_rate": 0.0}).setting == "custom"
    assert change(Config.published(), {"radius": 1}).setting == "custom"


def test_the_layout_is_all_that_numbers_do_not_depend_on() -> None:
    # a setting that is added is compared with what it does: only what leaves every number alone may go to execution or outputs
    layout = {"member_plan": "loop", "step_plan": "scan", "chunk": 3, "together": 2, "devices": 1}
    layout |= {"memory": "8GB", "micro": 2, "recompute": "always"}
    assert set(layout) == {field.name for field in dataclasses.fields(ExecutionConfig)}
    outputs = {"keep_models": True}
    assert set(outputs) == {field.name for field in dataclasses.fields(OutputConfig)}
    assert change(Config(), layout | outputs).without_layout() == Config()
    for name, value in {
        "compute": "bfloat16",
        "precision": "default",
        "seed": 1,
        "steps": 9,
        "fit_cases": 3,
        "fit_crop": "64",
        "fit_check": False,
        "patch_size": "64",
    }.items():
        assert change(Config(), {name: value}).without_layout() != Config()


SECTIONS = (TargetConfig, SearchConfig, SampleConfig, FitConfig, PatchConfig, ExecutionConfig, OutputConfig)


def test_leaf_names_are_unique_and_have_a_help_text() -> None:
    leaves = fields_of(Config())
    count = sum(len(dataclasses.fields(s)) for s in SECTIONS)
    assert len(leaves) == count + 1  # and the seed
    assert all(field.metadata["help"] for _, field in leaves.values())


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("members", 0, "members: expected a whole number >= 1, got 0"),
        ("epochs", -1, "epochs: expected a whole number >= 0, got -1"),
        ("steps", 0, "steps: expected a whole number >= 1, got 0"),
        ("batch_stride", 0, "batch_stride: expected a whole number >= 1, got 0"),
        ("learning_rate", -0.1, "learning_rate: expected a number >= 0, got -0.1"),
        ("coefficient", -1, "coefficient: expected a number >= 0, got -1"),
        ("schedule_every", 0, "schedule_every: expected a whole number >= 1, got 0"),
        ("slack", -0.5, "slack: expected a fraction >= 0, or nats, got -0.5"),
        ("radius", 0, "radius: expected a whole number >= 1, got 0"),
        ("target", "slice", "target: expected one of mask, region, pixel, got 'slice'"),
        ("element", "star", "element: expected one of square, cross, disk, got 'star'"),
        ("regions", "cells", "regions: expected one of tiles, components, segments, superpixels, pyramid, got 'cells'"),
        ("region_size", 0, "region_size: expected a whole number >= 1, got 0"),
        ("pyramid_levels", 0, "pyramid_levels: expected a whole number from 1 to 16, got 0"),
        ("compactness", 0.0, "compactness: expected a number > 0, got 0.0"),
        ("compactness", float("inf"), "compactness: expected a number > 0, got inf"),
        ("pixels", "some", "pixels: expected one of all, band, uncertain, stratified, list, got 'some'"),
        ("pixels", "list", "pixel_list: expected at least one pixel for pixels list, got ''"),
        ("pixel_count", 0, "pixel_count: expected a whole number >= 1, got 0"),
        ("band_width", 0, "band_width: expected a whole number >= 1, got 0"),
        ("pixel_list", "1,-2", "pixel_list: expected whole numbers >= 0 as row,column;row,column, got '1,-2'"),
        ("pixel_list", "1 2", "pixel_list: expected whole numbers >= 0 as row,column;row,column, got '1 2'"),
        ("pixel_list", "1,2,3,4", "pixel_list: expected whole numbers >= 0 as row,column;row,column, got '1,2,3,4'"),
        ("pixel_list", "1,2;1,2,3", "pixel_list: expected as many numbers for every pixel, got '1,2;1,2,3'"),
        ("shapes", [], "shapes: expected some of dilate"),
        ("shapes", ["dilate", "twist"], "shapes: expected some of dilate"),
        ("shapes", 3, "shapes: expected a list of names, got 3"),
        ("temperature", 0.0, "temperature: expected a number > 0, got 0.0"),
        ("effective_size", -2.0, "effective_size: expected a number > 0, got -2.0"),
        ("fit_cases", -1, "fit_cases: expected a whole number >= 0, got -1"),
        ("chunk", -1, "chunk: expected a whole number >= 0, got -1"),
        ("mode", "test", "mode: expected one of eval, train, got 'test'"),
        ("learning_rate", "fast", "learning_rate: expected a number, got 'fast'"),
        ("learning_rate", float("nan"), "learning_rate: expected a number, got nan"),
        ("learning_rate", True, "learning_rate: expected a number, got True"),
        ("members", 2.5, "members: expected a whole number, got 2.5"),
        ("members", True, "members: expected a whole number, got True"),
        ("feasible_only", 1, "feasible_only: expected true or false, got 1"),
        ("space", 3, "space: expected text, got 3"),
    ],
)
def test_bad_values_are_named(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        change(Config(), {name: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_listed_points() -> None:
    assert TargetConfig(pixel_list=" 1,2; 30, 4 ;").listed_points == ((1, 2), (30, 4))
    assert TargetConfig(pixel_list="1,2,3").listed_points == ((1, 2, 3),)
    assert TargetConfig().listed_points == ()


def test_slack_in_nats_may_be_negative_and_epochs_replace_steps() -> None:
    assert change(Config(), {"slack": -1.0, "slack_unit": "nats"}).search.slack == -1.0
    assert change(Config(), {"steps": 0, "epochs": 2}).search.steps == 0


def test_unknown_names_are_named_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("search:\n  learning_rat: 0.1\n")
    with pytest.raises(ValueError, match=f"{path}: search.learning_rat: unknown setting; expected one of space, "):
        load_config(path)
    path.write_text("serach: 1\n")
    with pytest.raises(ValueError, match="serach: unknown setting; expected one of band_width, "):
        load_config(path)
    # a name of another section
    path.write_text("samples: {learning_rate: 0.1}\n")
    with pytest.raises(ValueError, match="samples.learning_rate: unknown setting; it belongs to search$"):
        load_config(path)
    path.write_text("execution: {chunk: 2, compute: bfloat16}\n")
    with pytest.raises(ValueError, match="execution.compute: unknown setting; it belongs to search$"):
        load_config(path)
    path.write_text("execution: {1: 2}\n")
    with pytest.raises(ValueError, match="execution.1: unknown setting; expected one of member_plan, "):
        load_config(path)
    path.write_text("execution: {seed: 2}\n")
    with pytest.raises(ValueError, match="execution.seed: unknown setting; expected one of member_plan, "):
        load_config(path)
    path.write_text("search: 3\n")
    with pytest.raises(ValueError, match="search: expected a section of settings, got 3"):
        load_config(path)


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [1", "1: 2", "\0"])
def test_files_that_hold_no_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=str(path)):
        load_config(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a YAML file of settings"):
        load_config(tmp_path / "none.yaml")
