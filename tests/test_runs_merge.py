"""What the end of a run reads back from its folder when a record there is damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from quam_jax.runs.merge import read_result

SOUND = {"case": "a", "status": "ok", "total/mean": None}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (SOUND, "ok"),
        ({"status": "ok"}, "failed"),
        ({**SOUND, "case": ["a"]}, "failed"),
        ({**SOUND, "case": "b"}, "failed"),
        ([], "failed"),
        (None, "failed"),
    ],
)
def test_a_damaged_row_is_a_failed_case(tmp_path: Path, row: Any, expected: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"row": row, "notes": {}}))
    (tmp_path / "run.json").write_text(json.dumps({"failed": [], "notes": "x"}))
    (tmp_path / "timing.csv").write_text("case,seconds,worker\na,2.5,w\n")
    found = read_result(tmp_path, ["a"])
    assert [(r["case"], r["status"], r["seconds"]) for r in found.rows] == [("a", expected, 2.5)]
    assert found.failed == {} and found.notes == []
