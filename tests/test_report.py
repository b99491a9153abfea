"""The report page as a file: complete, self-contained, escaped, lazy, and the same whenever it is built."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quam_jax.report import write_report
from quam_jax.report.figures import LEVELS, colour_table
from quam_jax.report.html import packed, round_up, to_json
from tests.report_pages import METRICS, NASTY, Structure, decode, make_case, make_run, parse, read_page, unpack, words


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Structure, list[dict[str, Any]]]:
    folder = make_run(tmp_path_factory.mktemp("run") / "out", failed={"bad": "bad.png: no picture"})
    written = write_report(folder)
    assert written == folder / "report.html"
    assert not [p for p in folder.iterdir() if p.name.startswith(".")], "a temporary file was left behind"
    return read_page(written)


def test_markup_is_well_formed(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    text, found, cases = page
    assert text.startswith("<!doctype html>") and not found.faults and not found.open
    assert len(cases) == 3
    ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for case in cases:
        inner = parse(case["html"])
        assert not inner.faults and not inner.open


def test_nothing_is_fetched(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    text, found, cases = page
    elements = found.elements + [e for case in cases for e in parse(case["html"]).elements]
    for tag, attrs in elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "poster", "action", "data-src", "xlink:href"):
            value = attrs.get(name)
            if value:
                local = value.startswith("./") and tag == "a"
                assert value.startswith(("data:", "#")) or local, (tag, name, value)
    policy = next(a["content"] for t, a in found.elements if t == "meta" and "http-equiv" in a)
    assert policy and policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "@import" not in text and not re.search(r"url\((?!#)", text) and "fetch(" not in text


def test_pictures_are_not_decoded_before_they_are_needed(
    page: tuple[str, Structure, list[dict[str, Any]]],
) -> None:
    _, found, cases = page
    assert not [a for t, a in found.elements if t == "img" and "src" in a]
    thumbs = [a["data-src"] for t, a in found.elements if t == "img"]
    assert len(thumbs) == 2 and decode(str(thumbs[0])).size == (56, 40)
    assert not [a for case in cases for t, a in parse(case["html"]).elements if t == "img" and "src" in a]


def test_palette_pictures_hold_the_values_of_the_map(
    page: tuple[str, Structure, list[dict[str, Any]]],
) -> None:
    images = page[2][0]["planes"][0]["images"]
    arrays = make_case(0)
    for name, high in (("total", math.log(2)), ("epistemic", page[2][0]["scales"]["epistemic"]["high"])):
        picture = decode(images[name])
        assert picture.mode == "P"
        levels = np.asarray(picture)
        error = np.abs(levels / (LEVELS - 1) * high - arrays[name])
        assert error.max() <= 0.5 * high / (LEVELS - 1) * 1.001
        colours = np.asarray(picture.convert("RGBA"))
        table = colour_table("magma" if name == "epistemic" else "viridis")
        np.testing.assert_array_equal(colours, table[levels])
    assert np.asarray(decode(images["image"])).shape == (40, 56)


def test_captions_state_scale_and_units(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    text, _, cases = page
    inner = words(cases[0]["html"])
    high = cases[0]["scales"]["epistemic"]["high"]
    largest = max(float(make_case(i)["epistemic"].max()) for i in range(2))
    assert largest <= high < largest * 1.1
    assert inner.count("ln 2 = 0.693 nats") == 4  # total, aleatoric, softmax, raters
    assert f"{high:.3g} nats" in inner and "the largest value of this run, rounded up" in inner
    assert "Mutual information" in inner
    assert "Entropy of the mean of 3 raters" in inner
    assert "dilated (orange, dashed), eroded (blue, dotted)" in inner
    assert "What these maps say and what they do not" in words(text)


def test_overview_table_holds_cases_means_and_failures(
    page: tuple[str, Structure, list[dict[str, Any]]],
) -> None:
    text, found, cases = page
    table = text[text.index('<table id="overview"') : text.index("</table>")]
    headings = [a["data-key"] for t, a in parse(table).elements if t == "th" and "data-key" in a]
    maps = ("total", "aleatoric", "epistemic", "softmax", "boundary")
    assert headings == ["dice", *(f"{m}/{k}" for k in METRICS[:1] for m in maps)]
    told = words(table)
    assert "bad.png: no picture" in told and "case001" in told
    assert "0.900" in told and "1.5 s" in told  # Dice and time of case000
    assert "0.88 to 0.92" in told  # its mean 0.8995 and interval
    assert "This case failed: bad.png: no picture" in words(cases[2]["html"])
    switch = json.loads(found.scripts["table-data"])
    assert switch["values"]["boundary/auroc_image"] == [0.61, 0.609, None]  # the third case failed
    assert set(switch["groups"]) == set(METRICS)


def test_audit_files_and_sizes_of_a_case(page: tuple[str, Structure, list[dict[str, Any]]]) -> None:
    inner = page[2][0]["html"]
    told = words(inner)
    links = [a["href"] for t, a in parse(inner).elements if t == "a" and str(a["href"]).startswith("./")]
    assert links == ["./case000_desc-total_uncertainty.nii.gz", "./case000.json"]
    assert "flipcost: absent.nii.gz (missing)" in told
    assert "dilated kept moved 0.1200 0.1250 0.1000 0.600 → 0.200 5 31" in told
    arrays = make_case(0)
    counts = [int(arrays["segmentation"].sum()), *(int(a.sum()) for a in arrays["adversarial"])]
    assert f"prediction {counts[0]} adversarial: dilated {counts[1]}" in told
    assert f"range of the models {min(counts)} to {max(counts)}" in told


def test_names_from_files_cannot_become_markup(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 1, failed={NASTY: NASTY}, more={"device": NASTY, "command": NASTY})
    data = dict(np.load(folder / "report_data" / "case000.npz"))
    data["rater_names"] = np.array([NASTY, "b", "c"])
    data["adversarial_names"] = np.array([NASTY, "eroded"])
    np.savez(folder / "report_data" / "case000.npz", **data)
    record = json.loads((folder / "case000.json").read_text())
    record["audit"][0]["wanted"] = NASTY
    record["outputs"] = {NASTY: NASTY, "js": "javascript:alert(1)", "up": "../secret"}
    (tmp_path / "secret").write_text("not of this run")
    (folder / "case000.json").write_text(json.dumps(record))
    text, found, cases = read_page(write_report(folder))
    assert not found.faults and "<img src=x" not in text and "</script><b>" not in text
    assert cases[1]["name"] == NASTY and NASTY in " ".join(found.text)
    for case in cases:
        inner = parse(case["html"])
        assert not inner.faults and "<img src=x" not in case["html"]
        for tag, attrs in inner.elements:
            assert not [name for name in attrs if name.startswith("on")], tag
            assert not str(attrs.get("href", "")).startswith(("javascript:", "../", "./.."))
    assert any("onerror" in a.get("href", "") for t, a in parse(cases[0]["html"]).elements) is False


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"a": "</script><!--<script>&\u2028"}
    assert json.loads(to_json(value)) == value and "<" not in to_json(value)
    assert unpack(packed(json.dumps(value))) == value and "<" not in packed(json.dumps(value))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run folder: expected run.json or results.csv"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="expected the folder of a run, got nothing"):
        write_report(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="expected the folder of a run, got a file"):
        write_report(tmp_path / "file")
    assert not (tmp_path / "report.html").exists()


def test_a_failure_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "out", 1)
    (folder / "report.html").write_text("old")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("quam_jax.report.html.build_case", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "old"
    assert not list(folder.glob(".report*"))


def test_the_page_does_not_depend_on_when_it_is_built(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "out", 2)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.6931, 0.7), (0.0123, 0.013), (0.5, 0.5), (12.1, 13.0), (0.0, 0.0), (math.nan, 0.0), (math.inf, 0.0)],
)
def test_round_up(value: float, expected: float) -> None:
    assert round_up(value) == expected
