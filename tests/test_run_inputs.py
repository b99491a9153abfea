"""Hostile input to a run: bombs, names that point elsewhere, mutated settings and plans. Long version: `benchmarks.fuzz`."""

import tracemalloc
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import fuzz_files, fuzz_records, mutants
from quam_jax.config import load_config
from quam_jax.data.datasets import Case, check_cases, find_cases
from quam_jax.data.volumes import read_image
from tests.tiny import NO_VIEWS

PICTURE = np.zeros((4, 4), np.uint8)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize(
    "name, content, said",
    [("b.nii.gz", mutants.nifti_bomb, "64,000,000,000 values"), ("b.png", mutants.png_bomb, "100000 x 100000 pixels")],
)
def test_bombs_are_refused_by_their_size(tmp_path: Path, traced: None, name: str, content, said: str) -> None:
    (tmp_path / name).write_bytes(content())
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with pytest.raises(ValueError, match=said) as error:
        read_image(tmp_path / name)
    assert "allowed" in str(error.value)
    assert tracemalloc.get_traced_memory()[1] - before < 2**22


def test_a_map_bomb_is_refused(tmp_path: Path, traced: None) -> None:
    rows = {row["format"]: row for row in fuzz_files.bombs(tmp_path)}
    assert all(row["refused"] for name, row in rows.items() if "more than it announces" not in name), rows
    assert not any(row["wrong"] for row in rows.values()), rows
    assert all(row["most_megabytes"] < 20 for row in rows.values()), rows
    assert "references" in rows["bomb, YAML"]["message"] and "1,000,000,000,000" in rows["bomb, npz of a map"]["message"]


def test_settings_with_references_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("search: &a {steps: 3}\n")
    assert load_config(path).search.steps == 3
    path.write_text("search: &a {steps: 3}\ntargets: *a\n")
    with pytest.raises(ValueError, match="references"):
        load_config(path)


def test_mutated_settings_and_plans_are_read_or_refused(tmp_path: Path, traced: None) -> None:
    for part in ("settings", "plans"):
        (tmp_path / part).mkdir()
        row = getattr(fuzz_records, part)(tmp_path / part, 40)
        assert row["files"] == 40 and row["wrong"] == 0 and row["refused"] > 10 and row["read"] > 0, row


@pytest.mark.usefixtures("unchecked")
def test_mutated_manifests_are_read_or_refused(tmp_path: Path, traced: None) -> None:
    row = fuzz_records.manifests(tmp_path, 8)
    assert row["files"] == 8 and row["wrong"] == 0 and row["refused"] > 4, row


NAMES = [
    "..",
    ".",
    "...",
    "../up",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "C:\\x",
    "C:x",
    "~",
    "a\0b",
    "a\nb",
    "a\u202eb",
    "a\u0007",
    " a",
    "a ",
    "a.",
    ".a",
    "",
    "run",
    "RUN",
    "summary",
    "a" * 201,
    "\u00e9" * 120,
    "a*b",
    "a?b",
    'a"b',
    "a|b",
    "<a>",
]
FINE = ["~", "a" * 200, "\u00e9\u4e2d\u6587", "a b", "a.b.c", "a-b_c", "\U0001f9e0"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FINE])
def test_names_that_could_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="case name"):
        check_cases([Case(name, Path("image.png"), {})])


@pytest.mark.parametrize("name", FINE)
def test_names_of_many_kinds_are_fine(name: str, tmp_path: Path) -> None:
    check_cases([Case(name, Path("image.png"), {})])
    longest = tmp_path / f"{name}_desc-reference_probseg_class-254.png"
    longest.write_bytes(b"")  # a file system takes it, with the longest suffix that a run adds
    assert longest.resolve().parent == tmp_path.resolve()


@pytest.mark.parametrize(
    "first, second",
    [
        ("a.png", "a.jpg"),
        ("a.png", "A.png"),
        ("\u00e9.png", unicodedata.normalize("NFD", "\u00e9") + ".png"),
        ("stra\u00dfe.png", "STRASSE.png"),
        ("a.nii", "a.nii.gz"),
    ],
)
def test_names_that_collide_are_refused(tmp_path: Path, first: str, second: str) -> None:
    for name in (first, second):
        (tmp_path / name).write_bytes(b"x")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes the two names for one")
    with pytest.raises(ValueError, match="the case name"):
        find_cases(tmp_path)


def test_a_run_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    """Odd names that are allowed, a folder full of links, and images that are links: files appear in the run folder alone."""
    from quam_jax.config import Config, SearchConfig
    from quam_jax.runs.request import RunRequest
    from quam_jax.runs.run import run
    from tests.small_run import prepare_folders
    from tests.tiny import picture_model, tiny_network

    with tiny_network():
        folders = prepare_folders(tmp_path / "data", model=picture_model())
    images = tmp_path / "data" / "odd"
    images.mkdir()
    source = folders["images"] / "a.png"
    for name in ("~", "a..b", "\u4e2d\u6587 \U0001f9e0", "-rf", "%2e%2e%2fup", "$HOME", "x" * 200):
        (images / f"{name}.png").symlink_to(source)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    request = RunRequest(
        **{**folders, "images": images, "masks": None},
        out=tmp_path / "out" / "run",
        config=Config(samples=NO_VIEWS, search=SearchConfig(steps=1)),
    )
    with tiny_network():
        result = run(request)
    assert not result.failed and len(result.rows) == 7
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert all(path.is_relative_to(request.out) for path in after if path not in before)


def test_images_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").array.shape == (4, 4, 1)
    with pytest.raises(ValueError, match="more than the 3 allowed"):
        read_image(tmp_path / "a.png", limit=3)


def test_a_reader_that_does_not_end_is_told(traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "MOST_SECONDS", 0.05)

    def endless() -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:
                pass

    tally = mutants.Tally("endless")
    tally.read(endless)
    assert tally.row()["wrong"] == 1 and "did not end" in tally.row()["first_wrong"]
