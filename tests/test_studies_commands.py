"""`quam-jax benchmark`, `tune` and `train` from files to files: what they write, where they go on, what they refuse."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from quam_jax.models.folder import save_model
from quam_jax.studies.benchmark import benchmark_methods
from quam_jax.studies.cases import parse_dataset
from quam_jax.studies.methods import methods
from quam_jax.studies.request import BenchmarkRequest, StudyRequest, TuneRequest
from quam_jax.studies.tuning import tune_study
from tests.command_line import exit_code
from tests.small_run import disc, little_model, picture

SIZE = (16, 16)


def write_part(folder: Path, names: list[str], *, start: int, raters: int) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for place, name in enumerate(names, start=start):
        Image.fromarray(picture(place, SIZE)).save(folder / "images" / f"{name}.png")
        for rater in range(raters):
            mask = disc(place, radius=3.5 + rater, size=SIZE) * 255
            Image.fromarray(mask).save(folder / "masks" / (f"{name}_r{rater}.png" if raters > 1 else f"{name}.png"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    write_part(root / "fit", ["p1-a", "p1-b"], start=0, raters=1)
    write_part(root / "val", ["p2-a", "p2-b"], start=10, raters=2)
    write_part(root / "test", ["p3-a", "p4-a"], start=20, raters=2)
    for seed in range(2):
        save_model(root / f"net_{seed}", little_model(seed))
    return root


def test_datasets_are_named_by_layout(study: Path) -> None:
    assert [c.name for c in parse_dataset(f"folders:{study / 'test'}")] == ["p3-a", "p4-a"]
    for wrong in ("nowhere:x", str(study), "folders:", f"folders:{study / 'test'},split=1"):
        with pytest.raises(ValueError, match="dataset: "):
            parse_dataset(wrong)


def test_benchmark_methods_writes_its_tables_and_goes_on_where_it_stopped(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = study / "out"
    val, test = f"folders:{study / 'val'}", f"folders:{study / 'test'}"
    arguments = [
        "-q",
        "benchmark",
        "methods",
        "--dataset",
        test,
        "--validation",
        val,
        "--fit",
        f"folders:{study / 'fit'}",
        "--model",
        f"{study}/net_{{seed}}",
        "--seeds",
        "0,1",
        "--patient",
        r"p\d",
        "--inject-dropout",
        "0.5",
        "--shift",
        "noise:2",
        "--shift",
        "blur:1",
        "--shift-methods",
        "softmax,quam",
        "--out",
        str(out),
        "--methods",
        "softmax,mc_dropout,ensemble,blur,boundary,quam,raters_halves",
    ]
    assert exit_code(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "| quam |" in printed and "| boundary |" in printed
    written = json.loads((out / "methods.json").read_text())
    assert set(written["summaries"]) == {"none", "noise:2", "blur:1", "shifted"} and not written["failed"]
    assert set(written["summaries"]["shifted"]["methods"]) == {"softmax", "quam"}
    quam = written["summaries"]["none"]["methods"]["quam"]["figures"]
    looked = 10 + 2 * 2 * 6  # ten views of the given network, and a fifth of them of every model
    assert quam["forward"]["mean"] == 1 + 2 * 6 * 3 + 2 * 3 + looked and quam["backward"]["mean"] == 2 * 6 * 3  # two fit cases
    rows = (out / "methods.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * (7 + 2 * 2)  # networks, cases, methods in distribution and under two shifts
    for name in ("methods.html", "methods.md", "methods.tex", "curves-none.png", "scatter.png", "strip-p3-a.png", "tuning.png"):
        assert (out / name).stat().st_size > 100
    cached = sorted((out / "cache").rglob("*.json"))
    times = [p.stat().st_mtime_ns for p in cached]
    cached[0].unlink()
    assert exit_code(monkeypatch, *arguments) == 0
    assert [p.stat().st_mtime_ns for p in cached[1:]] == times[1:] and cached[0].exists()  # only what was missing is done again


def test_a_study_tells_how_far_it_is_and_takes_cases_evenly(study: Path) -> None:
    told: list[tuple[str, str, int, int]] = []
    request = BenchmarkRequest(
        StudyRequest(
            (str(study / "net_0"),), f"folders:{study / 'val'}", f"folders:{study / 'fit'}", methods=("softmax", "blur")
        ),
        f"folders:{study / 'test'}",
        study / "told",
        limit=1,
    )
    result = benchmark_methods(request, progress=lambda *values: told.append(values))
    assert result.text == (study / "told" / "methods.md").read_text() and not result.failed
    tuned = len(methods()["blur"].grid) * 2  # every width on both validation cases
    assert [stage for stage, *_ in told] == ["tuning"] * (1 + tuned) + ["cases"] * (1 + 2)
    assert [told[0], told[1 + tuned]] == [("tuning", "", 0, tuned), ("cases", "", 0, 2)]  # totals are known from the start
    assert [tuple(counts) for stage, _, *counts in told if stage == "tuning"] == [(n, tuned) for n in range(tuned + 1)]
    assert told[-1] == ("cases", "net_0 blur p3-a", 2, 2)
    with pytest.raises(ValueError, match="--baseline: expected one of softmax, blur, got 'tta'"):
        benchmark_methods(dataclasses.replace(request, baseline="tta"))


def test_networks_of_another_kind_are_trained_and_stand_in_the_table(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = '{"features_per_stage": [2, 3], "rank": 2, "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}'
    data = ("--images", str(study / "test" / "images"), "--masks", str(study / "test" / "masks"))
    for name, arch, arguments in (("evidential", "nnunet_plain", small), ("prob_unet", "prob_unet", '{"features": [2, 3]}')):
        assert (
            exit_code(
                monkeypatch,
                "-q",
                "train",
                *data,
                "--out",
                str(study / name),
                "--arch",
                arch,
                "--arguments",
                arguments,
                "--loss",
                name,
                "--steps",
                "2",
            )
            == 0
        )
        assert json.loads((study / name / "manifest.json").read_text())["training"]["loss"] == name
    rows = {"evidential": 2, "prob_unet": 4}  # two cases; prob_unet learns from each of two raters
    assert {n: json.loads((study / n / "manifest.json").read_text())["training"]["cases"] for n in rows} == rows
    base = [
        "-q",
        "benchmark",
        "methods",
        "--fit",
        f"folders:{study / 'fit'}",
        "--model",
        str(study / "net_0"),
        "--validation",
        f"folders:{study / 'val'}",
        "--dataset",
        f"folders:{study / 'test'}",
        "--out",
        str(study / "kinds"),
    ]
    assert (
        exit_code(
            monkeypatch,
            *base,
            "--methods",
            "softmax,evidential,prob_unet",
            "--trained",
            f"evidential={study}/evidential",
            "--trained",
            f"prob_unet={study}/prob_unet",
        )
        == 0
    )
    methods = json.loads((study / "kinds" / "methods.json").read_text())["summaries"]["none"]["methods"]
    assert all(methods[n]["figures"]["epistemic/mean"]["mean"] > 0 for n in rows)
    capsys.readouterr()
    assert exit_code(monkeypatch, *base, "--methods", "softmax,prob_unet") == 2
    assert "--trained: expected prob_unet=MODEL" in capsys.readouterr().err
    assert exit_code(monkeypatch, *base, "--methods", "softmax,tta_quam_ranks") == 2
    assert "expected tta, quam_tuned beside tta_quam_ranks" in capsys.readouterr().err
    assert exit_code(monkeypatch, *base, "--trained", "tta=x") == 2
    assert "--trained: expected NAME=MODEL with one of evidential, prob_unet" in capsys.readouterr().err
    assert exit_code(monkeypatch, *base, "--methods", "softmax,blur", "--shift", "noise:1", "--shift-methods", "blur") == 2
    assert "--shift-methods: expected some of softmax, blur, softmax among them" in capsys.readouterr().err
    assert exit_code(monkeypatch, "train", *data, "--out", str(study / "bad_kind"), "--loss", "prob_unet") == 2
    assert "--loss prob_unet: expected together with --arch prob_unet" in capsys.readouterr().err


def test_bad_requests_are_one_line_and_exit_code_2(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [
        "benchmark",
        "methods",
        "--fit",
        f"folders:{study / 'fit'}",
        "--model",
        str(study / "net_0"),
        "--out",
        str(study / "bad"),
        "--methods",
        "softmax",
    ]
    val, test = f"folders:{study / 'val'}", f"folders:{study / 'test'}"
    assert exit_code(monkeypatch, *base, "--dataset", test, "--validation", test) == 2
    assert "expected no overlap, got the same image in p3-a" in capsys.readouterr().err
    assert exit_code(monkeypatch, *base, "--dataset", f"folders:{study / 'fit'}", "--validation", val) == 2
    assert "case p1-a: expected at least 2 raters, got 1" in capsys.readouterr().err
    assert exit_code(monkeypatch, *base, "--dataset", test, "--validation", val, "--methods", "magic") == 2
    assert "methods: expected some of softmax" in capsys.readouterr().err
    assert exit_code(monkeypatch, *base, "--dataset", test, "--validation", val, "--baseline", "tta") == 2
    assert "--baseline: expected one of softmax" in capsys.readouterr().err
    assert exit_code(monkeypatch, *base, "--dataset", test, "--validation", val, "--methods", "softmax,mc_dropout") == 1
    assert "--inject-dropout RATE" in capsys.readouterr().err


def test_tune_writes_settings_and_the_curve(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quam_jax.config import load_config

    out = study / "tuned"
    assert (
        exit_code(
            monkeypatch,
            "-q",
            "tune",
            "--model",
            str(study / "net_0"),
            "--validation",
            f"folders:{study / 'val'}",
            "--fit",
            f"folders:{study / 'fit'}",
            "--methods",
            "quam_tuned,blur",
            "--learning-rate",
            "1e-4,1e-2",
            "--out",
            str(out),
        )
        == 0
    )
    assert "quam_tuned: " in capsys.readouterr().out
    written = json.loads((out / "tuning.json").read_text())
    scores = [row["score"] for row in written["curves"]["quam_tuned"]]
    chosen = written["chosen"]["quam_tuned"]
    assert len(scores) == 2 and chosen["score"] == max(scores)
    assert load_config(out / "tuned.yaml").search.learning_rate == chosen["settings"]["learning_rate"]
    told: list[tuple[str, int, int]] = []
    networks = (str(study / "net_0"), str(study / "net_1"))
    blur = StudyRequest(networks, f"folders:{study / 'val'}", f"folders:{study / 'fit'}", methods=("blur",))
    tune_study(TuneRequest(blur, study / "counted", {}), progress=lambda *values: told.append(values))
    assert [tuple(counts) for _, *counts in told] == [(n, 28) for n in range(29)]  # 7 widths, 2 cases, 2 networks
    told.clear()
    tune_study(TuneRequest(blur, study / "counted", {}), progress=lambda *values: told.append(values))
    assert told == [("", 0, 28), ("net_0 blur", 14, 28), ("net_1 blur", 28, 28)]  # read back
    assert (out / "tuning.png").stat().st_size > 1000 and len((out / "tuning.csv").read_text().splitlines()) == 1 + 2 + 7
