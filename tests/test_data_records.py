"""Digests tell apart all that differs and nothing else; JSON and tables say what is missing."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quam_jax.data.records import digest, digest_arrays, read_json, write_json, write_table
from quam_jax.models.description import model_digest
from quam_jax.models.model import Network, SegmentationModel
from tests.tiny import tiny_model, tiny_network


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    with tiny_network():
        yield


ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)
OTHERS: dict[str, dict[str, Any]] = {
    "name": {"b": ARRAY},
    "shape": {"a": ARRAY.reshape(3, 2)},
    "type": {"a": ARRAY.view(np.int32)},
    "value": {"a": ARRAY + 1},
    "one more": {"a": ARRAY, "b": ARRAY},
    "order of values": {"a": ARRAY[::-1]},
}


@pytest.mark.parametrize("what", OTHERS)
def test_arrays_that_differ_have_other_digests(what: str) -> None:
    assert digest_arrays({"a": ARRAY}) != digest_arrays(OTHERS[what])


def test_equal_arrays_have_one_digest_whatever_their_order_and_layout() -> None:
    both = {"a": ARRAY, "b": ARRAY + 1}
    assert digest_arrays(both) == digest_arrays(dict(reversed(both.items())))
    assert digest_arrays({"a": ARRAY}) == digest_arrays({"a": np.asfortranarray(ARRAY)})
    assert digest({"a": 1, "b": [2]}, "x") == digest({"b": [2], "a": 1}, "x") != digest({"a": 1, "b": [3]}, "x")
    assert digest("a", "b") != digest("b", "a") and digest("ab") != digest("a", "b")


def test_a_model_is_told_by_its_architecture_weights_and_statistics() -> None:
    model = tiny_model()
    dropping = Network.create("tiny", in_channels=2, n_classes=2, drop=0.5)
    others = [
        tiny_model(seed=1),
        SegmentationModel(dropping, model.params, model.stats),
        SegmentationModel(model.network, model.params, {n: x + 1 for n, x in model.stats.items()}),
        SegmentationModel(model.network, {n: x + 1 for n, x in model.params.items()}, model.stats),
    ]
    assert len({model_digest(one) for one in (model, *others)}) == 5
    assert model_digest(model) == model_digest(dataclasses.replace(model, manifest={"note": "x"}))


def test_json_says_null_for_what_is_no_number(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"nan": float("nan"), "inf": np.float32(np.inf), "one": np.int64(1), "path": Path("x")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"nan": None, "inf": None, "one": 1, "path": "x"}
    (tmp_path / "b.json").write_text("[1]")
    assert read_json(tmp_path / "b.json") == read_json(tmp_path / "none.json") == {}


def test_a_table_has_the_columns_of_all_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"case": "x", "dice": 0.5}, {"case": "y", "hd": float("nan"), "dice": 1}])
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert rows == [["case", "dice", "hd"], ["x", "0.5", ""], ["y", "1", ""]]
