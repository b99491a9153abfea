"""A checkpoint of more than 100 MB converts in under three times its size of memory beyond that of importing."""

import pytest

from benchmarks.conversions_large import measure


@pytest.mark.long
def test_memory_of_a_large_conversion() -> None:
    row = measure(".pth", repeats=1)
    assert row["megabytes"] > 100
    assert row["memory_ratio"] < 3
