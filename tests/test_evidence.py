"""What the documents say of stored studies: wins and losses, settings by name, shrinking, and cases written once."""

from pathlib import Path

import pytest

from benchmarks import studies
from benchmarks.evidence_names import default_settings, label
from benchmarks.evidence_tables import short_table, shrinking_table
from benchmarks.evidence_tuning import choice, chosen
from benchmarks.evidence_verdicts import glance, verdicts
from benchmarks.methods import rows_of, write_rows
from benchmarks.shrinking import rows_of as shrinking_rows
from quam_jax.studies import tables
from quam_jax.studies.study import Cell


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


def test_one_setting_for_all_is_compared_with_the_best_of_every_network() -> None:
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
    assert label("quam", earlier) == "QUAM-SM, views none, radius 1, learning_rate 0.25, slack 3"
    assert label("quam_tuned", earlier) == "**QUAM-SM, tuned**"


def test_cases_of_studies_are_written_once_and_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--data: expected the folder of the data"):
        studies.write_cases(None, tmp_path)
    for folder in ("data/soft", "real/crops", "real/lidc_ct"):
        (tmp_path / folder).mkdir(parents=True)
    studies.write_cases(None, tmp_path)  # all are there


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
