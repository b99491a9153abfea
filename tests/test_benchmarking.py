"""The study: splits, shifts, tuning, cache, tables by hand, and the three commands from files to files."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import studies
from benchmarks.evidence_names import default_settings, label
from benchmarks.evidence_tables import short_table, shrinking_table
from benchmarks.evidence_tuning import choice, chosen
from benchmarks.evidence_verdicts import glance, verdict, verdicts
from benchmarks.methods import rows_of, write_rows
from benchmarks.real_cases import block_mean, deal
from benchmarks.rendered import PARTS, part_of, parts_of, share_of
from benchmarks.shrinking import rows_of as shrinking_rows
from quam_jax.cli import main
from quam_jax.cli.methods import parse_seeds
from quam_jax.cli.tune import parse_values
from quam_jax.data.rendered import nodule_opacity, render
from quam_jax.evaluation.ranking import augrc, count_errors
from quam_jax.models.folder import save_model
from quam_jax.studies import tables
from quam_jax.studies.benchmark import benchmark_methods
from quam_jax.studies.cases import parse_dataset
from quam_jax.studies.ceiling import halves, pcc_halves, rater_figures
from quam_jax.studies.methods import methods
from quam_jax.studies.request import BenchmarkRequest, StudyRequest
from quam_jax.studies.shifts import parse_shift, shifted
from quam_jax.studies.splits import Identity, check_disjoint, patient_of, take_evenly
from quam_jax.studies.study import Cell, risk_curve
from quam_jax.studies.tuning import best, combine
from tests.small_run import disc, little_model, picture

SIZE = (16, 16)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["quam-jax", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


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


# Splits and shifts


def test_parts_that_share_an_image_a_name_or_a_patient_are_refused_by_name() -> None:
    one, other = Identity("a", "p1", "11"), Identity("b", "p2", "22")
    check_disjoint({"train": [one], "fit": [one], "test": [other]})  # training cases may be fit cases
    for wrong, what in (
        (other._replace(sha256="11"), "image"),
        (other._replace(name="a"), "case name"),
        (other._replace(patient="p1"), "patient"),
    ):
        with pytest.raises(ValueError, match=f"fit and test cases: expected no overlap, got the same {what} in a"):
            check_disjoint({"fit": [one], "test": [wrong]})
    with pytest.raises(ValueError, match="validation and test"):
        check_disjoint({"validation": [one], "test": [one]})


def test_patients_come_from_the_name() -> None:
    assert patient_of("LIDC-0001-n7", r"^(LIDC-\d+)-") == "LIDC-0001"
    assert patient_of("LIDC-0001-n7", r"LIDC-\d+") == "LIDC-0001"
    assert patient_of("x", None) == "x"
    with pytest.raises(ValueError, match="case x: expected a patient"):
        patient_of("x", r"\d+")


def test_shifts_by_hand() -> None:
    x = np.array([[[0.0], [2.0]]], np.float32)  # mean 1, standard deviation 1
    np.testing.assert_array_equal(shifted(x, "none", seed=0), x)
    np.testing.assert_allclose(shifted(x, "brightness:2", seed=0), x + 1)
    np.testing.assert_allclose(shifted(x, "contrast:2", seed=0)[..., 0], [[0.5, 1.5]])  # deviations halved
    large = np.random.default_rng(0).normal(size=(64, 64, 1)).astype(np.float32)
    assert shifted(large, "noise:2", seed=1).std() == pytest.approx(np.sqrt(1 + 0.25), rel=0.03)
    np.testing.assert_array_equal(shifted(large, "noise:2", seed=1), shifted(large, "noise:2", seed=1))
    assert shifted(large, "blur:1", seed=0).std() < 0.6
    for wrong in ("fog:1", "noise", "noise:0", "noise:x"):
        with pytest.raises(ValueError, match="shift: expected KIND:STRENGTH"):
            parse_shift(wrong)


# Tables


def _cell(network: str, method: str, case: str, value: float) -> Cell:
    return Cell(
        network,
        method,
        "none",
        case,
        {"total/pcc": value, "dice_consensus": 1 - value, "total/sum_over_foreground": value * 2},
        {},
    )


def test_a_table_averages_networks_first_and_cases_then() -> None:
    cells = [
        _cell("n0", "softmax", "a", 0.1),
        _cell("n1", "softmax", "a", 0.3),
        _cell("n0", "softmax", "b", 0.4),
        _cell("n1", "softmax", "b", 0.6),
        _cell("n0", "quam", "a", 0.5),
        _cell("n0", "quam", "b", 0.7),
    ]
    summary = tables.summarise_methods(cells, figures=("total/pcc",))
    softmax = summary["methods"]["softmax"]["figures"]["total/pcc"]
    assert softmax["mean"] == pytest.approx(0.35)  # cases 0.2 and 0.5
    assert softmax["sd_networks"] == pytest.approx(np.std([0.25, 0.45], ddof=1))
    against = summary["methods"]["quam"]["against_baseline"]["total/pcc"]
    assert against["difference"] == pytest.approx(0.25) and against["n"] == 2  # 0.5 - 0.2 and 0.7 - 0.5
    with pytest.raises(ValueError, match="baseline: expected one of softmax, quam, got 'tta'"):
        tables.summarise_methods(cells, baseline="tta", figures=("total/pcc",))


def test_case_ranking_by_hand() -> None:
    rows = {
        name: {"total/sum_over_foreground": u, "dice_consensus": d}
        for name, u, d in (("a", 1.0, 0.9), ("b", 2.0, 0.8), ("c", 3.0, 0.7), ("d", 4.0, 0.75))
    }
    assert tables.case_ranking(rows)["total"] == pytest.approx(0.8)  # ranks 1 2 3 4 against 1 2 4 3
    assert np.isnan(tables.case_ranking(rows)["epistemic"])


def test_the_interval_of_the_case_ranking_holds_it_and_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    rows = {
        f"c{n}": {"total/sum_over_foreground": float(u), "dice_consensus": float(1 - u + e)}
        for n, (u, e) in enumerate(zip(rng.random(20), rng.normal(0, 0.2, 20), strict=True))
    }
    found, turned = tables.case_ranking(rows), tables.case_ranking(dict(reversed(list(rows.items()))))
    assert found["total_low"] < found["total"] < found["total_high"] and found["total_low"] > 0
    assert found == pytest.approx(turned, nan_ok=True)


def test_shifts_are_pooled_for_methods_that_ran_under_all_of_them() -> None:
    cells = [
        Cell("n", method, condition, "a", {"total/pcc": value}, {})
        for method, condition, value in (
            ("tta", "none", 0.9),
            ("tta", "noise:1", 0.2),
            ("tta", "blur:1", 0.4),
            ("slow", "none", 0.9),
            ("slow", "blur:1", 0.5),
        )
    ]
    pooled = tables.pool_shifts(cells)
    assert {cell.method for cell in pooled} == {"tta"} and {cell.condition for cell in pooled} == {"shifted"}
    assert tables.case_means(pooled, condition="shifted")["tta"]["a"]["total/pcc"] == pytest.approx(0.3)


def test_the_search_is_held_against_every_method_search_minus_other() -> None:
    cells = [
        _cell("n0", method, case, value + place / 100)
        for method, value in (("softmax", 0.25), ("tta", 0.6), ("quam", 0.5))
        for place, case in enumerate("abcdefgh")
    ]
    against = tables.summarise_methods(cells, figures=("total/pcc",))["methods"]["quam"]["search_against"]["total/pcc"]
    assert against["softmax"]["difference"] == pytest.approx(0.25) and against["tta"]["difference"] == pytest.approx(-0.1)
    assert against["tta"]["low"] <= -0.1 + 1e-9 and against["tta"]["high"] >= -0.1 - 1e-9
    # 8 cases of one sign: p = 2/256, times 2 for two methods
    assert against["tta"]["p_holm"] == pytest.approx(2 * 2 / 256)
    assert verdict(against["softmax"], 1) == "win" and verdict(against["tta"], 1) == "loss"
    assert verdict(against["tta"], -1) == "win"  # where lower is better
    assert verdict(against["tta"] | {"p_holm": 0.2}, 1) == "tie" and verdict(against["tta"] | {"high": 0.01}, 1) == "tie"


def test_markdown_and_latex_hold_every_method_and_a_dash_for_what_is_missing() -> None:
    cells = [_cell("n0", method, case, value) for method, value in (("softmax", 0.25), ("a_b", 0.5)) for case in "xyz"]
    summary = tables.summarise_methods(cells)
    text = tables.markdown(summary, {"a_b": "{}"})
    assert "| softmax | - | - | - |" in text and "0.250 [0.250, 0.250]" in text
    assert text.count("| a_b |") == 2
    assert r"a\_b & - & - & -" in tables.latex(summary)


def test_the_risk_curve_has_the_area_of_augrc() -> None:
    rng = np.random.default_rng(0)
    u, wrong = rng.random((40, 40)), rng.random((40, 40)) < 0.1
    curve = risk_curve(u, wrong)
    assert curve[0] == 0 and curve[-1] == pytest.approx(wrong.mean())
    assert np.trapezoid(curve, dx=1 / 40) == pytest.approx(augrc(count_errors(u, wrong)), abs=1e-3)


def test_the_best_setting_is_the_first_of_the_largest_score_or_the_smallest_risk() -> None:
    rows = [{"settings": n, "score": s} for n, s in enumerate((0.2, float("nan"), 0.5, 0.5))]
    assert best(rows)["settings"] == 2
    assert best(rows, score="total/aurc_image")["settings"] == 0
    values = {name: parse_values(name, text) for name, text in {"radius": "1, 2", "slack": "0.2"}.items()}
    assert combine(values) == ({"radius": 1, "slack": 0.2}, {"radius": 2, "slack": 0.2})
    with pytest.raises(ValueError, match="--learning-rate: expected a list of numbers"):
        parse_values("learning_rate", "fast")
    assert take_evenly(range(10), 3) == [0, 3, 6] and take_evenly([1, 2], None) == take_evenly([1, 2], 5) == [1, 2]
    with pytest.raises(ValueError, match="--seeds"):
        parse_seeds("a")


# Raters against raters, and combinations


def test_raters_are_divided_in_all_ways_or_in_twelve() -> None:
    assert halves(3) == [((0,), (1, 2)), ((1,), (0, 2)), ((2,), (0, 1))]
    assert len(halves(4)) == 6 and len(halves(8)) == 12 and len(set(halves(8))) == 12
    assert all(sorted((*one, *rest)) == list(range(8)) for one, rest in halves(8))
    with pytest.raises(ValueError, match="raters: expected at least two"):
        halves(1)


def test_raters_that_agree_on_where_they_disagree_are_a_ceiling_of_one() -> None:
    raters = np.zeros((4, 4, 4), int)
    raters[:2, 1] = 1  # of every division into twos, some pairs differ in row 1, others agree everywhere
    figures = rater_figures(raters, np.zeros((4, 4), int), classes=2)
    assert figures["total/pcc_halves"] == pytest.approx(1.0)  # where both pairs differ, in the same pixels
    entropy = np.where(np.arange(16).reshape(4, 4) // 4 == 1, np.log(2), 0.0)
    assert pcc_halves(entropy, raters, classes=2) == pytest.approx(1.0)
    assert pcc_halves(-entropy, raters, classes=2) == pytest.approx(-1.0)
    assert np.isnan(pcc_halves(entropy, np.zeros((4, 4, 4), int), classes=2))  # nobody disagrees


# Results for the documents


def test_evidence_says_wins_ties_and_losses_from_the_results() -> None:
    cells = [
        Cell("n0", method, condition, case, {"total/pcc": value + place / 100, "total/auroc_image": value}, {})
        for method, value in (("softmax", 0.25), ("tta", 0.6), ("quam", 0.5))
        for condition in ("none", "shifted")
        for place, case in enumerate("abcdefgh")
    ]
    study = {
        "summaries": {
            c: tables.summarise_methods(cells, condition=c, figures=("total/pcc", "total/auroc_image"))
            for c in ("none", "shifted")
        }
    }
    rows = rows_of(study)
    assert rows[0]["total/pcc_low"] <= rows[0]["total/pcc"] <= rows[0]["total/pcc_high"]
    lines = verdicts({"rows": rows}).splitlines()
    assert lines[2] == "|  | agreement with rater entropy (PCC) | wrong pixels (AUROC) | wrong pixels, shifts (AUROC) |"
    assert lines[4:] == [
        f"| {name} |{f' {cell} |' * 3}"
        for name, cell in (
            ("wins / ties / losses", "1 / 0 / 1"),
            ("softmax", "**win** +0.250 [+0.250, +0.250]"),
            ("TTA", "loss -0.100 [-0.100, -0.100]"),
        )
    ]
    assert glance({"bubil": {"rows": rows}}).splitlines()[2].split(" | ")[1:] == ["1 / 0 / 1 (TTA)", "–"] * 2 + [
        "1 / 0 / 1 (TTA)",
        "– |",
    ]
    short = short_table({"rows": rows, "networks": {"n0": ""}, "recipe": "r", "date": "d"}).splitlines()
    assert short[2].startswith("| softmax | 0.285 [")  # 0.25 and the mean of 0 to 0.07
    assert "| **win** +0.250 [+0.250, +0.250] | 0.250 [0.250, 0.250] | **win** +0.250 [+0.250, +0.250] | – |" in short[2]
    assert "loss -0.100" in short[3] and short[4].startswith("| **QUAM-SM, default** |") and "the default search" in short[-1]


def test_one_setting_for_all_is_held_against_the_best_of_every_network() -> None:
    default = default_settings()
    other = default | {"slack": default["slack"] + 1}

    def tuning(*scores: float) -> list[dict]:
        return [
            {"settings": settings, "score": score, "standard_error": 0.1, "cases": 4}
            for settings, score in zip((other, default), scores, strict=True)
        ]

    one = {"tuning": {"a quam_tuned": tuning(0.7, 0.5), "a blur": tuning(0, 9)}}
    more = {"tuning": {"a quam_tuned": tuning(0.7, 0.5), "b quam_tuned": tuning(0.3, 0.4)}}
    lines = choice([one, more]).splitlines()  # behind by 0 and 0.1, and by 0.2 and 0
    assert "over the 2 networks" in lines[0]
    assert [line.split(" | ", 1)[1] for line in lines[-2:]] == ["0.050 | 0.100 | 1 |", "0.100 | 0.200 | 1 |"]
    assert ["(the default)" in line for line in lines[-2:]] == [False, True]
    assert chosen(one).splitlines()[-1].endswith("| 0.700 ± 0.100 | 0.500 ± 0.100 | 4 |")


def test_a_default_that_has_changed_since_is_named_by_its_settings() -> None:
    assert label("quam", {}) == label("quam", {"default": default_settings()}) == "**QUAM-SM, default**"
    earlier = {"default": {"radius": 1, "learning_rate": 0.25, "slack": 3.0}}
    assert label("quam", earlier) == "QUAM-SM, radius 1, learning_rate 0.25, slack 3"
    assert label("quam_tuned", earlier) == "**QUAM-SM, tuned**"


def test_cases_of_studies_are_written_once_and_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--data: expected the folder of the data"):
        studies.write_cases(None, tmp_path)
    for folder in ("data/soft", "real/crops"):
        (tmp_path / folder).mkdir(parents=True)
    studies.write_cases(None, tmp_path)  # both are there


def test_shrinking_is_told_only_where_every_step_shrinks(tmp_path: Path) -> None:
    def study(value: float, other: float) -> dict:
        column = {"low": 0.0, "high": 1.0, "sd_networks": 0.1}
        return {
            "summaries": {
                "none": {
                    "methods": {
                        name: {"figures": {"epistemic/mean": column | {"mean": mean}, "dice_mean": column | {"mean": 0.5}}}
                        for name, mean in (("quam", value), ("ensemble", other), ("softmax", None))
                    }
                }
            }
        }

    rows = shrinking_rows({25.0: study(0.3, 0.3), 50.0: study(0.2, 0.1), 100.0: study(0.1, 0.2)})
    assert [(r["method"], r["share"], r["shrinks"]) for r in rows] == [
        ("quam", 25.0, True),
        ("quam", 50.0, True),
        ("quam", 100.0, True),
        ("ensemble", 25.0, False),
        ("ensemble", 50.0, False),
        ("ensemble", 100.0, False),
    ]
    text = shrinking_table({"rows": rows, "command": "c", "date": "d"})
    assert "300.000 [0.000, 1000.000]" in text and text.count("| yes |") == 1
    (tmp_path / "in.csv").write_text("network,method,condition,case,total/pcc,other\nn,quam,none,a,0.123456789,1\n")
    write_rows(tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "network,method,condition,case,total/pcc\nn,quam,none,a,0.123457\n"


def test_parts_are_dealt_by_patient_and_seed_and_smaller_training_sets_are_nested() -> None:
    patients = [f"LIDC-IDRI-{n:04d}" for n in range(2000)]
    parts = [part_of(p, seed=5) for p in patients]
    assert parts.count("test") / 2000 == pytest.approx(PARTS["test"], abs=0.03)
    assert parts != [part_of(p) for p in patients] and part_of("x") == part_of("x", seed=0)
    folders = [parts_of(p, seed=5, fit=False) for p in patients]
    training = [f for f in folders if "train" in f]
    assert all("train50" in f for f in training if "train25" in f)
    assert sum("train25" in f for f in training) / len(training) == pytest.approx(0.25, abs=0.03)
    assert all(f in (("validation",), ("test",)) for f in folders if "train" not in f)
    assert 0 <= share_of("x", seed=1) < 1


def test_cells_are_shrunk_by_blocks_and_dealt_by_name() -> None:
    np.testing.assert_array_equal(block_mean(np.arange(20).reshape(4, 5), 2), [[3, 5], [13, 15]])  # the last column is cut off
    parts = deal([f"B{n}" for n in range(24)])
    assert [list(parts.values()).count(p) for p in ("train", "validation", "test")] == [10, 4, 10]
    assert parts == deal([f"B{n}" for n in reversed(range(24))])


# Rendered pictures


@pytest.mark.usefixtures("unchecked")
def test_renderings_show_the_mean_or_the_majority() -> None:
    raters = np.zeros((4, 32, 32), int)
    raters[:, 8:24, 8:16] = 1
    raters[:1, 8:24, 16:24] = 1  # one of four drew the right half
    raters[:2, 24:28, 8:16] = 1  # two of four: a tie is no majority, as in the consensus
    crisp = nodule_opacity(raters, rendering="crisp")
    assert set(np.unique(crisp)) == {0, 1} and crisp[26, 10] == 0 and crisp[12, 10] == 1 and crisp[12, 20] == 0
    assert nodule_opacity(raters, rendering="soft")[14, 19] == pytest.approx(0.25, abs=0.05)
    one, same = (render(raters, rendering="soft", seed=1) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one[8:24, 8:16].mean() > one[8:24, 17:23].mean() > one[:, 28:].mean() - 40
    with pytest.raises(ValueError, match="rendering: expected soft or crisp"):
        render(raters, rendering="sharp", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="raters: expected masks of 0 and 1"):
        render(raters * 2, rendering="soft", seed=0)


# Commands


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
    assert call(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "| quam |" in printed and "| boundary |" in printed
    written = json.loads((out / "methods.json").read_text())
    assert set(written["summaries"]) == {"none", "noise:2", "blur:1", "shifted"} and not written["failed"]
    assert set(written["summaries"]["shifted"]["methods"]) == {"softmax", "quam"}
    quam = written["summaries"]["none"]["methods"]["quam"]["figures"]
    assert quam["forward"]["mean"] == 1 + 2 * 6 * 3 + 2 * 3 and quam["backward"]["mean"] == 2 * 6 * 3  # two fit cases, one image
    rows = (out / "methods.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * (7 + 2 * 2)  # networks, cases, methods in distribution and under two shifts
    for name in ("methods.md", "methods.tex", "curves-none.png", "scatter.png", "strip-p3-a.png", "tuning.png"):
        assert (out / name).stat().st_size > 100
    cached = sorted((out / "cache").rglob("*.json"))
    times = [p.stat().st_mtime_ns for p in cached]
    cached[0].unlink()
    assert call(monkeypatch, *arguments) == 0
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
    assert [stage for stage, *_ in told] == ["tuning"] * tuned + ["cases"] * 2
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
            call(
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
        call(
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
    assert call(monkeypatch, *base, "--methods", "softmax,prob_unet") == 2
    assert "--trained: expected prob_unet=MODEL" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--methods", "softmax,tta_quam_ranks") == 2
    assert "expected tta, quam_tuned beside tta_quam_ranks" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--trained", "tta=x") == 2
    assert "--trained: expected NAME=MODEL with one of evidential, prob_unet" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--methods", "softmax,blur", "--shift", "noise:1", "--shift-methods", "blur") == 2
    assert "--shift-methods: expected some of softmax, blur, softmax among them" in capsys.readouterr().err
    assert call(monkeypatch, "train", *data, "--out", str(study / "bad_kind"), "--loss", "prob_unet") == 2
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
    assert call(monkeypatch, *base, "--dataset", test, "--validation", test) == 2
    assert "expected no overlap, got the same image in p3-a" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--dataset", f"folders:{study / 'fit'}", "--validation", val) == 2
    assert "case p1-a: expected at least 2 raters, got 1" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--dataset", test, "--validation", val, "--methods", "magic") == 2
    assert "methods: expected some of softmax" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--dataset", test, "--validation", val, "--baseline", "tta") == 2
    assert "--baseline: expected one of softmax" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--dataset", test, "--validation", val, "--methods", "softmax,mc_dropout") == 1
    assert "--inject-dropout RATE" in capsys.readouterr().err


def test_tune_writes_settings_and_the_curve(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quam_jax.config import load_config

    out = study / "tuned"
    assert (
        call(
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
    assert (out / "tuning.png").stat().st_size > 1000 and len((out / "tuning.csv").read_text().splitlines()) == 1 + 2 + 7


def test_evaluate_reads_map_files_and_names_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "maps").mkdir()
    shares = []
    for rater in range(2):
        mask = disc(0, radius=4.0 + rater, size=SIZE)
        shares.append(mask)
        Image.fromarray(mask * 255).save(tmp_path / "masks" / f"a_r{rater}.png")
    Image.fromarray(disc(1, size=SIZE) * 255).save(tmp_path / "masks" / "b.png")
    mean = np.mean(shares, 0)
    for name, values in (("a", np.where(mean == 0.5, 0.7, 0.1)), ("b", mean), ("c", mean)):
        np.savez(tmp_path / "maps" / f"{name}.npz", data=values.astype(np.float32))
    arguments = [
        "evaluate",
        "--map",
        f"own={tmp_path / 'maps'}",
        "--masks",
        str(tmp_path / "masks"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert call(monkeypatch, *arguments) == 1  # case c has no raters
    done = capsys.readouterr()
    assert "failed: c: case c: expected the masks of its raters, got none" in done.err
    assert "1 of 2 cases: one rater: agreement with rater disagreement is not defined" in done.err
    assert "own" in done.out
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["columns"]["own/pcc"]["mean"] == pytest.approx(1.0)  # entropy is an affine map of these two values
    assert written["columns"]["own/pcc"]["n"] == 1
    Image.fromarray(mask * 255).save(tmp_path / "masks" / "a_r0.bmp")
    assert call(monkeypatch, *arguments) == 2
    assert "case a has one of rater 'r0' already" in capsys.readouterr().err
    assert call(monkeypatch, "evaluate", "--map", "own", "--masks", str(tmp_path / "masks")) == 2
    assert "--map: expected NAME=FOLDER" in capsys.readouterr().err
    assert call(monkeypatch, "evaluate") == 2
    assert call(monkeypatch, "evaluate", str(tmp_path)) == 2
    assert "expected the folder of a run" in capsys.readouterr().err
