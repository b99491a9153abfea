"""The demonstration that ships: its network, its pictures, its parts and its licences are those on record."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quam_jax
from benchmarks.make_demo import OUT, read_specimens, shipped_dice, shipped_fit, split
from benchmarks.record import RESULTS
from quam_jax.data.datasets import find_cases


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads((RESULTS / "demo_model.json").read_text())


def test_the_shipped_network_reaches_its_recorded_dice(recorded: dict) -> None:
    scores = shipped_dice(OUT)
    assert scores == pytest.approx(recorded["dice"]["test"], abs=1e-3)
    model = quam_jax.load_model(OUT / "model" / "att_unet.pth")
    assert model.network.architecture == "att_unet" and dict(model.network.arguments)["channels"] == 16
    notice = (OUT / "NOTICE.md").read_text()
    assert "This product includes software developed by Boston University." in notice
    assert f"test {np.mean(list(scores.values())):.3f}" in notice and "WACV" in notice
    assert "Boston University" in (OUT / "LICENSE.txt").read_text()


def test_the_parts_share_no_picture_and_the_shipped_ones_are_where_they_belong(recorded: dict) -> None:
    hashes = recorded["image_sha256"]
    assert {part: len(found) for part, found in hashes.items()} == {"train": 14, "validation": 5, "test": 5}
    assert len({digest for found in hashes.values() for digest in found.values()}) == 24

    def shipped(folder: str) -> dict[str, str]:
        return {
            path.stem: hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest()
            for path in sorted((OUT / folder).iterdir())
        }

    assert shipped("images") == hashes["test"]
    assert shipped("fit_images") == {name: hashes["train"][name] for name in recorded["fit"]}
    cases = find_cases(OUT / "images", OUT / "masks")
    assert [len(case.raters) for case in cases] == [8] * 5
    assert all(len(case.raters) == 1 for case in find_cases(OUT / "fit_images", OUT / "fit_masks"))


def test_the_demonstration_is_small() -> None:
    assert sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file()) < 900_000


def test_the_original_data_give_the_shipped_pictures(shared: Path) -> None:
    source = shared / "data" / "bubil"
    if not source.is_dir():
        pytest.skip(f"no folder {source}")
    parts = split(read_specimens(source))
    for specimen in parts["test"]:
        np.testing.assert_array_equal(np.asarray(Image.open(OUT / "images" / f"{specimen.name}.png")), specimen.image)
        for rater, mask in specimen.raters.items():
            stored = np.asarray(Image.open(OUT / "masks" / f"{specimen.name}_{rater}.png"))
            np.testing.assert_array_equal(stored, mask == 1)
    for specimen in shipped_fit(parts["train"]):
        stored = np.asarray(Image.open(OUT / "fit_masks" / f"{specimen.name}.png"))
        np.testing.assert_array_equal(stored, np.mean(list(specimen.raters.values()), axis=0) >= 0.5)
