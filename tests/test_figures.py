"""What cases took on this machine: kept in a file that may be damaged, scaled by pixels, and said in words."""

import json
from pathlib import Path

import pytest

from quam_jax.cli.common import figures_file
from quam_jax.data.figures import MOST, Figure, Figures, Work
from quam_jax.report.durations import about

WORK = Work("this machine", "a network", "settings")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.01 s"),
        (0.43, "0.4 s"),
        (0.96, "1 s"),
        (4.4, "4 s"),
        (19.6, "20 s"),
        (44, "45 s"),
        (96, "95 s"),
        (98, "2 min"),
        (480, "8 min"),
        (1300, "20 min"),
        (5800, "95 min"),
        (5900, "1.6 h"),
        (40 * 3600, "40 h"),
        (72 * 3600, "3 days"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_figures_are_kept_and_scaled_by_pixels(tmp_path: Path) -> None:
    figures = Figures(tmp_path / "new" / "figures.json")
    assert figures.read() == [] and figures.seconds(WORK, (8, 8)) is None
    assert figures.add([Figure(WORK, (100, 100), 10.0, 3), Figure(WORK, (400, 400), 320.0, 3)])
    assert figures.seconds(WORK, (100, 100)) == (10.0, True)
    assert figures.seconds(WORK, (100, 150)) == (15.0, False)  # nearer to the small one
    assert figures.seconds(WORK, (400, 300)) == (240.0, False)
    assert figures.seconds(WORK, (10, 10, 10)) is None  # a volume is another thing
    for other in ({"machine": "another"}, {"model": "another"}, {"settings": "others"}):
        assert figures.seconds(WORK._replace(**other), (100, 100)) is None
    figures.add([Figure(WORK, (100, 100), 7.0, 1)])
    assert figures.seconds(WORK, (100, 100)) == (7.0, True) and len(figures.read()) == 2
    figures.add([Figure(WORK, (n, 1), 1.0, 1) for n in range(1, MOST + 1)])
    assert len(figures.read()) == MOST and figures.seconds(WORK, (100, 100)) != (7.0, True)  # the oldest go


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        json.dumps({"format": 2, "figures": []}),
        json.dumps({"format": 1, "figures": {"shape": 1}}),
        json.dumps({"format": 1, "figures": [None, 3, {}, {"machine": 1}]}),
        json.dumps({"format": 1, "figures": [{**WORK._asdict(), "shape": [0], "seconds": 1, "cases": 1}]}),
        json.dumps({"format": 1, "figures": [{**WORK._asdict(), "shape": [2.5], "seconds": 1, "cases": 1}]}),
        json.dumps({"format": 1, "figures": [{**WORK._asdict(), "shape": [4], "seconds": "inf", "cases": 1}]}),
        json.dumps({"format": 1, "figures": [{**WORK._asdict(), "shape": [4], "seconds": -1, "cases": 1}]}),
        json.dumps({"format": 1, "figures": [{**WORK._asdict(), "shape": 4, "seconds": 1, "cases": 1}]}),
        json.dumps({"format": 1, "figures": [{**WORK._asdict(), "machine": None, "shape": [4], "seconds": 1, "cases": 1}]}),
    ],
)
def test_a_damaged_file_of_figures_is_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(content)
    figures = Figures(path)
    assert figures.read() == []
    assert figures.add([Figure(WORK, (4,), 1.0, 1)]) and figures.seconds(WORK, (4,)) == (1.0, True)


def test_figures_that_cannot_be_written_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not Figures(tmp_path / "file" / "figures.json").add([Figure(WORK, (4,), 1.0, 1)])
    assert (tmp_path / "file").read_text() == ""


def test_where_figures_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert figures_file() == tmp_path / "own" / "figures.json"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert figures_file() == tmp_path / "xdg" / "quam_jax" / "figures.json"
